"""TFLite files by Google's benchmark_model, which the user brings: on a phone's GPU, or on any device without an interpreter.

It stands in for the runtime tflite where the option `benchmark_model` names
the program. Every trial is a process of it, of which it prints means; a
sample's outputs take a process as well, so that few are compared.
"""

import importlib
import os
import tempfile
from typing import Any, Callable, Dict, List, Optional, Sequence

from ..benchmark_model import log, program
from ..clock import now_ns
from . import cut, tensors

MODULES = ()
DISTRIBUTIONS = ()
INSTALL = "push the program yourself and name it: --option benchmark_model=/data/local/tmp/benchmark_model"
OPTIONS = (
    "benchmark_model",
    "delegate",
    "external_delegate",
    "external_delegate_options",
    "require_full_delegation",
    "library_path",
    "profile",
)
RUNS = ("benchmark_model", "external_delegate", "library_path")
INSTEAD_OF = "tflite"
FEW = (64, "benchmark_model infers one sample a process: accuracy is not measured, and outputs are compared on some samples")
DELEGATES = ("cpu", "xnnpack", "gpu", "nnapi", "npu", "hexagon", "coreml")
"""Values of the option `delegate`; the program's log writes them in capitals."""
RUN_SECONDS = 300.0
"""Beside what a run measures, starting it may take so long: a GPU's programs are compiled."""
WARMUP_RUNS = 10
PROFILED, LISTED = 50, 40
"""Inferences whose operators are timed, and how many of these a record keeps."""


def few(options: Dict[str, Any]) -> Any:
    """Say how many samples it infers at most, and why."""
    return FEW


def version_of(options: Dict[str, Any]) -> str:
    """Name the program by its content; ValueError where it is not on this device."""
    return program.identity(program.find(options.get("benchmark_model")))


def version() -> Optional[str]:
    """Name the program in its usual places, if it is there."""
    try:
        return version_of({})
    except (ValueError, OSError):
        return None


def reason() -> str:
    """Say what is missing."""
    return "no program benchmark_model; it is used where --option benchmark_model=PATH names it"


