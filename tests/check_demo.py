"""Check what `make demo` measured: accuracies, what INT8 costs, and what it saves."""

from __future__ import annotations

import sys
from pathlib import Path

from edgebench.store import records as records_


def main(results: Path) -> int:
    """Print each requirement with its figure; returns the number of those that do not hold."""
    records = {(r.cell.model, r.cell.format, r.cell.precision): r for _, r in records_.read_all(results) if r.accuracy}
    metric = {key: record.accuracy.metrics["accuracy"] for key, record in records.items() if record.accuracy}
    size = {key: record.size_bytes or 0 for key, record in records.items()}
    checks = [
        ("12 cells have a result", len(records), len(records) == 12),
        ("teacher at least 98 %", metric["cnn-large", "onnx", "fp32"], metric["cnn-large", "onnx", "fp32"] >= 0.98),
        (
            "distilled student at least 97 %",
            metric["cnn-distilled", "onnx", "fp32"],
            metric["cnn-distilled", "onnx", "fp32"] >= 0.97,
        ),
    ]
    for model, format, precision in sorted(records):
        if precision == "int8":
            drop = metric[model, format, "fp32"] - metric[model, format, "int8"]
            checks.append((f"{model} {format} int8 loses 1.0 point at most", drop, drop <= 0.01))
    for format in ("onnx", "tflite"):
        ratio = size["cnn-large", format, "fp32"] / size["cnn-large", format, "int8"]
        checks.append((f"{format} int8 teacher at least 3.3 times smaller", ratio, ratio >= 3.3))
    page = results.with_name("report.html")
    checks.append(("the report was written", page.stat().st_size if page.exists() else 0, page.exists()))
    for what, figure, holds in checks:
        print(f"{'ok  ' if holds else 'FAIL'} {what}: {figure:.4g}")
    return sum(not holds for _, _, holds in checks)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
