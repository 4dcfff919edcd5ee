"""ONNX files on ONNX Runtime's CPU provider."""

from typing import Any, Dict

from . import preprocess

MODULES = ("onnxruntime",)
DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")


class Runtime(object):
    """One session; tensors are feeds made before timing."""

    def __init__(self, job: Dict[str, Any]) -> None:
        import numpy
        import onnxruntime

        self._np = numpy
        self._ort = onnxruntime
        self._job = job
        self._name = job["input"]["name"]
        self._outputs = [job["output"]["name"]]

    def load(self, path: str, threads: int) -> None:
        """Open the file and let the runtime optimise it."""
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = self._ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def prepare(self, raw: bytes, shape: Any) -> Any:
        """Turn raw uint8 pixels [n, h, w, c] into a feed."""
        images = self._np.frombuffer(raw, dtype="uint8").reshape(shape)
        return {self._name: preprocess.apply(images, self._job["preprocessing"])}

    def infer(self, tensor: Any) -> Any:
        """Run one inference: host tensor in, host tensor out."""
        return self._session.run(self._outputs, tensor)

    def scores(self, output: Any) -> bytes:
        """Return the outputs as float32 bytes, row by row."""
        return bytes(output[0].astype("<f4").tobytes())
