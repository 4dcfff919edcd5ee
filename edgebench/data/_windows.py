"""Stored values of a DICOM image → 0…255: rescaled, seen through a window, and white on black (PS3.3, C.7.6.3.1.2 and C.11).

No value within the window is lost before it is scaled: windows are computed in double precision from what is stored, and
rounded once.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.data._dicom_frames import Unreadable
from edgebench.data._dicom_headers import Header
from edgebench.errors import DataError

NAMED = {
    "abdomen": (60.0, 400.0),
    "angio": (300.0, 600.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
    "liver": (60.0, 160.0),
    "lung": (-600.0, 1500.0),
    "mediastinum": (50.0, 350.0),
    "soft-tissue": (40.0, 400.0),
    "stroke": (40.0, 40.0),
    "subdural": (80.0, 200.0),
}
"""Centers and widths in Hounsfield units, as they are usual on consoles."""
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
TABLE_BITS = 16
"""Up to so many, every value that may be stored is computed once, and pixels are looked up."""


@dataclass(frozen=True)
class Window:
    """What of the values becomes 0…255.

    kind: `file` (the file's own, `index` of several), `given` (center and width), `full` (whatever may be stored), or `ends`
    (from the image's least value to its greatest).
    """

    kind: str
    center: float = 0.0
    width: float = 0.0
    hounsfield: bool = False
    """Whether it means Hounsfield units."""
    index: int = 0


def read_window(text: str) -> Window:
    """Read `file`, `file:2`, `full`, `ends`, a name of NAMED, or CENTER:WIDTH."""
    if text in ("file", "full", "ends"):
        return Window(text)
    if text in NAMED:
        return Window("given", *NAMED[text], hounsfield=True)
    if found := re.fullmatch(r"file:([1-9][0-9]?)", text):
        return Window("file", index=int(found[1]) - 1)
    try:
        center, width = (float(part) for part in text.split(":"))
    except ValueError:
        center = width = math.nan
    if not (math.isfinite(center) and math.isfinite(width) and width >= 1):
        known = f"file, file:2, full, ends, {', '.join(NAMED)}, and CENTER:WIDTH (a width of 1 at least)"
        raise DataError(f"--dataset: window={text} is none of {known}; give one of them")
    return Window("given", center, width)


@dataclass(frozen=True)
class _Levels:
    """What a file says of a frame's values."""

    slope: float
    intercept: float
    windows: tuple[tuple[float, float], ...]
    function: str
    rescaled: bool
    """Whether slope and intercept stand in it."""


def greys(stored: NDArray[Any], header: Header, elements: Any, index: int, window: Window) -> NDArray[np.uint8]:
    """Bring the stored values of a grey frame [h, w] to 0…255; `Unreadable` where the file does not say how.

    MONOCHROME1, where the least value is white, is inverted.
    """
    low, high = header.levels
    if stored.size and not (low <= stored.min() and stored.max() <= high):
        raise Unreadable("its pixels have values beyond its BitsStored; replace or remove it")
    levels = _levels(elements, index)
    if window.hounsfield and not (header.hounsfield and levels.rescaled):
        lacking = "no slope and intercept" if header.hounsfield else "no CT"
        raise Unreadable(f"its values are no Hounsfield units ({lacking}), which windows by name mean; give window=CENTER:WIDTH")
    if window.kind == "ends":
        window = _between_ends(stored, elements, levels, window)
    if header.stored > TABLE_BITS:
        return _shown(stored, header, elements, levels, window)
    table = _shown(np.arange(low, high + 1, dtype=np.int64), header, elements, levels, window)
    return np.asarray(table[stored.astype(np.int64) - low])


def _shown(stored: NDArray[Any], header: Header, elements: Any, levels: _Levels, window: Window) -> NDArray[np.uint8]:
    share = _share(stored, header, elements, levels, window)
    share = 1 - share if header.photometric == "MONOCHROME1" else share
    return np.floor(share.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _share(stored: NDArray[Any], header: Header, elements: Any, levels: _Levels, window: Window) -> NDArray[np.float64]:
    """Return which share of the window lies below each value, 0…1."""
    values, (low, high) = _rescaled(stored, header, elements, levels)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise Unreadable("its rescaled values are beyond all numbers; replace or remove it")
    if window.kind == "file":
        if elements.get("VOILUTSequence"):
            return _looked_up(values, elements, window.index)
        if levels.windows:
            if window.index >= len(levels.windows):
                raise Unreadable(f"it has {len(levels.windows)} windows, and window=file:{window.index + 1} is asked for")
            center, width = levels.windows[window.index]
            return _windowed(values, center, width, levels.function)
        if header.stored > 8:
            raise Unreadable(
                f"no window stands in it, and {header.stored} bits want one; give the data set option window=CENTER:WIDTH, "
                f"a name ({', '.join(NAMED)}), full or ends"
            )
    if window.kind == "given":
        return _windowed(values, window.center, window.width, "LINEAR")
    if window.kind == "ends":
        low, high = window.center, window.width
    return np.asarray((values - low) / (high - low)) if high > low else np.zeros(values.shape)


def _between_ends(stored: NDArray[Any], elements: Any, levels: _Levels, window: Window) -> Window:
    """Find an image's least and greatest value; what pads it is none of its own."""
    padding = elements.get("PixelPaddingValue")
    own = stored if padding is None else stored[stored != int(padding)]
    own = stored if own.size == 0 else own
    ends = [levels.slope * float(value) + levels.intercept for value in (own.min(), own.max())]
    if elements.get("ModalityLUTSequence"):
        raise Unreadable("its values are looked up in a table, which window=ends does not know; give window=file or full")
    return replace(window, center=min(ends), width=max(ends))


def _rescaled(
    stored: NDArray[Any], header: Header, elements: Any, levels: _Levels
) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Apply the modality's table or slope and intercept (C.11.1); returns the values, and what they may be at most."""
    if elements.get("ModalityLUTSequence"):
        from pydicom.pixels import apply_modality_lut

        depth = int(elements.ModalityLUTSequence[0].LUTDescriptor[2])
        return apply_modality_lut(stored, elements).astype(np.float64), (0.0, float((1 << depth) - 1))
    ends = [levels.slope * end + levels.intercept for end in header.levels]
    return stored.astype(np.float64) * levels.slope + levels.intercept, (min(ends), max(ends))


def _windowed(values: NDArray[np.float64], center: float, width: float, function: str) -> NDArray[np.float64]:
    """Apply a window: C.11.2.1.2.1 (LINEAR), C.11.2.1.3.2 (LINEAR_EXACT) and C.11.2.1.3.1 (SIGMOID); 0…1."""
    if width < 1 if function == "LINEAR" else width <= 0:
        raise Unreadable("its WindowWidth is too small for its VOILUTFunction; give the data set option window=CENTER:WIDTH")
    if function == "SIGMOID":
        with np.errstate(over="ignore"):  # far below the window it is 0
            return np.asarray(1 / (1 + np.exp(-4 * (values - center) / width)))
    center, width = (center - 0.5, width - 1) if function == "LINEAR" else (center, width)
    if width == 0:
        return (values > center).astype(np.float64)
    return np.asarray(((values - center) / width + 0.5).clip(0, 1))


def _looked_up(values: NDArray[np.float64], elements: Any, index: int) -> NDArray[np.float64]:
    """Look values up in one of the file's own tables (C.11.2.1.1); 0…1 of what its entries may be."""
    from pydicom.pixels import apply_voi

    tables = elements.VOILUTSequence
    if index >= len(tables):
        raise Unreadable(f"it has {len(tables)} tables of windows, and window=file:{index + 1} is asked for")
    depth = int(tables[index].LUTDescriptor[2])
    found = apply_voi(np.floor(values + 0.5).astype(np.int64), elements, index)
    return np.asarray(found / ((1 << depth) - 1))


def _levels(elements: Any, index: int) -> _Levels:
    """Read slope, intercept and windows of a frame: its own functional groups come first, then those of all, then the file's."""
    found: dict[str, Any] = {}
    for holder in (elements, *_groups(elements, index)):
        for name in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction"):
            value = holder.get(name)
            found.update({name: value} if value is not None else {})
    function = str(found.get("VOILUTFunction") or "LINEAR").strip().upper()
    centers, widths = (_numbers(found.get(name)) for name in ("WindowCenter", "WindowWidth"))
    slopes, intercepts = (_numbers(found.get(name)) for name in ("RescaleSlope", "RescaleIntercept"))
    if function not in FUNCTIONS:
        raise Unreadable(f"its VOILUTFunction is none of {', '.join(FUNCTIONS)}; give the data set option window=CENTER:WIDTH")
    if len(centers) != len(widths) or len(slopes) != len(intercepts) or len(slopes) > 1:
        raise Unreadable(
            "its windows or its rescaling are half there: centers go with widths, a slope with an intercept; mend it"
        )
    if slopes == (0.0,):
        raise Unreadable("its RescaleSlope is 0, which makes all values one; mend it")
    return _Levels(
        slopes[0] if slopes else 1.0,
        intercepts[0] if intercepts else 0.0,
        tuple(zip(centers, widths, strict=True)),
        function,
        bool(slopes),
    )


def _groups(elements: Any, index: int) -> list[Any]:
    """List the functional groups that say something of a frame's values (C.7.6.16), those of the frame alone last."""
    found = []
    for name, item in (("SharedFunctionalGroupsSequence", 0), ("PerFrameFunctionalGroupsSequence", index)):
        groups = elements.get(name)
        if groups and item < len(groups):
            for inner in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                within = groups[item].get(inner)
                found += [within[0]] if within else []
    return found


def _numbers(value: Any) -> tuple[float, ...]:
    """Read the decimal strings of an element."""
    several = () if value is None or value == "" else tuple(value) if hasattr(value, "__iter__") else (value,)
    try:
        found = tuple(float(each) for each in several)
    except (TypeError, ValueError):
        found = (math.nan,)
    if not all(math.isfinite(each) for each in found):
        raise Unreadable("its rescaling or its window is no number; replace or remove it")
    return found
