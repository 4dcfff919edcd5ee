"""`edgebench results show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgebench.cli import console


def command(
    record: Annotated[str, typer.Argument(help="A record's path, or the beginning of its key or of its file's name.")],
    results: Annotated[Path, typer.Option(help="The folder that holds records/.")] = Path("results"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show everything of one record: verdict, figures, where and when it was measured, and of what."""
    from edgebench.report import record_card
    from edgebench.store.find import find

    path, found = find(results, record)
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
