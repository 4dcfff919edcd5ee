"""Reads a saved `.mlpackage` back, and checks that it is what was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebench.errors import ExportError

WEIGHTS = "Data/com.apple.CoreML/weights"


@dataclass(frozen=True)
class Package:
    """A saved package: its specification (a protobuf message) and its program (PyMIL)."""

    folder: Path
    spec: Any
    program: Any

    @property
    def operations(self) -> list[Any]:
        """List the operations of the main function, constants included."""
        return list(self.program.functions["main"].operations)


@dataclass(frozen=True)
class Wanted:
    """What a package must be."""

    name: str
    specification: int
    image: bool
    shape: tuple[int, ...]
    """[1, c, h, w] of the input, or [1, c, d, h, w]."""
    classes: tuple[str, ...]
    """Labels inside the model; none for a model that is no classifier."""
    bits: int
    """Of each weight."""
    smallest: int
    """Tensors with fewer values are not compressed."""


@dataclass(frozen=True)
class Weight:
    """One constant tensor of floating-point numbers, or what unpacks to one."""

    name: str
    values: int
    bits: int


def read(folder: Path) -> Package:
    """Read a saved package; `ExportError` where it holds no ML Program that can be read."""
    import coremltools
    from coremltools.converters.mil.frontend.milproto.load import load

    try:
        spec = coremltools.utils.load_spec(str(folder))
        program = load(spec, spec.specificationVersion, str(folder / WEIGHTS))
    except Exception as error:  # coremltools raises plain exceptions of many kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ExportError(f"{folder}: cannot be read back as an ML Program: {reason}; export it again") from error
    return Package(folder, spec, program)


def labels(package: Package) -> tuple[str, ...]:
    """Return the labels that the model holds; none where it is no classifier."""
    found = [op for op in package.operations if op.op_type == "classify"]
    return tuple(str(label) for label in found[0].classes.val) if found else ()


def weights(package: Package) -> Iterator[Weight]:
    """List the weights that are matrices or more, with the bits that each of their values takes."""
    from coremltools.converters.mil.mil import types

    for op in package.operations:
        var = op.outputs[0]
        if op.op_type.startswith("constexpr_") and not _packed(var):
            yield Weight(op.name, _product(var.shape), _bits(op))
        elif op.op_type == "const" and types.is_tensor(var.sym_type) and types.is_float(var.dtype) and not _packed(var):
            yield Weight(op.name, _product(var.shape), 8 * var.val.dtype.itemsize)


def _packed(var: Any) -> bool:
    """Return whether a constant is a part of a packed weight, or no matrix."""
    return len(var.shape) < 2 or any(user.op_type.startswith("constexpr_") for user in var.child_ops)


def _product(shape: tuple[int, ...]) -> int:
    values = 1
    for size in shape:
        values *= int(size)
    return values


def _bits(op: Any) -> int:
    """Read how a packed weight is stored, in the operations of iOS 16 and those of iOS 18."""
    if op.op_type == "constexpr_lut_to_dense":
        entries = op.lut.val.shape[0] if op.lut.val.ndim == 1 else op.lut.val.shape[-2]
        return int(entries - 1).bit_length()
    data = op.quantized_data if op.op_type == "constexpr_affine_dequantize" else op.data
    return 8 * int(data.val.dtype.itemsize)


def check(package: Package, wanted: Wanted) -> dict[str, Any]:
    """Return what the package is; `ExportError` where that is not what was wanted."""
    spec, found = package.spec, list(weights(package))
    _equal(wanted, "specification version", spec.specificationVersion, wanted.specification)
    _equal(wanted, "input", _input(spec), _input_wanted(wanted))
    _equal(wanted, "labels", labels(package), wanted.classes)
    _equal(
        wanted,
        "scores",
        [out.type.WhichOneof("Type") for out in spec.description.output if out.name == "scores"],
        ["multiArrayType"],
    )
    large = [weight for weight in found if weight.values >= wanted.smallest]
    other = [weight for weight in (large if wanted.bits < 16 else found) if weight.bits != wanted.bits]
    if other:
        raise ExportError(
            f"{wanted.name}: {other[0].name} holds {other[0].bits} bits a weight, {wanted.bits} are wanted; use fp16"
        )
    if wanted.bits < 16 and not large:
        raise ExportError(f"{wanted.name}: no layer has {wanted.smallest} weights or more, nothing would be smaller; use fp16")
    return {
        "specification": spec.specificationVersion,
        "input": "image" if wanted.image else "tensor",
        "labels": bool(wanted.classes),
        "weight_bits": wanted.bits,
        "weights": sum(weight.values for weight in found),
        "compressed": sum(weight.values for weight in large) if wanted.bits < 16 else 0,
        "operations": sum(op.op_type != "const" and not op.op_type.startswith("constexpr_") for op in package.operations),
    }


def _equal(wanted: Wanted, what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise ExportError(f"{wanted.name}: the saved package has {what} {found}, {expected} is wanted; try another coremltools")


def _input(spec: Any) -> list[Any]:
    """Describe what the model takes: an image with its colours, width and height, or a tensor with its shape."""
    from coremltools import proto

    types = proto.FeatureTypes_pb2
    [feature] = spec.description.input
    image, tensor = feature.type.imageType, feature.type.multiArrayType
    if feature.type.WhichOneof("Type") == "imageType":
        return [feature.name, types.ImageFeatureType.ColorSpace.Name(image.colorSpace), image.height, image.width]
    return [feature.name, types.ArrayFeatureType.ArrayDataType.Name(tensor.dataType), *tensor.shape]


def _input_wanted(wanted: Wanted) -> list[Any]:
    colours = "GRAYSCALE" if wanted.shape[1] == 1 else "RGB"
    return ["image", colours, *wanted.shape[2:]] if wanted.image else ["image", "FLOAT32", *wanted.shape]
