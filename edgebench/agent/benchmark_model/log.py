"""What benchmark_model prints, of every build that is known: its times, its memory, and what a delegate took.

TensorFlow 1.12 and later, LiteRT, and LiteRT's newer build on CompiledModel;
from a shell or from logcat. Times are microseconds here, memory MiB.
"""

import re
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

NUMBER = r"([-+]?[0-9]{1,30}(?:\.[0-9]{0,30})?(?:[eE][-+]?[0-9]{1,3})?)"
PREFIXES = (
    r"(?:[0-9]{4}-)?[0-9]{2}-[0-9]{2} [0-9:]{8}\.[0-9]+ +[0-9]+ +[0-9]+ [VDIWEF] [^:]{0,60}: ",  # logcat -v threadtime
    r"(?:(?:[0-9]{4}-)?[0-9]{2}-[0-9]{2} [0-9:]{8}\.[0-9]+ )?[VDIWEF]/[^(]{0,60}\( *[0-9]+\): ",  # logcat -v time, brief
    r"[IWEF][0-9]{4} [^\]]{0,120}\] ",  # absl
    r"(?:INFO|WARN|WARNING|ERROR|VERBOSE|DEBUG|FATAL): ",
    r"\[[^\]]{0,200}:[0-9]+\] ",  # LiteRT's file and line
)
PREFIX = re.compile("(?:%s)" % "|".join(PREFIXES))
SEVERE = re.compile(r"(?:^| )(?:ERROR|FATAL): |^[EF][0-9]{4} |[0-9] [EF] [^:]{0,60}: |(?:^| )[EF]/")
COUNT = re.compile(r"count=([0-9]{1,12})\b")
FIELD = re.compile(r"\b(first|curr|min|max|avg|std|p5|median|p95)=" + NUMBER)
TIMINGS = re.compile(
    r"Inference timings in us: Init: %s, First inference: %s, Warmup \(avg\): %s, Inference \(avg\): %s" % ((NUMBER,) * 4)
)
OLDEST = re.compile(r"Average inference timings in us: Warmup: %s, Init: %s, (?:Inference|no stats): %s" % ((NUMBER,) * 3))
COMPILED = re.compile(
    r"(Model initialization|Warmup \((?:first|avg)\)|Inference \((?:avg|min|max|std)\)): +%s(?: ms)?(?: \(([0-9]{1,12}) runs\))?"
    % NUMBER
)
COMPILED_NAMES = {
    "Model initialization": "init",
    "Warmup (first)": "first",
    "Warmup (avg)": "warmup",
    "Inference (avg)": "mean",
    "Inference (min)": "min",
    "Inference (max)": "max",
    "Inference (std)": "std",
}
MEMORY = (
    ("init_mib", re.compile(r"Memory footprint delta from the start of the tool \(MB\): init=" + NUMBER)),
    ("overall_mib", re.compile(r"Memory footprint delta from the start of the tool \(MB\): init=\S+ overall=" + NUMBER)),
    ("peak_mib", re.compile(r"Overall peak memory footprint \(MB\) via periodic monitoring: " + NUMBER)),
    ("init_mib", re.compile(r"Init footprint: +" + NUMBER + " MB")),
    ("overall_mib", re.compile(r"Overall footprint: +" + NUMBER + " MB")),
    ("peak_mib", re.compile(r"Peak memory: +" + NUMBER + " MB")),
)
BEGUN = "Running benchmark for"
"""Said before the warm-up, and again before the runs that count."""
CLOSE, ROUNDED_US = 1e-4, 5.5
"""By how much two lines of one run may differ: six digits, and hundredths of a millisecond."""


def bare(line: str) -> str:
    """Take from a line what a log puts before it: time, process, tag, severity, place in the source."""
    line = line.strip()
    while True:
        found = PREFIX.match(line)
        if found is None:
            return line
        line = line[found.end() :].lstrip()


def severe(text: str) -> List[str]:
    """List what was logged as an error."""
    return [bare(line) for line in text.splitlines() if SEVERE.search(line)]


def statistics(line: str) -> Optional[Dict[str, float]]:
    """Read a line `count=50 first=… avg=…`; None for another. A run of one value, or of equal ones, says `curr=` alone."""
    count = COUNT.match(line)
    if count is None:
        return None
    found = {name: float(value) for name, value in FIELD.findall(line)}
    if "curr" in found:
        for name in ("first", "min", "max", "avg"):
            found.setdefault(name, found["curr"])
        found.setdefault("std", 0.0)
    return dict(found, count=float(count.group(1)))


