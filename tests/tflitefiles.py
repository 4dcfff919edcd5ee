"""Small TFLite files of odd forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "string": 5, "int8": 9}


class Writer:
    """Puts a file together, tensor by tensor."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version, self.model.description = 3, "made for a test"
        self.model.buffers, self.model.operatorCodes = [schema.BufferT()], []
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def tensor(
        self, name: str, shape: tuple[int, ...], dtype: str = "float32", values: Any = None, scale: float | None = None
    ) -> int:
        """Add a tensor; with values, a constant. An open size is -1."""
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, [abs(size) for size in shape], TYPES[dtype], 0
        if -1 in shape:
            made.shapeSignature = list(shape)
        if values is not None:
            held = schema.BufferT()
            held.data = np.frombuffer(np.asarray(values, dtype).tobytes(), np.uint8)
            self.model.buffers.append(held)
            made.buffer = len(self.model.buffers) - 1
        if scale is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [scale], [0]
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def operator(self, kind: str, inputs: list[int], outputs: list[int]) -> None:
        """Add an operator: a built-in one, or one of any other name."""
        code = schema.OperatorCodeT()
        number = getattr(schema.BuiltinOperator, kind, schema.BuiltinOperator.CUSTOM)
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), 1
        code.customCode = kind if number == schema.BuiltinOperator.CUSTOM else None
        self.model.operatorCodes.append(code)
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = len(self.model.operatorCodes) - 1, inputs, outputs
        if kind == "FULLY_CONNECTED":
            made.builtinOptionsType, made.builtinOptions = (
                schema.BuiltinOptions.FullyConnectedOptions,
                schema.FullyConnectedOptionsT(),
            )
        self.graph.operators.append(made)

    def write(self, path: Path, inputs: list[int], outputs: list[int]) -> Path:
        """Write the file."""
        self.graph.inputs, self.graph.outputs = inputs, outputs
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


def linear(path: Path, stored: str = "float32", used: str | None = None, taken: str = "float32") -> Path:
    """Write y = W x, with weights that are stored in one type and unpacked to another where `used` says so."""
    made, random = Writer(), np.random.default_rng(0)
    x = made.tensor("x", (1, 4), taken, scale=0.1 if taken != "float32" else None)
    values = random.normal(size=(3, 4)) if stored.startswith("float") else random.integers(-100, 100, (3, 4))
    weights = made.tensor("w", (3, 4), stored, values, 0.1 if not stored.startswith("float") else None)
    if used is not None:
        unpacked = made.tensor("u", (3, 4), used)
        made.operator("DEQUANTIZE", [weights], [unpacked])
        weights = unpacked
    y = made.tensor("y", (1, 3), taken, scale=0.1 if taken != "float32" else None)
    made.operator("FULLY_CONNECTED", [x, weights, -1], [y])
    return made.write(path, [x], [y])
