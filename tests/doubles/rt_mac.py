"""Core ML on a Mac, played here: the agent's own runtime and coremltools, on a double of its native module.

coremltools without macOS has no `libcoremlpython`. This one holds what that
module holds of Core ML 8 (macOS 14), refuses what it refuses, and computes with
the MIL interpreter.
"""

import os
import sys
import tempfile
import time
import types
from pathlib import Path

UNITS = ("ALL", "CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE")
HIGHEST = 8


class _MLModelProxy:
    def __init__(self, filename, compute_units, function_name, hints, asset):
        from edgebench.exporters._coreml import interpreter
        from edgebench.exporters._coreml import package as package_

        if not os.path.isfile(os.path.join(filename, "Manifest.json")):
            raise RuntimeError("Error compiling model: %s is no package" % filename)
        if compute_units not in UNITS:
            raise RuntimeError("unrecognized compute units %s" % compute_units)
        begin = time.perf_counter_ns()
        self._package = package_.read(Path(filename))
        self._run = interpreter.Interpreter(self._package)
        self._compiled = tempfile.TemporaryDirectory(suffix=".mlmodelc")
        Path(self._compiled.name, "source").write_text(filename)
        self._load_ns, self._predict_ns = time.perf_counter_ns() - begin, None

    @staticmethod
    def maximum_supported_specification_version():
        return HIGHEST

    def predict(self, data, state):
        import numpy
        import torch

        from edgebench.exporters._coreml import package as package_

        torch.set_num_threads(1)  # two that share a busy core wait for each other, tens of milliseconds each time
        begin = time.perf_counter_ns()
        [feature] = self._package.spec.description.input
        if list(data) != [feature.name]:
            raise RuntimeError("Feature %s is required but not specified." % feature.name)
        pixels = torch.from_numpy(as_pixels(data[feature.name], feature.type, numpy))
        scores, probabilities = (self._run(pixels, name)[0].numpy() for name in ("scores", "probabilities"))
        labels = package_.labels(self._package)
        self._predict_ns = time.perf_counter_ns() - begin
        return {
            "classLabel_probs": dict(sorted(zip(labels, probabilities.tolist(), strict=True), key=lambda pair: -pair[1])),
            "classLabel": labels[int(probabilities.argmax())],
            "scores": scores[None],
        }

    def get_load_duration_in_nano_seconds(self):
        return self._load_ns

    def get_last_predict_duration_in_nano_seconds(self):
        return self._predict_ns

    def get_compiled_model_path(self):
        return self._compiled.name

    @staticmethod
    def get_compute_plan(path, compute_units):
        from coremltools.models.compute_plan import MLComputePlan

        return MLComputePlan(_MLComputePlanProxy(path, compute_units))


def as_pixels(value, wanted, numpy):
    """Check what is given as Core ML does, and return pixels [1, c, h, w]."""
    if wanted.WhichOneof("Type") == "imageType":
        size = (wanted.imageType.width, wanted.imageType.height)
        if value.size != size:
            raise RuntimeError("Image is not in allowed size %s, it is %s" % (size, value.size))
        array = numpy.asarray(value, "float32")
        return array[None, None] if array.ndim == 2 else array.transpose(2, 0, 1)[None].copy()
    if value.dtype != numpy.float32 or list(value.shape) != list(wanted.multiArrayType.shape):
        raise RuntimeError("MultiArray %s %s does not match the model" % (value.dtype, value.shape))
    return value


class _DeviceProxy:
    pass


class _MLCPUComputeDeviceProxy(_DeviceProxy):
    pass


class _MLGPUComputeDeviceProxy(_DeviceProxy):
    pass


class _MLNeuralEngineComputeDeviceProxy(_DeviceProxy):
    pass


class _MLComputePlanProxy:
    """A plan in which convolutions run on the Neural Engine, where it may be used, and nothing is known of constants."""

    def __init__(self, path, compute_units):
        if not path.endswith(".mlmodelc"):
            raise RuntimeError("%s is no compiled model" % path)
        from coremltools.models import compute_plan as plan

        from edgebench.exporters._coreml import package as package_

        package = package_.read(Path(Path(path, "source").read_text()))
        self._engine = compute_units in ("ALL", "CPU_AND_NE")
        operations = [self._operation(plan, op) for op in package.operations]
        self._count = sum(op.operator_name != "const" for op in operations)
        block = plan.MLModelStructureProgramBlock(inputs=[], operations=operations, output_names=[])
        program = plan.MLModelStructureProgram(functions={"main": plan.MLModelStructureProgramFunction(inputs=[], block=block)})
        self.model_structure = plan.MLModelStructure(neuralnetwork=None, program=program, pipeline=None)

    @staticmethod
    def _operation(plan, op):
        kind = plan.MLModelStructureProgramNamedValueType
        outputs = [kind(name=var.name, type=plan.MLModelStructureProgramValueType()) for var in op.outputs]
        name = op.op_type if op.op_type == "const" else "ios16." + op.op_type
        return plan.MLModelStructureProgramOperation(inputs={}, operator_name=name, outputs=outputs, blocks=[], __proxy__=None)

    def get_compute_device_usage_for_mlprogram_operation(self, operation):
        from coremltools.models import compute_device as device
        from coremltools.models.compute_plan import MLComputePlanDeviceUsage

        if operation.operator_name in ("const", "ios16.classify"):
            return None
        cpu, engine = (
            device.MLCPUComputeDevice(_MLCPUComputeDeviceProxy()),
            device.MLNeuralEngineComputeDevice(_MLNeuralEngineComputeDeviceProxy()),
        )
        chosen = engine if self._engine and operation.operator_name == "ios16.conv" else cpu
        return MLComputePlanDeviceUsage(preferred_compute_device=chosen, supported_compute_devices=[cpu, engine])

    def get_estimated_cost_for_mlprogram_operation(self, operation):
        from coremltools.models.compute_plan import MLComputePlanCost

        return None if operation.operator_name in ("const", "ios16.classify") else MLComputePlanCost(weight=1.0 / self._count)


native = types.ModuleType("coremltools.libcoremlpython")
for each in (
    _MLModelProxy,
    _MLComputePlanProxy,
    _MLCPUComputeDeviceProxy,
    _MLGPUComputeDeviceProxy,
    _MLNeuralEngineComputeDeviceProxy,
):
    setattr(native, each.__name__, each)
sys.modules["coremltools.libcoremlpython"] = native

from .iphone import coremltools  # noqa: E402
from .rt_coreml import DISTRIBUTIONS, MODULES, OPTIONS, Runtime  # noqa: E402, F401

coremltools()
