"""`edgebench data`: what a data set holds, what a public one requires, synthetic data in its form, and images as PNG."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from edgebench.cli.data import convert, requirements, show, synthesize


class _Shows(TyperGroup):
    """Takes a data set's name for `show` of it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command in front of what names none."""
        first = next((word for word in args if not word.startswith("-")), None)
        return super().parse_args(ctx, args if first is None or first in self.commands else ["show", *args])


app = typer.Typer(
    name="data",
    help="Show what a data set holds (`edgebench data DATASET`) or requires, write synthetic data like it, or its images as PNG.",
    cls=_Shows,
    no_args_is_help=True,
    rich_markup_mode=None,
)
for command in (show, requirements, synthesize, convert):
    app.command(name=command.__name__.rsplit(".", 1)[1])(command.command)
