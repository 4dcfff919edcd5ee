"""What TensorRT says, by its logger or as trtexec prints it: why something failed, on which node, and memory."""

import json
import re
from typing import Dict, List, Optional, Tuple

READS = ((11, 0, 25), (10, 0, 20), (9, 0, 19), (8, 4, 17), (8, 0, 13))
"""From which version on the ONNX parser reads which operator set at most."""
MEMORY = re.compile(r"out of memory|OutOfMemory|OOM|insufficient memory|cudaErrorMemoryAllocation", re.IGNORECASE)
FOREIGN = re.compile(r"not compatible with this version|incompatible device|kPLAN_MAGIC_TAG|[Vv]ersion tag does not match")
BEGIN, END = "--- Begin node ---", "--- End node ---"
FIELD = re.compile(r'(?:\S+:[0-9]{1,6}: )?(name|op_type): "((?:[^"\\]|\\.)*)"$')
"""Of a node that is shown; before the first stands where in TensorRT's source it is shown."""
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
PARSING = re.compile(r"While parsing node number ([0-9]{1,9}) \[([^\s\]]+)")
INVALID = re.compile(r"Invalid Node - (\S+)")
OPSET = re.compile(r"Opset version:\s{0,9}([0-9]{1,6})\b")
MANAGED = "TensorRT-managed allocation in "
ALLOCATED = re.compile(r"now: CPU [0-9]{1,9}, GPU ([0-9]{1,9}) \(MiB\)")
PREFIX = re.compile(r"^(?:\[[^\]]*\] )*\[[IWEFV]\] (?:\[TRT\] )?|^\[[0-9]{2}/[0-9/:-]+\] ")
AFTERWARDS = (
    "Failed to parse onnx file",
    "Parsing model failed",
    "Network And Config setup failed",
    "Engine could not be created from network",
    "Building engine failed",
    "Failed to create engine",
    "Engine deserialization failed",
    "Engine set up failed",
    "Inference set up failed",
)
NULL_ENGINE = "Assertion engine != nullptr failed"
"""What TensorRT and trtexec say after what was wrong."""
LONGEST = 600
TYPES = (
    ("int8", "int8"),
    ("fp16", "fp16"),
    ("half", "fp16"),
    ("bf16", "bf16"),
    ("bfloat", "bf16"),
    ("fp8", "fp8"),
    ("int4", "int4"),
    ("fp32", "fp32"),
    ("float", "fp32"),
    ("int32", "int32"),
    ("int64", "int64"),
    ("bool", "bool"),
)
"""What the inspector's words for a data type mean; the first that is found counts."""


def bare(line: str) -> str:
    """Take away the time, the severity and the origin with which trtexec begins a line."""
    return PREFIX.sub("", line).strip()


def entries(text: str) -> List[str]:
    """Take what trtexec printed apart; lines without a beginning of their own belong to the one before."""
    found: List[List[str]] = []
    for line in text.splitlines():
        if PREFIX.match(line) or line.startswith("&&&&") or not found:
            found.append([])
        found[-1].append(line)
    return ["\n".join(lines) for lines in found]


def node(text: str) -> Optional[str]:
    """Name the ONNX node that the parser stopped at, with its operator; one without a name by its number."""
    name, kind = shown(text)
    parsing, invalid = PARSING.findall(text), INVALID.findall(text)
    name = name or (invalid[-1] if invalid else None)
    kind = kind or (parsing[-1][1] if parsing else None)
    if name is None:
        return "number %s (%s)" % parsing[-1] if parsing else None
    return "%s (%s)" % (name, kind) if kind else name


def shown(text: str) -> Tuple[Optional[str], Optional[str]]:
    """Read name and operator of the node that was shown last: its own, not those of its attributes, which are in braces."""
    own, depth, inside = {}, 0, False  # type: Dict[str, str], int, bool
    for line in map(bare, text.splitlines()):
        if line.endswith(BEGIN):
            own, depth, inside = {}, 0, True
        elif line.endswith(END):
            inside = False
        elif inside:
            field = FIELD.match(line)
            if field and depth == 0:
                own[field.group(1)] = field.group(2)
            plain = QUOTED.sub("", line)
            depth += plain.count("{") - plain.count("}")
    return own.get("name"), own.get("op_type")


def reads(version: Tuple[int, ...]) -> int:
    """Return the highest operator set that a version's parser reads."""
    return next((opset for major, minor, opset in READS if version >= (major, minor)), 13)


def too_new(text: str, version: Tuple[int, ...]) -> str:
    """Say so where the file's operator set is beyond what the version reads; else nothing."""
    found, most = OPSET.findall(text), reads(version)
    if not found or int(found[-1]) <= most:
        return ""
    shown = ".".join(str(part) for part in version[:2])
    return "; the file is of opset %s and TensorRT %s reads %d at most: export it for a target that says so" % (
        found[-1],
        shown,
        most,
    )


def reason(errors: List[str], text: str, version: Tuple[int, ...], stage: str) -> str:
    """Say in a sentence why a `stage` failed: what was wrong, at which node, and what to do.

    `errors`: the lines of that severity; `text`: all that was said.
    """
    every = [" ".join(line.split()) for line in map(bare, errors) if line]
    lines = [line for line in every if not line.startswith(AFTERWARDS) and NULL_ENGINE not in line] or every
    if "Failed to parse onnx file" in text:
        stage = "reading the ONNX file"
    memory = [line for line in lines if MEMORY.search(line)]
    if memory:
        advice = "end other programs on the device, or export with a smaller model"
        return "%s: the GPU's memory ran out (%s); %s" % (stage, memory[0][:LONGEST], advice)
    foreign = [line for line in lines if FOREIGN.search(line)]
    if foreign:
        return "%s: the engine is of another TensorRT or GPU (%s)" % (stage, foreign[0][:LONGEST])
    last = lines[-1] if lines else "TensorRT gave no reason"
    at = node(text)
    where = " at node %s" % at if at else ""
    return "%s%s: %s%s" % (stage, where, last[:LONGEST], too_new(text, version))


def allocated_bytes(text: str) -> Optional[int]:
    """Return what TensorRT itself says to have allocated on the GPU, to the MiB; None where it does not."""
    parts = [line.partition(MANAGED)[2] for line in text.splitlines() if MANAGED in line]
    found = [value for part in parts for value in ALLOCATED.findall(part)]
    return int(found[-1]) << 20 if found else None


def precision(described: str) -> str:
    """Read a layer's data type as the engine inspector describes it."""
    lower = described.lower()
    for word, name in TYPES:
        if word in lower:
            return name
    return "other"


def layers(content: str) -> List[Dict[str, str]]:
    """Read the engine inspector's JSON: `{name, type, precision}` of each layer; the precision is its output's.

    Empty where it is no JSON: the names in it are the user's, and an engine is none the worse without.
    """
    try:
        listed = json.loads(content, strict=False)["Layers"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    found = []
    for layer in listed if isinstance(listed, list) else ():
        if isinstance(layer, str):  # an engine that was built without details knows the names alone
            found.append({"name": layer, "type": "", "precision": "unknown"})
            continue
        if not isinstance(layer, dict):
            return []
        ends = layer.get("Outputs") or layer.get("Inputs")
        first = ends[0] if isinstance(ends, list) else None
        kind = precision(str(first.get("Format/Datatype", ""))) if isinstance(first, dict) else "other"
        found.append({"name": str(layer.get("Name")), "type": str(layer.get("LayerType", "")), "precision": kind})
    return found
