"""`curate verify`: checks the integrity of a published run."""

from curate.ask.verify import verify_run
from curate.cli.options import RunArgument
from curate.errors import RunError
from curate.wording import pluralise


def verify(directory: RunArgument) -> None:
    """Check the integrity of a run: digests of all files, conservation of rows, shards against decisions."""
    checked, faults = verify_run(directory)
    if faults:
        more = f"\n  and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise RunError(
            f"{directory}: {pluralise(len(faults), 'difference')} (to recompute a file that differs, delete it and run the "
            "recipe again with the same --out)\n  " + "\n  ".join(faults[:20]) + more
        )
    for line in checked:
        print(f"checked: {line}")
    print(f"{directory}: nothing differs")
