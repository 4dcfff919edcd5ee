"""Pictures side by side: each sample, and the maps that files and methods make of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.explain._maps import Maps, Study
from edgebench.schema.explanation import Explanation

SIDE, GAP, LINE = 112, 8, 13
"""Pixels: of a picture, between pictures, and of a line of text."""
FOR, AGAINST = (214, 39, 40), (31, 82, 180)
"""Colours of cells that speak for the class and against it."""
STRENGTH = 0.7
"""How much of the colour covers the image where a map is strongest."""
MOST_ROWS = 24
"""Samples on a sheet; the first ones."""
LETTERS = SIDE // 6 + 1
"""So many letters go under a picture."""


def draw(study: Study, classes: Sequence[str], columns: Sequence[tuple[Explanation, Maps]]) -> bytes:
    """Draw a line of pictures for each sample, as PNG; red cells speak for the explained class, blue ones against it."""
    from PIL import Image, ImageDraw

    rows = range(min(len(study.images), MOST_ROWS))
    head, height = 3 * LINE + GAP, SIDE + 2 * LINE + GAP
    sheet = Image.new("RGB", (GAP + (1 + len(columns)) * (SIDE + GAP), head + len(rows) * height), "white")
    pen = ImageDraw.Draw(sheet)
    _write(pen, (GAP, GAP // 2), ["image"])
    for column, (explanation, _) in enumerate(columns, 1):
        file = explanation.file
        _write(pen, (GAP + column * (SIDE + GAP), GAP // 2), [explanation.method, file.model, f"{file.format} {file.precision}"])
    for row in rows:
        top, choice = head + row * height, study.choice
        picture = _enlarged(study.images[row])
        sheet.paste(picture, (GAP, top))
        wanted = classes[choice.classes[row]]
        _write(pen, (GAP, top + SIDE), [f"sample {choice.samples[row]}", f"{choice.chosen[row]}, for {wanted}"])
        for column, (explanation, maps) in enumerate(columns, 1):
            left = GAP + column * (SIDE + GAP)
            sheet.paste(over(picture, maps[row]), (left, top))
            _write(pen, (left, top + SIDE), _captions(explanation, classes, row))
    stream = io.BytesIO()
    sheet.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _captions(explanation: Explanation, classes: Sequence[str], row: int) -> list[str]:
    said = [f"{100 * explanation.likely[row]:.0f} %, says {classes[explanation.predicted[row]]}"]
    if explanation.correlations:
        value = explanation.correlations[row]
        said.append("rho: none" if value is None else f"rho {value:.2f}")
    return said


def _write(pen: Any, place: tuple[int, int], lines: Sequence[str]) -> None:
    for number, line in enumerate(lines):
        shown = line.encode("ascii", "replace").decode()
        pen.text((place[0], place[1] + number * LINE), shown[:LETTERS], fill="black")


def _enlarged(image: NDArray[np.uint8]) -> Any:
    """Bring an image [h, w, c] to the side of a picture, its pixels in sight where there are few."""
    from PIL import Image

    found = Image.fromarray(image if image.shape[-1] == 3 else image[..., 0]).convert("RGB")
    few = max(found.size) < SIDE
    return found.resize((SIDE, SIDE), Image.Resampling.NEAREST if few else Image.Resampling.BILINEAR)


def over(picture: Any, map_: NDArray[np.float64]) -> Any:
    """Lay a map [rows, columns] over a picture of Pillow's, in grey; red cells speak for the class, blue ones against it."""
    from PIL import Image

    most = float(np.abs(map_).max())
    share = np.clip(map_ / most, -1, 1) if most > 0 and np.isfinite(most) else np.zeros_like(map_)
    wide = Image.fromarray(share.astype(np.float32)).resize(picture.size, Image.Resampling.BILINEAR)
    strength = STRENGTH * np.asarray(wide)[..., None]
    grey = np.repeat(np.asarray(picture.convert("L"), np.float64)[..., None], 3, axis=2)
    colour = np.where(strength >= 0, np.array(FOR, np.float64), np.array(AGAINST, np.float64))
    mixed = grey * (1 - np.abs(strength)) + colour * np.abs(strength)
    return Image.fromarray(np.clip(np.round(mixed), 0, 255).astype(np.uint8))
