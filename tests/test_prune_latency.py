"""Pruning to a latency: the shape is found before it is trained, by timing untrained copies."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import verbs
from conftest import DOUBLES
from test_prune import pruned

from edgebench import models
from edgebench.config import read_dataset
from edgebench.data import open_images
from edgebench.errors import InputError
from edgebench.recipes import FileKind, Job, Timing, _pruning, prune
from edgebench.run import timing
from edgebench.schema import InputPlan, Network, TurnSpec, no_progress


def by_macs(network: Network, parent: Network, kind: FileKind) -> Timing:
    """Time a network as if a million multiply-accumulates took a millisecond."""
    before, after = models.count_macs(parent), models.count_macs(network)
    assert before is not None
    assert after is not None
    return Timing(after / before, float(after), float(before))


@pytest.mark.parametrize("wanted", [{"latency": 0.3}, {"p50_ms": 0.3 * 4.7}])
def test_the_least_ratio_is_found_whose_network_is_fast_enough(trained: Path, wanted: dict[str, float]) -> None:
    parent, tried = models.load_model(trained), list[tuple[Network, Timing]]()

    def timer(network: Network, parent: Network, kind: FileKind) -> Timing:
        assert kind == FileKind("tflite", "int8", "desk")
        assert network.model.sha256 not in {network.model.sha256 for network, _ in tried}
        tried.append((network, by_macs(network, parent, kind)))
        return tried[-1][1]

    options = prune.Options.model_validate({**wanted, "format": "tflite", "precision": "int8", "target": "desk"})
    ratio, found = _pruning.fast_enough(parent, options, lambda _: None, timer)
    allowed = [each for _, each in tried if options.allows(each)]
    refused = [each for _, each in tried if not options.allows(each)]
    assert found == min(allowed, key=lambda each: -each.median_ns)
    assert min(each.median_ns for each in refused) > found.median_ns
    assert found.median_ns <= (0.3 * found.parent_median_ns if "latency" in wanted else 0.3 * 4.7e6)
    pruner = _pruning.Channels(copy.deepcopy(parent.module), parent.example()[0], options, lambda _: None, lambda _: 0)
    assert models.count_macs(replace(parent, module=pruner.tried(ratio).eval())) == found.median_ns
    assert models.count_parameters(parent.module) == parent.model.parameters


def test_a_latency_that_no_network_keeps_is_refused(trained: Path) -> None:
    options = prune.Options.model_validate({"latency": 0.001})
    with pytest.raises(InputError, match=r"cannot be pruned to be so fast: with 95% of its channels gone it takes .* ms"):
        _pruning.fast_enough(models.load_model(trained), options, lambda _: None, by_macs)


PRICED = """
name: priced
description: a device on which a file takes a millisecond, and one for each tenth of a MiB
transport: local
agent_plugins: [rt_priced.py]
accepts:
  - {format: onnx, precisions: [fp32], runtime: priced, options: {base_ms: 1.0, mebibyte_ms: 10.0}}
"""


def test_a_network_is_pruned_to_half_of_its_latency_on_a_target(
    trained: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "priced.yaml").write_text(PRICED)
    (here / "rt_priced.py").write_bytes((DOUBLES / "rt_priced.py").read_bytes())
    monkeypatch.setattr(_pruning, "TIMED_TRIALS", 2)
    monkeypatch.setattr(timing, "BRIEF_TURNS", TurnSpec(pairs=2, turns=2, cap_seconds=8, seconds=0.02))
    folder = pruned(trained, latency=0.5, target="priced.yaml", control=False)
    metrics = models.read_model(folder).metrics
    assert metrics["p50_share"] <= 0.5
    assert metrics["p50_ms"] < 0.51 * metrics["parent_p50_ms"]
    made = verbs.export(str(folder), format="onnx", dataset="digits", out=here / "out")
    size = (made.folder / "model.onnx").stat().st_size
    assert metrics["p50_ms"] == pytest.approx(1 + 10 * size / 2**20, rel=0.02)
    assert models.read_model(folder).lineage.options["target"] == "priced.yaml"


def test_what_was_timed_is_not_timed_again_when_a_training_goes_on(trained: Path, tmp_path: Path) -> None:
    parent = models.load_model(trained)
    job = Job("p", "cnn", "pruned", open_images(read_dataset("digits")), InputPlan(size=16), {}, None, no_progress, timer=by_macs)
    options = prune.Options.model_validate({"latency": 0.5})
    first = prune._fast_enough(job, options, parent, lambda _: None, tmp_path)
    again = prune._fast_enough(replace(job, timer=None), options, parent, lambda _: None, tmp_path)
    assert first == again
    assert first[1]["p50_share"] <= 0.5
    with pytest.raises(InputError, match="nothing here can time a network"):
        prune._fast_enough(replace(job, timer=None), options, parent, lambda _: None, tmp_path / "other")


def test_options_of_a_latency_change_no_key_where_there_is_none() -> None:
    names = {"latency", "p50_ms", "format", "precision", "target"}
    assert not names & set(prune.Options().model_dump())
    assert names <= set(prune.Options(latency=0.5).model_dump())
