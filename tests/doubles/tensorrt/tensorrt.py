"""TensorRT's Python module of one version, without a GPU: what it computes, ONNX Runtime computes.

`EDGEBENCH_DOUBLE_TENSORRT` is the version. An attribute that this version
lacks is not there (`api.json`: read from NVIDIA's own modules of 8.6, 10.3,
10.16 and 11.0; that of 8.2 as documented), and none can be set that it does
not have. Memory and streams are those of the libcudart double.
"""

import ctypes
import enum
import json
import os
import time

import double_engine
import numpy
from double_engine import FAULT, VERSION, gpu, has_int8, make_engine, number, read_engine, read_onnx, refusals, session_of, shown

__version__ = double_engine.RELEASE
cudart = ctypes.CDLL(os.environ["EDGEBENCH_DOUBLE_CUDART"])
cudart.double_size.restype = ctypes.c_size_t
KERNEL = ctypes.CFUNCTYPE(ctypes.c_int)

with open(os.path.join(os.path.dirname(__file__), "api.json")) as stream:
    _every = json.load(stream)
_known = _every[max((v for v in _every if tuple(map(int, v.split("."))) <= VERSION), key=lambda v: tuple(map(int, v.split("."))))]
API = {name: set(names.split()) for name, names in _known.items()}


def api(cls):
    """Take away what the version does not have, and let nothing else be set."""
    allowed = API[cls.__name__]
    for name in [name for name in vars(cls) if not name.startswith("_") and name not in allowed]:
        delattr(cls, name)

    def refuse(self, name, value):
        if not name.startswith("_") and type(self).__module__ == __name__ and name not in allowed:
            raise AttributeError("TensorRT %s: %r has no attribute %r" % (__version__, cls.__name__, name))
        object.__setattr__(self, name, value)

    cls.__setattr__ = refuse
    return cls


def _enumeration(name, first=()):
    names = [member for member in API.get(name, ()) if member.isupper() or member[:2] in ("FP", "BF", "TF", "E8")]
    ordered = [member for member in first if member in names] + sorted(set(names) - set(first))
    return enum.IntEnum(name, [(member, index) for index, member in enumerate(ordered)])


for _name in ("NetworkDefinitionCreationFlag", "BuilderFlag", "ProfilingVerbosity", "LayerInformationFormat", "DataType"):
    globals()[_name] = _enumeration(_name, ("EXPLICIT_BATCH",))
for _name in ("MemoryPoolType", "TensorIOMode"):
    if _name in API:
        globals()[_name] = _enumeration(_name)


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


@api
class ILogger(object):
    Severity = Severity
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def __init__(self):
        self._made = True

    def log(self, severity, msg):
        raise RuntimeError("a pure virtual function was called")


def _needs(made, what):
    if not getattr(made, "_made", False):
        raise TypeError("%s.__init__() must be called when overriding __init__" % what)
    return made


@api
class IProfiler(object):
    def __init__(self):
        self._made = True

    def report_layer_time(self, layer_name, ms):
        raise RuntimeError("a pure virtual function was called")


if "IInt8EntropyCalibrator2" in API:

    @api
    class IInt8EntropyCalibrator2(object):
        def __init__(self):
            self._made = True


def init_libnvinfer_plugins(logger, namespace):
    _needs(logger, "ILogger")
    return True


# ---------------------------------------------------------------- reading ONNX


@api
class ParserError(object):
    def __init__(self, index, node, reason):
        self._index, self._node, self._reason = index, node, reason

    def desc(self):
        return self._reason

    def node(self):
        return self._index

    def node_name(self):
        return self._node["name"]

    def node_operator(self):
        return self._node["op"]


@api
class INetworkDefinition(object):
    def __init__(self, flags):
        self._flags = flags
        self._content = None


@api
class OnnxParser(object):
    def __init__(self, network, logger):
        self._network, self._logger, self._errors = network, _needs(logger, "ILogger"), []
        if VERSION < (10,) and not network._flags & 1:
            raise TypeError("the ONNX parser wants a network with an explicit batch dimension")

    @property
    def num_errors(self):
        return len(self._errors)

    def get_error(self, index):
        return self._errors[index]

    def parse_from_file(self, path):
        with open(path, "rb") as stream:
            content = stream.read()
        model = read_onnx(content)
        lines = "Input filename:   %s\nONNX IR version:  0.0.7\nOpset version:    %d" % (path, model["opset"])
        self._logger.log(ILogger.INFO, "-" * 64 + "\n" + lines)
        for index, reason in refusals(model):
            node = model["nodes"][index]
            self._errors.append(ParserError(index, node, reason))
            title = 'While parsing node number %d [%s -> "%s"]:' % (index, node["op"], node["outputs"][0])
            failed = "ERROR: ModelImporter.cpp:180 In function parseGraph:\n[6] Invalid Node - %s\n%s" % (node["name"], reason)
            for text in (title, "--- Begin node ---", shown(node), "--- End node ---", failed):
                self._logger.log(ILogger.ERROR, "ModelImporter.cpp:775: " + text if text is title else text)
        self._network._content, self._network._model = content, model
        return not self._errors


