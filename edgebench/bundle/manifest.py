"""Bundles on disk: read, verify, and write a folder with `bundle.json` beside the model files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgebench.errors import BundleError, InputError
from edgebench.files import inside, is_sealed, parse_json, seal, sha256_file, write_json
from edgebench.schema import BUNDLE_SCHEMA, Bundle, FileEntry, Temperature

MANIFEST = "bundle.json"
TEMPERATURE = "temperature"
"""Its own hash covers it: what was measured of the bundle before holds after, since no file and no decision changes."""


def read_bundle(folder: Path) -> Bundle:
    """Read and verify a bundle; `BundleError` names the file that is missing or was changed."""
    path = folder / MANIFEST
    try:
        content: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder}: no readable {MANIFEST} ({error}); give the folder that `edgebench export` wrote") from error
    version = content.get("schema") if isinstance(content, dict) else None
    if version not in range(1, BUNDLE_SCHEMA + 1) or isinstance(version, bool):
        raise BundleError(f"{path}: bundle schema {version}, this edgebench reads {BUNDLE_SCHEMA}; export it again")
    temperature = content.pop(TEMPERATURE, None)
    if not is_sealed(content):
        raise BundleError(f"{path}: changed since it was written; export it again")
    if temperature is not None and not _fits(temperature, content["sha256"]):
        raise BundleError(f"{path}: its temperature was changed since it was fitted, or is another's; fit it again")
    try:
        bundle = Bundle.model_validate({**content, TEMPERATURE: temperature})
    except ValidationError as error:
        raise BundleError(f"{path}: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}; export it again") from error
    _verify_files(folder, bundle)
    return bundle


def _fits(temperature: Any, sha256: str) -> bool:
    """Return whether a temperature is as it was fitted, for this very bundle."""
    try:
        return isinstance(temperature, dict) and is_sealed(temperature) and temperature.get("bundle_sha256") == sha256
    except ValueError:  # no number
        return False


def _verify_files(folder: Path, bundle: Bundle) -> None:
    for name, entry in bundle.files.items():
        try:
            path = inside(folder, name)
        except InputError as error:
            raise BundleError(str(error)) from error
        if not path.is_file():
            raise BundleError(f"{path}: missing; export the bundle again")
        if sha256_file(path) != entry.sha256:
            raise BundleError(f"{path}: changed since it was written (its hash differs); export the bundle again")
    if bundle.entry not in bundle.files:
        raise BundleError(f"{folder}: names no file {bundle.entry!r}; export it again")


def list_files(folder: Path) -> dict[str, FileEntry]:
    """Hash every file of a folder, the manifest apart."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): FileEntry(sha256=sha256_file(path), bytes=path.stat().st_size) for path in paths}


def write_manifest(folder: Path, bundle: Bundle) -> Bundle:
    """Seal and write `bundle.json`; returns the bundle with its hash, and without a temperature, which was another's."""
    content = seal(bundle.model_copy(update={TEMPERATURE: None}).model_dump(mode="json", by_alias=True))
    write_json(folder / MANIFEST, content)
    return Bundle.model_validate(content)


def write_temperature(folder: Path, temperature: Temperature) -> Bundle:
    """Seal a temperature and write it into the `bundle.json` that lies there; the bundle's hash and files stay as they are."""
    bundle = read_bundle(folder)
    written = parse_json((folder / MANIFEST).read_text(encoding="utf-8"))  # of whatever schema, or its hash would change
    sealed = seal(temperature.model_copy(update={"bundle_sha256": bundle.sha256}).model_dump(mode="json"))
    write_json(folder / MANIFEST, {**written, TEMPERATURE: sealed})
    return bundle.model_copy(update={TEMPERATURE: Temperature.model_validate(sealed)})
