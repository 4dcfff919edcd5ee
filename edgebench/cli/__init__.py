"""The command line: wiring, printing and exit codes; one file per command.

Exit codes: 0 done; 1 some cells failed, or a record could not be read; 2 wrong usage or bad input, or what was to be printed
could not be written; 130 interrupted. Where the reader of the output leaves before its end (`| head`), or there is no output
(`>&-`), the code is the one that the command would have had, and nothing is said of it.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
import warnings
from functools import cache
from types import TracebackType
from typing import Annotated, Any

import typer

from edgebench import __version__
from edgebench.cli import (
    bench_serve,
    compare,
    compress,
    console,
    data,
    diagnose,
    doctor,
    explain,
    export,
    formats,
    import_,
    leaderboard,
    models,
    noise,
    output,
    profiles,
    quantize,
    recommend,
    report,
    results,
    run,
    serve,
    sweep,
    targets,
    train,
    trust,
    tune,
    validate,
    verify,
)
from edgebench.errors import DataWarning, EdgebenchError, ExportError, MeasureError, ModelWarning, StorageWarning, TransportError

USAGE_ERROR: type[Any] = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")
"""Typer brings a Click of its own from 0.16 on, and uses the installed one before."""
DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="edgebench",
    help="Which of my trained models, in which format and precision, should run on which edge device?",
    epilog="Exit codes: 0 done, 1 some cells failed, 2 wrong usage or bad input, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    train,
    export,
    import_,
    quantize,
    compress,
    run,
    sweep,
    compare,
    diagnose,
    explain,
    leaderboard,
    recommend,
    report,
    serve,
    bench_serve,
    validate,
    verify,
    noise,
    tune,
    trust,
    profiles,
    models,
    formats,
    doctor,
):
    app.command(name=command.__name__.rsplit(".", 1)[1].rstrip("_").replace("_", "-"))(command.command)
app.add_typer(data.app, name="data")
app.add_typer(targets.app, name="targets")
app.add_typer(results.app, name="results")


def _print_version(wanted: bool) -> None:
    if wanted:
        console.say(f"edgebench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; works anywhere.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options that every command has."""


def main() -> None:
    """Run the command line and turn errors into one line and an exit code."""
    debug = "--debug" in sys.argv or bool(os.environ.get("EDGEBENCH_DEBUG"))
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    out = output.hold()
    warnings.showwarning, sys.excepthook = _show, _show_traceback
    code = execute(arguments, debug)
    if reason := output.lost(out):
        console.complain(f"standard output: {reason}; some of what was to be printed is lost")
        code = code or BAD_INPUT
    sys.exit(code)


def _show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **more: Any) -> None:
    """Print edgebench's own warnings as one line, and those of libraries as Python does."""
    if issubclass(category, (StorageWarning, DataWarning, ModelWarning)):
        console.complain(str(message))
    else:
        console.say_error(warnings.formatwarning(message, category, filename, lineno, more.get("line")))


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    console.say_error("".join(traceback.format_exception(kind, error, trace)))


@cache
def _commands() -> Any:
    """Build the tree of commands: it reads the signature of each."""
    return typer.main.get_command(app)


def execute(arguments: list[str], debug: bool) -> int:
    """Run one command; returns its exit code."""
    try:
        code = _commands().main(arguments, prog_name="edgebench", standalone_mode=False)
        return _interrupted() if code == INTERRUPTED else int(code or DONE)
    except USAGE_ERROR as error:
        shown = io.StringIO()
        error.show(shown)
        console.say_error(shown.getvalue())
        return BAD_INPUT
    except (typer.Abort, KeyboardInterrupt):
        return _interrupted()
    except EdgebenchError as error:
        if debug:
            raise
        console.complain(str(error))
        return FAILED if isinstance(error, (ExportError, MeasureError, TransportError)) else BAD_INPUT
    except Exception as error:
        if debug:
            raise
        told = f"unexpected {type(error).__name__}: {console.plain(str(error))}"
        console.complain(f"{told}; please report it with the output of --debug")
        return FAILED


def _interrupted() -> int:
    console.complain("interrupted; what was finished is kept, the same command does the rest")
    return INTERRUPTED