# ---------------------------------------------------------------- building


@api
class IHostMemory(object):
    def __init__(self, content):
        self._content = content

    @property
    def nbytes(self):
        return len(self._content)

    def __bytes__(self):
        return self._content


def _held(name):
    return property(lambda self: getattr(self, name), lambda self, value: setattr(self, name, value))


@api
class IBuilderConfig(object):
    def __init__(self):
        self._flags, self._calibrator = set(), None
        self._workspace = None

    def set_flag(self, flag):
        self._flags.add(BuilderFlag(flag).name)  # noqa: F821

    def get_flag(self, flag):
        return flag.name in self._flags

    def set_memory_pool_limit(self, pool, size):
        assert pool == MemoryPoolType.WORKSPACE  # noqa: F821
        self._workspace = size

    max_workspace_size = _held("_workspace")
    int8_calibrator = _held("_calibrator")
    profiling_verbosity = _held("_verbosity")


@api
class Builder(object):
    def __init__(self, logger):
        self._logger = _needs(logger, "ILogger")

    @property
    def platform_has_fast_int8(self):
        return has_int8()

    @property
    def platform_has_fast_fp16(self):
        return True

    @property
    def platform_has_tf32(self):
        return gpu()["capability"] >= "8.0"

    def create_network(self, flags=0):
        return INetworkDefinition(flags)

    def create_builder_config(self):
        return IBuilderConfig()

    def _fail(self, *lines):
        for line in lines:
            self._logger.log(ILogger.ERROR, line)

    def build_serialized_network(self, network, config):
        assert network._content is not None, "nothing was parsed"
        assert config._workspace, "no workspace"
        if FAULT == "hang":
            time.sleep(600)
        if FAULT == "oom":
            return self._fail(
                "1: [defaultAllocator.cpp::allocate::20] Error Code 1: Cuda Runtime (out of memory)",
                "2: [executionContext.cpp::ExecutionContext::418] Error Code 2: OutOfMemory (no further information)",
            )
        pairs = any(node["op"] == "QuantizeLinear" for node in network._model["nodes"])
        typed = VERSION >= (11,) or bool(network._flags >> 1)
        if typed and config._flags & {"FP16", "INT8"}:
            return self._fail("3: Error Code 3: API Usage Error (a strongly typed network takes no precision flags)")
        if pairs and not typed and "INT8" not in config._flags:
            return self._fail(
                "4: [network.cpp::validate::2738] Error Code 4: Internal Error (Int8 precision has been set for a layer or layer "
                "output, but int8 is not configured in the builder)"
            )
        if config._calibrator is not None and not self._calibrated(config._calibrator):
            return self._fail("4: Error Code 4: Internal Error (Calibration failure occurred with no scaling factors detected.)")
        if "INT8" in config._flags and not has_int8():
            line = "Int8 support requested on hardware without native Int8 support, performance will be negatively affected."
            self._logger.log(ILogger.WARNING, line)
        return IHostMemory(make_engine(network._model, network._content, config._flags | ({"TYPED"} if typed else set())))

    def _calibrated(self, given):
        """Read the cache as TensorRT does; without one that it knows it asks for images."""
        cache = _needs(given, "IInt8EntropyCalibrator2").read_calibration_cache()
        head = b"TRT-%d-EntropyCalibration2" % number()
        lines = (cache or b"").splitlines()
        if lines and lines[0] == head and len(lines) > 1:
            return True
        given.get_batch_size()
        return given.get_batch(["input"]) is not None


# ---------------------------------------------------------------- running


class _Memory(object):
    """Memory on the GPU that TensorRT takes for itself."""

    def __init__(self, size):
        self._at = ctypes.c_void_p()
        self.failed = cudart.double_take(ctypes.byref(self._at), ctypes.c_size_t(size)) != 0

    def __del__(self):
        if not self.failed:
            cudart.cudaFree(self._at)


@api
class Runtime(object):
    def __init__(self, logger):
        self._logger = _needs(logger, "ILogger")

    def deserialize_cuda_engine(self, content):
        read = read_engine(content, lambda line: self._logger.log(ILogger.ERROR, line))
        if read is None:
            return None
        engine = ICudaEngine()
        engine._fill(read, self._logger, len(content))
        changed = "TensorRT-managed allocation in engine deserialization: CPU +0, GPU +3, now: CPU 0, GPU 3 (MiB)"
        self._logger.log(ILogger.INFO, "[MemUsageChange] " + changed)
        return engine


