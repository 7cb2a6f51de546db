"""The command `curate`.

Exit status: 0 done; 1 the run or the check failed; 2 the recipe or an argument is wrong; 130 interrupted; 143 killed.
"""

import gc
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from itertools import groupby
from typing import Annotated, Any

from typer import Exit, Option, Typer
from typer.core import TyperGroup

from curate import __version__
from curate.base.errors import CurateError, RecipeError, describe
from curate.base.foreign import naming_packages
from curate.base.process import check_address_space
from curate.base.registry import warn_of_broken
from curate.cli.common import HELP, Escaped, HelpCommand
from curate.cli.imports import RARELY, without_unused
from curate.recipe.strict_yaml import find_surrogate

_COMMANDS = {name: texts for name, texts in HELP.items() if "group" in texts}  # others belong to `metadata`
_BYTES, _CORE_BYTES = 3_000_000_000, 500_000_000  # address space in bytes, for libraries and for each core's threads
_LIGHT = {"init", "schema", "status", "cancel"}  # commands that need little memory
# The modules of commands that are not in a module with their name.
_MODULES = {"schema": "init", "cancel": "status", **dict.fromkeys(("explain", "report", "verify"), "finished")}


def _version(requested: bool) -> None:
    if requested:
        print(f"curate {__version__}")
        raise Exit


def _options(
    version: Annotated[bool, Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Curate image-text pools into training sets, and record why each sample was kept or dropped."""


class _CommandGroups(TyperGroup):
    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for heading, names in groupby(_COMMANDS, lambda name: _COMMANDS[name]["group"]):
            with formatter.section(heading):
                formatter.write_dl([(f"{name:8}", _COMMANDS[name]["help"]) for name in names])


def build_app(words: Sequence[str]) -> Typer:
    """Return the command line for these words. It imports only the command that they name."""
    app = Typer(
        cls=_CommandGroups,
        epilog="Start with `curate demo`, or with `curate init PATH`, which writes a recipe for your data.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_options)
    requested = next((word for word in words if not word.startswith("-")), None)
    for name, texts in _COMMANDS.items():
        if name != requested:
            app.command(name, help=texts["help"])(lambda: None)
            continue
        with without_unused():
            module = import_module(f"curate.cli.{_MODULES.get(name, name)}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name, help=texts["help"])
        else:
            app.command(name, cls=HelpCommand)(getattr(module, name))
    return app


def main() -> None:
    """Run the command. Print curate's errors as messages, and end with their exit status."""
    sys.stdout, sys.stderr = Escaped(sys.stdout), Escaped(sys.stderr)
    show_warnings()
    warnings.filterwarnings("ignore")
    try:
        for argument in sys.argv[1:]:
            if find_surrogate(argument):  # tables, run.json and SQL cannot contain it
                raise RecipeError(f"argument {argument!a}: is not valid UTF-8")
        words = sys.argv[1:]
        if "_CURATE_COMPLETE" in os.environ:  # the shell wants to complete this line
            words = (os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or "").split()[1:]
        if {*words} & {*_COMMANDS} - _LIGHT and "--help" not in words:
            check_address_space(_BYTES + (os.cpu_count() or 1) * _CORE_BYTES, "this command")
        with naming_packages():
            build_app(words)(prog_name="curate", standalone_mode=True)
    except CurateError as error:
        warn_of_broken(error)
        print(f"curate: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "start new thread" not in str(error):
            raise
        print(f"curate: memory ran out ({error or 'Python'}); free some, or raise its limit (ulimit)", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        text = describe(error)
        text = f"{error.filename}: {error.strerror}" if error.filename and text == str(error) else text
        print(f"curate: {text}", file=sys.stderr)
        sys.exit(1)
    finally:
        warn_of_broken()


def show_warnings() -> None:
    """Print each of curate's warnings once. From other libraries, print only errors."""
    seen: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        before = len(seen)
        seen.add(f"{record.msg} {record.args}")  # unformatted, because the arguments may not fit the message
        return len(seen) > before

    handler = logging.lastResort  # looks up sys.stderr for each line, because progress bars replace it
    assert handler is not None
    handler.addFilter(is_new)
    logging.basicConfig(format="curate: %(message)s", handlers=[handler])
    logging.getLogger().setLevel(logging.ERROR)
    for name in ("curate", "pipelines"):
        logging.getLogger(name).setLevel(logging.WARNING)


def command() -> None:
    """Run the command in its own process, with few garbage collections."""
    gc.set_threshold(RARELY)
    gc.freeze()  # `without_unused` does it again
    try:
        main()
    finally:
        if "torch" in sys.modules:  # its bindings report frozen objects as leaks
            gc.unfreeze()
        else:  # saves half a second: the last garbage collection
            gc.freeze()
            gc.disable()
