"""How a bundle is deployed: a Dockerfile or a unit of systemd, to be looked at and kept with the rest of a system's files."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgebench import __version__, plugins
from edgebench.agent import facts
from edgebench.bundle.manifest import read_bundle
from edgebench.errors import UnknownName
from edgebench.schema import Bundle
from edgebench.serving.model import check_served
from edgebench.serving.options import KEY, ServeOptions

FLAGS = {
    "workers": "--workers",
    "threads": "--threads",
    "names": "--allow-host",
    "origins": "--cors-origin",
    "certificate": "--tls-certificate",
    "private_key": "--tls-key",
    "max_bytes": "--max-bytes",
    "max_pixels": "--max-pixels",
    "max_files": "--max-files",
    "batch": "--batch",
    "wait_ms": "--wait-ms",
    "queue": "--queue",
    "per_client": "--per-client",
    "timeout_seconds": "--timeout",
    "explain_seconds": "--explain-timeout",
    "grace_seconds": "--grace",
    "head": "--head",
}
"""What the command line calls the options; host, port and key are said by each form itself."""
PYTHON = "python:3.11-slim"
USER = 10001


def printed(kind: str, folder: Path, options: ServeOptions) -> str:
    """Write a `dockerfile` or a `systemd` unit that serves a bundle so; `InputError` for a bundle that cannot be served."""
    forms: Mapping[str, Callable[[Path, Bundle, ServeOptions], str]] = {"dockerfile": _dockerfile, "systemd": _unit}
    if kind not in forms:
        raise UnknownName("way to deploy", kind, forms)
    bundle = read_bundle(folder)
    check_served(folder, bundle)
    return forms[kind](folder, bundle, options)


def _flags(options: ServeOptions) -> Iterator[str]:
    """List the options that are not as they usually are."""
    usual = {each.name: each.default for each in dataclasses.fields(ServeOptions)}
    for name, flag in FLAGS.items():
        value = getattr(options, name)
        if value != usual[name]:
            for each in value if isinstance(value, tuple) else (value,):
                yield from (flag, str(each))
    for name, value in options.runtime.items():
        yield from ("--option", f"{name}={json.dumps(value)}")
    yield from (flag for flag, wanted in (("--open", options.open), ("--trust", options.trust)) if wanted)


def _packages(bundle: Bundle) -> list[str]:
    """List what pip installs: this version, and the runtime in the version that is here, so that its scores are the same."""
    plugin = plugins.load_device("runtimes", bundle.runtime)
    needed: str = plugins.declared(plugin, "PACKAGE", "").strip("'")
    name, _, version = (facts.installed(plugin) or "").partition(" ")
    return [f"edgebench[serve]=={__version__}", *([f"{name}=={version}" if name == needed else needed] if needed else [])]


def _dockerfile(folder: Path, bundle: Bundle, options: ServeOptions) -> str:
    port = options.port or 8000
    command = ["edgebench", "serve", "/bundle", "--host", "0.0.0.0", "--port", str(port), *_flags(options)]  # noqa: S104  a container's own
    name = folder.resolve().name
    verify = "ssl._create_unverified_context()" if options.certificate else "None"
    probe = (
        f"import ssl, urllib.request as u; u.urlopen('{options.scheme}://127.0.0.1:{port}/health', timeout=5, context={verify})"
    )
    if options.names:
        probe = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5).close()"
    shown = "" if options.open else f" -e {KEY}"
    lines = [
        f"# {bundle.name}: edgebench serve. In the folder that holds {_comment(name)}:",
        "#   docker build -f Dockerfile -t served .",
        f"#   docker run --read-only --tmpfs /tmp --cap-drop ALL{shown} -p 127.0.0.1:{port}:{port} served",
        *([] if options.open else [f"# {KEY} is the key that clients must show: 16 characters or more."]),
        f"FROM {PYTHON}",
        f"RUN pip install --no-cache-dir {shlex.join(_packages(bundle))}",
        f"RUN useradd --system --uid {USER} --create-home served",
        f"COPY {json.dumps([name + '/', '/bundle/'])}",
        f"USER {USER}",
        f"EXPOSE {port}",
        "STOPSIGNAL SIGTERM",
        f"HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD {json.dumps(['python', '-c', probe])}",
        f"ENTRYPOINT {json.dumps(command)}",
    ]
    return "\n".join(lines) + "\n"


def _unit(folder: Path, bundle: Bundle, options: ServeOptions) -> str:
    key = [] if options.open else ["--api-key-file", "%d/api-key"]
    command = [sys.executable, "-m", "edgebench", "serve", str(folder.resolve()), "--host", options.host]
    words = [*map(_word, [*command, "--port", str(options.port or 8000), *_flags(options)]), *key]
    lines = [
        f"# {bundle.name}: edgebench serve. As root: write it to /etc/systemd/system/edgebench-serve.service,",
        *(
            []
            if options.open
            else ["# the key that clients must show (16 characters or more) to /etc/edgebench/api-key (mode 600), and"]
        ),
        "#   systemctl daemon-reload && systemctl enable --now edgebench-serve",
        "[Unit]",
        f"Description=edgebench serve {_comment(bundle.name)}",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=exec",
        f"ExecStart={' '.join(words)}",
        *([] if options.open else ["LoadCredential=api-key:/etc/edgebench/api-key"]),
        "DynamicUser=yes",
        "StateDirectory=edgebench-serve",
        "Environment=HOME=%S/edgebench-serve",
        "Restart=on-failure",
        f"TimeoutStopSec={round(options.grace_seconds) + 10}",
        "ProtectSystem=strict",
        "ProtectHome=read-only",
        "PrivateTmp=yes",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
        "SystemCallArchitectures=native",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    """Keep a name on its line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text).replace("%", "%%")


def _word(text: Any) -> str:
    """Quote one word of systemd's command line: no specifier, no variable, no end of a word in it."""
    escaped = str(text).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$").replace("\n", "\\n")
    return escaped if escaped and all(letter.isalnum() or letter in "-_./:=,%@+" for letter in escaped) else f'"{escaped}"'
