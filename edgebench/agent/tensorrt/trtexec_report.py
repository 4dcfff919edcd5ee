"""What trtexec measured: its times file and its printed summary, the one checked by the other."""

import json
import re
from typing import Any, Dict, List, Optional, Tuple

NUMBER = r"([-+]?[0-9]{1,30}(?:\.[0-9]{0,30})?(?:[eE][-+]?[0-9]{1,3})?)"
START = r"^(?:\[[^\]\n]*\] )*"
LATENCY = re.compile(START + "Latency: min = %s ms, max = %s ms, mean = %s ms, median = %s ms" % ((NUMBER,) * 4), re.MULTILINE)
COUNT = re.compile(START + r"Timing trace has ([0-9]{1,15}) queries over %s s" % NUMBER, re.MULTILINE)
LOADED = re.compile(START + r"Engine (?:loaded|deserialized) in %s sec" % NUMBER, re.MULTILINE)
STAGES = {"host_to_device": "h2dMs", "compute": "computeMs", "device_to_host": "d2hMs"}
FIELDS = ("startComputeMs", "latencyMs") + tuple(STAGES.values())
BROKEN = (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError)
"""What a file of another form makes the reading of it raise."""
CLOSE = 1e-3
"""Share by which the printed median, of six digits and in single precision, may differ from that of the times."""


def times(content: str) -> List[Dict[str, float]]:
    """Read a times file: one object for each query; ValueError where it is another thing."""
    try:
        rows = json.loads(content, object_hook=lambda row: {name: finite(row[name]) for name in FIELDS})
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise ValueError("it holds no queries")
        return rows
    except BROKEN as error:
        raise ValueError("the file of --exportTimes is not as trtexec writes it (%s)" % error)


def summary(text: str) -> Dict[str, float]:
    """Read the printed summary: `queries`, and of the latency `min`, `max`, `mean`, `median` in milliseconds."""
    latency, count = LATENCY.search(text), COUNT.search(text)
    if latency is None or count is None:
        raise ValueError("trtexec printed no summary of the latency; its output has a form that is not known here")
    found = dict(zip(("min", "max", "mean", "median"), (float(value) for value in latency.groups())))
    return dict(found, queries=float(count.group(1)))


def checked(rows: List[Dict[str, float]], printed: Dict[str, float]) -> None:
    """Raise ValueError where the times and the summary do not tell the same."""
    if len(rows) != printed["queries"]:
        raise ValueError("trtexec says %d queries, and its times file has %d" % (printed["queries"], len(rows)))
    ordered = sorted(row["latencyMs"] for row in rows)
    half = len(ordered) // 2
    middle = ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2.0
    for name, own in (("min", ordered[0]), ("median", middle), ("max", ordered[-1])):
        if abs(own - printed[name]) > CLOSE * max(own, printed[name]):
            raise ValueError("trtexec prints a %s latency of %g ms, and its times give %g ms" % (name, printed[name], own))


def trial(rows: List[Dict[str, float]], warmup_ms: float, load_ns: int, begun_ns: int, window_ms: float) -> Dict[str, Any]:
    """Turn the times into a trial: the queries that began in the first `warmup_ms` are the warm-up.

    trtexec is told to warm up for 0 ms, since some versions leave their
    warm-up out of the file and others do not. `begun_ns` is the agent's time
    of the file's 0.
    """
    begin = rows[0]["startComputeMs"]
    warm = [row for row in rows if row["startComputeMs"] - begin < warmup_ms]
    kept = rows[len(warm) :]
    if not kept:
        raise ValueError("trtexec took no sample after the warm-up of %g ms; let it run longer" % warmup_ms)
    return {
        "load_ns": load_ns,
        "first_ns": nanoseconds(rows[0]["latencyMs"]),
        "warmup_ns": [nanoseconds(row["latencyMs"]) for row in warm],
        "windows": windows(kept, begun_ns, window_ms),
        "stages": {name: [nanoseconds(row[field]) for row in kept] for name, field in STAGES.items()},
    }


def windows(rows: List[Dict[str, float]], begun_ns: int, window_ms: float) -> List[Dict[str, Any]]:
    """Group queries by when they began; a window lasts until the next begins, what the host does between queries included."""
    groups: List[List[Dict[str, float]]] = []
    for row in rows:
        if not groups or row["startComputeMs"] - groups[-1][0]["startComputeMs"] >= window_ms:
            groups.append([])
        groups[-1].append(row)
    starts = [group[0]["startComputeMs"] for group in groups]
    ends = starts[1:] + [rows[-1]["startComputeMs"] + rows[-1]["latencyMs"]]
    return [
        {
            "ns": [nanoseconds(row["latencyMs"]) for row in group],
            "begin_ns": begun_ns + nanoseconds(start),
            "end_ns": begun_ns + nanoseconds(end),
            "inferences": len(group),
        }
        for group, start, end in zip(groups, starts, ends)
    ]


def nanoseconds(milliseconds: float) -> int:
    """Convert."""
    return round(milliseconds * 1e6)


def finite(value: Any) -> float:
    """Read a number; ValueError where it is none that a clock could show."""
    number = float(value)
    if not abs(number) < 1e15:
        raise ValueError("%s is no time" % number)
    return number


def load_ns(text: str, wall_ns: int, span_ms: float) -> int:
    """Return how long the engine took to load, as printed; else the whole run less its queries, which is more."""
    found = LOADED.findall(text)
    return round(sum(finite(value) for value in found) * 1e9) if found else max(0, wall_ns - round(span_ms * 1e6))


def outputs(content: str, name: str) -> List[float]:
    """Read one tensor from a file of --exportOutput."""
    try:
        found = [tensor["values"] for tensor in json.loads(content) if tensor["name"] == name]
        return [float(value) for value in found[0]]
    except BROKEN as error:
        raise ValueError("the file of --exportOutput has no numbers of %r (%s): is there a nan?" % (name, error))


def profile(content: str) -> List[Tuple[str, int]]:
    """Read a file of --exportProfile: layers with their mean nanoseconds."""
    try:
        rows = json.loads(content, strict=False)
        return [(row["name"], nanoseconds(finite(row["averageMs"]))) for row in rows if "name" in row]
    except BROKEN as error:
        raise ValueError("the file of --exportProfile is not as trtexec writes it (%s)" % error)


def content(path: str) -> Optional[str]:
    """Read what trtexec wrote; None where it wrote nothing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return None
