"""`tflite`: fp32, fp16 (weights), int8-dynamic, and int8 with int8 input and output."""

from __future__ import annotations

import contextlib
import fnmatch
import importlib.metadata
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from edgebench.errors import ExportError
from edgebench.exporters._shared import calibration, ends, learned, volumes
from edgebench.exporters._shared import preflight as preflight_
from edgebench.exporters._shared.limits import SharedLimits
from edgebench.exporters._shared.tracing import Cached, refusal
from edgebench.exporters._tflite import reader
from edgebench.schema import Exported, ExportRequest, TensorSpec
from edgebench.schema.file import FileDescription

PRECISIONS = ("fp32", "fp16", "int8", "int8-dynamic")
CALIBRATES = {"int8": calibration.METHODS}
DYNAMIC_BATCH = False
REQUIRES = (
    ("torch", "torch"),
    ("litert_torch", "tflite"),
    ("ai_edge_quantizer", "tflite"),
    ("ai_edge_litert", "tflite"),
)
BECOMES = {
    "aten::conv3d": "CONV_3D",
    "aten::conv_transpose3d": "CONV_3D_TRANSPOSE",
    **dict.fromkeys(("aten::max_pool3d", "aten::max_pool3d_with_indices", "aten::avg_pool3d"), "STABLEHLO_REDUCE_WINDOW"),
}
"""Operators over three axes that litert-torch writes with one that older runtimes do not know (tried with litert-torch 0.10)."""


class Limits(SharedLimits):
    """What a runtime's operators are."""

    operators: dict[str, int] = Field(
        {}, description="highest version of each operator, 0: none; `*` stands for any end of a name; empty: no limit"
    )
    per_channel: bool = Field(True, description="one INT8 weight scale per output channel")


def recognizes(head: bytes, path: Path) -> bool:
    """Return whether a file is TFLite, by its content."""
    return reader.recognizes(head)


def read(path: Path) -> FileDescription:
    """Describe a file that somebody brought."""
    return reader.read(path)


def beyond(described: FileDescription, limits: Mapping[str, Any]) -> list[str]:
    """List what of a file is newer than a target says that it reads."""
    try:
        check_operators("", described.operators.items(), Limits.model_validate(limits))
    except ExportError as error:
        return [str(error).removeprefix(": the file ").partition(";")[0]]
    return []


def tools() -> dict[str, str]:
    """Versions that decide what the file looks like."""
    names = ("torch", "litert-torch", "litert-converter", "ai-edge-quantizer")
    return {name: importlib.metadata.version(name) for name in names}


def preflight(request: ExportRequest[Limits]) -> None:
    """Raise `ExportError` with the layer's name for what this format cannot express."""
    volumes.check(request, "choose fp32")
    preflight_.check_tflite(request)
    for call, node in volumes.calls(request):
        if call.operator == "aten::conv3d" and _ends_the_process(node):
            what = "litert-torch ends the process at a convolution with a stride and padding that sees volumes of one channel"
            raise refusal(request, call.place, what, "give the network three channels, or pool after the convolution")
        operator = BECOMES.get(call.operator, "")
        if operator and highest(operator, request.limits.operators) == 0:
            what = f"{call.operator} becomes {operator}, which the target's runtime does not know"
            raise refusal(request, call.place, what, "replace the layer, or choose a target with a newer runtime")


def _ends_the_process(node: Any) -> bool:
    """Return whether a convolution is one at which the converter's native code fails (tried with litert-torch 0.10)."""
    stride, padding = (list(node.args[place]) if len(node.args) > place else [] for place in (3, 4))
    return node.args[0].meta["val"].shape[1] == 1 and any(each > 1 for each in stride) and any(padding)


def export(request: ExportRequest[Limits], folder: Path) -> Exported:
    """Write `model.tflite`: batch 1, images and volumes channels last, all weights inside the flatbuffer."""
    path = folder / "model.tflite"
    path.write_bytes(converted(request))
    return _describe(request, path)


