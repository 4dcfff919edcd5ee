"""Engines that were built on this device, kept beside the bundle they were made of.

An engine is tied to what it was made of, the GPU, TensorRT's version and the
options: their hash is in its name. Beside `engine-<hash>.plan` lies
`engine-<hash>.json` with the plan's size, its sha256, and the facts.
"""

import collections
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
from typing import Any, Dict, Iterable, List, Optional, Tuple

from ..digest import sha256

CACHE = re.compile(rb"TRT-[0-9]+-EntropyCalibration2\s*$")
UNDONE = ".engine-"
"""How the names of files and folders begin that are no engine yet."""
LISTED = 40
"""So many layers are named in a record; all are counted."""
LONGEST = 100
"""Characters of a layer's name: fused layers are called by all that they fuse."""


def key(job: Dict[str, Any], gpu: Dict[str, Any], version: str, how: str) -> str:
    """Hash all that an engine depends on; ValueError where the bundle does not say how to build it."""
    if job["finish"] is None:
        raise ValueError("the bundle has no finish step, which says how its engine is built; export it as tensorrt")
    made = [job["bundle"], job["finish"]["options"], gpu["name"], gpu["capability"], version, how]
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode("utf-8")).hexdigest()[:16]


def place(model: str, name: str) -> str:
    """Return where the engine of a model lies."""
    return os.path.join(os.path.dirname(os.path.abspath(model)), "engine-%s.plan" % name)


def facts_of(plan: str) -> Dict[str, Any]:
    """Read what is known of an engine, whose size must be right; ValueError where it must be built."""
    try:
        with open(beside(plan), encoding="utf-8") as stream:
            known = json.load(stream)
        size = os.path.getsize(plan)
        if isinstance(known, dict) and isinstance(known["facts"], dict) and size == known["bytes"]:
            return known
        reason = "it is %d bytes long" % size
    except (OSError, ValueError, KeyError) as error:
        reason = str(error)
    raise ValueError("%s: no engine for this GPU and TensorRT, or a damaged one (%s); run again to build it" % (plan, reason))


def kept(plan: str) -> Optional[Dict[str, Any]]:
    """Return the facts of a whole, unchanged engine, its content checked; None where it must be built."""
    try:
        known = facts_of(plan)
    except ValueError:
        return None
    return known["facts"] if sha256(plan) == known["sha256"] else None


def keep(plan: str, content: bytes, facts: Dict[str, Any], layers: List[Dict[str, str]]) -> None:
    """Write an engine, whole or not at all, and then what is known of it."""
    write(plan, content)
    known = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "facts": facts, "layers": layers}
    write(beside(plan), json.dumps(known).encode("utf-8"))


def calibration(model: str, name: str, version: Tuple[int, ...]) -> bytes:
    """Read the calibration cache beside a model, with this TensorRT's number in its first line.

    TensorRT takes no cache of another version, though the ranges in it are
    the network's and the images'. ValueError where it is no such cache.
    """
    path = os.path.join(os.path.dirname(os.path.abspath(model)), os.path.basename(name))
    with open(path, "rb") as stream:
        first, _, ranges = stream.read().partition(b"\n")
    if not CACHE.match(first):
        raise ValueError("%s: no calibration cache of TensorRT (it begins with %r); export the bundle again" % (path, first[:40]))
    base = 1000 if version < (10,) else 10000
    number = version[0] * base + version[1] * 100 + (version[2] if len(version) > 2 else 0)
    return b"TRT-%d-EntropyCalibration2\n" % number + ranges


def forget(plan: str) -> None:
    """Let the next run build an engine anew."""
    try:
        os.unlink(beside(plan))
    except OSError:
        pass


def beside(plan: str) -> str:
    """Name the file of facts."""
    return plan[: -len(".plan")] + ".json"


def write(path: str, content: bytes) -> None:
    """Write beside, fsync, rename."""
    handle, name = tempfile.mkstemp(dir=os.path.dirname(path), prefix=UNDONE)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def sweep(folder: str) -> None:
    """Remove what earlier processes left behind that were cut off."""
    for path in glob.glob(os.path.join(glob.escape(folder), UNDONE + "*")):
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)


def summary(layers: List[Dict[str, str]]) -> Optional[Dict[str, Any]]:
    """Shorten the list of layers to what a record can hold: counts by precision, and the first by name; None without any."""
    if not layers:
        return None
    listed = [dict(layer, name=layer["name"][:LONGEST]) for layer in layers[:LISTED]]
    counts = collections.Counter(layer["precision"] for layer in layers)
    return {"count": len(layers), "by_precision": dict(sorted(counts.items())), "listed": listed}


def bare(content: bytes) -> bytes:
    """Take off the description that ultralytics puts before an engine: its length in four bytes, then JSON."""
    size = int.from_bytes(content[:4], "little")
    return content[4 + size :] if content[4:5] == b"{" and 4 + size < len(content) else content


def timed(plan: str, times: Iterable[Tuple[str, int]]) -> List[Dict[str, Any]]:
    """Write the profile of an engine: its layers' names and nanoseconds, with what the inspector said of each."""
    layers = facts_of(plan).get("layers", []) if os.path.exists(beside(plan)) else []
    known = {layer["name"]: layer for layer in layers}
    unknown = {"type": "", "precision": ""}
    found = [(name, ns, known.get(name, unknown)) for name, ns in times]
    return [{"name": name, "op": it["type"], "where": "GPU", "ns": ns, "dtype": it["precision"]} for name, ns, it in found]
