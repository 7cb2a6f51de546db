"""`curate explain`, `curate report`, `curate verify`: what a finished run says of itself."""

import sys
import time
from typing import Annotated

from typer import Argument, Option

from curate.ask.explain import explain_sample
from curate.ask.report.page import write_report
from curate.ask.verify import verify_run
from curate.base.errors import RunError
from curate.base.wording import format_bytes, pluralise
from curate.cli.common import RunArgument, print_lines


def explain(
    directory: RunArgument,
    sample: Annotated[str, Argument(metavar="UID", help="The sample's uid (32 hex digits), URL, key or file.")],
) -> None:
    """Explain why a sample was kept or dropped.

    It shows the value of each rule, entries, draw, duplicates, captions and published files.
    """
    print_lines(*explain_sample(directory, sample).lines)


def report(
    directory: RunArgument,
    out: Annotated[str | None, Option("--out", "-o", metavar="FILE", help="The page; else DIR/report.html.")] = None,
    against: Annotated[str | None, Option(metavar="DIR_A", help="Another run to compare with.")] = None,
    language: Annotated[str | None, Option(metavar="LANG", help="Language shown in detail; else a large one.")] = None,
) -> None:
    """Write report.html: the whole run on one page.

    The page is self-contained; its one script sorts and filters samples.
    """
    began = time.monotonic()
    path, size = write_report(directory, out, against, language)
    print(f"{path}: {format_bytes(size)}")
    print(f"written in {time.monotonic() - began:.1f} s", file=sys.stderr)


def verify(directory: RunArgument) -> None:
    """Check the integrity of a run: digests, sums, decisions.

    It compares all files with their digests, checks that no row is lost, and compares shards with decisions.
    """
    checked, errors = verify_run(directory)
    if errors:
        rest = [f"and {len(errors) - 20} more"] if len(errors) > 20 else []
        remedy = "to recompute a damaged file, delete it and run the recipe again with the same --out"
        head = f"{directory}: {pluralise(len(errors), 'difference')} ({remedy})"
        raise RunError("\n  ".join([head, *errors[:20], *rest]))
    for line in checked:
        print(f"checked: {line}")
    print(f"{directory}: nothing differs")
