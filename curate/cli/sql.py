"""`curate sql`: questions to a finished run, answered on standard output."""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from curate.ask.library import THEMES, NamedQuery, named_queries
from curate.ask.output import Result, write_result
from curate.ask.page import Page, heading, line, named
from curate.ask.query import asking, find_run
from curate.ask.shell import run_shell
from curate.cli.standard_output import open_output
from curate.errors import RecipeError


class Format(StrEnum):
    """How rows are printed."""

    table = "table"
    csv = "csv"
    json = "json"


def sql(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="The folder of a finished run, local or remote.")],
    query: Annotated[
        str | None,
        typer.Argument(
            metavar="QUERY|NAME",
            help="SQL that reads, or the name of a query; - reads it from standard input. Absent: lists them.",
        ),
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", metavar="K=V", help="A parameter of the query; may be repeated.")
    ] = None,
    format: Annotated[
        Format, typer.Option("--format", help="For people, for spreadsheets, for programs.")
    ] = Format.table,
    shell: Annotated[
        bool, typer.Option("--shell", help="Many questions, one after another, as in DuckDB's shell; .help says more.")
    ] = False,
) -> None:
    """Ask a run in SQL, or by a named query. Whatever is asked, a run is only read."""
    params = dict(_pair(text) for text in param or [])
    if shell:
        if query is not None or params:
            raise RecipeError("--shell takes its questions from standard input; leave QUERY and --param out")
        with open_output() as file:
            failed = run_shell(directory, format.value, file)
        raise typer.Exit(1 if failed else 0)
    if query == "-":
        query = sys.stdin.read()
    if query is None:
        if params:
            raise RecipeError("--param needs a query; `curate sql DIR` lists them with their parameters")
        find_run(directory)
        with open_output() as file:
            for_people = format is Format.table
            if for_people:
                _page().write(file)
            else:
                write_result(_listing(), format.value, file)
    else:
        with asking(directory, query, params) as result, open_output() as file:
            write_result(result, format.value, file)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise RecipeError(f"--param {text}: write name=value, such as --param limit=50")
    return name, value


def _listing() -> Result:
    rows = [(query.name, query.summary, _usage(query)) for query in named_queries()]
    return Result(("query", "answers", "parameters"), rows)


def _page() -> Page:
    """The named queries by theme."""
    margin = max(len(query.name) for query in named_queries())
    lines = []
    for theme in THEMES:
        lines += [heading(theme)]
        for query in named_queries():
            if query.theme == theme:
                usage = _usage(query)
                lines.append(named(query.name, margin, query.summary, (f"  {usage}" if usage else "", "dim")))
        lines.append(line())
    return Page((*lines, line(f"{len(named_queries())} queries; --param NAME=VALUE sets what stands after them")))


def _usage(query: NamedQuery) -> str:
    return " ".join(param.usage for param in query.params)
