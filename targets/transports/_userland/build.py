"""Make a userland's folder out of Debian packages, with the standard library alone: also on macOS and Windows."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from edgebench.errors import InputError
from edgebench.targets.transports._userland.packages import LOADERS, TRIPLETS, Userland

LIBRARIES = frozenset(LOADERS.values()) | {
    f"lib{name}"
    for name in (
        *("c.so.6", "m.so.6", "dl.so.2", "pthread.so.0", "rt.so.1", "util.so.1", "resolv.so.2"),
        *("gcc_s.so.1", "stdc++.so.6", "z.so.1", "expat.so.1", "ffi.so.8", "bz2.so.1.0", "lzma.so.5"),
    )
}
"""What Python, and the wheels of runtimes, are linked with."""
LEFT_OUT = re.compile(
    r"(?:test|idlelib|tkinter|turtledemo|ensurepip|dbm|curses|sqlite3|pydoc_data|config-[^/]*)/.*"
    r"|(?:.*/)?(?:__pycache__/.*|LICENSE\.txt)|sitecustomize\.py|turtle\.py"
    r"|lib-dynload/_(?:ssl|hashlib|sqlite3|curses|curses_panel|dbm|gdbm|tkinter|uuid)\..*|lib-dynload/(?:readline|nis|xxlimited|xxlimited_35|xxsubtype|_xxtestfuzz|_ctypes_test|_test[a-z_]*)\..*"
)
"""Parts of the standard library that a device does not need, or that want libraries which are not brought."""
MAGIC = b"!<arch>\n"
MEMBER = 60
"""Bytes of an `ar` archive's header for one member."""


def build(userland: Userland, packages: Path, folder: Path) -> None:
    """Fill an empty folder from the packages' files in another: `bin/python3`, `lib/`, and the packages' licences."""
    for package in userland.packages:
        with tarfile.open(fileobj=io.BytesIO(_content(packages / package.file)), mode="r:*") as archive:
            for entry in archive:
                place = _place(entry.name.removeprefix("./"), userland, package.name)
                if place is not None and not entry.isdir():
                    _write(folder / place, _file(archive, entry), bool(entry.mode & 0o100))
    _write(folder / "bin" / "python3", userland.wrapper.encode(), True)
    for wanted in (f"bin/python{userland.python}", f"lib/python{userland.python}/os.py", "lib/libc.so.6", "lib/libstdc++.so.6"):
        if not (folder / wanted).is_file():
            raise InputError(f"the packages in {packages} have no {wanted}; remove that folder and run again")


def _file(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    """Read a file, or the one beside it that a link names: the folder has no links, which Windows may not make."""
    if entry.issym():
        entry = archive.getmember(f"{entry.name.rpartition('/')[0]}/{entry.linkname}")
    stream = archive.extractfile(entry)
    return stream.read() if stream is not None else b""


def _content(path: Path) -> bytes:
    """Return the archive of a package's files, itself compressed."""
    content = path.read_bytes()
    for name, data in _members(content):
        if name.startswith("data.tar"):
            return data
    raise InputError(f"{path}: not a Debian package; remove it and run again")


def _members(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what is in an `ar` archive."""
    at = len(MAGIC) if content.startswith(MAGIC) else len(content)
    while at + MEMBER <= len(content):
        head = content[at : at + MEMBER]
        size = int(head[48:58].decode("ascii").strip() or "0")
        yield head[:16].decode("ascii", "replace").strip().rstrip("/"), content[at + MEMBER : at + MEMBER + size]
        at += MEMBER + size + size % 2


def _place(name: str, userland: Userland, package: str) -> str | None:
    """Say where a package's file belongs; None where it is not wanted."""
    if ".." in name.split("/"):
        return None
    name = name.removeprefix("usr/")
    if name == f"bin/python{userland.python}":
        return name
    if name == f"share/doc/{package}/copyright":
        return f"share/{package}.txt"
    python = f"lib/python{userland.python}/"
    if name.startswith(python):
        return None if LEFT_OUT.fullmatch(name.removeprefix(python)) else name
    folder, _, file = name.rpartition("/")
    return f"lib/{file}" if folder == f"lib/{TRIPLETS[userland.architecture]}" and file in LIBRARIES else None


def _write(path: Path, content: bytes, executable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755 if executable else 0o644)
