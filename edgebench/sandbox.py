"""Try exported programs of others in a process without rights, before this one loads them.

Linux alone: the process has namespaces of its own (user, mounts, network, processes,
IPC, host name), no capabilities, a root folder that holds Python, torch and the
system's libraries, read-only, and nothing of the user's, and bounded time, memory
and files. What it finds out is one line; nothing that it makes is used.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

SECONDS = 240
SPARE = 6 << 30
"""Bytes of address space for a program's own use, beside torch and the file."""
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/alternatives")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
SOURCE = Path(__file__).with_name("sandboxed.py")
UNABLE = 77
"""How the process ends where it cannot give up its rights."""


def trial(content: bytes, source: Path | None = None) -> str | None:
    """Load a program and run it once, where it can do no harm; says what speaks against it, None where nothing does.

    `content` is what `rt_torch.cleaned` wrote; `source` is another script than torch's, for tests.
    """
    missing = next((each for each in ("torch", "numpy") if importlib.util.find_spec(each) is None), None)
    if missing is not None:
        return f"{missing} is not installed here, to try it apart"
    with tempfile.TemporaryDirectory(prefix="edgebench-") as folder:
        request = {"root": folder, "shown": _shown(), "spare": SPARE + 4 * len(content), "seconds": SECONDS, "size": len(content)}
        words = [
            sys.executable,
            "-I",
            "-B",
            "-X",
            "faulthandler=0",
            "-c",
            (source or SOURCE).read_text(encoding="utf-8"),
            json.dumps(request),
        ]
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:  # whose size is bounded there
            try:
                done = subprocess.run(
                    words, input=content, stdout=said, stderr=errors, timeout=SECONDS, check=False, env=environment, cwd="/"
                )
            except subprocess.TimeoutExpired:
                return f"it did not load and run within {SECONDS} s"
            except OSError as error:
                return f"no process could be started to try it apart ({error.strerror})"
            said.seek(0)
            errors.seek(0)
            return _verdict(done.returncode, said.read(), errors.read())


def _verdict(code: int, said: bytes, errors: bytes) -> str | None:
    if code == 0 and said == b"ran\n":
        return None
    lines = errors.decode("utf-8", "replace").strip().splitlines() or [f"status {code}"]
    last = re.sub(r"[^ -~]", "?", lines[-1])[:200]
    if code == UNABLE:
        return f"no process without rights can be made here to try it in ({last})"
    return f"it does not load and run in a process without rights ({last})"


def _shown() -> list[str]:
    """List the folders that Python and torch need, outer ones first; the home folder is none of them."""
    spec = importlib.util.find_spec("torch")
    library = [str(Path(spec.origin).parent.parent)] if spec is not None and spec.origin is not None else []
    paths = sysconfig.get_paths()
    python = [sys.prefix, sys.base_prefix, paths["stdlib"], paths["platstdlib"], str(Path(sys.executable).resolve().parent)]
    return _outermost([*SYSTEM, *DEVICES, *library, *python])


def _outermost(paths: Sequence[str]) -> list[str]:
    found: list[str] = []
    for path in sorted({os.path.abspath(path) for path in paths if os.path.exists(path)}):
        if path != "/" and not any(path.startswith(f"{outer}/") for outer in found):
            found.append(path)
    return found