def converted(request: ExportRequest[Limits], dense_per_channel: bool = True) -> bytes:
    """Convert to a flatbuffer in the wanted precision, with all weights inside it.

    int8: FULLY_CONNECTED has a scale for each output channel, or one for all of
    them, as TensorFlow 2.5 reads it.
    """
    with _quiet():
        content = _float_model(Cached(request.network))
        try:
            content = content if request.precision == "fp32" else _quantized(content, request, dense_per_channel)
        except (ValueError, RuntimeError, KeyError, IndexError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            what = f"ai-edge-quantizer cannot make {request.precision} of it: {reason}"
            raise ExportError(f"{request.network.model.name}: {what}; use fp32, or replace the layer") from error
    return inlined(content)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the converters print off the user's screen, and what their native code prints too."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere, warnings.catch_warnings(), contextlib.redirect_stdout(nowhere):
            os.dup2(nowhere.fileno(), 2)
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@lru_cache(maxsize=1)
def _float_model(cached: Cached) -> bytes:
    """Convert to a float32 flatbuffer that takes images and volumes channels last."""
    import litert_torch

    network = cached.network
    model, given = network.model, network.example()
    images = [index for index, each in enumerate(model.inputs) if each.preprocessing and each.preprocessing.layout == "nchw"]
    example = tuple(tensor.movedim(1, -1).contiguous() if index in images else tensor for index, tensor in enumerate(given))
    try:
        wrapped = litert_torch.to_channel_last_io(network.module, args=images).eval() if images else network.module
        return bytes(litert_torch.convert(wrapped, example).model_content())
    except (RuntimeError, ValueError, TypeError, NotImplementedError, AssertionError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ExportError(f"{model.name}: not expressible in TFLite: {reason}") from error


def _quantized(content: bytes, request: ExportRequest[Limits], dense_per_channel: bool) -> bytes:
    """Quantize with ai-edge-quantizer: weights per channel, unless the target wants one scale; activations per tensor."""
    from ai_edge_quantizer import qtyping, quantizer, recipe
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    tool = quantizer.Quantizer(bytearray(content))
    if request.precision == "fp16":
        half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        tool.update_quantization_recipe(
            regex=".*",
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=half, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
            ),
            algorithm_key=AlgorithmName.FLOAT_CASTING,
        )
        return bytes(tool.quantize().quantized_model)
    if request.precision == "int8-dynamic":
        tool.load_quantization_recipe(recipe.dynamic_wi8_afp32())
        return bytes(tool.quantize().quantized_model)
    tool.load_quantization_recipe(recipe.static_wi8_ai8())
    names, one_scale = qtyping.TFLOperationName, qtyping.QuantGranularity.TENSORWISE
    if not request.limits.per_channel:
        tool.add_static_config(".*", names.ALL_SUPPORTED, 8, 8, one_scale)
    elif not dense_per_channel:
        tool.add_static_config(".*", names.FULLY_CONNECTED, 8, 8, one_scale)
    return bytes(tool.quantize(_ranges(tool, content, request)).quantized_model)


def _ranges(tool: Any, content: bytes, request: ExportRequest[Limits]) -> dict[str, Any]:
    """Choose every activation's range; of the tool's own calibration, a moving average, the form alone is taken."""
    from ai_edge_litert import interpreter as litert

    inputs, arrays = request.network.model.inputs, request.calibration or ()
    samples = [
        np.ascontiguousarray(np.moveaxis(array, 1, -1)) if each.preprocessing and each.preprocessing.layout == "nchw" else array
        for each, array in zip(inputs, arrays, strict=True)
    ]
    plain = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # XNNPACK hides what lies between
    runner = litert.Interpreter(
        model_content=content, experimental_op_resolver_type=plain, experimental_preserve_all_tensors=True
    )
    runner.allocate_tensors()
    taken = runner.get_input_details()
    order = arguments([each["name"] for each in taken])
    given = [taken[place]["index"] for place in order]
    samples = [
        array if array.dtype.kind == "f" else array.astype(taken[place]["dtype"])  # the converter narrows indices
        for array, place in zip(samples, order, strict=True)
    ]
    first = {f"args_{index}": calibration.one(array, 0, len(inputs[index].shape)) for index, array in enumerate(samples)}
    form: dict[str, Any] = tool.calibrate({None: [first]})
    names = {index: name for index, name in _activations(content).items() if name in form}

    def run(number: int) -> dict[str, Any]:
        for index, array, each in zip(given, samples, inputs, strict=True):
            runner.set_tensor(index, calibration.one(array, number, len(each.shape)))
        runner.invoke()
        return {name: runner.get_tensor(index) for index, name in names.items()}

    found = calibration.choose(
        request.calibration_method,
        request.percentile,
        lambda: map(run, range(calibration.count(samples))),
        learned.points(request),
    )
    for name, limits in found.items():
        for key, limit in zip(("min", "max"), limits, strict=True):
            form[name][key] = np.full_like(form[name][key], limit)
    return form


def _activations(content: bytes) -> dict[int, str]:
    """Name the float tensors that inputs and operators fill, by index."""
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.ModelT.InitFromPackedBuf(content, 0).subgraphs[0]
    filled = [*graph.inputs, *(index for operator in graph.operators for index in operator.outputs)]
    return {int(index): graph.tensors[index].name.decode() for index in filled if graph.tensors[index].type == 0}


def inlined(content: bytes) -> bytes:
    """Move weights that lie behind the flatbuffer into it: tflite-runtime up to 2.13 looks nowhere else."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    outside = [buffer for buffer in model.buffers if buffer.offset > 1]
    if not outside:
        return content
    for buffer in outside:
        buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
        buffer.offset = buffer.size = 0
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _describe(request: ExportRequest[Limits], path: Path) -> Exported:
    """Read names, types and quantization parameters back from the file."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    graph = model.subgraphs[0]
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    versions = [(names[max(code.builtinCode, code.deprecatedBuiltinCode)], code.version) for code in model.operatorCodes]
    check_operators(request.network.model.name, versions, request.limits)
    taken = [tensor(graph.tensors[index]) for index in graph.inputs]
    inputs = [taken[place] for place in arguments([each.name for each in taken])]
    return Exported(
        entry="model.tflite",
        runtime="tflite",
        inputs=ends.as_written(request.network.model.inputs, inputs),
        outputs=tuple(tensor(graph.tensors[index]) for index in graph.outputs),
        details={"operators": sorted({f"{name} v{version}" for name, version in versions}), "nodes": len(graph.operators)},
    )


def check_operators(model: str, versions: Iterable[tuple[str, int]], limits: Limits) -> None:
    """Raise `ExportError` for the first operator that is newer than the target's runtime knows, or that it does not know."""
    for name, version in sorted(versions):
        most = highest(name, limits.operators)
        if most is not None and version > most:
            knows = f"version {most} at most" if most else "no such operator"
            raise ExportError(
                f"{model}: the file has {name} version {version}, the target's runtime knows {knows}; "
                "choose another architecture, format or precision, or a target with a newer runtime"
            )


def highest(operator: str, operators: Mapping[str, int]) -> int | None:
    """Return the highest version of an operator that a target's runtime knows, 0: none; None where it does not say."""
    known = [pattern for pattern in operators if fnmatch.fnmatchcase(operator, pattern)]
    return operators[max(known, key=len)] if known else None


def arguments(names: Sequence[str]) -> list[int]:
    """Return where a network's arguments stand among a file's inputs, which are called `serving_default_args_0:0` and so on."""
    numbers = [int(found[1]) for found in (re.search(r"args_(\d+)", name) for name in names) if found]
    places = range(len(names))
    return sorted(places, key=numbers.__getitem__) if len(numbers) == len(names) else list(places)


TYPES = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    9: "int8",
    10: "float64",
    12: "uint64",
    15: "uint32",
    16: "uint16",
}
"""Numbers that flatbuffers of TFLite give to types."""


def tensor(given: Any) -> TensorSpec:
    """Describe one tensor of a flatbuffer."""
    scales = getattr(given.quantization, "scale", None)
    scale = None if scales is None or not len(scales) or TYPES[given.type].startswith("float") else float(scales[0])
    return TensorSpec(
        name=given.name.decode(),
        shape=() if given.shape is None else tuple(int(size) for size in given.shape),
        dtype=TYPES[given.type],
        scale=scale,
        zero_point=None if scale is None else int(given.quantization.zeroPoint[0]),
    )
