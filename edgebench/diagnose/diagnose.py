"""Diagnose a bundle on a device: where its operators run, where the time goes, and why."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgebench.agent.runtimes import onnxfile
from edgebench.analysis import metrics, processor, stats
from edgebench.analysis.metrics import scores_of
from edgebench.bundle.export import as_written
from edgebench.bundle.manifest import read_bundle
from edgebench.data import Dataset
from edgebench.device.job import Pass
from edgebench.diagnose import kernel_rules, quantization_rules
from edgebench.diagnose.findings import Arithmetic, Case, Finding
from edgebench.diagnose.graph import Graph, Node, less_overhead, nodes_of
from edgebench.errors import BundleError, InputError, MeasureError
from edgebench.run.interleave import interleaved, run_passes
from edgebench.run.plan import CellJob
from edgebench.run.session import Session, subject_of
from edgebench.schema import Bundle, Comparison, Measurement, Placement, Scenario
from edgebench.store.noise import noise_floor

WORDS = {"same": "as fast as", "inconclusive": "perhaps as fast as"}
NO_PROFILER = "has no profiler"
COSTLIEST = 5
ARITHMETIC_SAMPLES = 256
UNTIMED = "none, the runtime times no operators"
CUT = "the interpreter times no operators: the file is run cut short after each, and what one more adds is its time"
METHODS = {"tflite": CUT, "onnxruntime": "ONNX Runtime's profiler", "torch": "torch's profiler"}

RULES: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    quantization_rules.unfused,
    quantization_rules.dynamic,
    quantization_rules.halves,
    quantization_rules.signedness,
    quantization_rules.arithmetic,
    kernel_rules.layouts,
    kernel_rules.fallback,
    kernel_rules.compiled,
    kernel_rules.engine,
    kernel_rules.slower_kernels,
    kernel_rules.more_kernels,
)


@dataclass(frozen=True)
class Diagnosis:
    """What was found out about a bundle on a device."""

    bundle: Bundle
    path: Path
    """The model file; Netron opens it as it is."""
    target: str
    runtime: str
    graph: Graph
    method: str
    """How nodes were timed, or why they were not."""
    overhead_ns: float
    """What was taken off each kernel's time, because profiling adds it."""
    median_ns: float | None
    """Of an inference without profiling; None where it was not run."""
    reference: Bundle | None
    reference_ns: float | None
    comparison: Comparison | None
    """The bundle against the reference."""
    finish: Mapping[str, Any] | None
    findings: tuple[Finding, ...]

    @property
    def placement(self) -> list[dict[str, Any]]:
        """Count the operators of each place, and their share of the time."""
        compiled = self.bundle.placement
        return (
            compiled_placement(compiled)
            if compiled is not None and not self.graph.nodes
            else _by(self.graph, lambda node: (node.where,))
        )

    @property
    def operators(self) -> list[dict[str, Any]]:
        """Count the kernels of each operator and place; those that take most time first."""
        return _by(self.graph, lambda node: (node.where, node.op))

    @property
    def kinds(self) -> dict[str, dict[str, Any]]:
        """Count integer and float kernels, conversions, layout changes and casts."""
        names = [kind for kind in ("integer", "float", "convert", "layout", "cast") if kind in self.graph.kinds]
        found = {name: self.graph.of_kind(name) for name in names}
        return {name: {"count": len(nodes), "share": self.graph.share(nodes)} for name, nodes in found.items()}

    @property
    def costliest(self) -> list[dict[str, Any]]:
        """List the five nodes that take most time."""
        order = sorted(range(len(self.graph.nodes)), key=lambda index: self.graph.nodes[index].ns or 0.0, reverse=True)
        return [self._node(index) for index in order[:COSTLIEST]] if self.graph.timed else []

    def _node(self, index: int) -> dict[str, Any]:
        node = self.graph.nodes[index]
        described = {"name": node.name, "op": node.op, "place": self.graph.place(index), "where": node.where, "ns": node.ns}
        return {**described, "kind": self.graph.kinds[index], "share": self.graph.share([node])}

    @property
    def headline(self) -> str:
        """Return whether the bundle is slower than FP32 at all."""
        precision = self.bundle.precision
        if self.median_ns is None:
            return f"{self.bundle.name} was not run: {self.target} does not run it; its compiler says where operators are placed"
        if precision == "fp32" or self.comparison is None or self.reference is None:
            hint = "" if precision == "fp32" else "; give --against to hear whether it is slower than FP32 at all"
            return f"{self.bundle.name} takes {self.median_ns / 1e6:.3g} ms on {self.target}{hint}"
        ratio, word = self.comparison.ratio, WORDS.get(self.comparison.word, f"{self.comparison.word} than")
        numbers = f"{self.median_ns / 1e6:.3g} ms, {(self.reference_ns or 0) / 1e6:.3g} ms, ratio {ratio.value:.2f}"
        bounds = f" [{ratio.low or 0:.2f}, {ratio.high or 0:.2f}]"
        return f"{precision} is {word} {self.reference.precision} on {self.target}: {numbers}{bounds}, trials in turn"

    @property
    def fused(self) -> str:
        """Say how much of an INT8 file is computed in integers."""
        if self.bundle.precision != "int8" or self.bundle.format != "onnx" or not self.graph.nodes:
            return ""
        if not self.graph.connected:
            return "which Q/DQ pairs are not fused is not known: the runtime's profile does not fit the graph that it optimised"
        graph, unfused = self.graph, len(self.graph.islands)
        integers, converts = len(graph.of_kind("integer")), len(graph.of_kind("convert"))
        pairs = "1 Q/DQ pair is" if unfused == 1 else f"{unfused} Q/DQ pairs are"
        what = "everything that INT8 quantized is fused" if not unfused else f"{pairs} not fused"
        share = graph.share(graph.of_kind("integer"))
        time = "" if share is None else f", with {100 * share:.0f} % of the time"
        return f"{what}: {integers} of {len(graph.nodes)} kernels compute in integers{time}; {converts} convert"

    @property
    def mapped(self) -> str:
        """Say how much the bundle's compiler gave to the accelerator."""
        found = self.bundle.placement
        if found is None:
            return ""
        macs = "" if found.macs_share is None else f", {100 * found.macs_share:.0f} % of the MACs"
        return f"{found.mapped} of {found.operators} operators run on the accelerator{macs}, the compiler says"

    def values(self) -> dict[str, Any]:
        """Return all of it as plain JSON values."""
        compared, compiled = None, self.bundle.placement
        if self.comparison is not None and self.reference is not None:
            described = {"name": self.reference.name, "sha256": self.reference.sha256, "median_ns": self.reference_ns}
            compared = {**described, "latency": self.comparison.model_dump()}
        return {
            "bundle": self.bundle.name,
            "sha256": self.bundle.sha256,
            "file": str(self.path),
            "target": self.target,
            "runtime": self.runtime,
            "method": self.method,
            "headline": self.headline,
            "fused": self.fused or None,
            "compiled": None if compiled is None else compiled.model_dump(mode="json", exclude_unset=True),
            "median_ns": self.median_ns,
            "kernels_ns": self.graph.total_ns if self.graph.timed else None,
            "overhead_ns": self.overhead_ns,
            "against": compared,
            "placement": self.placement,
            "operators": self.operators,
            "kinds": self.kinds,
            "costliest": self.costliest,
            "finish": None if self.finish is None else dict(self.finish),
            "findings": [finding.values() for finding in self.findings],
            "nodes": [self._node(index) for index in range(len(self.graph.nodes))],
        }


