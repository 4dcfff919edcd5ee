"""Listen, answer until the end, and end as one should: requests that are being answered are finished first."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgebench.errors import EdgebenchError, ExportError, InputError, MissingExtra
from edgebench.serving.options import ServeOptions

SHARED = "PROMETHEUS_MULTIPROC_DIR"
BACKLOG = 256
CONNECTIONS = 256
"""Of one process at least; twice as many as pictures may wait, where that is more."""
HEALTH_SECONDS = 30
"""A worker that does not answer for so long is replaced."""
MODULES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def serve(folder: Path, options: ServeOptions, listening: Callable[[str], None]) -> None:
    """Serve a bundle until SIGINT or SIGTERM; `listening` is told the address once the model is loaded or being loaded.

    `InputError` for what cannot be served, before anything listens.
    """
    options.check()
    _require()
    if not (folder / "bundle.json").is_file():
        raise InputError(f"{folder}: no bundle; give the folder that `edgebench export` or `edgebench import` wrote")
    _check(folder, options)
    with contextlib.closing(listen(options)) as listener, _ended_by_signals(), _shared_figures(options):
        name = f"[{options.host}]" if ":" in options.host else options.host
        address = f"{options.scheme}://{name}:{listener.getsockname()[1]}/"
        code = _run(folder, options, listener, functools.partial(listening, address))
    if code:
        raise ExportError(f"{folder}: a worker could not begin; the reason stands above")


def _require() -> None:
    import importlib.util

    for module in MODULES:
        if importlib.util.find_spec(module) is None:
            raise MissingExtra("edgebench serve", "serve", module.replace("_", "-"))


def _check(folder: Path, options: ServeOptions) -> None:
    """Refuse what each worker would refuse."""
    from edgebench.bundle.manifest import read_bundle
    from edgebench.serving.model import check_served
    from edgebench.trust import check_bundle

    bundle = read_bundle(folder)
    check_served(folder, bundle)
    check_bundle(folder, bundle, bundle.runtime, options.trust)


def listen(options: ServeOptions) -> socket.socket:
    """Listen, so that connections wait from now on; `InputError` where the address cannot be had."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # asyncio turns Nagle's algorithm off where a socket says that it is TCP: else an answer's body waits 40 ms for its head
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((options.host, options.port))
        listener.listen(BACKLOG)
        listener.set_inheritable(True)
    except (OSError, OverflowError) as error:
        listener.close()
        raise InputError(
            f"--host {options.host} --port {options.port}: cannot be listened on ({error}); choose another, or port 0"
        ) from error
    return listener


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end the server without ending this process: uvicorn raises again what ended it."""
    before = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextlib.contextmanager
def _shared_figures(options: ServeOptions) -> Iterator[None]:
    """Keep several workers' figures where each can add them up."""
    if options.workers == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="edgebench-") as folder:
        os.environ[SHARED] = folder
        try:
            yield
        finally:
            del os.environ[SHARED]


def _run(folder: Path, options: ServeOptions, listener: socket.socket, listening: Callable[[], None]) -> int:
    """Answer until a signal; returns 0, or 1 where no model could be loaded."""
    from edgebench.serving import processes

    run = processes.several if options.workers > 1 else processes.one
    return run(settings(folder, options), listener, listening)


def settings(folder: Path, options: ServeOptions) -> dict[str, Any]:
    """Say what uvicorn is told."""
    return {
        "app": functools.partial(application, folder, options),
        "factory": True,
        "http": "edgebench.serving.connection:Connection",
        "ws": "none",
        "loop": "asyncio",
        "lifespan": "on",
        "workers": options.workers,
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "limit_concurrency": max(CONNECTIONS, 2 * options.queue),
        "backlog": BACKLOG,
        "timeout_graceful_shutdown": max(1, round(options.grace_seconds)),
        "timeout_worker_healthcheck": HEALTH_SECONDS,
        "ssl_certfile": options.certificate,
        "ssl_keyfile": options.private_key,
    }


def application(folder: Path, options: ServeOptions) -> Any:
    """Make a worker's application; what it has to complain of goes to standard error, which runtimes are kept from."""
    from uvicorn.config import STARTUP_FAILURE

    from edgebench.serving.app import make_app

    logger = logging.getLogger("uvicorn.error")
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler(os.fdopen(os.dup(2), "w", errors="backslashreplace")))
        logger.setLevel(logging.ERROR)
        logger.propagate = False
    try:
        return make_app(folder, options)
    except EdgebenchError as error:
        if options.workers == 1:
            raise
        logger.error("edgebench: %s", " ".join(str(error).split()))
        raise SystemExit(STARTUP_FAILURE) from error  # which the parent knows not to try again
