"""What lies in a folder of records; it stands alone, to run beside an edgebench that is still starting."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

TOP = "records"
Digests = dict[str, str]


@dataclass
class Folder:
    """What lies in one folder, and what changes where a record does: its time, size and inode."""

    name: str
    """Below the folder of results, with `/`."""
    files: list[str]
    facts: array[int]

    @property
    def digest(self) -> str:
        """Hash it all."""
        return hashlib.sha256(repr(self.files).encode() + self.facts.tobytes()).hexdigest()

    def stamps(self) -> dict[str, str]:
        """Return each record's facts by its path; names that are no Unicode are escaped, and so not found."""
        each = zip(self.files, zip(*[iter(self.facts)] * 3))  # noqa: B905
        return {escaped(f"{self.name}/{file}"): " ".join(map(str, facts)) for file, facts in each}


def look(results: str, name: str) -> tuple[Folder, list[str]]:
    """List one folder's records, and the folders in it; one that cannot be read holds a record without a name."""
    found, below = Folder(name, [], array("q")), []
    try:
        with os.scandir(os.path.join(results, name)) as entries:
            for entry in entries:
                if entry.name.endswith(".json") and not entry.name.startswith("."):
                    facts = entry.stat(follow_symlinks=False)
                    found.files.append(entry.name)
                    found.facts.extend((facts.st_mtime_ns, facts.st_size, facts.st_ino))
                elif entry.is_dir(follow_symlinks=False):
                    below.append(f"{name}/{entry.name}")
    except FileNotFoundError:
        return Folder(name, [], array("q")), []
    except OSError:
        return Folder(name, [""], array("q", (0, 0, 0))), []
    return found, below


def walk(results: str) -> Iterator[Folder]:
    """List every folder of records."""
    waiting = [TOP]
    while waiting:
        found, below = look(results, waiting.pop())
        waiting += below
        yield found


def digests(results: str) -> Digests:
    """Hash what lies in each folder."""
    return {folder.name: folder.digest for folder in walk(results)}


def escaped(name: str) -> str:
    """Write what is no Unicode in a file's name as escapes."""
    return os.fsencode(name).decode(errors="backslashreplace")


def begin(results: str) -> Callable[[], Digests]:
    """Start looking in another process; call the result for what it found."""
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, results], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return lambda: digests(results)

    def found() -> Digests:
        written, _ = process.communicate()
        return dict(json.loads(written)) if process.returncode == 0 else digests(results)

    return found


if __name__ == "__main__":
    json.dump(digests(sys.argv[1]), sys.stdout)
