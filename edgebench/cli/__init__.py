"""The command line: wiring, printing and exit codes; one file per command.

Exit codes: 0 done; 1 some cells failed; 2 wrong usage or bad input; 130 interrupted.
"""

from __future__ import annotations

import functools
import io
import os
import sys
import warnings
from typing import Annotated, Any

import typer

from edgebench import __version__
from edgebench.cli import (
    compare,
    console,
    diagnose,
    doctor,
    export,
    formats,
    leaderboard,
    models,
    noise,
    quantize,
    recommend,
    report,
    results,
    run,
    targets,
    train,
    trust,
    tune,
    verify,
)
from edgebench.errors import EdgebenchError, ExportError, MeasureError, StorageWarning, TransportError

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
    quantize,
    run,
    compare,
    diagnose,
    leaderboard,
    recommend,
    report,
    verify,
    noise,
    tune,
    trust,
    models,
    formats,
    doctor,
):
    app.command(name=command.__name__.rsplit(".", 1)[1])(command.command)
app.add_typer(targets.app, name="targets")
app.add_typer(results.app, name="results")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"edgebench {__version__}")
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
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be text
    warnings.showwarning = functools.partial(_show, warnings.showwarning)
    sys.exit(execute(arguments, debug))


def _show(other: Any, message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Print edgebench's own warnings as one line, and leave those of libraries to Python."""
    if issubclass(category, StorageWarning):
        console.complain(str(message))
    else:
        other(message, category, *where, **more)


def execute(arguments: list[str], debug: bool) -> int:
    """Run one command; returns its exit code."""
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="edgebench", standalone_mode=False)
        return _interrupted() if code == INTERRUPTED else int(code or DONE)
    except USAGE_ERROR as error:
        error.show()
        return BAD_INPUT
    except (typer.Abort, KeyboardInterrupt):
        return _interrupted()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return DONE
    except EdgebenchError as error:
        if debug:
            raise
        print(f"edgebench: {console.plain(str(error))}", file=sys.stderr)
        return FAILED if isinstance(error, (ExportError, MeasureError, TransportError)) else BAD_INPUT
    except Exception as error:
        if debug:
            raise
        kind = type(error).__name__
        print(
            f"edgebench: unexpected {kind}: {console.plain(str(error))}; please report it with the output of --debug",
            file=sys.stderr,
        )
        return FAILED


def _interrupted() -> int:
    print("edgebench: interrupted; what was finished is kept, the same command does the rest", file=sys.stderr)
    return INTERRUPTED
