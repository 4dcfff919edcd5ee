"""TFLite files on LiteRT (`ai_edge_litert`), else on `tflite_runtime`."""

from typing import Any, Dict

from . import preprocess

MODULES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")
DISTRIBUTIONS = ("ai-edge-litert", "tflite-runtime")


class Runtime(object):
    """One interpreter; integer inputs are quantized before timing."""

    def __init__(self, job: Dict[str, Any]) -> None:
        import numpy

        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            from tflite_runtime.interpreter import Interpreter
        self._np = numpy
        self._interpreter_type = Interpreter
        self._job = job

    def load(self, path: str, threads: int) -> None:
        """Open the file and allocate its tensors."""
        self._interpreter = self._interpreter_type(model_path=path, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def prepare(self, raw: bytes, shape: Any) -> Any:
        """Turn raw uint8 pixels [n, h, w, c] into the input tensor, quantized if the file wants that."""
        images = self._np.frombuffer(raw, dtype="uint8").reshape(shape)
        real = preprocess.apply(images, self._job["preprocessing"])
        spec = self._job["input"]
        if spec["scale"] is None:
            return real
        limits = self._np.iinfo(spec["dtype"])
        steps = self._np.round(real / spec["scale"]) + spec["zero_point"]
        return self._np.clip(steps, limits.min, limits.max).astype(spec["dtype"])

    def infer(self, tensor: Any) -> Any:
        """Run one inference: host tensor in, host tensor out."""
        self._interpreter.set_tensor(self._input, tensor)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)

    def scores(self, output: Any) -> bytes:
        """Return the outputs as float32 bytes, row by row, dequantized if need be."""
        spec = self._job["output"]
        if spec["scale"] is not None:
            output = (output.astype("float32") - spec["zero_point"]) * self._np.float32(spec["scale"])
        return bytes(output.astype("<f4").tobytes())
