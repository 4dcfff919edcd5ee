"""A model file that somebody brought → a bundle: cached by the file's content and by what was asked for."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebench import plugins, tasks
from edgebench.bundle import golden as golden_
from edgebench.bundle import kinds, shapes
from edgebench.bundle import prompts as prompts_
from edgebench.bundle import values as values_
from edgebench.bundle.export import accepted as accepted_exactly
from edgebench.bundle.export import find_written
from edgebench.bundle.images import ImageOptions, scored_output, with_image
from edgebench.bundle.manifest import list_files, write_manifest
from edgebench.errors import InputError, UntrustedFile
from edgebench.files import below, inside, new_folder, sha256_file, sha256_json
from edgebench.schema import BUNDLE_SCHEMA, Accepts, Bundle, Input, Lineage, Model, Target, TensorSpec
from edgebench.schema.file import FileDescription, FileTensor
from edgebench.trust import check_program, remember

if TYPE_CHECKING:
    from edgebench.data import Dataset

IMPORTED = "imported"
UNKNOWN = -1
"""A size that shows only when the file is run."""


@dataclass(frozen=True)
class FileOptions:
    """A model file, and what it does not say of itself."""

    path: Path
    name: str | None = None
    """What to call the model; as the file unless given."""
    shapes: Mapping[str, str] = field(default_factory=dict)
    """By an input's name, `1x3x320x320`, `scalar` or `1x8:int64`; or a size by the name of an open one."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """By an input's name, the lowest and the highest of the random numbers that it gets."""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """By an input's name, a constant, the path of a `.npy` or `.npz`, or an array."""
    carry: Mapping[str, str] = field(default_factory=dict)
    """By an input's name, the output that is fed back into it."""
    golden: Path | None = None
    """A `.npz` of right outputs, or a folder of ONNX's test data."""
    rtol: float = 1e-3
    atol: float = 1e-5
    image: ImageOptions = field(default_factory=ImageOptions)
    """How images of a data set become what the file takes."""
    prompts: Path | None = None
    """What a language model is asked: `.txt` or `.jsonl`."""
    max_new_tokens: int = 32
    """How long a language model's answers are at most."""
    prompt_tokens: int = 512
    """Random tokens in a prompt, of a language model whose program makes them itself."""
    several: bool = False
    """Whether the options are those of several files: names that this one does not have are passed over."""

    def __post_init__(self) -> None:
        """Take a path as text too."""
        object.__setattr__(self, "path", Path(self.path))

    @property
    def called(self) -> str:
        """Name the model: as was said, or as the file."""
        named = self.path.suffix if self.path.suffix.lower() in kinds.ENDINGS or not self.path.is_dir() else ""
        stem = self.name or self.path.name.removesuffix(named)
        return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:64] or "model"


def told_apart(files: Sequence[FileOptions]) -> list[FileOptions]:
    """Name files of one name and kind by their folders too: else a table would take the newer for the same again.

    `InputError` where that does not do.
    """

    def kind(options: FileOptions) -> tuple[str, str]:
        return options.called, options.path.suffix

    found = []
    for options in files:
        alike = [each for each in files if kind(each) == kind(options) and each.path.resolve() != options.path.resolve()]
        if alike and options.name is None:
            options = replace(options, name=f"{options.path.resolve().parent.name}-{options.called}")
        found.append(options)
    seen: dict[tuple[str, str], Path] = {}
    for options in found:
        other = seen.setdefault(kind(options), options.path)
        if other.resolve() != options.path.resolve():
            raise InputError(f"{options.path} and {other} would both be called {options.called}; name one at a time with --name")
    return found


@dataclass(frozen=True)
class Brought:
    """A file that was read, with all that goes into its bundle."""

    options: FileOptions
    described: FileDescription
    accepts: Accepts
    data: Dataset | None
    tensors: tuple[FileTensor, ...]
    """Its inputs, every size known."""
    given: values_.Given
    arrays: Mapping[str, Any]
    golden: golden_.Outputs | None
    asked: prompts_.Asked | None
    key: str

    @property
    def name(self) -> str:
        """Name its model."""
        return self.options.called


