"""`edgebench train`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgebench.cli import console, options
from edgebench.errors import InputError

if TYPE_CHECKING:
    from edgebench.recipes._alternatives import Alternative
    from edgebench.schema import Interval

NOTE = "Intervals (95 %) count samples. How much the seed alone changes, --vary seed=0,1,2 shows."


def command(
    architecture: Annotated[
        str, typer.Argument(help="A torchvision classifier's name, cnn3d or resnet3d for volumes, or package.module:factory.")
    ],
    dataset: Annotated[
        str, typer.Option(help="digits, medmnist:NAME, image-folder:PATH, or dicom:PATH; options as ,key=value.")
    ] = "digits",
    recipe: Annotated[str, typer.Option(help="train, transfer, fusion, distill, prune or qat.")] = "train",
    teacher: Annotated[Path | None, typer.Option(help="Model folder of the teacher, for distill.")] = None,
    parent: Annotated[Path | None, typer.Option(help="Model folder to begin with; for transfer also a checkpoint file.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call the model.")] = None,
    size: Annotated[int | None, typer.Option(help="Input height and width in pixels.", min=1)] = None,
    channels: Annotated[int | None, typer.Option(help="Input channels, 1 or 3.", min=1, max=3)] = None,
    option: Annotated[list[str] | None, typer.Option(help="A recipe option, for instance epochs=30.")] = None,
    vary: Annotated[
        str | None, typer.Option(help="Train with each value of one option and compare, for instance augment=none,medical.")
    ] = None,
    precision_train: Annotated[str | None, typer.Option(help="What is computed in training: bf16, 16 or 32.")] = None,
    devices: Annotated[int | None, typer.Option(help="Processes that share each batch: one a GPU, or on the CPU.", min=1)] = None,
    strategy: Annotated[str | None, typer.Option(help="How devices share a training: ddp.")] = None,
    trust: options.Trust = False,
    work: Annotated[Path, typer.Option(help="Where models and bundles are kept.")] = Path(".edgebench"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train, transfer, distil or prune a model, or train it for INT8; writes a model folder with its lineage."""
    from edgebench import api
    from edgebench.models.source import SourceOptions
    from edgebench.recipes import check_recipe, is_first, starts_from

    trainer = {"precision_train": precision_train, "devices": devices, "parallel": strategy}
    given = options.assigned(option, "epochs=30") | {key: value for key, value in trainer.items() if value is not None}
    source = SourceOptions(architecture, name=name, size=size, channels=channels, trust=trust)
    key, values = ("", []) if vary is None else _varied(vary, given)
    for value in values:  # what does not fit is refused before the first of them is trained
        begun, wanted = starts_from(recipe, parent, {**given, key: value})
        check_recipe(recipe, name or "model", wanted, [kind for kind, at in (("teacher", teacher), ("parent", begun)) if at])
    with console.progress() as progress:

        def make(changes: dict[str, Any]) -> Path:
            return api.train(
                source,
                dataset=dataset,
                recipe=recipe,
                teacher=teacher,
                parent=parent,
                options={**given, **changes},
                work=work,
                progress=progress,
            )

        found = _compare(key, values, make, dataset, trust) if values else make({})
    if not is_first():  # of the processes that torchrun started, one speaks
        return
    if isinstance(found, Path):
        _print_one(found, json)
    else:
        _print_all(key, found, json)


def _print_one(folder: Path, json: bool) -> None:
    from edgebench import models

    model = models.read_model(folder)
    if json:
        console.print_json({"folder": str(folder), "warnings": [], **model.model_dump(mode="json")})
        return
    found = ", ".join(f"{key} {value:g}" for key, value in model.metrics.items())
    console.say(f"{folder}: {model.name}, {model.parameters / 1e6:.2f} M parameters, {found}")
    console.warn(model.warnings)


# ---------------------------------------------------------------- several values of one option


def _varied(text: str, given: dict[str, Any]) -> tuple[str, list[Any]]:
    """Read `KEY=VALUE,VALUE`, values as YAML reads them; `InputError` where there are not several, or `--option` has one."""
    import yaml

    key, _, rest = text.partition("=")
    try:
        values = yaml.safe_load(f"[{rest}]")
    except yaml.YAMLError as error:
        raise InputError(f"--vary {text}: the values are no YAML ({str(error).splitlines()[0]}); quote them as YAML") from error
    if not key or not isinstance(values, list) or len(values) < 2:
        raise InputError(f"--vary {text}: not KEY=VALUE,VALUE, for instance augment=none,medical")
    if any(values.count(value) > 1 for value in values):
        raise InputError(f"--vary {text}: a value stands there twice")
    if key in given:
        raise InputError(f"--vary {text}: --option gives {key} too; leave one of them out")
    return key, values


def _compare(key: str, values: list[Any], make: Callable[[dict[str, Any]], Path], dataset: str, trust: bool) -> list[Alternative]:
    from edgebench.config import read_dataset
    from edgebench.data import open_images
    from edgebench.recipes import _alternatives

    return _alternatives.compare(values, lambda value: make({key: value}), open_images(read_dataset(dataset)), trust)


def _print_all(key: str, compared: list[Alternative], json: bool) -> None:
    if json:
        console.print_json({"option": key, "alternatives": [each.values() for each in compared], "warnings": []})
        return
    rows = [
        {
            key: str(each.value),
            "val %": _share(each.val),
            "test %": _share(each.test),
            "test, points from the first": _beside(each),
            "epochs (kept)": f"{each.epochs} ({each.model.metrics.get('best_epoch', 0):g})",
            "s": "made before" if each.seconds is None else f"{each.seconds:.1f}",
            "folder": str(each.folder),
        }
        for each in compared
    ]
    console.print_table(f"{compared[0].model.name} by {key}", rows, right=("val %", "test %", "epochs (kept)", "s"))
    console.say(NOTE)
    for each in compared:
        console.warn(each.model.warnings, f"{key}={each.value}: ")


def _share(found: Interval) -> str:
    between = "" if found.low is None or found.high is None else f" ({100 * found.low:.1f}…{100 * found.high:.1f})"
    return f"{100 * found.value:.1f}{between}"


def _beside(each: Alternative) -> str:
    found = each.beside_first
    if found is None or found.difference.low is None or found.difference.high is None:
        return ""
    value, low, high = (f"{100 * part:+.1f}" for part in (found.difference.value, found.difference.low, found.difference.high))
    return f"{value} ({low}…{high}), McNemar p {found.mcnemar_p:.2g}"
