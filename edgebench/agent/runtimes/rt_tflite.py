"""TFLite files on LiteRT (`ai_edge_litert`), else on `tflite_runtime`."""

from typing import Any, Dict, List, Optional

from .. import clock
from . import cut
from .interpreted import Interpreted

PACKAGE = "ai-edge-litert"
MODULES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")
DISTRIBUTIONS = ("ai-edge-litert", "tflite-runtime")
BUDGET_NS = 20e9
"""About so long may timing the operators take; three times as long at most."""
LEAST, MOST = 3, 25


class Runtime(Interpreted):
    """One interpreter; integer inputs are quantized before timing."""

    OFFERS = ("profile",)

    def __init__(self, job: Dict[str, Any]) -> None:
        import numpy

        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            from tflite_runtime.interpreter import Interpreter
        super(Runtime, self).__init__(numpy, job)
        self._interpreter_type = Interpreter

    def load(self, path: str, threads: int) -> None:
        """Open the file and allocate its tensors."""
        self._allocate(self._interpreter_type(model_path=path, num_threads=threads))

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
