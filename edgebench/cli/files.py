"""Options of commands that take model files as they are, and what is read of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from edgebench.cli import options
from edgebench.cli.options import real_numbers
from edgebench.errors import InputError

if TYPE_CHECKING:
    from edgebench.bundle.import_file import FileOptions

T = TypeVar("T")
SCALE = "0..1"
Scale = Annotated[str, typer.Option(help="What the pixels 0 and 255 become, before --mean is taken off: 0..1, -1..1, 0..255.")]


@dataclasses.dataclass(frozen=True)
class FeedGroup:
    """What goes into a model file."""

    shape: Annotated[
        list[str] | None,
        typer.Option(help="Files: an input's shape, NAME=1x3x320x320, or an open size, height=320; the batch is 1 unless given."),
    ] = None
    range: Annotated[list[str] | None, typer.Option(help="Files: an input's random numbers, NAME=0:255; repeatable.")] = None
    input: Annotated[
        list[str] | None, typer.Option(help="Files: what goes into an input, NAME=16000 or NAME=FILE.npy or .npz; repeatable.")
    ] = None
    carry: Annotated[list[str] | None, typer.Option(help="Files: an output fed back, INPUT=OUTPUT; repeatable.")] = None
    scale: Scale = SCALE
    layout: Annotated[str | None, typer.Option(help="Files: nchw or nhwc; by where the channels are unless given.")] = None

    @property
    def given(self) -> list[str]:
        """Name the options that were given."""
        return [
            f"--{each.name.replace('_', '-')}" for each in dataclasses.fields(self) if getattr(self, each.name) != each.default
        ]

    def read(self, path: Path, several: bool = False, **image: Any) -> FileOptions:
        """Collect what is said of a file; `InputError` where something cannot be read. `image`: more of `ImageOptions`."""
        from edgebench.bundle.images import ImageOptions
        from edgebench.bundle.import_file import FileOptions

        if self.layout not in (None, "nchw", "nhwc"):
            raise InputError(f"--layout {self.layout}: nchw or nhwc")
        return FileOptions(
            path,
            shapes=named("--shape", self.shape, "images=1x3x640x640", str),
            ranges=named("--range", self.range, "images=0:255", interval),
            inputs=named("--input", self.input, "sr=16000", value),
            carry=named("--carry", self.carry, "state=stateN", str),
            image=ImageOptions(scale=ends(self.scale), layout=self.layout, **image),  # type: ignore[arg-type]
            several=several,
        )


@dataclasses.dataclass(frozen=True)
class FileGroup(FeedGroup):
    """What a model file does not say of itself."""

    name: Annotated[str | None, typer.Option(help="Files: what to call the only one's model; as the file unless given.")] = None
    golden: Annotated[
        Path | None, typer.Option(help="Files: right outputs (.npz, or ONNX's test_data_set_0) to be found on the device.")
    ] = None
    rtol: Annotated[float, typer.Option(help="golden: how far outputs may be off, as a share.", min=0)] = 1e-3
    atol: Annotated[float, typer.Option(help="golden: and as a number.", min=0)] = 1e-5
    task: Annotated[str | None, typer.Option(help="Files: what the data set asks; as that says unless given.")] = None
    mean: Annotated[str | None, typer.Option(help="Files: taken off each channel of images, in the units of --scale.")] = None
    std: Annotated[str | None, typer.Option(help="Files: each channel is divided by it, after --mean.")] = None
    output: Annotated[str | None, typer.Option(help="Files: the output that holds the scores, where there are several.")] = None
    head: options.Head = None
    classes_file: options.ClassesFile = None
    resize: options.Resize = None
    prompts: Annotated[
        Path | None,
        typer.Option(help="Language models: what they answer, .txt or .jsonl with references, see docs/generation.md."),
    ] = None
    max_new_tokens: Annotated[int, typer.Option(help="Language models: how long an answer is at most.")] = 32
    prompt_tokens: Annotated[
        int, typer.Option(help="Language models of programs that take no text: random tokens in a prompt.", min=1)
    ] = 512

    def dataset(self, text: str | None) -> str | None:
        """Say to a data set how its images are placed, in which order its classes are."""
        if text is None and self.classes_file is not None:
            raise InputError(f"--classes-file {self.classes_file}: is the order of a data set's classes; give --dataset")
        return options.placed(text, self.classes_file, self.resize)

    def read(self, path: Path, several: bool = False, **image: Any) -> FileOptions:
        """Collect what is said of a file; `InputError` where something cannot be read."""
        if self.name is not None and several:
            raise InputError(f"--name {self.name}: names one file's model, and these are several")
        mean, std = real_numbers("--mean", self.mean), real_numbers("--std", self.std)
        options.check_head(self.head)
        said = {"task": self.task, "mean": mean, "std": std, "output": self.output, "head": self.head}
        found = super().read(path, several, **said, **image)
        asked = {name: getattr(self, name) for name in ("prompts", "max_new_tokens", "prompt_tokens")}
        return dataclasses.replace(found, name=self.name, golden=self.golden, rtol=self.rtol, atol=self.atol, **asked)


def named(option: str, texts: list[str] | None, example: str, read: Callable[[str], T]) -> Mapping[str, T]:
    """Read `NAME=VALUE`, repeatable; a name may hold anything, an equals sign too."""
    found: dict[str, T] = {}
    for text in texts or ():
        name, equals, rest = text.rpartition("=")
        if not equals or not name or not rest:
            raise InputError(f"{option} {text}: not NAME=VALUE, for instance {option} {example}")
        try:
            found[name] = read(rest)
        except ValueError as error:
            raise InputError(f"{option} {text}: {error}, for instance {option} {example}") from error
    return found


def interval(text: str) -> tuple[float, float]:
    """Read 0:255."""
    low, colon, high = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return float(low), float(high)
    except ValueError as error:
        raise ValueError("not two numbers with a colon between") from error


def ends(text: str) -> tuple[float, float]:
    """Read 0..1."""
    try:
        return interval(text.replace("..", ":"))
    except ValueError as error:
        raise InputError(f"--scale {text}: not what 0 and 255 become, for instance 0..1, -1..1 or 0..255") from error


def scale_of(text: str) -> tuple[float, float] | None:
    """Read --scale of a network; None where it says what is usual."""
    return None if text == SCALE else ends(text)


def value(text: str) -> Any:
    """Read a constant, or the path of a file with arrays."""
    if text.lower() in ("true", "false"):
        return float(text.lower() == "true")
    try:
        return float(text)
    except ValueError:
        if not text.endswith((".npy", ".npz")):
            raise ValueError("neither a number nor a .npy or .npz file") from None
        return Path(text)


def sources(what: list[str], group: FeedGroup) -> tuple[str | None, list[Path | FileOptions]]:
    """Tell a profile from bundle folders and model files; `InputError` where options of files are given without one."""
    from edgebench.bundle.kinds import expanded, is_brought

    given = expanded(what)
    brought = [text for text in given if is_brought(text)]
    if group.given and not brought:
        raise InputError(f"{group.given[0]}: belongs to a model file, and none is given; name one, for instance model.onnx")
    if len(given) == 1 and not brought and not (Path(given[0]) / "bundle.json").exists():
        return given[0], []
    return None, [group.read(Path(text), len(brought) > 1) if text in brought else Path(text) for text in given]