def read(options: FileOptions, target: Target, data: Dataset | None, trust: bool) -> Brought:
    """Read a file and what was asked for, and run nothing of it; `InputError` says what is missing or does not fit."""
    path = str(options.path)
    described = kinds.read_file(options.path)
    _check_trust(options.path, described, trust)
    lengths = (options.max_new_tokens, options.prompt_tokens)
    prompts = prompts_.asked(path, described, options.prompts, *lengths, several=options.several)
    described = prompts_.closed(described, prompts)
    accepts = accepted(target, described.format, described.precision)
    known = {each.name for each in described.inputs}
    outputs = {each.name for each in described.outputs}
    given = values_.Given(
        {name: value for name, value in options.ranges.items() if not options.several or name in known},
        {name: value for name, value in options.inputs.items() if not options.several or name in known},
        {name: value for name, value in options.carry.items() if not options.several or (name in known and value in outputs)},
    )
    values_.check(path, described, given)
    right = golden_.read(options.golden, described, options.rtol, options.atol) if options.golden is not None else None
    texts = {} if prompts is None else prompts.arrays(described)
    arrays = {**({} if right is None else right.inputs), **values_.opened(given.inputs), **texts}
    tensors = shapes.resolved(path, described, _shapes(options, described, arrays))
    asked = {
        "schema": BUNDLE_SCHEMA,
        "file": _hashes(options.path, described),
        "name": options.name,
        "runtime": accepts.runtime,
        "shapes": {each.name: [each.shape, each.dtype] for each in tensors},
        "ranges": {name: list(value) for name, value in given.ranges.items()},
        "constants": {name: str(value) for name, value in given.inputs.items() if name not in arrays},
        "arrays": {name: [values_.digest(array), list(array.shape)] for name, array in sorted(arrays.items())},
        "carry": dict(given.carry),
        "golden": None if right is None else right.key(),
        "dataset": None if data is None else [str(data.ref), data.read("test").sha256, options.image.keyed()],
        **({} if prompts is None else {"prompts": prompts.spec.model_dump(mode="json")}),
    }
    return Brought(options, described, accepts, data, tensors, given, arrays, right, prompts, sha256_json(asked))


def accepted(target: Target, format: str, precision: str) -> Accepts:
    """Find how a target runs a brought file: as it says of the precision, or else of the format; its runtime decides."""
    listed = [each for each in target.accepts if each.format == format]
    if target.accepted(format, precision) is not None or not listed or any(precision in each.refuses for each in listed):
        return accepted_exactly(target, format, precision)
    return accepted_exactly(target, format, listed[0].precisions[0])


def _check_trust(path: Path, described: FileDescription, trust: bool) -> None:
    """Raise `UntrustedFile` for what could run code, unless the user vouches for it.

    Programs are read apart and written anew. TorchScript holds no Python, but what it is
    interpreted as may open and write files: nothing of it is understood here, so the user says.
    """
    if described.format != "torch":
        return
    if described.details.get("kind") == "TorchScript" and not trust:
        raise UntrustedFile(
            f"{path}: TorchScript can read and write files when it is run, and nobody vouches for this one; "
            "give --trust (in Python trust=True) if you know who made it, or save it with torch.export.save"
        )
    check_program(path, trust)


def _shapes(options: FileOptions, described: FileDescription, arrays: Mapping[str, Any]) -> dict[str, shapes.Wanted]:
    """Read the shapes that were given, and take those of arrays for inputs that are open."""
    found = {}
    symbols = {each.symbol(axis) for each in described.inputs for axis, _ in enumerate(each.shape or ())}
    names = {each.name for each in described.inputs} | symbols
    for name, text in options.shapes.items():
        if options.several and names and name not in names:
            continue
        try:
            found[name] = shapes.parse_shape(text)
        except ValueError as error:
            raise InputError(f"--shape {name}: {error}") from error
    for each in described.inputs:
        array = arrays.get(each.name)
        if array is None or not each.is_open or each.name in found:
            continue
        if each.shape is None or len(each.shape) == array.ndim:
            is_batch = each.shape is not None and array.ndim > 1 and each.shape[0] is None and each.name in options.inputs
            sizes = (1, *array.shape[1:]) if is_batch else tuple(array.shape)  # several along the first axis are samples
            found[each.name] = shapes.Wanted(sizes, None if each.dtype else str(array.dtype))
    return found


def _hashes(path: Path, described: FileDescription) -> dict[str, str]:
    """Hash a file and those that it reads besides, or a folder's."""
    if path.is_dir() and not described.entry:
        return {each.relative_to(path).as_posix(): sha256_file(each) for each in _inside(path)}
    if path.is_dir():
        return {str(each): sha256_file(path / each) for each in described.files}
    return {"": sha256_file(path), **{str(each): sha256_file(path.parent / each) for each in described.files}}


def _inside(folder: Path) -> list[Path]:
    """List a package's files; `InputError` where one is a link."""
    found = list(below(folder))
    links = [each for each in found if each.is_symlink()]
    if links:
        raise InputError(f"{links[0]}: a link within a package; put the file itself there")
    return found


