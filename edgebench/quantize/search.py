"""Which nodes should compute in INT8: the mixture that is fastest on the device itself and loses little enough."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgebench.analysis.metrics import HEADLINE
from edgebench.bundle.export import Order, build_bundle, calibration_of, exporter, order_key, request_of
from edgebench.bundle.goals import check_goals
from edgebench.bundle.manifest import read_bundle
from edgebench.bundle.predict import predict
from edgebench.bundle.samples import samples
from edgebench.errors import BundleError, ExportError, GoalMissed, InputError
from edgebench.files import sha256_json
from edgebench.quantize.bench import Bench, Candidate, Found, Tried, candidates, headline, held_out
from edgebench.run.plan import CellJob
from edgebench.run.session import Session, subject_of
from edgebench.schema import Block, Bundle, Goals, Mixer, Network, Scenario, Target
from edgebench.store.key import scenario_facts

VERSION = 1
"""Of the way to search; part of the key by which a search is found again."""
ROUNDS = 5
STEPS = 3
"""How often blocks next to the chosen ones are tried, while that makes it faster."""
LEAST_GAIN = 0.005
"""A mixture that is faster by less than this share counts as no faster while searching."""


@dataclass(frozen=True)
class SearchOptions:
    """How to search."""

    by: str = "block"
    max_degradation: float = 0.005
    """Most that the headline metric may lose against float32, as a share of 1."""
    minutes: float = 10.0
    samples: int = 256
    """Held-out samples that accuracy is judged on while searching."""


@dataclass(frozen=True)
class Result:
    """A bundle, where it lies, whether it was there before, and how it does beside float32."""

    folder: Path
    bundle: Bundle
    cached: bool
    candidates: tuple[Mapping[str, Any], ...]
    """As `bench.Candidate.values` gives them."""

    @property
    def warning(self) -> str | None:
        """Say so where the bundle is slower than float32."""
        first, last = self.candidates[0], self.candidates[-1]
        if last["against"] is None or last["against"]["word"] != "slower":
            return None
        share = 100 * (last["against"]["ratio"]["value"] - 1)
        return f"{last['name']} is {share:.0f} % slower than {first['name']} on this device; deploy {first['name']} for speed"


def search(session: Session, order: Order, target: Target, options: SearchOptions, folder: Path) -> Result:
    """Find the mixture and write its bundle into `folder`, or find that the same search has left it there.

    Raises `ExportError` where the format or the target has no mixed precision.
    """
    if order.dataset is None:
        raise InputError("quantize --search judges accuracy; give --dataset")
    mixed = dataclasses.replace(order, precision="mixed", accepts=session.accepts(target, order.format, "mixed"))
    key = _key(session, mixed, target, options)
    done = _read(folder, key)
    if done is not None:
        return done
    network = order.network()
    mixed = dataclasses.replace(mixed, network=lambda: network)
    with tempfile.TemporaryDirectory(prefix="edgebench-") as scratch:
        recipe = _begin(session, mixed, target, options, key, Path(scratch)).recipe()
    final = dataclasses.replace(mixed, recipe=recipe)
    bundle, _ = build_bundle(final, target, folder, session.progress)
    return Result(folder, bundle, False, tuple(recipe["compared"]))


def judge(result: Result, max_degradation: float | None) -> Result:
    """Return the result where its bundle loses no more than it may; else raise `GoalMissed`, which carries it."""
    try:
        check_goals(result.bundle, Goals(max_degradation=max_degradation))
    except ExportError as error:
        raise GoalMissed(str(error), result) from error
    return result


def compare_plain(session: Session, order: Order, target: Target, folder: Path) -> Result:
    """Write the plain INT8 bundle, and measure it beside float32 on the target."""
    assert order.dataset is not None
    data = order.dataset
    order = dataclasses.replace(order, accepts=session.accepts(target, order.format, order.precision))
    bundle, cached = build_bundle(order, target, folder, session.progress)
    single, place = _float(session, order, target)
    subjects = {
        each.precision: subject_of(session, where, each, target, data, Scenario())
        for each, where in ((single, place), (bundle, folder))
    }
    found = candidates(session, subjects, ROUNDS)
    return Result(folder, bundle, cached, tuple(each.values() for each in found.values()))


def _key(session: Session, order: Order, target: Target, options: SearchOptions) -> str:
    """Hash all that decides what a search finds, the device included."""
    device, runtime = session.device(target), order.accepts.runtime
    facts = [device.identity, device.runtime_version(runtime), session.measure.mode, scenario_facts(session.scenario(Scenario()))]
    return sha256_json([VERSION, order_key(order), target.name, facts, dataclasses.asdict(options)])


def _read(folder: Path, key: str) -> Result | None:
    if not (folder / "bundle.json").exists():
        return None
    try:
        bundle = read_bundle(folder)
    except BundleError:
        return None  # a damaged one is made anew
    recipe = bundle.details.get("recipe", {})
    return Result(folder, bundle, True, tuple(recipe["compared"])) if recipe.get("key") == key else None


def _mixer(order: Order, network: Network, scratch: Path) -> Mixer:
    plugin: Any = exporter(order.format, order.precision)
    inputs, _ = calibration_of(order)
    request = dataclasses.replace(request_of(order, network), calibration=inputs)
    plugin.preflight(request)
    made: Mixer = plugin.mixer(request, scratch)
    return made


def _float(session: Session, order: Order, target: Target) -> tuple[Bundle, Path]:
    """Export the network in float32, once for all searches."""
    single = dataclasses.replace(order, precision="fp32", accepts=session.accepts(target, order.format, "fp32"), recipe=None)
    return _kept(session, single, target)


def _kept(session: Session, order: Order, target: Target) -> tuple[Bundle, Path]:
    folder = session.options.work / "bundles" / f"{order.model.name}.{order.format}.{order.precision}-{order_key(order)[:12]}"
    bundle, _ = build_bundle(order, target, folder, session.progress)
    return bundle, folder


def _begin(session: Session, order: Order, target: Target, options: SearchOptions, key: str, scratch: Path) -> _Search:
    """Export the network in float32, prepare it for mixing, and judge it on held-out samples."""
    single, place = _float(session, order, target)
    data, mixer = held_out(order, options.samples), _mixer(order, order.network(), scratch)
    [scores] = predict(place, single, samples(single.inputs, place, data), target)
    metric = headline(order.model.task, data, scores)
    journal = session.options.work / "searches" / f"{key[:32]}.json"
    deadline = time.monotonic() + 60 * options.minutes
    bench = Bench(session, target, mixer, single, data, scratch, journal, scores, deadline)
    return _Search(bench, order, options, key, place, metric, list(mixer.blocks(options.by)))


@dataclass
class _Search:
    """One search."""

    bench: Bench
    order: Order
    options: SearchOptions
    key: str
    place: Path
    """Where the bundle in float32 lies."""
    metric: float
    """Of the network in float32, on the held-out samples."""
    blocks: list[Block]
    stored: dict[str, str] = field(default_factory=dict)
    """Nodes whose weights stay float32, for accuracy's sake."""

    def recipe(self) -> dict[str, Any]:
        """Search, compare the winner with float32 and plain INT8, and write all down."""
        tried = self._tried()
        self._keep_weights(tried)
        chosen = self._grown(self._prefix(tried))
        compared, chosen = self._confirmed(chosen)
        session, target, held = self.bench.session, self.bench.target, self.bench.data.read("test")
        return {
            "key": self.key,
            "by": self.options.by,
            "metric": HEADLINE[self.order.model.task],
            "max_degradation": self.options.max_degradation,
            "held_out": {"samples": len(held), "sha256": held.sha256},
            "target": target.name,
            "device": session.device(target).identity,
            "threads": session.scenario(Scenario()).threads,
            "complete": all(each.found is not None for each in tried),
            "blocks": [each.row(self._choice(each.block, chosen), self.options.max_degradation) for each in tried],
            "compared": [candidate.values() for candidate in compared],
        }

    def _tried(self) -> list[Tried]:
        """Measure each block alone in INT8, with all others in float."""
        found = self.bench.measure("try each block in INT8", [self._choices([block]) for block in self.blocks])
        return [
            Tried(block, each, 0.0 if each is None else self._drop(each)) for block, each in zip(self.blocks, found, strict=True)
        ]

    def _drop(self, found: Found) -> float:
        return self.metric - found.metric

    def _fits(self, found: Found | None) -> bool:
        return found is not None and self._drop(found) <= self.options.max_degradation + 1e-9

    def _choices(self, chosen: Sequence[Block]) -> dict[str, str]:
        return {**self.stored, **{node: "int8" for block in chosen for node in block.nodes}}

    def _keep_weights(self, tried: Sequence[Tried]) -> None:
        """Keep float32 weights where int8 ones lose too much: of the most sensitive blocks first, of twice as many each time."""
        ordered = sorted(tried, key=lambda each: each.found.divergence if each.found else 0.0, reverse=True)
        count = 0
        while True:
            [found] = self.bench.measure("check int8 weights", [self.stored])
            if self._fits(found) or found is None or count >= len(ordered):
                return
            count = max(1, 2 * count)
            self.stored = {node: "fp32" for each in ordered[:count] for node in each.block.nodes}

    def _prefix(self, tried: Sequence[Tried]) -> list[Block]:
        """Put the blocks that gain the most into INT8 together, as many as is fastest; each alone must lose little enough."""
        able = [each for each in tried if each.found is not None and each.drop <= self.options.max_degradation + 1e-9]
        able.sort(key=lambda each: each.found.ratio if each.found else 1.0)
        gaining = sum(each.found is not None and each.found.ratio < 1 for each in able)
        counts = sorted({1, gaining // 3, 2 * gaining // 3, gaining, (gaining + len(able)) // 2, len(able)} - {0})
        sets = [[each.block for each in able[:count]] for count in counts if count <= len(able)]
        return self._best("try the best blocks together", [[], *sets])

    def _grown(self, chosen: list[Block]) -> list[Block]:
        """Move single blocks in or out next to those that are in, while that is faster: neighbours share their Q/DQ pairs."""
        for _ in range(STEPS):
            before = {block.name for block in chosen}
            inside = [block.name in before for block in self.blocks]
            edges = [index for index in range(len(inside)) if _borders(inside, index)]
            sets = [[b for index, b in enumerate(self.blocks) if inside[index] != (index == edge)] for edge in edges]
            chosen = self._best("try neighbouring blocks", [chosen, *sets])
            if {block.name for block in chosen} == before:
                break
        return chosen

    def _best(self, label: str, sets: Sequence[list[Block]]) -> list[Block]:
        """Return the fastest set that loses little enough; the first, unless another is clearly faster."""
        found = self.bench.measure(label, [self._choices(each) for each in sets])
        best, fastest = sets[0], found[0].ratio if found[0] is not None else 1.0
        for blocks, each in zip(sets[1:], found[1:], strict=True):
            if each is not None and self._fits(each) and each.ratio < fastest - LEAST_GAIN:
                best, fastest = blocks, each.ratio
        return best

    def _confirmed(self, chosen: list[Block]) -> tuple[list[Candidate], list[Block]]:
        """Measure the winner, float32 and plain INT8 on the test split; where it is slower than float32, so is all in float."""
        names = {"fp32": self._subject(self.bench.bundle, self.place), **self._plain(), "mixed": self._mixture(chosen)}
        found = candidates(self.bench.session, names, ROUNDS)
        against = found["mixed"].against
        if chosen and against is not None and against.word == "slower":
            again = candidates(self.bench.session, {"fp32": names["fp32"], "mixed": self._mixture([])}, ROUNDS)
            if again["mixed"].median_ns / again["fp32"].median_ns < against.ratio.value:
                return [*(found[name] for name in names if name != "mixed"), again["mixed"]], []
        return list(found.values()), chosen

    def _mixture(self, chosen: Sequence[Block]) -> CellJob:
        made = self.bench.subject(self._choices(chosen))
        return self._subject(made.bundle, made.folder)

    def _subject(self, bundle: Bundle, folder: Path) -> CellJob:
        assert self.order.dataset is not None
        return subject_of(self.bench.session, folder, bundle, self.bench.target, self.order.dataset, Scenario())

    def _plain(self) -> dict[str, CellJob]:
        """Export plain INT8 to stand beside; nothing where that is not to be had."""
        try:
            accepts = self.bench.session.accepts(self.bench.target, self.order.format, "int8")
            order = dataclasses.replace(self.order, precision="int8", accepts=accepts)
            bundle, folder = _kept(self.bench.session, order, self.bench.target)
        except ExportError:
            return {}
        return {"int8": self._subject(bundle, folder)}

    def _choice(self, block: Block, chosen: Sequence[Block]) -> str:
        if any(block.name == each.name for each in chosen):
            return "int8"
        return self.stored.get(block.nodes[0], "int8-weights")


def _borders(inside: Sequence[bool], index: int) -> bool:
    """Return whether a block lies next to one of the other kind."""
    return any(inside[near] != inside[index] for near in (index - 1, index + 1) if 0 <= near < len(inside))