class Runtime(object):
    """One file and one program; every inference that is no sample is a start of it."""

    OFFERS = ("take", "footprint", "profile", "unpredicted")

    def __init__(self, job: Dict[str, Any]) -> None:
        options = job["options"]
        self._delegate = wanted(options)
        self._required = switch(options, "require_full_delegation")
        self._profiled = switch(options, "profile")
        self._options = options
        self._np = importlib.import_module("numpy")
        self._job = job
        self._program = program.Program(program.find(options.get("benchmark_model")), options.get("library_path"))
        self._found: Optional[log.Delegation] = None
        if tensors.carried(job):
            raise ValueError("benchmark_model starts anew with each inference and cannot feed an output back; use tflite")

    def load(self, path: str, threads: int) -> None:
        """Read in which order the file has its tensors; the program loads it anew in each run."""
        with open(path, "rb") as stream:
            given, made = cut.ends(stream.read())
        self._path, self._threads = os.path.abspath(path), threads
        self._given = order(given, self._job["inputs"])
        self._made = order(made, self._job["outputs"])

    def prepare(self, raws: Sequence[bytes], count: int) -> Any:
        """Turn samples into the input tensors; ValueError where they do not fit the file."""
        feed = [self._np.asarray(each, order="C") for each in tensors.feeds(self._np, raws, self._job)]
        for each, spec in zip(feed, self._job["inputs"]):
            if list(each.shape) != list(spec["shape"]):
                raise ValueError("the file takes %s, and the input is %s" % (tuple(spec["shape"]), each.shape))
        return feed

    def _scratch(self) -> "tempfile.TemporaryDirectory[str]":
        return tempfile.TemporaryDirectory(prefix="edgebench-benchmark-")

    def _run(self, feed: Any, more: Dict[str, Any], folder: str, seconds: float = 0.0, **heed: Any) -> Any:
        """Run the program on a feed, or on random numbers where its build takes none, and see who computed."""
        flags = {"graph": self._path, "num_threads": self._threads}  # type: Dict[str, Any]
        flags.update(self._accelerator())
        if self._program.lists("input_layer_value_files"):
            flags.update(self._fed(feed, folder))
        flags.update(more)
        said = self._program.run(flags, folder, RUN_SECONDS + seconds, **heed)
        if self._delegate is not None:
            self._found = log.delegation(said.text, self._delegate, self._required)
        return said

    def _accelerator(self) -> Dict[str, Any]:
        """Write the flags that choose the processor; ValueError where this build has none for it."""
        flags: Dict[str, Any] = {}
        if self._options.get("external_delegate") is not None:
            flags["external_delegate_path"] = os.path.expanduser(str(self._options["external_delegate"]))
            if self._options.get("external_delegate_options") is not None:
                flags["external_delegate_options"] = self._options["external_delegate_options"]
        elif self._delegate is not None:
            flags["use_" + self._options["delegate"]] = True
        if self._required:
            flags["require_full_delegation"] = True
            if self._program.compiles:
                flags["use_cpu"] = False
        missing = [name for name in flags if not self._program.takes(name)]
        if missing:
            raise ValueError("this benchmark_model has no --%s; name another program, or another delegate" % missing[0])
        return flags

    def _fed(self, feed: Any, folder: str) -> Dict[str, Any]:
        """Write the inputs into files, in the file's order; names are ours, since some hold what the flags divide by."""
        names, shapes, files = [], [], []
        for index, place in enumerate(self._given):
            tensor, name = feed[place], "in%d" % index
            with open(os.path.join(folder, name + ".bin"), "wb") as stream:
                stream.write(tensor.tobytes())
            names.append(name)
            shapes.append(",".join(map(str, tensor.shape)))
            files.append("%s:%s" % (name, os.path.join(folder, name + ".bin")))
        return {
            "input_layer": ",".join(names),
            "input_layer_shape": ":".join(shapes),
            "input_layer_value_files": ",".join(files),
        }

    def unpredicted(self) -> Optional[str]:
        """Say why outputs cannot be compared: not every build reads inputs and writes outputs."""
        if self._program.lists("input_layer_value_files") and self._program.lists("output_filepath"):
            return None
        return (
            "this benchmark_model takes no inputs from files, or writes no outputs: none are compared, and there is no accuracy"
        )

    def infer(self, feed: Any) -> Any:
        """Run one inference: a start of the program; returns the outputs that it writes into a file."""
        reason = self.unpredicted()
        if reason is not None:
            raise ValueError(reason)
        once = {"num_runs": 1, "min_secs": 0, "warmup_runs": 0, "warmup_min_secs": 0}  # type: Dict[str, Any]
        with self._scratch() as folder:
            path = os.path.join(folder, "outputs.bin")
            self._run(feed, dict(once, output_filepath=path), folder)
            try:
                with open(path, "rb") as stream:
                    content = stream.read()
            except OSError:
                raise ValueError("benchmark_model wrote no outputs")
        return self._read(content)

    def _read(self, content: bytes) -> List[Any]:
        """Take the outputs out of the file, where they lie one after the other in the file's order."""
        specs = self._job["outputs"]
        sizes = [tensors.product(spec["shape"]) * self._np.dtype(spec["dtype"]).itemsize for spec in specs]
        if sum(sizes) != len(content):
            raise ValueError("benchmark_model wrote %d bytes of outputs, the bundle's have %d" % (len(content), sum(sizes)))
        found, begin = [None] * len(specs), 0  # type: List[Any], int
        for place in self._made:
            part = content[begin : begin + sizes[place]]
            found[place] = self._np.frombuffer(part, specs[place]["dtype"]).reshape(specs[place]["shape"])
            begin += sizes[place]
        return found

    def scores(self, outputs: Any) -> bytes:
        """Return the scored outputs as float32 bytes, dequantized if need be."""
        return tensors.scores(self._np, outputs, self._job)

    def tensors(self, outputs: Any) -> List[Any]:
        """Return all outputs as arrays, dequantized if need be."""
        return tensors.real(outputs, self._job)

    def take(
        self, path: str, threads: int, feeds: List[Any], mode: Dict[str, Any], begun: Callable[[int], None]
    ) -> Dict[str, Any]:
        """Let the program run for as long as the mode says: one value, the median of its inferences, or their mean."""
        if not mode["adaptive"]:
            raise ValueError("benchmark_model prints one value a process, and nothing of how it develops; choose another mode")
        self.load(path, threads)
        nodes = self.profile(path, threads, feeds)[:LISTED] if self._profiled and self._job["trial"] == 0 else None
        marks, ends = [], []  # type: List[int], List[int]

        def heard(line: str, pid: int) -> None:
            text = log.bare(line)
            if text.startswith(log.BEGUN):
                marks.append(now_ns())
                if len(marks) == 2:
                    begun(pid)
            elif len(marks) == 2 and log.statistics(text) is not None:
                ends.append(now_ns())

        seconds = {"min_secs": mode["min_seconds"], "max_secs": mode["cap_seconds"], "warmup_min_secs": mode["warmup_seconds"]}
        asked = dict(seconds, num_runs=mode["min_samples"], warmup_runs=WARMUP_RUNS)
        with self._scratch() as folder:
            said = self._run(feeds[0], asked, folder, 10.0 * (mode["cap_seconds"] + mode["warmup_seconds"]), heard=heard)
        if len(marks) < 2:
            raise ValueError("benchmark_model did not say when it began to infer; its output has a form that is not known here")
        found = log.summary(said.text)
        end = ends[0] if ends else now_ns()
        value, count = found.get("median_us", found["mean_us"]), found["count"]
        window = {
            "ns": [max(1, nanoseconds(value))],
            "begin_ns": min(marks[1], end - nanoseconds(found["mean_us"] * count)),  # its log may come late
            "end_ns": end,
            "inferences": count,
        }
        return {
            "load_ns": nanoseconds(found.get("init_us", 0.0)),
            "first_ns": nanoseconds(found.get("first_us", 0.0)),
            "warmup_ns": [nanoseconds(found["warmup_us"])] if "warmup_us" in found else [],
            "calls_per_sample": count,
            "windows": [window],
            "stages": {},
            "program": self._facts(found, nodes),
        }

    def _facts(self, found: Dict[str, Any], nodes: Optional[List[Dict[str, Any]]]) -> Dict[str, Any]:
        """Say what computed, and what the program printed of this process."""
        facts = {
            "name": program.NAME,
            "sha256": self._program.sha256,
            "build": found["form"],
            "computed_on": where(self._found),
            "delegated": None if self._found is None else dict(self._found._asdict()),
            "statistic": "the median of each process" if "median_us" in found else "the mean of each process",
            "inputs": "a sample" if self._program.lists("input_layer_value_files") else "random numbers",
            "run": {name: value for name, value in found.items() if name != "form"},
        }
        return facts if nodes is None else dict(facts, nodes=nodes)

    def footprint(self, path: str, feed: Any) -> Dict[str, Any]:
        """Measure the program's resident memory while it runs the file, by the system, else as the program says."""
        self.load(path, 1)
        asked = {"num_runs": 10, "min_secs": 0, "warmup_runs": 1, "warmup_min_secs": 0}  # type: Dict[str, Any]
        if self._program.lists("report_peak_memory_footprint"):
            asked["report_peak_memory_footprint"] = True
        with self._scratch() as folder:
            said = self._run(feed, asked, folder, watch=True)
        found = log.summary(said.text)
        own = int(found["peak_mib"] * (1 << 20)) if "peak_mib" in found else None
        more = "; by its own word %.1f MiB more than at its start" % found["overall_mib"] if "overall_mib" in found else ""
        by = "VmHWM of benchmark_model" if said.peak_bytes is not None else None if own is None else "benchmark_model's own word"
        return {
            "baseline_bytes": None,
            "loaded_bytes": None,
            "peak_bytes": own if said.peak_bytes is None else said.peak_bytes,
            "method": by,
            "reason": "benchmark_model is one process from start to end: its share without the model is not known" + more,
            "device_bytes": None,
        }

    def profile(self, path: str, threads: int, inputs: List[Any]) -> List[Dict[str, Any]]:
        """Time every operator by the program's own profiler: means, in nanoseconds; a delegate's part may be one row."""
        self.load(path, threads)
        asked = {"num_runs": PROFILED, "min_secs": 0, "enable_op_profiling": True}  # type: Dict[str, Any]
        with self._scratch() as folder:
            csv = os.path.join(folder, "profile.csv")
            if self._program.lists("profiling_output_csv_file"):
                asked["profiling_output_csv_file"] = csv
            text = self._run(inputs[0], asked, folder, 60.0).text
            if os.path.exists(csv):
                with open(csv, encoding="utf-8", errors="replace") as stream:
                    text = stream.read()
        return [
            {"name": each["name"] or each["op"], "op": each["op"], "where": self._place(each), "ns": each["ns"]}
            for each in log.profile(text)
        ]

    def _place(self, node: Dict[str, Any]) -> str:
        if not node["delegate"]:
            return "CPU"
        return "XNNPACK" if self._delegate is None or "xnn" in node["by"].lower() else self._delegate