@api
class ICudaEngine(object):
    def _fill(self, read, logger, size):
        self._head, self._logger = read[0], logger
        self._session = session_of(read[1])
        self._ends = [(end, True) for end in self._session.get_inputs()] + [(end, False) for end in self._session.get_outputs()]
        self._memory = _Memory(size)

    def _end(self, name):
        return next((end, given) for end, given in self._ends if end.name == name)

    def _kind(self, end):
        kinds = {"tensor(float)": DataType.FLOAT, "tensor(float16)": DataType.HALF, "tensor(int8)": DataType.INT8}  # noqa: F821
        return kinds[end.type]

    @property
    def num_io_tensors(self):
        return len(self._ends)

    @property
    def num_bindings(self):
        return len(self._ends)

    def get_tensor_name(self, index):
        return self._ends[index][0].name

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if self._end(name)[1] else TensorIOMode.OUTPUT  # noqa: F821

    def get_tensor_shape(self, name):
        return list(self._end(name)[0].shape)

    def get_tensor_dtype(self, name):
        return self._kind(self._end(name)[0])

    def get_binding_name(self, index):
        return self._ends[index][0].name

    def binding_is_input(self, index):
        return self._ends[index][1]

    def get_binding_shape(self, index):
        return list(self._ends[index][0].shape)

    def get_binding_dtype(self, index):
        return self._kind(self._ends[index][0])

    def create_engine_inspector(self):
        inspector = EngineInspector()
        inspector._engine = self
        return inspector

    def create_execution_context(self):
        context = IExecutionContext()
        context._begin(self)
        return None if context._memory.failed else context


@api
class EngineInspector(object):
    def get_engine_information(self, form):
        assert form == LayerInformationFormat.JSON  # noqa: F821
        layers = []
        for layer in self._engine._head["layers"]:
            linear = "Row major linear %s format" % layer["kind"]
            shown = {"Int8": "Thirty-two wide channel vectorized row major Int8 format", "FP32": linear, "FP16": linear}
            if VERSION >= (10,):
                shown = {"Int8": "Int8", "FP32": "Float", "FP16": "Half"}
            end = {"Name": "x", "Dimensions": [1], "Format/Datatype": shown[layer["kind"]]}
            layers.append({"Name": layer["Name"], "LayerType": layer["LayerType"], "Inputs": [end], "Outputs": [end]})
        return json.dumps({"Layers": layers, "Bindings": ["input", "output"]})


@api
class IExecutionContext(object):
    def _begin(self, engine):
        self._engine, self._addresses, self._profiler, self._kernels = engine, {}, None, []
        self._memory = _Memory(2 << 20)
        changed = "TensorRT-managed allocation in IExecutionContext creation: CPU +0, GPU +2, now: CPU 0, GPU 5 (MiB)"
        engine._logger.log(ILogger.INFO, "[MemUsageChange] " + changed)

    @property
    def profiler(self):
        return self._profiler

    @profiler.setter
    def profiler(self, given):
        self._profiler = _needs(given, "IProfiler")

    def set_tensor_address(self, name, address):
        self._engine._end(name)
        self._addresses[name] = int(address)
        return True

    def execute_async_v3(self, stream_handle):
        missing = [end.name for end, _ in self._engine._ends if end.name not in self._addresses]
        if missing:
            self._engine._logger.log(ILogger.ERROR, "3: Address is not set for tensor %s." % missing[0])
            return False
        return self._put(stream_handle, [self._addresses[end.name] for end, _ in self._engine._ends])

    def execute_async_v2(self, bindings, stream_handle):
        return self._put(stream_handle, [int(address) for address in bindings])

    def _put(self, stream, addresses):
        arrays = []
        for index, (end, _) in enumerate(self._engine._ends):
            address = addresses[index]
            size = int(numpy.prod(end.shape))
            if cudart.double_size(ctypes.c_void_p(address)) < 4 * size:
                self._engine._logger.log(ILogger.ERROR, "1: Cuda Runtime (an illegal memory access was encountered)")
                return False
            arrays.append(numpy.frombuffer((ctypes.c_float * size).from_address(address), "float32").reshape(end.shape))

        def compute():
            begin = time.perf_counter()
            name = self._engine._ends[0][0].name
            arrays[1][:] = self._engine._session.run(None, {name: arrays[0].copy()})[0]
            took = 1e3 * (time.perf_counter() - begin)
            layers = self._engine._head["layers"]
            for layer in layers if self._profiler is not None else ():
                self._profiler.report_layer_time(layer["Name"], took / len(layers))
            return 0

        self._kernels = [*self._kernels[-64:], KERNEL(compute)]
        return cudart.double_launch(ctypes.c_void_p(stream), self._kernels[-1]) == 0