def summary(text: str) -> Dict[str, Any]:
    """Read a run: `form`, `count`, `init_us`, `first_us`, `warmup_us`, `mean_us`, and what else it says of the runs that count.

    `min_us`, `max_us`, `std_us`; `p5_us`, `median_us`, `p95_us` from newer builds; memory in MiB.
    ValueError where it says no times, or its lines contradict each other.
    """
    lines = [bare(line) for line in text.splitlines()]
    printed = _printed(lines)
    runs = [each for each in map(statistics, lines) if each is not None]
    if not printed:
        raise ValueError("benchmark_model printed no times; its output has a form that is not known here")
    found = dict(printed)
    if runs and "avg" in runs[-1]:
        _agree(printed, runs[-1])
        found.update(_named(runs[-1]))
    if len(runs) > 1 and "first" in runs[0]:
        found.setdefault("first_us", runs[0]["first"])
    if "count" not in found or not found["count"] > 0 or not found["mean_us"] > 0:
        raise ValueError("benchmark_model counted no inference; let it run longer")
    for name, pattern in MEMORY:
        values = [match.group(1) for match in map(pattern.search, lines) if match is not None]
        if values:
            found[name] = float(values[-1])
    return dict(found, count=int(found["count"]))


def _named(run: Dict[str, float]) -> Dict[str, float]:
    names = {"avg": "mean_us", "count": "count"}
    return {names.get(name, name + "_us"): value for name, value in run.items() if name not in ("first", "curr")}


def _printed(lines: List[str]) -> Dict[str, Any]:
    """Read the closing lines of a run, in whichever form."""
    for line in reversed(lines):
        found = TIMINGS.match(line)
        if found is not None:
            names = ("init_us", "first_us", "warmup_us", "mean_us")
            return dict(zip(names, map(float, found.groups())), form="tflite")
        found = OLDEST.match(line)
        if found is not None:
            return dict(zip(("warmup_us", "init_us", "mean_us"), map(float, found.groups())), form="oldest")
    compiled = {}  # type: Dict[str, Any]
    for line in lines:
        found = COMPILED.match(line)
        if found is not None:
            compiled[COMPILED_NAMES[found.group(1)] + "_us"] = 1e3 * float(found.group(2))
            if found.group(1) == "Inference (avg)" and found.group(3):
                compiled["count"] = float(found.group(3))
    return dict(compiled, form="compiled") if "mean_us" in compiled else {}


def _agree(printed: Dict[str, Any], run: Dict[str, float]) -> None:
    allowed = ROUNDED_US if printed["form"] == "compiled" else CLOSE * run["avg"]
    if abs(printed["mean_us"] - run["avg"]) > allowed:
        shown = (printed["mean_us"], run["avg"])
        raise ValueError("benchmark_model prints a mean of %g us, and its statistics give %g us" % shown)


# ---------------------------------------------------------------- what a delegate took

APPLIED = re.compile(
    r"(?:Explicitly applied|Applied) (\S{1,60}) delegate"
    r"(?:, and the model graph will be (completely|partially) executed (?:by|w/) the delegate"
    r"(?: w/ ([0-9]{1,9}) delegate kernels)?)?"
)
NOTHING = re.compile(r"Though (\S{1,60}) delegate is explicitly applied, the model graph will not be executed by the delegate")
REPLACING = re.compile(
    r"Replacing ([0-9]{1,9})(?: out of ([0-9]{1,9}))? node\(s\) with delegate \((.{1,80}?)\) node, "
    r"yielding ([0-9]{1,9}) partitions"
)
RESTORED = "Restored original execution plan after delegate application failure"
WHY = re.compile(
    r"(?:is|are) (?:unsupported|not supported)|could not|cannot|can't|unable to|fail|not found|no \S+ accelerator",
    re.IGNORECASE,
)
ABOUT = re.compile(r"delegate|accelerat|dispatch|OpenC?L|GPU|NPU|NNAPI", re.IGNORECASE)
UNCONSUMED = re.compile(r"Unconsumed cmdline flags:(.*)")
MISNAMED = re.compile(r"Tensor # ?([0-9]+) is named (.*) but flags call it (.*)")

Delegation = NamedTuple(
    "Delegation",
    [
        ("delegate", str),
        ("whole", bool),
        ("nodes", Optional[int]),
        ("of", Optional[int]),
        ("kernels", Optional[int]),
    ],
)
"""What a delegate took of the graph; numbers are None where the log does not say them."""


def unconsumed(text: str) -> List[str]:
    """List the flags that this build does not know: it goes on without them."""
    found = [UNCONSUMED.match(bare(line)) for line in text.splitlines()]
    return [flag for match in found if match is not None for flag in match.group(1).split()]


