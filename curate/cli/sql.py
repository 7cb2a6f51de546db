"""`curate sql`: questions to a finished run, answered on standard output."""

from enum import StrEnum
from typing import Annotated

import typer

from curate.cli.standard_output import open_output
from curate.errors import RecipeError
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
    with open_output() as file:
        write_result(result, format.value, file)


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
