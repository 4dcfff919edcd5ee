"""INT8 against FP32 on this computer, each pair in turn in one run: plain on ResNet-50, searched on MobileNetV3.

Wanted: ResNet-50's ONNX INT8 is 2.5 times as fast as its FP32 or faster with VNNI, 1.2 times on x86 without. What
`quantize --search` makes of a mobilenet_v3_small trained on digits is as fast as its FP32 or faster, half its size
or smaller, and loses 0.5 points of accuracy at most; plain INT8 stands beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cells import arguments, progress, verdict, workplace

from edgebench import MeasureOptions, QuantizeOptions, RunOptions, SourceOptions, api
from edgebench.agent import facts
from edgebench.analysis import processor

sys.path.insert(0, str(Path(__file__).parent.parent))

from few import few_digits

SPEED, SPEED_WITHOUT_VNNI, LOSS, SIZE = 2.5, 1.2, 0.005, 2.0
LEARNT = 0.9
FEW = 64
"""Images a split for ResNet-50, whose accuracy means nothing."""


def told(what: str, done: float, total: float, lane: str = "") -> None:
    """Show what is going on."""
    progress(f"{what}: {done:.0f} of {total:.0f}".ljust(90))


def plain(folder: Path, size: int) -> str | None:
    """Compare plain INT8 with FP32 on ResNet-50 (random weights, which cost as much); returns what falls short."""
    source = SourceOptions("resnet50", size=size, channels=3)
    made = api.quantize(source, dataset=few_digits(folder, FEW), options=QuantizeOptions(out=folder), **common(folder))
    ratio = 1 / made.candidates[-1]["against"]["ratio"]["value"]
    print(f"\nresnet50, {size} px, ONNX:")
    table(made.candidates)
    wanted = SPEED_WITHOUT_VNNI if processor.saturates(facts.environment()) else SPEED
    return None if ratio >= wanted else f"resnet50's INT8 is {ratio:.2f} times as fast as FP32, {wanted:g} are wanted"


def searched(folder: Path, size: int, epochs: int, minutes: float) -> str | None:
    """Search MobileNetV3's precision on the device itself; returns what falls short."""
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
    if first["metric"] < LEARNT:
        return f"mobilenet_v3_small has learnt nothing ({100 * first['metric']:.1f} %), so no loss can be judged"
    if last["against"]["word"] == "slower":
        return f"the searched mobilenet_v3_small is slower than FP32, by {last['against']['ratio']['value']:.3f}"
    if first["metric"] - last["metric"] > LOSS + 1e-9:
        return f"the searched mobilenet_v3_small loses {100 * (first['metric'] - last['metric']):.2f} points"
    smaller = first["size_bytes"] / last["size_bytes"]
    return None if smaller >= SIZE else f"the searched mobilenet_v3_small is {smaller:.2f} times smaller, {SIZE:g} are wanted"


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
    wrong = [text for text in short if text]
    return verdict(not wrong, "; ".join(wrong) or "INT8 gains what it should, plain and searched")


if __name__ == "__main__":
    sys.exit(main())