def delegation(text: str, wanted: str, required: bool = False) -> Delegation:
    """Tell what the delegate `wanted` (GPU, NNAPI, EXTERNAL, NPU, …) took; ValueError where that is nothing, or is not said.

    `required`: the program was told to fail unless all of it is delegated, and did not.
    """
    lines = [bare(line) for line in text.splitlines()]
    rows = [match.groups() for match in map(REPLACING.match, lines) if match is not None]
    rows = [row for row in rows if "xnnpack" not in row[2].lower() or wanted == "XNNPACK"]
    applied = [match.groups() for match in map(APPLIED.match, lines) if match is not None]
    applied = [row for row in applied if row[0].upper() == wanted]
    nothing = any(match.group(1).upper() == wanted for match in map(NOTHING.match, lines) if match is not None)
    if nothing or any(RESTORED in line for line in lines) or not (applied or rows):
        raise ValueError(_fell_back(wanted, text, lines))
    nodes, of = _counted(rows)
    if applied:
        _, how, kernels = applied[-1]
        if how is None and not required and (nodes is None or of is None):
            what = "benchmark_model applied the %s delegate and does not say to how much of the model" % wanted
            raise ValueError(what + "; ask with --option require_full_delegation=true")
        whole = required or (nodes == of if how is None else how == "completely")
        return Delegation(wanted, whole, nodes, of, int(kernels) if kernels else 1 if whole else None)
    failed = [line for line in severe(text) if "fail" in line.lower()]
    if failed:  # the newer build counts nodes for an accelerator that then does not start
        raise ValueError(_fell_back(wanted, text, failed))
    return Delegation(wanted, required or (nodes is not None and nodes == of), nodes, of, sum(int(row[3]) for row in rows))


def _counted(rows: List[Tuple[Any, ...]]) -> Tuple[Optional[int], Optional[int]]:
    """Add up nodes that were replaced, and nodes that there are, over subgraphs."""
    if not rows:
        return None, None
    nodes = sum(int(row[0]) for row in rows)
    return nodes, sum(int(row[1]) for row in rows) if all(row[1] for row in rows) else None


def _fell_back(wanted: str, text: str, lines: List[str]) -> str:
    """Say that the processor computed, with what the log says of the reason."""
    told = [line for line in lines if ABOUT.search(line) and not line.endswith("]") and not line.startswith("Though ")]
    reasons = [line for line in severe(text) + told if WHY.search(line)]
    because = " (%s)" % reasons[0][:200] if reasons else ""
    return "nothing of the model ran on %s: benchmark_model fell back to the processor%s" % (wanted, because)


# ---------------------------------------------------------------- times by operator

REGULAR = "Operator-wise Profiling Info for Regular Benchmark Runs"
INTERNAL = "Delegate internal"
COLUMNS = ("node type", "avg ms", "name")


def profile(text: str) -> List[Dict[str, Any]]:
    """Read the table of operators in run order, printed or as a csv file: `name`, `op`, `ns`, and whether a delegate's part.

    ValueError where there is none.
    """
    lines = [line if "\t" in line else bare(line) for line in text.splitlines()]
    starts = [index for index, line in enumerate(lines) if REGULAR in line]
    lines = lines[starts[-1] :] if starts else lines
    inner = [index for index, line in enumerate(lines) if line.startswith(INTERNAL)]
    nodes = _table(lines[: inner[0]] if inner else lines)
    parts = _table(lines[inner[0] :]) if inner else []
    if not nodes:
        raise ValueError("benchmark_model printed no times of operators; its output has a form that is not known here")
    whole = [index for index, node in enumerate(nodes) if node["delegate"]]
    if parts and len(whole) == 1:
        by = nodes[whole[0]]["op"]
        nodes[whole[0] : whole[0] + 1] = [dict(part, delegate=True, by=by) for part in parts]
    return nodes


def _table(lines: List[str]) -> List[Dict[str, Any]]:
    """Read the rows under the first heading `Run Order`."""
    start = next((index for index, line in enumerate(lines) if "= Run Order =" in line), None)
    if start is None or start + 1 >= len(lines):
        return []
    header = lines[start + 1]
    comma = "," in header
    names = [each.strip(" []").lower().replace("_", " ") for each in (header.split(",") if comma else _cells(header))]
    places = [names.index(name) if name in names else -1 for name in COLUMNS]
    if -1 in places:
        return []
    row = re.compile(r"(.+?)((?:, [-+.0-9eE]+%%?){%d}), (.*)" % (len(names) - 2))
    found = []
    for line in lines[start + 2 :]:
        match = row.match(line) if comma else None  # an operator's kind may hold commas; in names they are tabs there
        if match is not None:
            cells = [match.group(1)] + match.group(2)[2:].split(", ") + [match.group(3).replace("\t", ",")]
        else:
            cells = _cells(line, len(names) - 1)
        if len(cells) < len(names):
            break
        op, taken, name = (cells[place].strip() for place in places)
        name = re.sub(r"\]:[0-9]+$|\]$", "", name.lstrip("["))
        ns = round(1e6 * float(taken))
        found.append({"name": name, "op": op, "ns": ns, "delegate": "delegate" in op.lower(), "by": op})
    return found


def _cells(line: str, most: int = 0) -> List[str]:
    return re.split(r" *\t *| {2,}", line.strip(), maxsplit=most)
