"""What models look at, as `edgebench explain` found it: a file for each file of a model, method and choice of samples.

Tables read them without numpy and without the schema, which take a quarter of a second to import.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebench.errors import InputError, RecordError
from edgebench.files import below, inside, is_sealed, parse_json, seal, sha256_json, write_atomic, write_json
from edgebench.store.layout import EXPLANATIONS, is_record

if TYPE_CHECKING:
    from edgebench.schema.explanation import Explanation
    from edgebench.schema.record import Sidecar

METHOD = "occlusion"
"""Whose drift tables show: it needs no seed, and any file answers it."""
VERSION = 1
"""Of how maps are made; part of their keys."""
MOST_BYTES = 1 << 24
MOST_MAPS = 1 << 28
MAPS, SHEET = ".maps.npz", ".sheet.png"
PNG = b"\x89PNG\r\n\x1a\n"
Tie = tuple[str, str, str, str]
"""A bundle's hash, target, device, and the runtime's options as the index writes them."""


@dataclass(frozen=True)
class Found:
    """An explanation's drift, as tables show it."""

    path: Path
    started_at: str
    values: Mapping[str, Any]
    """As JSON has it: `reference`, `same_model`, and of `found`, `own` and `other` the correlation and the overlap."""


def place(explanation: Explanation) -> str:
    """Say where an explanation belongs below the folder of results."""
    file = explanation.file
    method = explanation.method.replace("++", "-plus-plus")
    return f"{EXPLANATIONS}/{file.target}/{file.name}.{method}.{explanation.key[:10]}.json"


def key_of(explanation: Explanation, version: int = VERSION) -> str:
    """Hash all that decides an explanation's maps."""
    chosen = [list(explanation.samples), list(explanation.chosen), list(explanation.classes)]
    file = explanation.file.model_dump(mode="json")
    return sha256_json([version, explanation.method, file, explanation.evaluation_sha256, chosen, explanation.settings])


def beside(explanation: Explanation) -> tuple[Sidecar, ...]:
    """Return what belongs to an explanation: its maps and its sheet."""
    return tuple(each for each in (explanation.maps, explanation.sheet) if each is not None)


def save(
    results: Path, explanation: Explanation, arrays: Mapping[str, Any] | None = None, sheet: bytes | None = None
) -> Explanation:
    """Write an explanation and what belongs to it, named by their hashes; returns it with those."""
    from edgebench.schema.explanation import Explanation

    path = results / place(explanation)
    update: dict[str, Any] = {}
    if arrays is not None:
        update["maps"] = _beside(path, _packed(arrays), MAPS)
    if sheet is not None:
        update["sheet"] = _beside(path, sheet, SHEET)
    sealed = seal(explanation.model_copy(update=update).model_dump(mode="json", by_alias=True))
    write_json(path, sealed)
    made = Explanation.model_validate(sealed)
    kept = {each.file for each in beside(made)}
    for old in path.parent.glob(f"{path.name.removesuffix('.json')}.????????.*"):
        if old.name.endswith((MAPS, SHEET)) and old.name not in kept:
            old.unlink(missing_ok=True)
    return made


def _beside(path: Path, content: bytes, ending: str) -> Sidecar:
    from edgebench.schema.record import Sidecar

    digest = hashlib.sha256(content).hexdigest()
    file = path.with_name(beside_name(path.name, digest, ending))
    write_atomic(file, content)
    return Sidecar(file=file.name, sha256=digest, bytes=len(content))


def beside_name(name: str, sha256: str, ending: str) -> str:
    """Name the file of an explanation's maps or sheet by its hash."""
    return f"{name.removesuffix('.json')}.{sha256[:8]}{ending}"


def _packed(arrays: Mapping[str, Any]) -> bytes:
    import numpy as np

    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


# ---------------------------------------------------------------- reading


def read(path: Path) -> Explanation:
    """Read one explanation and check it against its hash; `RecordError` where it was changed or is none."""
    return validated(path, read_content(path))


def owned(path: Path, content: Mapping[str, Any]) -> Explanation:
    """Turn what `read_content` read into an explanation whose key and files are its own; `RecordError` where they are not."""
    found = validated(path, content)
    if all(key_of(found, version) != found.key for version in range(1, VERSION + 1)):
        raise RecordError(f"{path}: its key is not that of its file and samples; delete it and explain again")
    name = place(found).rpartition("/")[2]
    for each, ending in ((found.maps, MAPS), (found.sheet, SHEET)):
        if each is not None and each.file != beside_name(name, each.sha256, ending):
            raise RecordError(f"{path}: names {each.file[:200]!r}, which is not its own; delete it and explain again")
    return found


def validated(path: Path, content: Mapping[str, Any]) -> Explanation:
    """Turn what `read_content` read into an explanation."""
    from pydantic import ValidationError

    from edgebench.schema.explanation import Explanation

    try:
        return Explanation.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise RecordError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; delete it and explain again") from error


def find(results: Path, key: str) -> Explanation | None:
    """Find an intact explanation by its key; one that was changed is made again."""
    for path in sorted((results / EXPLANATIONS).glob(f"*/*.{key[:10]}.json")):
        try:
            found = read(path)
        except RecordError:
            continue
        if found.key == key:
            return found
    return None


