"""`coreml`: ML Programs (`.mlpackage`) that take an image: fp32, fp16, int8 weights, weights of 6 or 4 bits; volumes in fp32."""

from __future__ import annotations

import importlib.metadata
import json
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from edgebench.errors import ExportError
from edgebench.exporters._coreml import interpreter as interpreter_
from edgebench.exporters._coreml import package as package_
from edgebench.exporters._coreml import reader
from edgebench.exporters._shared import ends, volumes
from edgebench.exporters._shared import preflight as preflight_
from edgebench.exporters._shared.limits import SharedLimits
from edgebench.exporters._shared.tracing import Cached, exported, exported_calls, refusal, silent
from edgebench.schema import Exported, ExportRequest, Preprocessing
from edgebench.schema.file import FileDescription

PRECISIONS = ("fp32", "fp16", "int8-weights", "palettized-6bit", "palettized-4bit")
CALIBRATES: dict[str, tuple[str, ...]] = {}
DYNAMIC_BATCH = False
ROUNDS_BETWEEN = True
REQUIRES = (("torch", "torch"), ("coremltools", "coreml"))
PACKAGE, DEBUG = "model.mlpackage", "executorch_debug_handle_mapping.json"
DEFAULT_VERSION = "iOS16"
PROGRAMS, COMPRESSED = 6, 7
"""Specifications of iOS 15 and macOS 12, the first with ML Programs, and of iOS 16 and macOS 13, which unpack weights."""
MIN_WEIGHTS = 512
"""Smaller tensors stay float16: a table of 64 values would take what 6 bits save."""
BITS = {"fp32": 32, "fp16": 16, "int8-weights": 8, "palettized-6bit": 6, "palettized-4bit": 4}


class Limits(SharedLimits):
    """The oldest system that must load the file, and how an app calls it."""

    version: str | None = Field(None, description="deployment target, for instance iOS16 or macOS13")
    input: Literal["image", "tensor"] = Field(
        "image",
        description="an image, or a float32 tensor [1, c, h, w] of pixels 0…255, as volumes [1, c, d, h, w] always are; "
        "both are normalised in the model",
    )


def recognizes(head: bytes, path: Path) -> bool:
    """Return whether a folder is a package with a model, by its content."""
    return reader.recognizes(path)


def read(path: Path) -> FileDescription:
    """Describe a package that somebody brought."""
    return reader.read(path)


def tools() -> dict[str, str]:
    """Versions that decide what the file looks like."""
    return {name: importlib.metadata.version(name) for name in ("torch", "coremltools")}


def preflight(request: ExportRequest[Limits]) -> None:
    """Raise `ExportError` for a deployment target that cannot hold the precision, or a layer that does not convert."""
    with silent():
        specification(request)
    check_ends(request)
    volumes.check(request, "choose fp32")
    check_labels(request)
    check_operators(request)


def export(request: ExportRequest[Limits], folder: Path) -> Exported:
    """Write `model.mlpackage`, with preprocessing and labels inside, and read it back."""
    with silent():
        model = convert(request)
        describe(request, model)
        model.save(str(folder / PACKAGE))
        _written_anew(folder / PACKAGE / "Data/com.apple.CoreML/model.mlmodel")
        (folder / PACKAGE / DEBUG).unlink(missing_ok=True)  # for ExecuTorch; no part of the model
        package = package_.read(folder / PACKAGE)
        facts = package_.check(package, wanted(request))
        interpreter = interpreter_.Interpreter(package)
    return _exported(request, facts, interpreter)


