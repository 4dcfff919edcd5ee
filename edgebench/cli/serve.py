"""`edgebench serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgebench.cli import console, options
from edgebench.errors import InputError


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.")],
    host: Annotated[str, typer.Option(help="The address that is listened on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.", min=0, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(help="Processes, each with the model.", min=1, max=256)] = 1,
    threads: options.Threads = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Holds the key that clients must show; or set EDGEBENCH_API_KEY.")
    ] = None,
    open: Annotated[
        bool, typer.Option("--open", help="Let anybody ask, also on another address than this computer's own.")
    ] = False,
    allow_host: Annotated[list[str] | None, typer.Option(help="A name that this server is called by; repeatable.")] = None,
    cors_origin: Annotated[list[str] | None, typer.Option(help="A page elsewhere that may ask; repeatable.")] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM, with the chain.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM, not encrypted.")] = None,
    max_bytes: Annotated[str, typer.Option(help="Of a request, for instance 8MiB.")] = "8MiB",
    max_pixels: Annotated[int, typer.Option(help="Of a picture.", min=1)] = 1 << 23,
    max_files: Annotated[int, typer.Option(help="In one batch request.", min=1)] = 32,
    batch: Annotated[int, typer.Option(help="Pictures inferred together at most, where the file takes any batch.", min=1)] = 8,
    wait_ms: Annotated[float, typer.Option(help="So long a picture waits for others at most.", min=0)] = 2.0,
    queue: Annotated[int, typer.Option(help="Pictures in work in a process; more are refused.", min=1)] = 64,
    per_client: Annotated[int, typer.Option(help="Requests of one address at once; 0: any number.", min=0)] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds for a request to come in, and for its picture to be inferred.")] = 10.0,
    explain_timeout: Annotated[float, typer.Option(help="Seconds for a heat map.")] = 60.0,
    grace: Annotated[float, typer.Option(help="Seconds in which requests may finish at the end.")] = 10.0,
    head: Annotated[
        Literal["logits", "softmax", "sigmoid"] | None, typer.Option(help="What scores are; looked at unless given.")
    ] = None,
    option: options.RuntimeOption = None,
    trust: options.Trust = False,
    print_: Annotated[
        Literal["dockerfile", "systemd"] | None, typer.Option("--print", help="Print how to deploy it, and serve nothing.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: the address.")] = False,
) -> None:
    """Serve a bundle by HTTP: predictions, heat maps, figures for Prometheus, and a page to drop a picture on.

    The file runs in the runtime, and pictures are preprocessed by the code, that a device uses. Ctrl-C or SIGTERM ends it once
    what is being answered is answered.
    """
    from edgebench import api
    from edgebench.serving.options import ServeOptions

    wanted = ServeOptions(
        host=host,
        port=port,
        workers=workers,
        threads=threads,
        key=read_key(api_key_file),
        open=open,
        names=tuple(allow_host or ()),
        origins=tuple(cors_origin or ()),
        certificate=tls_certificate,
        private_key=tls_key,
        max_bytes=_bytes(max_bytes),
        max_pixels=max_pixels,
        max_files=max_files,
        batch=batch,
        wait_ms=wait_ms,
        queue=queue,
        per_client=per_client,
        timeout_seconds=timeout,
        explain_seconds=explain_timeout,
        grace_seconds=grace,
        head=head,
        trust=trust,
        runtime=options.assigned(option, "optimization=none"),
    )

    if print_ is not None:
        from edgebench.serving.printed import printed

        console.print_document(printed(print_, bundle, wanted))
        return

    def listening(address: str) -> None:
        if json:
            console.print_json({"url": address})
        else:
            console.say(f"{address} serves {bundle}; Ctrl-C ends it", flush=True)

    api.serve(bundle, options=wanted, listening=listening)
    console.complain("served no longer")


def read_key(path: Path | None) -> str | None:
    """Read the key: of a file, or of the environment."""
    import os

    from edgebench.serving.options import KEY

    if path is None:
        return os.environ.get(KEY) or None
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise InputError(f"--api-key-file {path}: cannot be read ({error}); give a file with the key alone") from error
    if not key:
        raise InputError(f"--api-key-file {path}: is empty; write the key into it")
    return key


def _bytes(text: str) -> int:
    """Read 8MiB, 500kB or a number."""
    from edgebench.report.limits import SIZES, amount

    return int(amount("--max-bytes", text if text[-1:].isalpha() else f"{text}B", SIZES, "8MiB"))
