"""`curate sql` and `curate explain`: questions to a finished run, answered on standard output."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, TextIO

import typer

from curate.errors import RecipeError
from curate.publish.explain import explain_sample
from curate.publish.output import Result, write_result
from curate.publish.query import find_run, named_queries, run_query


class Format(StrEnum):
    """How rows are printed."""

    table = "table"
    csv = "csv"
    json = "json"


def sql(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="The folder of a finished run, local or remote.")],
    query: Annotated[
        str | None,
        typer.Argument(metavar="QUERY|NAME", help="SQL that reads, or the name of a query. Absent: lists them."),
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", metavar="K=V", help="A parameter of the query; may be repeated.")
    ] = None,
    format: Annotated[
        Format, typer.Option("--format", help="For people, for spreadsheets, for programs.")
    ] = Format.table,
) -> None:
    """Ask a run in SQL, or by a named query."""
    params = dict(_pair(text) for text in param or [])
    if query is None:
        if params:
            raise RecipeError("--param needs a query; `curate sql DIR` lists them with their parameters")
        find_run(directory)
        result = _listing()
    else:
        result = run_query(directory, query, params)
    with _output() as file:
        write_result(result, format.value, file)


def explain(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="The folder of a finished run, local or remote.")],
    uid: Annotated[str, typer.Argument(metavar="UID", help="The sample's uid, 32 hex digits.")],
) -> None:
    """Say of a sample why it is in or out: rules, entries, draw, duplicates, and where it was published."""
    text = explain_sample(directory, uid)
    with _output() as file:
        file.write(text)


@contextmanager
def _output() -> Iterator[TextIO]:
    """Standard output in UTF-8 whatever the locale is, since captions are in every language."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has enough, as `| head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise RecipeError(f"--param {text}: write name=value, such as --param limit=50")
    return name, value


def _listing() -> Result:
    def usage(name: str, default: object, required: bool) -> str:
        return f"{name}=…" if required else f"{name}={'null' if default is None else default}"

    rows = [
        (query.name, query.summary, " ".join(usage(p.name, p.default, p.required) for p in query.params))
        for query in named_queries()
    ]
    return Result(("query", "answers", "parameters"), rows)
