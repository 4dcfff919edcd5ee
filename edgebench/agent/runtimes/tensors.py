"""From samples as they lie in files to the tensors that a runtime takes, and from what it returns to plain numbers.

`job` is a cell's part of a job: its `inputs` are `schema.Input` as dictionaries,
each with `data` (`dtype` and `shape` of one sample), its `outputs` are
`schema.TensorSpec`, and `scored` names those that the accuracy pass sends.
numpy is given, so that the agent needs it only where a runtime brings it.
"""

from typing import Any, Dict, List, Sequence, Tuple

from . import preprocess


def feeds(numpy: Any, raws: Sequence[bytes], job: Dict[str, Any]) -> List[Any]:
    """Make the tensor of each input from the bytes of its samples, one after the other."""
    return [tensor(numpy, raw, spec) for raw, spec in zip(raws, job["inputs"])]


def tensor(numpy: Any, raw: bytes, spec: Dict[str, Any]) -> Any:
    """Make one input's tensor: images and volumes are preprocessed, real numbers quantized where the file wants integers."""
    data = spec["data"]
    values = numpy.frombuffer(raw, dtype=data["dtype"])
    if spec["preprocessing"] is not None:
        images = values.reshape([-1] + data["shape"][-preprocess.rank(spec["preprocessing"]) :])
        if spec["dtype"] == "uint8" and spec["scale"] is None:
            return preprocess.laid_out(preprocess.whole(images, spec["preprocessing"]), spec["preprocessing"])
        values = preprocess.apply(images, spec["preprocessing"])
    else:
        values = values.reshape(sizes(spec["shape"]))
    if spec["scale"] is not None and str(values.dtype) != spec["dtype"]:
        return preprocess.quantized(values, spec)
    return values.astype(spec["dtype"], copy=not values.flags.writeable)


def sizes(shape: Sequence[int]) -> List[int]:
    """Return a shape that takes any number of samples along its first dimension, where that can be told."""
    return [-1] + list(shape[1:]) if shape and 0 not in shape[1:] else list(shape)


def real(outputs: Sequence[Any], job: Dict[str, Any]) -> List[Any]:
    """Turn what a runtime returned into real numbers where the file quantizes."""
    return [
        output if spec["scale"] is None else preprocess.dequantized(output, spec) for output, spec in zip(outputs, job["outputs"])
    ]


def scores(numpy: Any, outputs: Sequence[Any], job: Dict[str, Any]) -> bytes:
    """Return the scored outputs as little-endian float32, those of each sample one after the other."""
    found = [(values, spec["shape"]) for values, spec in zip(real(outputs, job), job["outputs"]) if spec["name"] in job["scored"]]
    if len(found) == 1:
        return bytes(found[0][0].astype("<f4").tobytes())
    if not found:
        return b""
    rows = [values.astype("<f4").reshape([-1, product(shape)]) for values, shape in found]
    return bytes(numpy.concatenate(rows, axis=1).tobytes())


def product(shape: Sequence[int]) -> int:
    """Count the values of one sample."""
    count = 1
    for size in shape:
        count *= size
    return count


def carried(job: Dict[str, Any]) -> List[Tuple[int, int]]:
    """List the inputs that outputs are fed back into, as the numbers of both."""
    names = [spec["name"] for spec in job["outputs"]]
    return [(index, names.index(spec["carry"])) for index, spec in enumerate(job["inputs"]) if spec["carry"] is not None]


def named(details: Sequence[Dict[str, Any]], specs: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Put an interpreter's tensors into the order of a job's: by name, or as they come where names do not tell them apart."""
    known = {str(item["name"]): item for item in details}
    if len(details) == len(specs) and all(spec["name"] in known for spec in specs) and len(known) == len(specs):
        return [known[spec["name"]] for spec in specs]
    if len(details) < len(specs):
        raise ValueError("the file has %d tensors where the bundle names %d; export it again" % (len(details), len(specs)))
    return list(details)[: len(specs)]