def arrays(results: Path, explanation: Explanation) -> dict[str, Any]:
    """Read an explanation's maps: `maps` and `again` [n, rows, columns]; `RecordError` where they are not what they were."""
    import numpy as np

    path = (results / place(explanation)).parent
    if explanation.maps is None:
        raise RecordError(f"{path}: {explanation.file.name} has no maps; delete it and explain again")
    content = read_beside(path, explanation.maps, MOST_MAPS)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MOST_MAPS:
                raise ValueError("they unpack to more than any maps")
        with np.load(io.BytesIO(content), allow_pickle=False) as opened:
            return {name: np.asarray(opened[name]) for name in opened.files}
    except Exception as error:  # whoever wrote it decides what goes wrong in it
        raise RecordError(f"{path / explanation.maps.file}: cannot be read ({type(error).__name__}); explain again") from error


def sheet(results: Path, explanation: Explanation, most_bytes: int) -> bytes | None:
    """Read an explanation's sheet of pictures; None where it has none, or a larger one."""
    if explanation.sheet is None or explanation.sheet.bytes > most_bytes:
        return None
    folder = (results / place(explanation)).parent
    content = read_beside(folder, explanation.sheet, most_bytes)
    if not content.startswith(PNG):
        raise RecordError(f"{folder / explanation.sheet.file}: is no PNG; explain again")
    return content


def read_beside(folder: Path, sidecar: Sidecar, most: int = MOST_MAPS) -> bytes:
    """Read an explanation's maps or sheet, and check it against the hash that the explanation carries."""
    try:
        path = inside(folder, sidecar.file)
        content = _bytes(path, min(sidecar.bytes, most))
    except (OSError, InputError) as error:
        raise RecordError(f"{folder}: {sidecar.file!r} cannot be read ({error}); explain again") from error
    if hashlib.sha256(content).hexdigest() != sidecar.sha256:
        raise RecordError(f"{path}: changed since it was written; explain again")
    return content


def _bytes(path: Path, most: int) -> bytes:
    """Read a plain file, or so much of a longer one that its hash cannot fit."""
    if not path.is_file():
        raise FileNotFoundError(f"{path.name}: no such file")
    with path.open("rb") as stream:
        return stream.read(most + 1)


def read_content(path: Path) -> dict[str, Any]:
    """Read an explanation as it is written, and check it against its hash."""
    try:
        text = _bytes(path, MOST_BYTES)
        content = parse_json(text) if len(text) <= MOST_BYTES else None
        if not isinstance(content, dict) or not is_sealed(content):
            raise ValueError("its hash differs")
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: not a readable explanation ({error}); delete it and run `edgebench explain`") from error
    return content


def paths(results: Path) -> Iterator[Path]:
    """List the explanations below a folder of results, in order."""
    for path in below(results / EXPLANATIONS) if (results / EXPLANATIONS).is_dir() else ():
        if is_record(path.name):
            yield path


def stamps(results: Path) -> dict[str, str]:
    """Return what changes where an explanation does, by its path."""
    found = {}
    for path in paths(results):
        try:
            status = path.stat()
        except OSError:  # gone in the meantime
            continue
        found[path.relative_to(results).as_posix()] = f"{status.st_mtime_ns} {status.st_size} {status.st_ino}"
    return found


def drifts(results: Path, damaged: list[tuple[str, str]]) -> dict[Tie, Found]:
    """Collect the newest drift of each file on each device, by occlusion; what cannot be read joins `damaged` with its reason."""
    found: dict[Tie, Found] = {}
    for path in paths(results):
        try:
            which, each = _drift(path)
        except RecordError as error:
            damaged.append((path.relative_to(results).as_posix(), str(error)))
            continue
        if which is not None and each is not None and (which not in found or found[which].started_at < each.started_at):
            found[which] = each
    return found


def _drift(path: Path) -> tuple[Tie | None, Found | None]:
    content = read_content(path)
    try:
        file, drift = content["file"], content["drift"]
        if drift is None or content["method"] != METHOD:
            return None, None
        values = {"reference": str(drift["reference"]), "same_model": bool(drift["same_model"])}
        for kind in ("found", "own", "other"):
            for name in ("correlation", "overlap"):
                values[f"{kind}_{name}"] = _share(drift[kind][name])
        found = (str(file["sha256"]), str(file["target"]), str(file["device"]), _as_indexed(file["options"]))
        return found, Found(path, str(content["started_at"]), values)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise RecordError(f"{path}: not a readable explanation ({reason}); delete it and run `edgebench explain`") from error


def tie(explanation: Explanation) -> Tie:
    """Say which records an explanation is of."""
    file = explanation.file
    return file.sha256, file.target, file.device, _as_indexed(file.options)


def _as_indexed(options: Mapping[str, Any]) -> str:
    return json.dumps(options, sort_keys=True, ensure_ascii=False)


def _share(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not -1.001 <= value <= 1.001:
        raise ValueError(f"{value!r} is no correlation and no share")
    return float(value)
