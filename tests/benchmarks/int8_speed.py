"""INT8 is faster than FP32 on this computer, plain on ResNet-50, and no slower searched on MobileNetV3.

Each pair is run in turn. Wanted: ResNet-50's ONNX INT8 is 2.5 times as fast as its FP32 or faster with VNNI, 1.2 times
on x86 without. What `quantize --search` makes of a mobilenet_v3_small trained on digits is as fast as its FP32 or
faster, half its size or smaller, and loses 0.5 points of accuracy at most; plain INT8 stands beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cells import arguments, progress, workplace
from figures import state

from edgebench import MeasureOptions, QuantizeOptions, RunOptions, SourceOptions, api
from edgebench.agent import facts
from edgebench.analysis import processor

sys.path.insert(0, str(Path(__file__).parent.parent))

from few import few_digits

DEPENDS = (
    "edgebench/agent/",
    "edgebench/analysis/",
    "edgebench/device/",
    "edgebench/run/",
    "edgebench/quantize/",
    "exporters/onnx.py",
    "exporters/_onnx/",
    "exporters/_shared/",
    "tests/benchmarks/cells.py",
    "tests/few.py",
)
QUIET = True
"""Noise would decide it."""

SPEED, SPEED_WITHOUT_VNNI, LOSS, SIZE = 2.5, 1.2, 0.005, 2.0
LEARNT = 0.9
FEW = 64
"""Images a split for ResNet-50, whose accuracy means nothing."""


def told(what: str, done: float, total: float, lane: str = "") -> None:
    """Show what is going on."""
    progress(f"{what}: {done:.0f} of {total:.0f}".ljust(90))


def plain(folder: Path, size: int) -> int:
    """Compare plain INT8 with FP32 on ResNet-50 (random weights, which cost as much)."""
    source = SourceOptions("resnet50", size=size, channels=3)
    made = api.quantize(source, dataset=few_digits(folder, FEW), options=QuantizeOptions(out=folder), **common(folder))
    ratio = 1 / made.candidates[-1]["against"]["ratio"]["value"]
    print(f"\nresnet50, {size} px, ONNX:")
    table(made.candidates)
    wanted = SPEED_WITHOUT_VNNI if processor.saturates(facts.environment()) else SPEED
    return state(ratio >= wanted, f"resnet50's INT8 is {ratio:.2f} times as fast as FP32", f"{wanted:g} times at least")


def searched(folder: Path, size: int, epochs: int, minutes: float) -> int:
    """Search MobileNetV3's precision on the device itself."""
    source = SourceOptions("mobilenet_v3_small", size=size, channels=1)
    model = api.train(source, options={"epochs": epochs}, work=folder / "work", progress=told)
    wanted = QuantizeOptions(search=True, minutes=minutes, out=folder)
    made = api.quantize(model, dataset="digits", options=wanted, **common(folder))
    print(f"\nmobilenet_v3_small, {size} px, ONNX:")
    table(made.candidates)
    blocks = made.bundle.details["recipe"]["blocks"]
    whole = [block["name"] for block in blocks if block["choice"] == "int8"]
    print(f"{len(whole)} of {len(blocks)} blocks compute in INT8: {', '.join(whole) or 'none'}")
    first, last = made.candidates[0], made.candidates[-1]
    ratio, smaller = last["against"]["ratio"]["value"], first["size_bytes"] / last["size_bytes"]
    loss = first["metric"] - last["metric"]
    holds = first["metric"] >= LEARNT and last["against"]["word"] != "slower" and loss <= LOSS + 1e-9 and smaller >= SIZE
    text = (
        f"mobilenet_v3_small, searched: {last['against']['word']} (latency ratio {ratio:.3f}), {smaller:.2f} times smaller, "
        f"{100 * first['metric']:.1f} % less {100 * loss:.2f} points"
    )
    return state(holds, text, f"not slower, {SIZE:g} times smaller, {100 * LOSS:g} points of {100 * LEARNT:g} % or more")


def common(folder: Path) -> dict[str, Any]:
    """Give what both have in common: one thread, and a place of their own."""
    run = RunOptions(folder / "results", folder / "work")
    return {"measure": MeasureOptions(scenario={"threads": 1}), "run": run, "progress": told}


def table(rows: tuple[Mapping[str, Any], ...]) -> None:
    """Print the files that were measured in turn."""
    first = rows[0]
    for row in rows:
        ratio = row["against"]["ratio"] if row["against"] else None
        against = f"latency ratio {ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]" if ratio else ""
        smaller = first["size_bytes"] / row["size_bytes"]
        print(
            f"    {row['name']:6} {row['median_ns'] / 1e6:8.3f} ms  {100 * row['metric']:6.2f} %  "
            f"{row['size_bytes'] / 2**20:6.2f} MiB ({smaller:.2f} times smaller)  {against}"
        )


def main() -> int:
    """Run both comparisons."""
    parser = arguments(__doc__)
    parser.add_argument("--size", type=int, default=224, help="ResNet-50's input in pixels")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the search")
    given = parser.parse_args()
    with workplace() as folder:
        short = [plain(folder, given.size), searched(folder, 32, given.epochs, given.minutes)]
    return max(short)


if __name__ == "__main__":
    sys.exit(main())
