"""Arguments and options that several commands share, and output.

Output escapes control characters, because keys, errors and arguments may contain text that is not trusted.
"""

import io
import os
import re
import shutil
import sys
import textwrap
import threading
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, TextIO

from typer import Argument, Option
from typer.core import TyperCommand

from curate.base.errors import RecipeError, reraised
from curate.base.wording import escape
from curate.cli.imports import import_beam

if TYPE_CHECKING:  # a run does not need this library, which prints tables
    from curate.ask.output import Line, Result
    from curate.download.rates import DownloadForecast
    from curate.pool.plan import Unit
    from curate.recipe.recipe import Recipe
    from curate.recipe.source import Source
    from curate.run.context import RunContext


HELP: dict[str, Any] = tomllib.loads(files("curate.cli").joinpath("commands.toml").read_text("utf-8"))


class Format(StrEnum):
    """The format of printed rows."""

    table = "table"
    csv = "csv"
    json = "json"


Fingerprint = StrEnum("Fingerprint", ["stat", "content"])  # how changes of input files are detected

RunArgument = Annotated[str, Argument(metavar="DIR")]
RecipeArgument = Annotated[str, Argument(metavar="RECIPE")]
FormatOption = Annotated[Format, Option("--format", metavar="FORMAT")]
SeenOption = Annotated[int | None, Option(metavar="N", min=1)]
SetOption = Annotated[list[str], Option("--set", metavar="KEY=VALUE")]
FingerprintOption = Annotated[Fingerprint, Option(metavar="HOW")]
PageOption = Annotated[str | None, Option("--out", "-o", metavar="FILE")]
BeamArgument = Annotated[list[str] | None, Argument(metavar="-- BEAM OPTIONS")]
OnOption = Annotated[str | None, Option(metavar="FILE")]


class HelpCommand(TyperCommand):
    """A command with its texts from commands.toml. Help shows RECIPE instead of typer's {RECIPE} and RECIPE <str>."""

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__(name, **settings)
        texts, parameters = HELP[name], list[Any](self.params)
        self.help = f"{texts['help']}\n\n{texts['more']}"
        self.epilog = "\n".join(["\b", "Examples:", *(f"  {text}" for text in texts["examples"])])
        options = HELP["shared"] | texts.get("options", {})
        for parameter in parameters:
            parameter.help = parameter.help or options.get(parameter.name)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.strip("{}").replace("]...", "...]") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        write = formatter.write_dl
        formatter.write_dl = lambda rows: write([(name.partition(" <")[0], text) for name, text in rows])
        super().format_options(ctx, formatter)


def prepare_beam(words: list[str] | None, on: str | None, accepted: str = "one RECIPE") -> list[str]:
    """Return the Beam options, and import Beam if the command needs only its local runner.

    Raises RecipeError if the words are not options. `accepted` describes the arguments that come before them.
    """
    if not words and on is None:
        import_beam()
    if words and not words[0].startswith("-"):
        error = f"unexpected argument {words[0]!r}"
        raise RecipeError(f"{error}; accepted: {accepted}, then Beam options after --")
    return words or []


def warn_of_sizes(recipe: "Recipe", units: "Sequence[Unit]") -> Iterator[str]:
    """Yield a warning for each source that resizes its images, if rules use sizes."""
    from curate.decide.rules.rules import named_columns
    from curate.pool.registry import find_format

    named = sorted(named_columns(recipe) & {"width", "height", "min_side", "aspect"})
    for source in recipe.input if named else ():
        first = next((unit.parts[0].path for unit in units if unit.source == source.name), "")
        if resizing := find_format(source).resized(source, first):
            remedy = "to test the original size, add columns: {original_width: int, original_height: int} to the input"
            yield f"warning: input {source.name!r}: {resizing}, and the recipe uses {', '.join(named)}; {remedy}"


def find_outlooks(context: "RunContext", units: "Sequence[Unit]") -> "Iterator[tuple[Source, int, DownloadForecast]]":
    """Yield each source that is downloaded, its number of units, and a forecast of its downloads."""
    from curate.pool.registry import find_downloading

    for source in context.sources:
        if kind := find_downloading(source):
            of_source = [unit for unit in units if unit.source == source.name]
            yield source, len(of_source), kind.outlook(source, [part for unit in of_source for part in unit.parts])


@contextmanager
def _until_unread(stream: TextIO) -> Iterator[None]:
    """If the reader has closed the stream, as `| head` does, discard all further output, and continue."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Escaped:
    """A text stream that escapes all control characters except line feeds and tabs."""

    def __init__(self, stream: TextIO | None) -> None:
        self.inner = plain(stream) or open(os.devnull, "w")  # noqa: SIM115 - None: it was closed before the start

    def write(self, text: str) -> int:
        """Write the text, and return its length. On a terminal, it is wrapped to the terminal's width."""
        parts = [part if part.isspace() else escape(part) for part in _BREAKS.split(text)]
        with _until_unread(self.inner):
            self.inner.write("".join(map(self._fold, parts) if self.inner.isatty() else parts))
        return len(text)

    def flush(self) -> None:
        with _until_unread(self.inner):
            self.inner.flush()

    def _fold(self, line: str) -> str:
        """Wrap a line, unless it starts with a space: then it is a command, which users copy."""
        width = shutil.get_terminal_size().columns
        is_long = len(line) > width and not line[0].isspace()
        return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) if is_long else line

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def plain(stream: Any) -> TextIO:
    """Return the inner stream.

    Use it for data, and for code that colors lines or moves the cursor and escapes text itself.
    """
    return stream.inner if isinstance(stream, Escaped) else stream


@contextmanager
def open_output() -> Iterator[TextIO]:
    """Open standard output in UTF-8 for any locale, without escapes."""
    file = plain(sys.stdout)
    if isinstance(file, io.TextIOWrapper):
        file.reconfigure(encoding="utf-8")
    with _until_unread(file):
        yield file
        file.flush()


def print_result(result: "Result", format: Format) -> None:
    """Print rows on standard output: as `table` for people, or as `csv` or `json` for programs."""
    from curate.ask.output import write_result

    with open_output() as file:
        write_result(result, format.value, file)
    if result.note and format is Format.table:
        print(result.note, file=sys.stderr)


_BREAKS = re.compile(r"([\n\t]+)")
PLANNING = "planning: listing inputs, reading models and metadata"
SLOW = 0.5  # seconds


@contextmanager
def say_if_slow(text: str) -> Iterator[None]:
    """Print a line on standard error if the block takes longer than SLOW."""
    timer = threading.Timer(SLOW, lambda: print(text, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def print_lines(*lines: "Line") -> None:
    """Print a page of these lines on standard output."""
    from curate.ask.output import Page

    with open_output() as file:
        Page(lines).write(file)


def print_page(name: str, **facts: Any) -> None:
    """Fill a template with facts, and print it on standard output."""
    from curate.ask.text_pages import render_page

    print_lines(*render_page(name, **facts).lines)


def save_images(directory: str, result: "Result", title: str, out: str) -> None:
    """Write a page with rows of a run and their images. Raises RecipeError if the file cannot be written."""
    from curate.ask.opened import connected
    from curate.ask.report.image_page import look_at

    with connected(directory) as run:
        page = look_at(run, result, title)
    verb = "replaced" if os.path.exists(out) else "wrote"
    with reraised(RecipeError, f"--out {out}: cannot be written", OSError):
        page.save(out)
    print(f"{verb} {out}: open it in a browser" + (f"; it has {result.note}" if result.note else ""))
