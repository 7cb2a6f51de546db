"""The command `curate`. Exit status: 0 done; 1 the run or check failed; 2 the recipe or the arguments are wrong; 130 interrupted."""

import logging
import os
import sys
import warnings
from importlib import import_module
from typing import Annotated

import typer

from curate import __version__
from curate.errors import INTERRUPTED, CurateError, RecipeError
from curate.recipe.strict_yaml import find_surrogate

_COMMANDS = ("run", "demo", "plan", "sql", "explain", "whatif", "diff", "report", "forget", "verify")
_MODULES = dict.fromkeys(("explain", "report", "verify"), "finished")  # of the others, that of their own name

app = typer.Typer(
    help="Curate image-text pools into training sets, with a reason for every sample.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(requested: bool) -> None:
    if requested:
        print(f"curate {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Curate image-text pools into training sets, with a reason for every sample."""


def _register() -> None:
    for name in _COMMANDS:
        app.command(name)(getattr(import_module(f"curate.cli.{_MODULES.get(name, name)}"), name))
    app.add_typer(import_module("curate.cli.metadata").app, name="metadata")


def main() -> None:
    """Run the command; an error of curate becomes its message and exit status."""
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger().setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    if not app.registered_commands:
        _register()
    try:
        for argument in sys.argv[1:]:
            if find_surrogate(argument):  # no table, run.json or SQL could hold it
                raise RecipeError(f"argument {argument!a}: holds bytes that are not UTF-8; accepted: UTF-8")
        app(prog_name="curate", standalone_mode=True)
    except CurateError as error:
        print(f"curate: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except BrokenPipeError:  # the reader went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        print(f"curate: {error}", file=sys.stderr)
        sys.exit(1)
    except RuntimeError as error:
        if str(error) != "Query interrupted":  # as DuckDB calls Ctrl-C
            raise
        print("curate: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def command() -> None:
    """Run the command as a process of its own: an interrupt ends it at once, whatever its threads are doing."""
    try:
        return main()
    except SystemExit as end:
        if end.code != INTERRUPTED:
            raise
    except KeyboardInterrupt:  # while modules are imported
        print("curate: interrupted", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    command()
