"""`curate explain`, `curate report`, `curate verify`: commands that read a finished run."""

import sys
import time
from typing import Annotated

from typer import Argument, Option

from curate.ask.explain import explain_sample
from curate.ask.report.page import write_report
from curate.ask.verify import verify_run
from curate.base.errors import RunError
from curate.base.wording import format_bytes, pluralize
from curate.cli.common import RunArgument, print_lines


def explain(directory: RunArgument, sample: Annotated[str, Argument(metavar="UID")]) -> None:
    """Explain why a sample was kept or dropped."""
    print_lines(*explain_sample(directory, sample).lines)


def report(
    directory: RunArgument,
    out: Annotated[str | None, Option("--out", "-o", metavar="FILE")] = None,
    against: Annotated[str | None, Option(metavar="DIR_A")] = None,
    language: Annotated[str | None, Option(metavar="LANG")] = None,
) -> None:
    """Write report.html, a page about the whole run."""
    began = time.monotonic()
    path, size = write_report(directory, out, against, language)
    print(f"{path}: {format_bytes(size)}")
    print(f"written in {time.monotonic() - began:.1f} s", file=sys.stderr)


def verify(directory: RunArgument) -> None:
    """Check that the files of a run are intact and agree."""
    checked, errors = verify_run(directory)
    if errors:
        rest = [f"and {len(errors) - 20} more"] if len(errors) > 20 else []
        remedy = "to recompute a damaged file, delete the file and run the recipe again with the same --out"
        head = f"{directory}: {pluralize(len(errors), 'difference')} ({remedy})"
        raise RunError("\n  ".join([head, *errors[:20], *rest]))
    for line in checked:
        print(f"checked: {line}")
    print(f"{directory}: nothing differs")
