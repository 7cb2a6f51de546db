"""`curate verify`: whether a published run is whole."""

from typing import Annotated

import typer

from curate.ask.verify import verify_run
from curate.errors import RunError
from curate.wording import pluralise


def verify(directory: Annotated[str, typer.Argument(metavar="DIR", help="A run folder, local or remote.")]) -> None:
    """Check a run: digests of all files, conservation of rows, shards against decisions."""
    checked, faults = verify_run(directory)
    if faults:
        more = f"\n  and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise RunError(
            f"{directory}: {pluralise(len(faults), 'difference')} (a file that differs is made anew if it is deleted, and the recipe "
            "run again with the same --out)\n  " + "\n  ".join(faults[:20]) + more
        )
    for line in checked:
        print(f"checked: {line}")
    print(f"{directory}: nothing differs")