def compiled_placement(found: Placement) -> list[dict[str, Any]]:
    """Tell where a compiler put the operators; it times none."""
    places = (("accelerator", found.mapped), ("CPU", found.operators - found.mapped))
    return [{"where": where, "count": count, "share": None} for where, count in places if count]


def _by(graph: Graph, key: Callable[[Node], tuple[str, ...]]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, ...], list[Node]] = defaultdict(list)
    for node in graph.nodes:
        groups[key(node)].append(node)
    rows = [
        {**dict(zip(("where", "op"), name, strict=False)), "count": len(nodes), "share": graph.share(nodes)}
        for name, nodes in groups.items()
    ]
    return sorted(rows, key=lambda row: (row["share"] or 0.0, row["count"]), reverse=True)


def find(case: Case) -> list[Finding]:
    """Look for every known reason; the one that takes most time first."""
    found = [finding for rule in RULES for finding in rule(case)]
    return sorted(found, key=lambda finding: -1.0 if finding.share is None else finding.share, reverse=True)


# ---------------------------------------------------------------- by running


def diagnose(session: Session, subject: CellJob, reference: CellJob | None) -> Diagnosis:
    """Profile a bundle on its device, and measure it without profiling, in turn with its FP32 form where there is one."""
    subjects = [subject] if reference is None else [subject, reference]
    try:
        profiled = _run(session, subjects, [Pass("profile", cell=cell) for cell in range(len(subjects))], "profile")
    except MeasureError as error:
        if NO_PROFILER not in error.reason or not (subject.bundle.finish or subject.bundle.placement):
            raise
        profiled = []
    graphs = [_graph(each, found) for each, found in zip(subjects, profiled, strict=False)] or [Graph(())]
    turns = interleaved(2, session.spec.trials) if reference is not None else [Pass("trial")]
    measured = _run(session, subjects, turns, "measure")
    medians = [stats.medians(found.trials) for found in measured]
    comparison = None
    if reference is not None:
        floor = noise_floor(session.options.results, subject.cell)
        comparison = stats.compare(medians[1], medians[0], paired=True, floor=floor)
    runtime = subject.cell.runtime_version
    machine = str(measured[0].environment.get("machine", ""))
    lean = [less_overhead(graph, stats.interval(each).value) for graph, each in zip(graphs, medians, strict=False)]
    graph, other = lean[0][0], lean[1][0] if len(lean) > 1 else None
    case = Case(subject.bundle, graph, runtime, machine, other, measured[0].finish, _arithmetic(session, subject))
    return Diagnosis(
        subject.bundle,
        subject.folder / subject.bundle.entry,
        subject.cell.target,
        subject.cell.ran_by,
        graph,
        METHODS.get(subject.cell.runtime, "the runtime's own profiler") if graph.timed else _untimed(graph),
        lean[0][1],
        stats.interval(medians[0]).value,
        None if reference is None else reference.bundle,
        None if reference is None else stats.interval(medians[1]).value,
        comparison,
        measured[0].finish,
        tuple(find(case)),
    )


