"""TFLite files on LiteRT (`ai_edge_litert`), else on `tflite_runtime`."""

from typing import Any, Dict, List, Optional, Sequence

from .. import clock
from . import cut, tensors

PACKAGE = "ai-edge-litert"
MODULES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")
DISTRIBUTIONS = ("ai-edge-litert", "tflite-runtime")
BUDGET_NS = 20e9
"""About so long may timing the operators take; three times as long at most."""
LEAST, MOST = 3, 25


class Runtime(object):
    """One interpreter; integer inputs are quantized before timing."""

    OFFERS = ("profile",)

    def __init__(self, job: Dict[str, Any]) -> None:
        import numpy

        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            from tflite_runtime.interpreter import Interpreter
        self._np = numpy
        self._interpreter_type = Interpreter
        self._job = job
        self._carried = tensors.carried(job)
        self._state: Dict[int, Any] = {}

    def load(self, path: str, threads: int) -> None:
        """Open the file and allocate its tensors."""
        self._interpreter = self._interpreter_type(model_path=path, num_threads=threads)
        self._interpreter.allocate_tensors()
        given = tensors.named(self._interpreter.get_input_details(), self._job["inputs"])
        made = tensors.named(self._interpreter.get_output_details(), self._job["outputs"])
        self._inputs = [item["index"] for item in given]
        self._outputs = [item["index"] for item in made]

    def prepare(self, raws: Sequence[bytes], count: int) -> Any:
        """Turn samples into the input tensors, quantized if the file wants that."""
        return tensors.feeds(self._np, raws, self._job)

    def infer(self, feed: Any) -> Any:
        """Run one inference: host tensors in, host tensors out."""
        interpreter = self._interpreter
        for given, tensor in self._state.items():
            feed[given] = tensor
        for index, tensor in zip(self._inputs, feed):
            interpreter.set_tensor(index, tensor)
        interpreter.invoke()
        outputs = [interpreter.get_tensor(index) for index in self._outputs]
        for given, made in self._carried:
            self._state[given] = outputs[made]
        return outputs

    def scores(self, outputs: Any) -> bytes:
        """Return the scored outputs as float32 bytes, sample by sample, dequantized if need be."""
        return tensors.scores(self._np, outputs, self._job)

    def tensors(self, outputs: Any) -> List[Any]:
        """Return all outputs as arrays, dequantized if need be."""
        return tensors.real(outputs, self._job)

    def profile(self, path: str, threads: int, inputs: Any) -> List[Dict[str, Any]]:
        """Say which operators a delegate takes, and time them by cutting the file after each: the interpreter times none."""
        self.load(path, threads)
        details = [_plain(item) for item in self._interpreter._get_ops_details()]
        operators = [item for item in details if item["op"] != "DELEGATE"]
        taken = set(cut.delegated(operators, [item for item in details if item["op"] == "DELEGATE"]))
        known = {item["index"]: item for item in self._interpreter.get_tensor_details()}
        computed = set(self._inputs).union(*(item["outputs"] for item in operators))
        times = self._times(path, threads, operators, inputs[0])
        found = []
        for index, item in enumerate(operators):
            first = known.get(item["outputs"][0], {})
            found.append(
                {
                    "name": str(first.get("name", "")).split(";")[0] or "%s_%d" % (item["op"], index),
                    "op": item["op"],
                    "where": "XNNPACK" if index in taken else "plain kernels",
                    "ns": None if times is None else int(times[index]),
                    "inputs": [str(tensor) for tensor in item["inputs"] if tensor in computed],
                    "outputs": [str(tensor) for tensor in item["outputs"]],
                    "dtype": self._np.dtype(first["dtype"]).name if "dtype" in first else "",
                }
            )
        return found

    def _times(self, path: str, threads: int, operators: List[Dict[str, Any]], feed: Any) -> Optional[List[float]]:
        """Time the file cut after each operator; nanoseconds that each adds, or None where that would take too long."""
        with open(path, "rb") as stream:
            content = stream.read()
        outputs = [item["index"] for item in self._interpreter.get_output_details()]
        whole = self._least_ns(content, threads, feed, LEAST)
        runs = int(BUDGET_NS / (whole * len(operators) / 2))
        if 3 * runs < LEAST:
            return None
        runs = min(MOST, max(LEAST, runs))
        until = [0.0]
        for count in range(1, len(operators) + 1):
            shorter = cut.short(content, count, cut.alive(operators, count, outputs))
            until.append(self._least_ns(shorter, threads, feed, runs))
        until = cut.rising(until)
        return [until[index + 1] - until[index] for index in range(len(operators))]

    def _least_ns(self, content: bytes, threads: int, feed: Any, runs: int) -> float:
        """Time a file's fastest inference: what disturbs one only ever adds to it."""
        interpreter = self._interpreter_type(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
        for index, tensor in zip(self._inputs, feed):
            interpreter.set_tensor(index, tensor)
        interpreter.invoke()
        taken = []
        for _ in range(runs):
            begin = clock.now_ns()
            interpreter.invoke()
            taken.append(clock.now_ns() - begin)
        return min(taken)


def _plain(item: Dict[str, Any]) -> Dict[str, Any]:
    """Turn an operator's arrays into lists; tensors that are left out have negative numbers."""
    both = {key: [int(tensor) for tensor in item[key] if tensor >= 0] for key in ("inputs", "outputs")}
    return dict(both, op=item["op_name"])
