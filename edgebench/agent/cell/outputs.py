"""What a model returns: shapes and types, whether its numbers are finite, and how far they are from right ones, where known."""

import sys
from typing import Any, Dict, List, Optional

from .samples import Samples

NOTHING: Dict[str, Any] = {"file": None, "outputs": {}, "samples": 1, "rtol": 0.0, "atol": 0.0}


def outputs(worker: Any) -> None:
    """Infer the samples that right outputs are known of, or else one, and tell of each output what there is to tell."""
    worker.load()
    worker.stage = "outputs"
    job, numpy = worker.job, sys.modules["numpy"]  # every runtime brings it
    golden = job.get("golden") or NOTHING
    right = numpy.load(golden["file"], allow_pickle=False) if golden["file"] else {}
    names = [spec["name"] for spec in job["outputs"]]
    found: List[Optional[Dict[str, Any]]] = []
    with Samples(job["inputs"]) as samples:
        for index in range(golden["samples"]):
            made = worker.runtime.tensors(worker.runtime.infer(worker.runtime.prepare(samples.read(index), 1)))
            names = names or ["output"] * (len(made) == 1) or ["output_%d" % number for number in range(len(made))]
            found = found or [None] * len(names)
            for number, (name, values) in enumerate(zip(names, made)):
                array = golden["outputs"].get(name)
                known = None if array is None else right[array][index]
                found[number] = worse(found[number], told(numpy, name, numpy.asarray(values), known, golden))
    worker.events.emit("outputs", outputs=[each for each in found if each is not None])


def told(numpy: Any, name: str, values: Any, right: Any, golden: Dict[str, Any]) -> Dict[str, Any]:
    """Describe one output; `off` is |other − right| / (atol + rtol × |right|) where that is largest, 1 at most is near enough."""
    numbers = values.dtype.kind in "fiub"
    said = {
        "output": name,
        "shape": [int(size) for size in values.shape],
        "dtype": str(values.dtype),
        "finite": bool(numpy.isfinite(values).all()) if numbers else True,
        "off": None,
        "largest": None,
        "reason": None,
    }  # type: Dict[str, Any]
    if right is None:
        return said
    if not numbers or right.size != values.size:
        said["reason"] = "has the shape %s, right is %s" % (list(values.shape), list(right.shape))
        return said
    ours, theirs = values.astype("float64").ravel(), right.astype("float64").ravel()
    same = (ours == theirs) | (numpy.isnan(ours) & numpy.isnan(theirs))
    with numpy.errstate(all="ignore"):
        apart = numpy.where(same, 0.0, numpy.abs(ours - theirs))
        bound = golden["atol"] + golden["rtol"] * numpy.abs(theirs)
        off = numpy.where(same, 0.0, numpy.minimum(numpy.nan_to_num(apart / bound, nan=1e30, posinf=1e30), 1e30))
    said["off"] = float(off.max()) if off.size else 0.0
    said["largest"] = float(numpy.nan_to_num(apart, nan=1e30, posinf=1e30).max()) if off.size else 0.0
    said["at"] = int(off.argmax()) if off.size else 0
    return said


def worse(one: Optional[Dict[str, Any]], other: Dict[str, Any]) -> Dict[str, Any]:
    """Keep what is told of the sample that is farther off."""
    if one is None:
        return other
    if other["reason"] is not None or (other["off"] or 0.0) > (one["off"] or 0.0):
        return dict(other, finite=one["finite"] and other["finite"])
    return dict(one, finite=one["finite"] and other["finite"])