def _written_anew(path: Path) -> None:
    """Give a file the permissions that the umask leaves; coremltools writes it for its owner alone."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


# ---------------------------------------------------------------- before the long work


def specification(request: ExportRequest[Limits]) -> Any:
    """Return the deployment target as coremltools has it; `ExportError` where it is none, or too old."""
    import coremltools

    version, name = request.limits.version or DEFAULT_VERSION, request.network.model.name
    found = coremltools.target.__members__.get(version)
    if found is None:
        known = ", ".join(known for known, value in coremltools.target.__members__.items() if value >= PROGRAMS)
        raise ExportError(f"{name}: {version!r} is no deployment target of Core ML; limits.version takes {known}")
    needed = PROGRAMS if request.precision in ("fp32", "fp16") else COMPRESSED
    if found < needed:
        since = " or ".join(each for each in ("iOS15", "macOS12", "iOS16", "macOS13") if coremltools.target[each] == needed)
        what = "ML Programs" if needed < COMPRESSED else f"{request.precision} (weights that Core ML unpacks)"
        raise ExportError(f"{name}: {what} need {since}, the target's limits.version is {version}; use fp16 or a newer version")
    return found


def check_ends(request: ExportRequest[Limits]) -> None:
    """Refuse what takes anything but one image, or returns anything but scores."""
    preflight_.check_runs(request)
    returned = ends.outputs(request.network)
    wanted = (1, len(request.network.model.classes))
    if ends.image_alone(request) is None or [each.shape for each in returned] != [wanted]:
        name = request.network.model.name
        shapes = ", ".join(f"{each.name} {list(each.shape)}" for each in (*request.network.model.inputs, *returned))
        raise ExportError(
            f"{name}: coreml takes one image and returns scores {list(wanted)}, this has {shapes}; use onnx or tflite"
        )


def check_labels(request: ExportRequest[Limits]) -> None:
    """Refuse labels that are not all different: Core ML returns probabilities by label."""
    classes = request.network.model.classes
    twice = sorted({label for label in classes if classes.count(label) > 1})
    if twice:
        raise ExportError(f"{request.network.model.name}: the label {twice[0]!r} names two classes; Core ML wants each once")


def check_operators(request: ExportRequest[Limits]) -> None:
    """Refuse what coremltools has no conversion for, by its layer in the torch model."""
    from coremltools.converters.mil.frontend.torch.torch_op_registry import is_torch_fx_node_supported

    preflight_.check_torch(request)
    with silent():
        program = exported(Cached(request.network)).run_decompositions({})
        unknown = next((call for call, node in exported_calls(program) if not is_torch_fx_node_supported(node)), None)
    if unknown is not None:
        raise refusal(request, unknown.place, f"coremltools has no conversion for {unknown.operator}")


# ---------------------------------------------------------------- conversion


def exported_from_pixels(request: ExportRequest[Limits]) -> Any:
    """Export the network as an app calls it: pixels 0…255 [1, c, h, w] in, scores and probabilities out.

    By `torch.export`: traced by the older tracer, shapes are tensors of one
    value, which coremltools 9.0 cannot read with numpy 2.4.
    """
    import torch

    program = torch.export.export(_with_preprocessing(request), request.network.example())
    return program.run_decompositions({torch.ops.aten.gelu.default: _gelu})


def _gelu(x: Any, *, approximate: str = "none") -> Any:
    """Write out the approximation by tanh: coremltools 9.0 does not see that it is asked for, and takes the exact form."""
    if approximate == "none":
        return NotImplemented
    return 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)).tanh())


def _with_preprocessing(request: ExportRequest[Limits]) -> Any:
    import torch

    network, likely = request.network, request.probabilities
    spec = network.model.preprocessing

    class FromPixels(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network.module
            mean, std = (torch.tensor(values).reshape(_by_channel(spec)) for values in (spec.mean, spec.std))
            self.register_buffer("scale", 1 / (255 * std))
            self.register_buffer("bias", -mean / std)

        def forward(self, pixels: Any) -> Any:
            scores = self.network(pixels * self.scale + self.bias)
            found = {"softmax": lambda: scores.softmax(1), "sigmoid": scores.sigmoid}
            return (scores, found[likely]()) if likely else scores

    return FromPixels().eval()


def _by_channel(spec: Preprocessing) -> tuple[int, ...]:
    """Return the shape of one number for each channel: [1, c, 1, 1], of volumes [1, c, 1, 1, 1]."""
    return (1, spec.channels, *[1] * len(spec.sides))


def _takes_image(request: ExportRequest[Limits]) -> bool:
    """Return whether the model takes an image: Core ML has none of volumes, which are tensors."""
    return request.limits.input == "image" and not request.network.model.image.is_volume


def convert(request: ExportRequest[Limits]) -> Any:
    """Convert to an ML Program that computes in float32, or in float16 for all other precisions."""
    import coremltools as ct

    target, width = specification(request), ct.precision.FLOAT32 if request.precision == "fp32" else ct.precision.FLOAT16
    outputs = [ct.TensorType(name=name, dtype=np.float32) for name in outputs_of(request)]
    try:
        program = ct.convert(
            exported_from_pixels(request),
            inputs=[_input_type(request)],
            outputs=outputs,
            convert_to="milinternal",
            compute_precision=width,
            minimum_deployment_target=target,
        )
        program.functions["main"].set_output_types(None)  # coremltools 9.0 counts a classifier's outputs wrong with them
        return ct.convert(
            program,
            convert_to="mlprogram",
            classifier_config=_classifier(request),
            pass_pipeline=compression(request.precision),
            compute_precision=width,
            minimum_deployment_target=target,
            skip_model_load=True,
        )
    except (RuntimeError, ValueError, NotImplementedError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"{request.network.model.name}: not expressible in Core ML for {target.name}: {reason}") from error


def outputs_of(request: ExportRequest[Limits]) -> tuple[str, ...]:
    """Name what the model gives: its scores, and what they make likely where its task has that."""
    return ("scores", "probabilities") if request.probabilities else ("scores",)


def _input_type(request: ExportRequest[Limits]) -> Any:
    import coremltools as ct

    spec, shape = request.network.model.preprocessing, request.network.model.image.shape
    if not _takes_image(request):
        return ct.TensorType(name="image", shape=shape, dtype=np.float32)
    return ct.ImageType(
        name="image", shape=shape, color_layout=ct.colorlayout.GRAYSCALE if spec.channels == 1 else ct.colorlayout.RGB
    )


def _classifier(request: ExportRequest[Limits]) -> Any:
    """Put the labels into the model, where it chooses one of them."""
    import coremltools as ct

    if request.probabilities != "softmax":
        return None
    return ct.ClassifierConfig(list(request.network.model.classes), predicted_probabilities_output="probabilities")


def compression(precision: str) -> Any:
    """Return coremltools' passes, and after them the one that packs the weights.

    int8: symmetric, a scale for each output channel; 6 and 4 bits: indices into
    a table for each tensor, whose values k-means chooses.
    """
    import coremltools as ct
    from coremltools.optimize import coreml as optimize

    passes, bits = ct.PassPipeline.DEFAULT, BITS[precision]
    if bits >= 16:
        return passes
    config: Any
    if bits == 8:
        name = "compression::linear_quantize_weights"
        config = optimize.OpLinearQuantizerConfig(
            mode="linear_symmetric", dtype="int8", granularity="per_channel", weight_threshold=MIN_WEIGHTS - 1
        )
    else:
        name = "compression::palettize_weights"
        config = optimize.OpPalettizerConfig(mode="kmeans", nbits=bits, weight_threshold=MIN_WEIGHTS - 1)
    passes.append_pass(name)
    passes.set_options(name, {"config": optimize.OptimizationConfig(global_config=config)})
    return passes


def describe(request: ExportRequest[Limits], model: Any) -> None:
    """Say inside the model what goes in and comes out; Xcode shows it."""
    spec, known = request.network.model.preprocessing, request.network.model
    model.short_description = f"{known.name}, {request.precision}, exported by edgebench"
    sides = " × ".join(map(str, spec.sides))
    model.input_description["image"] = f"Pixels 0…255, {sides}; the model normalises them itself"
    model.output_description["scores"] = "Scores before the softmax, in the order of the classes"
    model.user_defined_metadata["classes"] = json.dumps(known.classes, ensure_ascii=False)
    model.user_defined_metadata["normalisation"] = json.dumps({"mean": spec.mean, "std": spec.std})


# ---------------------------------------------------------------- afterwards


def wanted(request: ExportRequest[Limits]) -> package_.Wanted:
    """Say what the saved package must be."""
    known = request.network.model
    return package_.Wanted(
        name=f"{known.name}.coreml.{request.precision}",
        specification=int(specification(request)),
        image=_takes_image(request),
        shape=known.image.shape,
        classes=known.classes if request.probabilities == "softmax" else (),
        bits=BITS[request.precision],
        smallest=MIN_WEIGHTS,
    )


def _exported(request: ExportRequest[Limits], facts: dict[str, Any], interpreter: interpreter_.Interpreter) -> Exported:
    given, image = request.network.model.image, _takes_image(request)
    spec = request.network.model.preprocessing

    def evaluate(inputs: Any) -> Any:
        with silent():
            return interpreter(pixels(inputs, spec, whole=image), "scores").numpy()

    made_of = spec if image else spec.of_pixels()  # the model normalises pixels itself
    return Exported(
        entry=f"{PACKAGE}/Manifest.json",
        runtime="coreml",
        inputs=(given.model_copy(update={"name": "image", "preprocessing": made_of, "dtype": "uint8" if image else "float32"}),),
        outputs=(ends.outputs(request.network)[0].model_copy(update={"name": "scores"}),),
        details={**facts, "version": request.limits.version or DEFAULT_VERSION},
        evaluate=evaluate,
        evaluator="MIL interpreter",
    )


def pixels(inputs: Any, spec: Preprocessing, whole: bool) -> Any:
    """Turn normalised inputs [n, c, …] back into the pixels 0…255 that they were made of; whole ones for an image."""
    import torch

    std, mean = (np.array(values, np.float32).reshape(_by_channel(spec)) for values in (spec.std, spec.mean))
    found = (inputs * std + mean) * np.float32(255)
    return torch.from_numpy(np.round(found) if whole else found)
