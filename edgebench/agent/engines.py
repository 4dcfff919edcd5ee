"""Engines that were built on this device, kept beside the bundle they were made of.

An engine is tied to what it was made of, the GPU, TensorRT's version and the
options: their hash is in its name. Beside `engine-<hash>.plan` lies
`engine-<hash>.json` with the plan's size, its sha256, and the facts.
"""

import collections
import hashlib
import json
import os
import re
import tempfile
from typing import Any, Dict, List, Optional, Tuple

CACHE = re.compile(rb"TRT-[0-9]+-EntropyCalibration2\s*$")
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
    return known["facts"] if hashed(plan) == known["sha256"] else None


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
    handle, name = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".engine-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def hashed(path: str) -> str:
    """Return a file's sha256."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def summary(layers: List[Dict[str, str]]) -> Dict[str, Any]:
    """Shorten the list of layers to what a record can hold: counts by precision, and the first by name."""
    listed = [dict(layer, name=layer["name"][:LONGEST]) for layer in layers[:LISTED]]
    counts = collections.Counter(layer["precision"] for layer in layers)
    return {"count": len(layers), "by_precision": dict(sorted(counts.items())), "listed": listed}


def types(plan: str) -> Dict[str, str]:
    """Return each layer's type by its name."""
    return {layer["name"]: layer["type"] for layer in facts_of(plan).get("layers", [])}
