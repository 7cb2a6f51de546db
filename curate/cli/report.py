"""`curate report`: what curation did to a pool, on one page."""

import sys
import time
from typing import Annotated

import typer

from curate.cli.options import RunArgument
from curate.report.page import write_report
from curate.wording import format_bytes


def report(
    directory: RunArgument,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="Where to write it. Default: DIR/report.html.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="DIR_A", help="Another run to compare with: samples gained and lost.")
    ] = None,
) -> None:
    """Write report.html: one self-contained page that shows what curation did."""
    began = time.monotonic()
    path, size = write_report(directory, out, against)
    print(f"{path}: {format_bytes(size)}")
    print(f"written in {time.monotonic() - began:.1f} s", file=sys.stderr)
