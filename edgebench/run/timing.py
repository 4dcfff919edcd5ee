"""How long a network takes as a file on a device, asked before it is trained: what recipes that make one fast enough go by."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgebench.analysis import stats
from edgebench.bundle.export import Order, build_bundle, calibration_of, exporter, order_key, request_of
from edgebench.bundle.manifest import list_files, write_manifest
from edgebench.config import read_target
from edgebench.data import Dataset
from edgebench.recipes import FileKind, Timing
from edgebench.run.interleave import Plan, take_turns
from edgebench.run.options import MeasureOptions
from edgebench.run.plan import CellJob
from edgebench.run.session import Session, forget, subject_of
from edgebench.schema import Bundle, CalibrationPlan, ModeSpec, Network, Scenario, Target, TurnSpec
from edgebench.trust import programs, remember

ROUNDS = 3
BRIEF = ModeSpec(trials=ROUNDS, min_samples=20, min_seconds=0.25, cap_seconds=5, window_seconds=0.1, adaptive=False)
"""Short trials, since several shapes are tried; the model that is made is measured again as any other."""
BRIEF_TURNS = TurnSpec(pairs=ROUNDS, turns=4, cap_seconds=8, seconds=0.05)
SCENARIO = Scenario(threads=1, warmup_seconds=0.1)


@dataclass(frozen=True)
class NetworkTimer:
    """Exports networks beside their parent, and lets both take turns on a device; see `recipes.Timer`."""

    session: Session
    data: Dataset
    targets: Sequence[Target] = ()
    """Those that have an address; others are read by name."""
    calibration: CalibrationPlan = field(default_factory=CalibrationPlan)

    def __call__(self, network: Network, parent: Network, kind: FileKind) -> Timing:
        """Time a network beside its parent: one inference after the other, with one thread, on images of the test split.

        `ExportError` where one of them is not expressible in the format, `MeasureError` where one does not run.
        """
        session = replace(self.session, measure=MeasureOptions(), subset=None)
        known = {target.name: target for target in self.targets}
        target = known.get(kind.target) or read_target(kind.target, trust=session.options.trust)
        accepts = session.accepts(target, kind.format, kind.precision)
        order = Order(parent.model, lambda: parent, kind.format, kind.precision, accepts, self.data, self.calibration)
        key = order_key(order)
        folder = session.options.work / "bundles" / f"{parent.model.name}.{kind.format}.{kind.precision}-{key[:12]}"
        bundle, _ = build_bundle(order, target, folder, session.progress)
        with tempfile.TemporaryDirectory(prefix="edgebench-") as scratch:
            made = write_untrained(order, bundle, network, Path(scratch))
            subjects = [
                subject_of(session, where, each, target, self.data, SCENARIO)
                for where, each in ((folder, bundle), (Path(scratch), made))
            ]
            return self._turns(session, subjects)

    def _turns(self, session: Session, subjects: Sequence[CellJob]) -> Timing:
        label = f"time {subjects[1].bundle.name} in a smaller shape on {subjects[1].cell.target}"
        try:
            taken = take_turns(session, subjects, Plan(BRIEF_TURNS, ROUNDS), label, spec=BRIEF)
        finally:
            forget(session, subjects[1])
        before, after = (float(np.median(stats.medians(each.trials))) for each in taken.measurements)
        return Timing(taken.compare(0, 1, None).ratio.value, after, before)


def write_untrained(order: Order, parent: Bundle, network: Network, folder: Path) -> Bundle:
    """Write a network's bundle beside none of the checks that a trained one goes through: nobody asks what it decides."""
    plugin = exporter(order.format, order.precision)
    own = replace(order, model=network.model, network=lambda: network)
    inputs, _ = calibration_of(own)
    made = plugin.export(replace(request_of(own, network), calibration=inputs), folder)
    update = {
        "model": network.model,
        "entry": made.entry,
        "files": list_files(folder),
        "inputs": made.inputs,
        "outputs": made.outputs,
        "finish": made.finish,
    }
    bundle = write_manifest(folder, parent.model_copy(update=update))
    for name in programs(folder, bundle, order.accepts.runtime):
        remember(bundle.files[name].sha256)
    return bundle
