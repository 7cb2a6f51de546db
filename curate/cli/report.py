"""`curate report`: what a run did to its pool, on one page."""

import sys
import time
from typing import Annotated

import typer

from curate.report.page import write_report
from curate.wording import format_bytes


def report(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="The folder of a finished run, local or remote.")],
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="Where to write it; by default DIR/report.html.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="DIR_A", help="Another run: what this one gained and lost against it.")
    ] = None,
) -> None:
    """Write report.html: one page that shows what curation did, without a network."""
    began = time.monotonic()
    path, size = write_report(directory, out, against)
    print(f"{path}: {format_bytes(size)}")
    print(f"written in {time.monotonic() - began:.1f} s", file=sys.stderr)
