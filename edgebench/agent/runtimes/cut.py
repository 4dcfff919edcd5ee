"""TFLite files cut short, for interpreters that time no operators: what one more of them adds is its time.

The flatbuffer's layout is that of schema.fbs: Model.subgraphs is field 2,
SubGraph.tensors 0, SubGraph.inputs 1, SubGraph.outputs 2 and SubGraph.operators 3, Tensor.name 3.
"""

import struct
from typing import Any, Dict, List, Sequence, Tuple

SUBGRAPHS, TENSORS, INPUTS, OUTPUTS, OPERATORS, NAME = 2, 0, 1, 2, 3, 3


def short(content: bytes, count: int, outputs: Sequence[int]) -> bytes:
    """Keep a file's first `count` operators, with other tensors as its outputs. ValueError where it is no TFLite file."""
    data = bytearray(content)
    try:
        root = _u32(data, 0)
        graph = _follow(data, _follow(data, _field(data, root, SUBGRAPHS)) + 4)
        struct.pack_into("<I", data, _follow(data, _field(data, graph, OPERATORS)), count)
        place = _field(data, graph, OUTPUTS)
    except struct.error:
        raise ValueError("no TFLite file: it is cut short")
    data.extend(b"\0" * (-len(data) % 4))
    struct.pack_into("<I", data, place, len(data) - place)
    data.extend(struct.pack("<%di" % (len(outputs) + 1), len(outputs), *outputs))
    return bytes(data)


def ends(content: bytes) -> Tuple[List[str], List[str]]:
    """Return the names of a file's inputs and outputs, in its order. ValueError where it is no TFLite file."""
    data = bytearray(content)
    try:
        graph = _follow(data, _follow(data, _field(data, _u32(data, 0), SUBGRAPHS)) + 4)
        table = _follow(data, _field(data, graph, TENSORS)) + 4
        return _names(data, table, graph, INPUTS), _names(data, table, graph, OUTPUTS)
    except struct.error:
        raise ValueError("no TFLite file: it is cut short")


def _names(data: bytearray, table: int, graph: int, number: int) -> List[str]:
    place = _follow(data, _field(data, graph, number))
    indices = struct.unpack_from("<%di" % _u32(data, place), data, place + 4)
    texts = [_follow(data, _field(data, _follow(data, table + 4 * index), NAME)) for index in indices]
    return [bytes(data[text + 4 : text + 4 + _u32(data, text)]).decode("utf-8", "replace") for text in texts]


def _u32(data: bytearray, place: int) -> int:
    return int(struct.unpack_from("<I", data, place)[0])


def _follow(data: bytearray, place: int) -> int:
    return place + _u32(data, place)


def _field(data: bytearray, table: int, number: int) -> int:
    """Find where a table keeps a field."""
    names = table - struct.unpack_from("<i", data, table)[0]
    within = 0
    if 4 + 2 * number < struct.unpack_from("<H", data, names)[0]:
        within = struct.unpack_from("<H", data, names + 4 + 2 * number)[0]
    if not within:
        raise ValueError("no TFLite file: a field is missing")
    return int(table + within)


def alive(operators: Sequence[Dict[str, Any]], count: int, outputs: Sequence[int]) -> List[int]:
    """List the tensors of the first `count` operators that anything after them reads."""
    wanted = set(outputs)
    for operator in operators[count:]:
        wanted.update(operator["inputs"])
    return [tensor for operator in operators[:count] for tensor in operator["outputs"] if tensor in wanted]


def rising(values: Sequence[float]) -> List[float]:
    """Fit the nearest sequence that never falls, by least squares (pool adjacent violators, Ayer and others, 1955)."""
    pools: List[List[float]] = []
    for value in values:
        pools.append([value, 1.0])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            last, weight = pools.pop()
            before = pools[-1]
            before[0] = (before[0] * before[1] + last * weight) / (before[1] + weight)
            before[1] += weight
    return [pool[0] for pool in pools for _ in range(int(pool[1]))]


def delegated(operators: Sequence[Dict[str, Any]], delegates: Sequence[Dict[str, Any]]) -> List[int]:
    """List the operators that delegates took over: those between a delegate's outputs and its inputs."""
    makers = {tensor: index for index, operator in enumerate(operators) for tensor in operator["outputs"]}
    taken = set()
    for delegate in delegates:
        given, todo = set(delegate["inputs"]), list(delegate["outputs"])
        while todo:
            tensor = todo.pop()
            index = makers.get(tensor)
            if tensor not in given and index is not None and index not in taken:
                taken.add(index)
                todo.extend(operators[index]["inputs"])
    return sorted(taken)
