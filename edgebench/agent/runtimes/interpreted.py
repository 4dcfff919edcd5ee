"""What runtimes that interpret TFLite files share: tensors in, an inference, tensors out."""

from typing import Any, Dict, List, Sequence

from . import tensors


class Interpreted(object):
    """One interpreter whose tensors are allocated; integer inputs are quantized before timing."""

    def __init__(self, numpy: Any, job: Dict[str, Any]) -> None:
        self._np = numpy
        self._job = job
        self._carried = tensors.carried(job)
        self._state: Dict[int, Any] = {}
        self._interpreter: Any = None

    def _allocate(self, interpreter: Any) -> None:
        """Take an interpreter, allocate its tensors, and put them into the job's order."""
        self._interpreter = interpreter
        interpreter.allocate_tensors()
        given = tensors.named(interpreter.get_input_details(), self._job["inputs"])
        made = tensors.named(interpreter.get_output_details(), self._job["outputs"])
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