def bundle_of(
    brought: Brought, folder: Path, outputs: Callable[[Path, Bundle], tuple[TensorSpec, ...]], always: bool = False
) -> tuple[Bundle, bool]:
    """Make the bundle in `folder`, or find that it holds just that; returns it and whether it was there.

    `outputs` is asked what the file returns, where that is not fully said, or `always`: it runs it once.
    """
    there = find_written(folder, brought.key)
    if there is not None:
        return there, True
    with new_folder(folder, "bundle.json") as staging:
        entry = _copy(brought, staging)
        inputs = values_.made(brought.tensors, brought.given, brought.arrays, staging)
        draft = _draft(brought, entry, inputs)
        draft = draft.model_copy(update={"files": list_files(staging)})
        if always or not draft.outputs or any(UNKNOWN in each.shape for each in draft.outputs):
            draft = draft.model_copy(update={"outputs": outputs(staging, draft)})
        if brought.data is not None:
            draft = draft.model_copy(update={"scored": scored_output(brought.options, draft.outputs, brought.data)})
        if brought.asked is not None:
            brought.asked.write(staging)
        if brought.golden is not None:
            draft = draft.model_copy(update={"golden": brought.golden.write(staging, draft)})
        made = write_manifest(staging, draft.model_copy(update={"files": list_files(staging)}))
    if made.format == "torch" and made.details.get("kind") == "TorchScript":
        remember(made.files[entry].sha256)
    return made, False


def _copy(brought: Brought, staging: Path) -> str:
    """Copy the file, and those that it reads besides; returns the entry."""
    path, suffix, first = brought.options.path, brought.described.suffix, brought.described.entry
    if path.is_dir() and first:
        (staging / "model").mkdir()
        for each in brought.described.files:
            there = inside(staging / "model", each.as_posix())
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path / each, there)
        return f"model/{first}"
    if path.is_dir():
        shutil.copytree(path, staging / f"model{suffix}")
        return f"model{suffix}/Manifest.json"
    entry = f"model{suffix}"
    if any(str(each) == entry for each in brought.described.files):
        entry = f"network{suffix}"
    shutil.copyfile(path, staging / entry)
    for each in brought.described.files:
        there = inside(staging, each.as_posix())
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path.parent / each, there)
    return entry


def _draft(brought: Brought, entry: str, inputs: tuple[Input, ...]) -> Bundle:
    described, data = brought.described, brought.data
    if data is not None:
        inputs = with_image(brought.options, inputs, data)
    known = shapes.description(described)
    said = {key: str(known[key])[:200] for key in ("imgsz", "stride", "task", "version", "author") if known.get(key)}
    custom = {"custom_operators": [str(each) for each in described.custom[:20]]} if described.custom else {}
    hashes = _hashes(brought.options.path, described)
    said_of = {} if brought.options.image.head is None else {"head": brought.options.image.head}
    model = Model(
        name=brought.name,
        architecture="file",
        task=tasks.generating() if described.asks else "none" if data is None else brought.options.image.task or data.task,
        classes=() if data is None else data.classes,
        inputs=inputs,
        sha256=sha256_json(hashes) if described.entry else next(iter(hashes.values())),
        parameters=described.parameters,
        lineage=Lineage(recipe=IMPORTED, options=said_of, dataset=None if data is None else data.ref),
    )
    return Bundle(
        schema_version=BUNDLE_SCHEMA,
        model=model,
        format=described.format,
        precision=described.precision,
        runtime=brought.accepts.runtime,
        entry=entry,
        files={},
        inputs=inputs,
        outputs=tuple(_output(each) for each in described.outputs),
        scored=None,
        parity=None,
        limits={},
        details={**described.details, **({"kinds": dict(described.kinds)} if described.kinds else {}), **custom, **said},
        key=brought.key,
        prompts=None if brought.asked is None else brought.asked.spec,
    )


def _output(tensor: FileTensor) -> TensorSpec:
    sizes = (UNKNOWN,) if tensor.shape is None else tuple(UNKNOWN if size is None else size for size in tensor.shape)
    return TensorSpec(
        name=tensor.name, shape=sizes, dtype=tensor.dtype or "float32", scale=tensor.scale, zero_point=tensor.zero_point
    )


def _nothing(described: FileDescription, limits: Mapping[str, Any]) -> list[str]:
    """Find nothing beyond limits: formats that have none."""
    return []


def warnings_of(brought: Brought) -> list[str]:
    """List what of a file is beyond what a target says that it reads, and its custom operators: it is tried all the same."""
    plugin = plugins.load(kinds.READERS, brought.described.format, "format")
    beyond: Callable[..., list[str]] = plugins.declared(plugin, "beyond", _nothing)
    path = brought.options.path
    found = [f"{path}: {each}; it is tried all the same" for each in beyond(brought.described, brought.accepts.limits)]
    if brought.described.custom:
        custom = ", ".join(str(each) for each in brought.described.custom[:3])
        found.append(f"{path}: custom operators, which the runtime must know: {custom}")
    return found
