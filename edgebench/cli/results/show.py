"""`edgebench results show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgebench.cli import console
from edgebench.errors import InputError

if TYPE_CHECKING:
    from edgebench.schema import Record


def command(
    record: Annotated[str, typer.Argument(help="A record's path, or the beginning of its key or of its file's name.")],
    results: Annotated[Path, typer.Option(help="The folder that holds records/.")] = Path("results"),
    in_words: Annotated[bool, typer.Option("--in-words", help="Say it in sentences, by a template.")] = False,
    model: Annotated[
        Path | None, typer.Option(help="in-words: let this folder of ONNX Runtime GenAI, a local language model, say it again.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show everything of one record: verdict, figures, where and when it was measured, and of what."""
    from edgebench.report import record_card
    from edgebench.store.find import find

    if model is not None and not in_words:
        raise InputError(f"--model {model}: goes with --in-words; give both or neither")
    path, found = find(results, record)
    if in_words:
        _say(found, model, json)
        return
    if json:
        console.print_json(found.model_dump(mode="json", by_alias=True))
        return
    console.say(record_card.title(found))
    for reason in record_card.reasons(found):
        console.say(f"- {reason}")
    console.say(str(path))
    for section in record_card.sections(found):
        console.say()
        console.say(section.title)
        width = max(len(what) for what, _ in section.lines) + 2
        for what, text in section.lines:
            console.say(f"  {what:<{width}}{text}")


def _say(record: Record, model: Path | None, json: bool) -> None:
    """Print sentences, each part marked by what generated it."""
    from edgebench.report import words
    from edgebench.run.words import in_words

    said = in_words(record, model)
    if json:
        console.print_json(said.values())
        return
    for sentence in said.sentences:
        console.say(sentence)
    console.say(words.MARK)
    if said.generated is not None:
        console.say(f"\n{said.generated}")
        if said.strange:
            console.say(f"Numbers that the record does not have: {', '.join(said.strange)}")
        console.say(words.MODEL_MARK.format(name=said.model))