def wanted(options: Dict[str, Any]) -> Optional[str]:
    """Return how the log calls the delegate that is asked for; None: the processor. ValueError for others."""
    named = options.get("delegate")
    if options.get("external_delegate") is not None:
        if named is not None:
            raise ValueError("give either delegate or external_delegate")
        return "EXTERNAL"
    if named is None:
        return None
    if named not in DELEGATES:
        raise ValueError("delegate is %s, not %r; a library is named by external_delegate=PATH" % (" | ".join(DELEGATES), named))
    return None if named == "cpu" else str(named).upper()


def switch(options: Dict[str, Any], name: str) -> bool:
    """Read an option that is true or false; ValueError for others."""
    if options.get(name) not in (None, True, False):
        raise ValueError("%s is true or false, not %r" % (name, options[name]))
    return bool(options.get(name))


def where(found: Optional[log.Delegation]) -> str:
    """Say what computed: a delegate alone, in part and with how much, or the processor."""
    if found is None:
        return "CPU"
    if found.whole:
        return found.delegate
    nodes = "%s of %s nodes" % (found.nodes, "?" if found.of is None else found.of) if found.nodes is not None else "some nodes"
    kernels = "" if found.kernels is None else " in 1 kernel" if found.kernels == 1 else " in %d kernels" % found.kernels
    return "%s in part: %s%s, the rest on the CPU" % (found.delegate, nodes, kernels)


def order(names: Sequence[str], specs: Sequence[Dict[str, Any]]) -> List[int]:
    """Return for each of the file's tensors, in its order, which of the job's it is."""
    found = tensors.named([{"name": name, "place": place} for place, name in enumerate(names)], specs)
    places = [item["place"] for item in found]
    if len(places) != len(names):
        raise ValueError("the file has %d tensors where the bundle names %d; export it again" % (len(names), len(specs)))
    return [places.index(place) for place in range(len(names))]


def nanoseconds(microseconds: float) -> int:
    """Convert."""
    return round(microseconds * 1e3)
