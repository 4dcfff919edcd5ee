"""Google's edgetpu_compiler: where it is found, how it is called, and what its failures mean."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from edgebench.errors import ExportError, MissingTool
from edgebench.exporters._edgetpu.graph import Graph
from edgebench.exporters._edgetpu.log import VERSION, Log, parse

VARIABLE = "EDGEBENCH_EDGETPU_COMPILER"
NAME = "edgetpu_compiler"
CONTAINER = re.compile(r"(docker|podman)://([A-Za-z0-9][A-Za-z0-9._/:@-]{0,254})")
COMPILE_SECONDS = 600
"""After so long the compiler gives up by itself; some time later it is ended."""
MARGIN_SECONDS, VERSION_SECONDS = 60.0, 120.0
REMEDY = (
    "it runs on x86-64 Debian and Ubuntu alone: add Coral's package source (https://coral.ai/docs/edgetpu/compiler/) and "
    f"`sudo apt-get install edgetpu-compiler`; elsewhere set {VARIABLE} to a program that calls it, or to a container "
    "image that has it: docker://IMAGE or podman://IMAGE"
)


@dataclass(frozen=True)
class Compiler:
    """The program itself, or a container's image that has it."""

    program: str
    image: str = ""

    def command(self, folder: Path, arguments: list[str], name: str) -> list[str]:
        """Write the call that sees `folder` as its working folder, and nothing else of this computer's in a container.

        A container has no network, takes the user's own rights, and its `name`
        can be ended by `end`.
        """
        if not self.image:
            return [self.program, *arguments]
        mapped = ["--userns", "keep-id"] if Path(self.program).name == "podman" else []
        return [
            *(self.program, "run", "--rm", "--name", name, "--platform", "linux/amd64", "--network", "none"),
            *("--security-opt", "label=disable", *mapped, "--user", f"{os.getuid()}:{os.getgid()}"),
            *("--mount", _fields("type=bind", f"source={folder}", "target=/work"), "--workdir", "/work"),
            *("--entrypoint", NAME, self.image, *arguments),
        ]

    def run(self, folder: Path, arguments: list[str], seconds: float) -> tuple[int, str]:
        """Return exit code and all that was printed; `TimeoutError` where it had to be ended."""
        name = f"edgebench-{secrets.token_hex(8)}"
        command = self.command(folder.resolve(), arguments, name)
        with subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                printed, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                raise TimeoutError(f"not done after {seconds:.0f} s") from None
            finally:
                self._end(process, name)
        return process.returncode, printed

    def _end(self, process: subprocess.Popen[str], name: str) -> None:
        """End what still runs: the compiler works in a child of its own, and a container outlives its client."""
        if process.poll() is None and self.image:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run([self.program, "kill", name], capture_output=True, timeout=30, check=False)
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _fields(*fields: str) -> str:
    """Join fields by commas, and quote those that have one, as both engines read them."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(fields)
    return text.getvalue()


def find() -> Compiler:
    """Find the compiler on PATH or as the environment names it; `MissingTool` says what to install."""
    wanted = os.environ.get(VARIABLE, "")
    container = CONTAINER.fullmatch(wanted)
    if "://" in wanted and container is None:
        raise _missing(f"{VARIABLE}={wanted[:200]} names no image as docker://IMAGE or podman://IMAGE do")
    name = container[1] if container else os.path.expanduser(wanted) or NAME
    program = shutil.which(name)
    if program is None:
        where = f"{name[:200]}, which {VARIABLE} names, cannot be run" if wanted else f"no {name} on PATH"
        raise _missing(where)
    return Compiler(program, container[2] if container else "")


def _missing(what: str) -> MissingTool:
    return MissingTool("exporting edgetpu", "Google's edgetpu_compiler", what, REMEDY)


@lru_cache(maxsize=8)
def version(compiler: Compiler) -> str:
    """Ask it for its version; `MissingTool` where it does not run here."""
    try:
        with tempfile.TemporaryDirectory(prefix="edgebench-") as folder:
            code, printed = compiler.run(Path(folder), ["--version"], VERSION_SECONDS)
    except (OSError, TimeoutError) as error:
        raise _missing(f"{compiler.image or compiler.program} does not run here ({error})") from error
    found = VERSION.search(printed)
    if found is None:
        last = (printed.strip().splitlines() or ["nothing"])[-1][:300]
        raise _missing(f"{compiler.image or compiler.program} does not say its version (exit code {code}: {last})")
    return found[1]


def compile_file(path: Path, runtime: str, model: str, graph: Graph) -> tuple[Path, Log, bool]:
    """Compile a file in its folder; returns what was written, what was printed, and whether `-d` had to search.

    `runtime`: the lowest version of the Edge TPU's runtime that must load it.
    Raises `ExportError` with the compiler's own reason.
    """
    compiler = find()
    log = _attempt(compiler, path, runtime, [], model)
    search = bool(log.failure) and _may_search(log.failure)
    if search:  # with -d it looks for the largest part of the network that it can compile
        log = _attempt(compiler, path, runtime, ["-d"], model)
    if log.failure:
        raise ExportError(f"{model}: edgetpu_compiler: {log.failure[:300]}{_where(log.failure, graph)}; {_remedy(log.failure)}")
    return path.with_name(f"{path.stem}_edgetpu.tflite"), log, search


def _attempt(compiler: Compiler, path: Path, runtime: str, more: list[str], model: str) -> Log:
    """Call it once; a failure without a word gets one. What a failed call left behind is removed."""
    written = path.with_name(f"{path.stem}_edgetpu.tflite")
    record = written.with_suffix(".log")
    arguments = ["-s", "-m", runtime, "-t", str(COMPILE_SECONDS), "-o", ".", *more, path.name]
    try:
        code, printed = compiler.run(path.parent, arguments, COMPILE_SECONDS + MARGIN_SECONDS)
    except TimeoutError as error:
        raise ExportError(f"{model}: edgetpu_compiler was ended, {error}; {_remedy('time')}") from error
    except OSError as error:
        raise _missing(f"{compiler.program} does not run here ({error})") from error
    log = parse(printed, record.read_text(errors="replace") if record.is_file() else "")
    silent = code != 0 or not written.is_file()
    if silent and not log.failure:
        last = (printed.strip().splitlines() or ["it said nothing"])[-1]
        log = parse(f"Compilation failed: exit code {code}, {last}")
    if log.failure:
        written.unlink(missing_ok=True)
    record.unlink(missing_ok=True)
    return log


def _may_search(failure: str) -> bool:
    return failure.startswith(("Internal compiler error", "Compilation failed", "ERROR: "))


def _where(failure: str, graph: Graph) -> str:
    """Name the layers of the operator that a failure names, by its kind or its number."""
    number = re.search(r"Node number ([0-9]{1,9}) \((\w+)\)", failure)
    if number and int(number[1]) < len(graph.operators) and graph.operators[int(number[1])].name == number[2]:
        return f" (at {graph.operators[int(number[1])].layer})"
    found = re.search(r"opcode '(\w+)'", failure)
    layers = list(dict.fromkeys(operator.layer for operator in graph.operators if found and operator.name == found[1]))
    return f" (at {', '.join(layers[:3])}{' and others' if len(layers) > 3 else ''})" if layers else ""


def _remedy(failure: str) -> str:
    if any(words in failure for words in ("opcode", "custom op", "builtin_code")):
        return "a newer compiler may know it; else choose another architecture"
    if "dynamic" in failure:
        return "the Edge TPU takes static shapes alone"
    if any(words in failure for words in ("Invalid model", "parsed", "not quantized", "Did not get operators")):
        return "edgebench found nothing wrong with the file: please report it with the model's architecture"
    return "try a smaller input or another architecture"
