"""A folder of images: which files are its samples, in which split and class, and what was passed over."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgebench.data._dealing import ALIASES
from edgebench.data._files import inside, open_regular
from edgebench.errors import DataError

ENDINGS = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".dib"),
        *(".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm"),
    )
)
"""Of the formats that `_images` reads, whatever is in the files."""
DICOM_ENDINGS = frozenset((".dcm", ".dicom", ".ima"))
STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"GIF8", b"II*\0", b"MM\0*", b"RIFF", b"P5\n", b"P6\n")
"""What a file without a telling name begins with, if it is an image."""
TOOLS = frozenset(
    (
        "__macosx",
        "@eadir",
        "thumbs.db",
        "desktop.ini",
        "$recycle.bin",
        "lost+found",
        "__pycache__",
        "ehthumbs.db",
        "synthetic.json",
    )
)
MOST_DEPTH = 32
NAMED = 3


@dataclass
class Found:
    """What lies in a folder beside its samples."""

    passed: int = 0
    """Hidden files and folders, and those of tools."""
    others: list[Path] = field(default_factory=list)
    """Files that are no images, or lie where no class is."""

    def told(self, root: Path) -> tuple[str, ...]:
        """Say which files were left out."""
        if not self.others:
            return ()
        shown = ", ".join(os.path.relpath(path, root.resolve() if root.is_symlink() else root) for path in self.others[:NAMED])
        more = f" and {len(self.others) - NAMED} more" if len(self.others) > NAMED else ""
        medical = any(path.suffix.lower() in DICOM_ENDINGS for path in self.others)
        hint = f"; dicom:{root} reads DICOM files" if medical else ""
        return (f"{root}: left out {len(self.others)} files or folders that are no images of a class: {shown}{more}{hint}",)


def children(folder: Path, home: Path, found: Found) -> list[Path]:
    """List what lies in a folder, by name; what is hidden or a tool's is counted alone."""
    kept = []
    for path in sorted(inside(folder, home).iterdir()):
        if path.name.startswith(".") or path.name.lower() in TOOLS:
            found.passed += 1
        else:
            kept.append(path)
    return kept


def images(
    folder: Path,
    home: Path,
    found: Found,
    endings: frozenset[str] = ENDINGS,
    begins: Callable[[Path], bool] | None = None,
    depth: int = 0,
) -> Iterator[Path]:
    """Walk through a class's folder and those within it, by name; `DataError` for links out of it, or in circles.

    `endings` are those of the files that are wanted; `begins` looks into files that are called otherwise.
    """
    if depth > MOST_DEPTH:
        raise DataError(f"{folder}: nested deeper than {MOST_DEPTH} folders, or a link that leads back; remove it")
    for path in children(folder, home, found):
        named = path.suffix.lower() in endings
        if not named and inside(path, home).is_dir():
            yield from images(path, home, found, endings, begins, depth + 1)
        elif named or _begins_like_one(path, home, begins):
            yield path
        else:
            found.others.append(path)


def _begins_like_one(path: Path, home: Path, begins: Callable[[Path], bool] | None) -> bool:
    real = inside(path, home)
    if not real.is_file():
        return False
    if begins is not None:
        return begins(real)
    with open_regular(real) as stream:
        return stream.read(4).startswith(STARTS)


def splits(root: Path, home: Path, found: Found) -> dict[str, Path]:
    """Find the folders of splits by any of their names; empty where there are none, `DataError` where some are missing."""
    named: dict[str, Path] = {}
    for path in children(root, home, Found()):
        split = ALIASES.get(path.name.lower())
        if split is None or not path.is_dir():
            continue
        if split in named:
            raise DataError(f"{root} has {named[split].name}/ and {path.name}/, both {split}; keep one of them")
        named[split] = path
    if len(named) < 2 and "train" not in named:
        return {}  # classes of such names
    for split in ("train", "test"):
        if split not in named:
            there = " and ".join(f"{path.name}/" for path in named.values())
            raise DataError(f"{root} has {there} and no {split}/; rename or add it, a folder per class")
    for path in children(root, home, found):
        if path not in named.values():
            found.others.append(path)
    return named


def class_folders(folder: Path, home: Path, found: Found) -> list[Path]:
    """List the class folders of a split; files beside them are of no class."""
    every = children(folder, home, found)
    found.others += [path for path in every if not path.is_dir()]
    return [path for path in every if path.is_dir()]
