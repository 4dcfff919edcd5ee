"""Model files that somebody brought → bundles, and subjects that are ready to be measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgebench.bundle import import_file as import_
from edgebench.bundle.import_file import Brought, FileOptions
from edgebench.bundle.kinds import is_brought
from edgebench.bundle.predict import output_specs
from edgebench.bundle.samples import samples
from edgebench.config import read_dataset
from edgebench.data import open_images
from edgebench.errors import EdgebenchError, ExportError, InputError, StorageError, written
from edgebench.run.outcome import CellOutcome, ExportResult
from edgebench.run.plan import CellJob, matches, parse_only
from edgebench.run.prepare import prepare_bundles, tie_bundle
from edgebench.run.session import Session, subject_of
from edgebench.schema import Bundle, Progress, Scenario, Target, TensorSpec

if TYPE_CHECKING:
    from edgebench.data import Dataset


def options_of(source: str | Path | FileOptions) -> FileOptions | None:
    """Return what is said of a model file; None for a bundle's folder."""
    if isinstance(source, FileOptions):
        return source
    return FileOptions(Path(source)) if is_brought(str(source)) else None


def bring_file(
    source: str | Path | FileOptions, out: Path, target: Target, dataset: str | None, trust: bool, progress: Progress
) -> ExportResult:
    """Make a file's bundle below `out`, named as exports are."""
    options = source if isinstance(source, FileOptions) else FileOptions(Path(source))
    data = open_images(read_dataset(dataset)) if dataset else None
    return bring(import_.read(options, target, data, trust), out, target, progress, alone=True)


def bring(brought: Brought, root: Path, target: Target, progress: Progress, alone: bool = False) -> ExportResult:
    """Make a file's bundle below a folder, or find it there; says what of the file is beyond the target's limits.

    Where the file does not say what it returns it is run once, if this computer can. alone: it is in any case, and the
    folder is named without the key.
    """
    for note in import_.warnings_of(brought):
        progress(note, 0, 0)
    end = "" if alone else f"-{brought.key[:12]}"
    folder = root / f"{brought.name}.{brought.described.format}.{brought.described.precision}{end}"

    def tried(staging: Path, draft: Bundle) -> tuple[TensorSpec, ...]:
        given = [each[:1] for each in samples(draft.inputs, staging, brought.data, 1)]
        try:
            return output_specs(staging, draft, given, target)
        except ExportError as error:
            if target.transport == "local":
                raise
            progress(f"{error}; {target.name} is asked", 0, 0)
            return draft.outputs

    bundle, cached = import_.bundle_of(brought, folder, tried, alone)
    return ExportResult(folder, bundle, cached)


def is_runnable(path: Path) -> bool:
    """Return whether a path is a bundle's folder or a model file, and not a record or a folder of those."""
    return (path / "bundle.json").exists() or (path.suffix != ".json" and is_brought(str(path)))


def tie(session: Session, source: Path | FileOptions, target: Target, dataset: str | None) -> CellJob:
    """Tie a bundle's folder or a model file to a device; raises where it cannot run there."""
    options = options_of(source)
    if options is None:
        assert not isinstance(source, FileOptions)
        return tie_bundle(session, source, target, dataset)
    data = open_images(read_dataset(dataset)) if dataset else None
    brought = import_.read(options, target, data, session.options.trust)
    session.check(target)
    made = bring(brought, session.options.work / "bundles", target, session.progress)
    return subject_of(session, made.folder, made.bundle, target, data, Scenario())


def tie_all(session: Session, sides: Sequence[Path], target: Target, dataset: str | None) -> list[CellJob]:
    """Tie several of them; files of one name are told apart."""
    options = [options_of(side) for side in sides]
    files = import_.told_apart([each for each in options if each is not None])
    named = [side if each is None else files.pop(0) for side, each in zip(sides, options, strict=True)]
    return [tie(session, each, target, dataset) for each in named]


def prepare_brought(
    session: Session, sources: Sequence[Path | FileOptions], targets: Sequence[Target], only: str | None, dataset: str | None
) -> list[CellJob | CellOutcome]:
    """Prepare bundles' folders and model files, these first."""
    options = [options_of(each) for each in sources]
    folders = [
        Path(each) for each, found in zip(sources, options, strict=True) if found is None and not isinstance(each, FileOptions)
    ]
    prepared = prepare_files(session, [each for each in options if each is not None], targets, only, dataset)
    return [*prepared, *prepare_bundles(session, folders, targets, only, dataset)]


def prepare_files(
    session: Session, files: Sequence[FileOptions], targets: Sequence[Target], only: str | None, dataset: str | None
) -> list[CellJob | CellOutcome]:
    """Read all files, then make their bundles and tie them to devices; what cannot be made is a failed cell.

    `InputError` where the only file is none that can be measured; of several, it is told and the others go on.
    """
    wanted = parse_only(only)
    prepared: list[CellJob | CellOutcome] = []
    data = open_images(read_dataset(dataset)) if dataset and files else None
    for options in import_.told_apart(files):
        for target in targets:
            try:
                brought = import_.read(options, target, data, session.options.trust)
            except InputError as error:
                if len(files) == 1:
                    raise
                name = (target.name, options.path.name, options.path.suffix[1:] or "file", "")
                prepared.append(CellOutcome(*name, state="failed", reason=written(error)))
                continue
            described = brought.described
            if matches(wanted, brought.name, described.format, described.precision, target.name):
                prepared.append(_prepare(session, brought, target, data))
    return prepared


def _prepare(session: Session, brought: Brought, target: Target, data: Dataset | None) -> CellJob | CellOutcome:
    name = (target.name, brought.name, brought.described.format, brought.described.precision)
    try:
        session.check(target)
        made = bring(brought, session.options.work / "bundles", target, session.progress)
        return subject_of(session, made.folder, made.bundle, target, data, Scenario())
    except (InputError, StorageError):
        raise
    except EdgebenchError as error:
        ref = None if data is None else data.ref
        return session.fail(session.unmeasured(name, ref, data, Scenario()), "baseline", error)
