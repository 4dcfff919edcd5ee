"""What the doubles of TensorRT share: ONNX read without the onnx package, and engines that carry the network they are made of."""

import json
import os

RELEASE = os.environ["EDGEBENCH_DOUBLE_TENSORRT"]
VERSION = tuple(int(part) for part in RELEASE.split("."))
READS = next(opset for first, opset in (((11,), 25), ((10,), 20), ((9,), 19), ((8, 4), 17), ((0,), 13)) if first <= VERSION)
FAULT = os.environ.get("EDGEBENCH_DOUBLE_FAULT", "")
MAGIC = b"ENGINE00"


def gpu():
    said = os.environ.get("EDGEBENCH_DOUBLE_GPU", "NVIDIA Double:8.7:0:4096").split(":")
    return {"name": said[0], "capability": said[1]}


def has_int8():
    return tuple(map(int, gpu()["capability"].split("."))) >= (6, 1)


def _fields(data):
    """Read a protobuf message: (field, value) for numbers and bytes."""
    position = 0

    def varint():
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while position < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        elif key & 7 == 2:
            size = varint()
            yield key >> 3, data[position : position + size]
            position += size
        else:
            position += 8 if key & 7 == 1 else 4


def read_onnx(content):
    """Read the operator set, the nodes, and the types of the initializers."""
    found = {"opset": 0, "nodes": [], "types": {}}
    for field, value in _fields(content):
        if field == 8:
            imported = dict(_fields(value))
            if not imported.get(1):
                found["opset"] = imported[2]
        for inner, part in _fields(value) if field == 7 else ():
            if inner == 1:
                found["nodes"].append(_node(part))
            elif inner == 5:
                tensor = {key: kept for key, kept in _fields(part) if key in (2, 8)}
                found["types"][tensor[8].decode()] = tensor[2]
    return found


def _node(content):
    node = {"op": "", "name": "", "domain": "", "inputs": [], "outputs": [], "attributes": []}
    for key, text in _fields(content):
        if key in (1, 2):
            node["inputs" if key == 1 else "outputs"].append(text.decode())
        elif key == 5:
            node["attributes"].append(_attribute(text))
        elif key in (3, 4, 7):
            node[{3: "name", 4: "op", 7: "domain"}[key]] = text.decode()
    return node


def _attribute(content):
    """Write an attribute as protobuf prints it: name, whole numbers and texts, and the type."""
    types = {1: "FLOAT", 2: "INT", 3: "STRING", 4: "TENSOR", 5: "GRAPH", 6: "FLOATS", 7: "INTS", 8: "STRINGS"}
    lines, kind = [], ""
    for key, value in _fields(content):
        if key == 1:
            lines.append('name: "%s"' % value.decode())
        elif key == 3 and isinstance(value, int):
            lines.append("i: %d" % value)
        elif key == 4:
            lines.append('s: "%s"' % value.decode())
        elif key == 8:
            lines.append("ints: %d" % value) if isinstance(value, int) else lines.extend("ints: %d" % one for one in value)
        elif key == 20:
            kind = types.get(value, "UNDEFINED")
    return [*lines, "type: " + kind]


def shown(node):
    """Write a node as the parser does: its attributes come last, each with a name of its own; what is empty is left out."""
    lines = ['input: "%s"' % name for name in node["inputs"]] + ['output: "%s"' % name for name in node["outputs"]]
    lines += ['name: "%s"' % node["name"]] if node["name"] else []
    lines += ['op_type: "%s"' % node["op"]]
    for attribute in node["attributes"]:
        lines += ["attribute {", *("  " + line for line in attribute), "}"]
    return "\n".join(lines) + "\n"


def refusals(model):
    """List (node number, reason) of what the version's parser does not take."""
    for index, node in enumerate(model["nodes"]):
        weights = node["inputs"][:1] if VERSION < (10,) else []
        if model["opset"] > READS:
            yield index, "Assertion failed: the operator set %d is not supported" % model["opset"]
            return
        if node["domain"] not in ("", "ai.onnx"):
            yield index, "No importer registered for op: %s. Attempting to import as plugin." % node["op"]
        elif any(model["types"].get(name) == 3 for name in weights):
            yield index, "%s: invalid weights type of Int8" % weights[0]


def number():
    base = 1000 if VERSION < (10,) else 10000
    return VERSION[0] * base + VERSION[1] * 100 + (VERSION[2] if len(VERSION) > 2 else 0)


def make_engine(model, content, flags):
    """Lay out an engine: what it is tied to, its layers, and the network."""
    typed, layers = VERSION >= (11,) or "TYPED" in flags, []
    pairs = any(node["op"] == "QuantizeLinear" for node in model["nodes"])
    makers = {name: node for node in model["nodes"] for name in node["outputs"]}
    for node in model["nodes"]:
        if node["op"] in ("QuantizeLinear", "DequantizeLinear", "Constant"):
            continue
        quantized = ("INT8" in flags and not pairs) or any(
            makers.get(name, {"op": ""})["op"] == "DequantizeLinear" for name in node["inputs"]
        )
        half = any(model["types"].get(name) == 10 for name in node["inputs"]) if typed else "FP16" in flags
        kind = "Int8" if quantized else "FP16" if half else "FP32"
        layers.append({"Name": node["name"], "LayerType": node["op"], "kind": kind})
    head = dict(gpu(), version=RELEASE, layers=layers, bytes=len(content))
    text = json.dumps(head).encode()
    return MAGIC + b"%08d" % len(text) + text + content


def read_engine(content, said):
    """Take an engine apart; None, with an error, where it is another version's or another GPU's, or cut short."""
    try:
        size = int(content[8:16]) if content[:8] == MAGIC else -1
        head = json.loads(bytes(content[16 : 16 + size]).decode())
    except ValueError:
        head, size = None, -1
    if head is None or len(content) != 16 + size + head["bytes"]:
        said("1: [runtime.cpp::parsePlan::314] Error Code 1: Serialization (Serialization assertion plan->header.magicTag == "
             "rt::kPLAN_MAGIC_TAG failed.)")  # fmt: skip
    elif head["version"] != RELEASE:
        said(
            "6: The engine plan file is not compatible with this version of TensorRT, expecting library version %s got %s, "
            "please rebuild." % (RELEASE, head["version"])
        )
    elif {key: head[key] for key in ("name", "capability")} != gpu():
        said(
            "6: The engine plan file is generated on an incompatible device, expecting compute %s got compute %s, please rebuild."
            % (gpu()["capability"], head["capability"])
        )
    else:
        return head, content[16 + size :]
    return None


def session_of(content):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # fused INT8 kernels may saturate
    return onnxruntime.InferenceSession(bytes(content), options, providers=["CPUExecutionProvider"])