def _arithmetic(session: Session, subject: CellJob) -> Arithmetic | None:
    """Compute samples as the runtime usually does and operator by operator; None where it knows one way alone."""
    other = as_written(subject.bundle, subject.cell.runtime)
    if other is None or subject.data is None or not subject.judged:
        return None
    subject = dataclasses.replace(subject, data=_some(subject.data))
    options = {**subject.cell.options, **other}
    plain = dataclasses.replace(subject, cell=subject.cell.model_copy(update={"options": options}))
    found = _run(session, [subject, plain], [Pass("accuracy", cell=cell) for cell in range(2)], "check the arithmetic of")
    run, written = (scores_of(each.predictions.values, each.predictions.columns) for each in found if each.predictions)
    return Arithmetic(
        samples=len(written),
        agreement=metrics.agreement(subject.bundle.model.task, written, run),
        error=float(np.abs(run - written).mean() / max(float(np.ptp(written)), 1e-30)),
        saturates=processor.saturates(found[0].environment),
    )


def _some(data: Dataset) -> Dataset:
    """Return a data set whose test split holds some samples alone."""
    split = data.read("test")
    chosen = np.sort(np.random.default_rng(0).choice(len(split), min(ARITHMETIC_SAMPLES, len(split)), replace=False))
    return data.judged_on(split.some(chosen))


def unrun(folder: Path, bundle: Bundle, target: str) -> Diagnosis:
    """Say what a bundle's compiler told, without a device."""
    found = tuple(find(Case(bundle, Graph(()), "", "")))
    return Diagnosis(bundle, folder / bundle.entry, target, "none", Graph(()), UNTIMED, 0.0, None, None, None, None, None, found)


def _untimed(graph: Graph) -> str:
    return "none, one inference takes too long to cut the file after each operator" if graph.nodes else UNTIMED


def _run(session: Session, subjects: Sequence[CellJob], passes: Sequence[Pass], what: str) -> list[Measurement]:
    label = f"{what} {subjects[0].bundle.name} on {subjects[0].cell.target}"
    return run_passes(session, subjects, passes, label, meters=())


def _graph(subject: CellJob, found: Measurement) -> Graph:
    """Put together what a device said and what the file says."""
    return Graph(nodes_of(found.profile or ()), tuple(_original(subject.folder, subject.bundle)))


def _original(folder: Path, bundle: Bundle) -> Iterator[Node]:
    """Read an ONNX file's own nodes, with the names that torch gave them."""
    if bundle.entry.endswith(".onnx"):
        yield from nodes_of({**node, "where": "", "ns": None} for node in onnxfile.nodes(str(folder / bundle.entry)))


def reference(session: Session, subject: CellJob, against: Path | None) -> CellJob | None:
    """Tie the FP32 form of a bundle to its device: the one given, or one that lies beside it and runs there.

    `InputError` where what is given is another model.
    """
    bundle, found = subject.bundle, against
    if found is None:
        found = _beside(subject.folder, bundle)
        if found is None or subject.target.accepted(bundle.format, "fp32") is None:
            return None
    other = read_bundle(found)
    if other.model.sha256 != bundle.model.sha256:
        raise InputError(f"{found}: is another model than {bundle.name}; `edgebench compare` compares different models")
    if other.precision != "fp32":
        raise InputError(f"{found}: is {other.precision}; --against wants the fp32 one, `edgebench compare` takes any two")
    return subject_of(session, found, other, subject.target, subject.data, Scenario())


def _beside(folder: Path, bundle: Bundle) -> Path | None:
    """Find the FP32 bundle of the same model in the folder around: NAME.onnx.fp32 next to NAME.onnx.int8."""
    if bundle.precision == "fp32":
        return None
    for manifest in sorted(folder.resolve().parent.glob(f"{bundle.model.name}.{bundle.format}.fp32*/bundle.json")):
        with contextlib.suppress(BundleError):
            found = read_bundle(manifest.parent)
            if found.model.sha256 == bundle.model.sha256 and found.precision == "fp32":
                return manifest.parent
    return None
