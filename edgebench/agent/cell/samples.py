"""The samples of a job's inputs, read from the files in which they lie."""

from typing import Any, Dict, List, Sequence

Sample = List[bytes]
"""Of each input the bytes of one sample."""


class Samples(object):
    """Open files, one for each input."""

    def __init__(self, inputs: Sequence[Dict[str, Any]]) -> None:
        self._inputs = inputs
        self._streams: List[Any] = []
        self._same: Dict[int, bytes] = {}

    def __enter__(self) -> "Samples":
        self._streams = [open(spec["data"]["path"], "rb") for spec in self._inputs]
        return self

    def __exit__(self, *_: Any) -> None:
        for stream in self._streams:
            stream.close()

    def read(self, index: int) -> Sample:
        """Read one sample of each input; one that has a single sample gives that for each."""
        return [self._one(number, index) for number in range(len(self._inputs))]

    def _one(self, number: int, index: int) -> bytes:
        if number in self._same:
            return self._same[number]
        data, stream = self._inputs[number]["data"], self._streams[number]
        size = width(data["dtype"])
        for each in data["shape"]:
            size *= each
        stream.seek(0 if data["count"] == 1 else index * size)
        raw = bytes(stream.read(size))
        if len(raw) != size:
            name = self._inputs[number]["name"]
            raise ValueError("samples of %s: number %d is cut short; remove them from the device and run again" % (name, index))
        if data["count"] == 1:
            self._same[number] = raw
        return raw


def width(dtype: str) -> int:
    """Return how many bytes a number takes: `float32` takes 4, `bool` 1."""
    digits = "".join(letter for letter in dtype if letter.isdigit())
    return int(digits) // 8 if digits else 1


def joined(samples: Sequence[Sample], inputs: Sequence[Dict[str, Any]]) -> List[bytes]:
    """Put the samples of one query together, for each input; what has no dimension for them is given once."""
    if len(samples) == 1:
        return samples[0]
    found = []
    for number, spec in enumerate(inputs):
        several = spec["data"]["count"] > 1 or (spec["shape"] and spec["shape"][0] == 1)
        found.append(b"".join(sample[number] for sample in samples) if several else samples[0][number])
    return found
