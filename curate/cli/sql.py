"""`curate sql`: runs queries on a finished run, and prints the rows."""

import sys
from dataclasses import replace
from itertools import chain, islice
from typing import Annotated

from typer import Argument, Exit, Option

from curate.ask.library import THEMES, find_query, is_name, named_queries
from curate.ask.output import Result
from curate.ask.query import asking, find_run
from curate.ask.shell import run_shell
from curate.base.errors import RecipeError, reraised
from curate.base.process import CORES, memory_limited
from curate.base.wording import pluralize
from curate.cli import common
from curate.cli.interrupt import raise_when_interrupted

_MEMORY = (3 << 30) + CORES * (1 << 28)  # bytes; nothing else limits the size of lists and texts in one row


@memory_limited(_MEMORY)
def sql(
    directory: common.RunArgument,
    query: Annotated[str | None, Argument(metavar="QUERY|NAME")] = None,
    param: Annotated[list[str] | None, Option(metavar="K=V")] = None,
    format: common.FormatOption = common.Format.table,
    images: Annotated[bool, Option("--images")] = False,
    out: common.PageOption = None,
    fiftyone: Annotated[str | None, Option(metavar="DIR")] = None,
    shell: Annotated[bool, Option("--shell")] = False,
) -> None:
    """Print the rows of a query, or write them as a page or a data set."""
    params = dict(_pair(text) for text in param or [])
    _check_pages(query, images, out, fiftyone)
    if shell:
        if query is not None or params:
            raise RecipeError("--shell reads queries from standard input; remove QUERY and --param")
        raise_when_interrupted()  # an interrupt should end a query, not the shell
        with common.open_output() as file:
            failed = run_shell(directory, format.value, file)
        raise Exit(1 if failed else 0)
    if query == "-":
        query = sys.stdin.read()
    if query is None:
        if params:
            raise RecipeError("--param needs a query; `curate sql DIR` lists the queries and their parameters")
        find_run(directory)
        if format is common.Format.table:
            from curate.ask.text_pages import render_page  # a query does not need the library for templates

            common.print_lines(*render_page("queries", themes=THEMES, queries=named_queries()).lines)
        else:
            rows = [(query.name, query.summary, query.usage) for query in named_queries()]
            common.print_result(Result(("query", "answers", "parameters"), rows), format)
    elif fiftyone:
        _export(directory, query, params, fiftyone)
    elif images:
        with asking(directory, query, params) as result:
            name = find_query(query).name if is_name(query) else "images"
            common.save_images(directory, result, query, out or f"{name}.html")
    else:
        with asking(directory, query, params) as result:
            remaining = iter(result.rows)
            first = list(islice(remaining, 1))
            if not first and is_name(query) and (reason := find_query(query).empty):
                print(reason, file=sys.stderr)
            common.print_result(replace(result, rows=chain(first, remaining)), format)


def _check_pages(query: str | None, images: bool, out: str | None, fiftyone: str | None) -> None:
    if out is not None and not images:
        raise RecipeError("--out names the page of --images; add --images, or write the rows to a file with > FILE")
    if images and fiftyone:
        raise RecipeError("--images and --fiftyone cannot be combined; accepted: one of them")
    if query is None and (images or fiftyone):
        option = "--images" if images else "--fiftyone"
        raise RecipeError(f"{option} needs a query with a column uid, such as SELECT uid FROM kept LIMIT 50")


def _export(directory: str, query: str, params: dict[str, str], folder: str) -> None:
    from curate.ask.opened import connected
    from curate.ask.report.image_page import export_rows

    with (
        reraised(RecipeError, f"--fiftyone {folder}: cannot be written", OSError),
        connected(directory) as run,
        asking(directory, query, params) as result,
    ):
        written, missing = export_rows(run, result, folder)
    lost = f", without {pluralize(missing, 'row')} whose image is not readable" if missing else ""
    print(f"wrote {pluralize(written, 'sample')} to {folder}{lost}; in Python:\n")
    print("  import fiftyone as fo")
    print(f"  dataset = fo.Dataset.from_dir({folder!r}, dataset_type=fo.types.FiftyOneDataset)")
    print("  fo.launch_app(dataset)")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise RecipeError(f"--param {text}: accepted: NAME=VALUE, such as --param limit=50")
    return name, value
