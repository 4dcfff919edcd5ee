"""Builds an engine by TensorRT's Python module, whose interface of 8.2, 8.4 to 9, 10 and 11 differs."""

import time
from typing import Any, Deque, Dict, List, Optional, Tuple

from . import engines
from . import log as tensorrt_log

LINES = 4000
"""So many lines of TensorRT's log are kept."""


def numbers(version: str) -> Tuple[int, ...]:
    """Read a version: `8.2.1.8` as (8, 2, 1, 8)."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def journal(trt: Any) -> Any:
    """Make a logger that keeps what is said: `errors`, and `text` of all but what is verbose."""
    from collections import deque

    class Journal(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: Deque[str] = deque(maxlen=LINES)
            self.lines: Deque[str] = deque(maxlen=LINES)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)
            if severity != trt.ILogger.VERBOSE:
                self.lines.append(message)

        @property
        def text(self) -> str:
            return "\n".join(self.lines)

    return Journal()


class Build(object):
    """One engine in the making."""

    def __init__(self, trt: Any, path: str, job: Dict[str, Any], gpu: Dict[str, Any]) -> None:
        self.trt = trt
        self.path = path
        self.wanted = job["finish"]["options"]
        self.precision = job["precision"]
        self.gpu = gpu
        self.version = numbers(trt.__version__)
        self.messages = journal(trt)
        self.calibrator: Any = None

    def run(self) -> Tuple[bytes, Dict[str, Any], List[Dict[str, str]]]:
        """Return the engine, the facts, and its layers; ValueError says why there is none."""
        begin = time.monotonic()
        content, abilities = self.built()
        seconds = time.monotonic() - begin
        layers = self.layers(content)
        facts = {
            "tensorrt": self.trt.__version__,
            "gpu": self.gpu["name"],
            "compute_capability": self.gpu["capability"],
            "how": "python",
            "engine_bytes": len(content),
            "build_seconds": round(seconds, 3),
            "layers": engines.summary(layers),
        }
        return content, dict(facts, **abilities), layers

    def built(self) -> Tuple[bytes, Dict[str, Optional[bool]]]:
        """Build it, and let go of all that this took: boards have little memory, and the engine is read next."""
        self.trt.init_libnvinfer_plugins(self.messages, "")
        builder = self.trt.Builder(self.messages)
        abilities = self.abilities(builder)
        network = builder.create_network(self.creation())
        self.parse(network)
        config = self.configured(builder.create_builder_config())
        plan = builder.build_serialized_network(network, config)
        if self.calibrator is not None and self.calibrator.asked:
            raise ValueError(self.uncalibrated())
        if plan is None:
            raise ValueError(self.reason("building the engine"))
        return bytes(plan), abilities

    def reason(self, stage: str) -> str:
        """Say why a stage failed."""
        return tensorrt_log.reason(list(self.messages.errors), self.messages.text, self.version, stage)

    def abilities(self, builder: Any) -> Dict[str, Optional[bool]]:
        """Ask what the GPU computes fast, where this version tells; ValueError where INT8 is wanted and it does not."""
        fast = {
            name: getattr(builder, "platform_has_" + attribute, None)  # not told any more from 11 on
            for name, attribute in (("fast_fp16", "fast_fp16"), ("fast_int8", "fast_int8"), ("tf32", "tf32"))
        }
        if self.precision == "int8" and fast["fast_int8"] is False:
            gpu = "%s, compute capability %s" % (self.gpu["name"], self.gpu["capability"])
            raise ValueError("this GPU (%s) computes no INT8; export fp16 for it" % gpu)
        return fast

    def creation(self) -> int:
        """Return the network's creation flags: explicit batch where it must be asked for, and strong types."""
        known, flags = self.trt.NetworkDefinitionCreationFlag, 0
        if self.version < (10,):
            flags |= 1 << int(known.EXPLICIT_BATCH)
        if self.wanted["strongly_typed"]:
            if not hasattr(known, "STRONGLY_TYPED"):
                raise ValueError(self.otherwise("knows no strongly typed networks"))
            flags |= 1 << int(known.STRONGLY_TYPED)
        return flags

    def otherwise(self, what: str) -> str:
        """Say that the bundle is for another TensorRT."""
        made = "the bundle is for %s; give the target's limits this version and export again" % self.wanted["version"]
        return "TensorRT %s %s, and %s" % (self.trt.__version__, what, made)

    def parse(self, network: Any) -> None:
        """Read the ONNX file; ValueError names the node and the reason."""
        parser = self.trt.OnnxParser(network, self.messages)
        if parser.parse_from_file(self.path):
            return
        found = [self.refusal(parser.get_error(index)) for index in range(parser.num_errors)]
        if not found:
            raise ValueError(self.reason("reading the ONNX file"))
        more = tensorrt_log.too_new(self.messages.text, self.version)
        raise ValueError("reading the ONNX file%s%s" % ("; ".join(found[:3]), more))

    def refusal(self, error: Any) -> str:
        """Write one of the parser's errors, with the node's name: by itself from 10 on, else from the log."""
        name = error.node_name() if hasattr(error, "node_name") else ""
        kind = error.node_operator() if hasattr(error, "node_operator") else ""
        at = "%s (%s)" % (name, kind) if name and kind else name or tensorrt_log.node(self.messages.text)
        return " at node %s: %s" % (at or "number %d" % error.node(), " ".join(error.desc().split()))

    def configured(self, config: Any) -> Any:
        """Set workspace, precision and calibration, and let the engine keep the names and types of its layers."""
        trt, size = self.trt, self.wanted["workspace_mebibytes"] << 20
        if hasattr(config, "set_memory_pool_limit"):
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size)
        else:
            config.max_workspace_size = size
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        for name in self.wanted["flags"]:
            flag = getattr(trt.BuilderFlag, name, None)
            if flag is None:
                raise ValueError(self.otherwise("has no flag %s" % name))
            config.set_flag(flag)
        if self.wanted["calibration_cache"]:
            self.calibrate(config)
        return config

    def calibrate(self, config: Any) -> None:
        """Give the ranges that were calibrated when the bundle was made."""
        if not hasattr(self.trt, "IInt8EntropyCalibrator2"):
            raise ValueError(self.otherwise("takes no calibration cache"))
        cache = engines.calibration(self.path, self.wanted["calibration_cache"], self.version)
        self.calibrator = calibrator(self.trt, cache)
        config.int8_calibrator = self.calibrator

    def uncalibrated(self) -> str:
        """Say that the cache was not taken."""
        what = (self.trt.__version__, self.wanted["calibration_cache"], self.wanted["version"])
        return "TensorRT %s did not take %s and asked for images: the bundle is for %s; export it again for this version" % what

    def layers(self, content: bytes) -> List[Dict[str, str]]:
        """Ask the engine inspector for the layers."""
        runtime = self.trt.Runtime(self.messages)
        engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise ValueError(self.reason("reading the engine that was just built"))
        inspector = engine.create_engine_inspector()
        return tensorrt_log.layers(inspector.get_engine_information(self.trt.LayerInformationFormat.JSON))


def calibrator(trt: Any, cache: bytes) -> Any:
    """Make a calibrator that has no images: it reads a cache, and notes where that was not enough."""

    class Calibrator(trt.IInt8EntropyCalibrator2):
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)
            self.asked = False

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: List[str]) -> None:
            self.asked = True

        def read_calibration_cache(self) -> bytes:
            return cache

        def write_calibration_cache(self, content: bytes) -> None:
            """Keep nothing: the bundle's cache is the one that counts."""

    return Calibrator()
