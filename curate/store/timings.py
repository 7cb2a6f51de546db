"""How long each step of a run works, by unit or shard: recorded while it runs, summed when it is published.

In: a run folder. Out: StepFacts, for run.json and table `steps`. A record is a line of the run's log of steps. A retry
of the same work adds a record, and the longest counts; a damaged record is left out. The log stays until the run is
finished, so it has what all its commands did; what another run did is not in it.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from curate.store.facts import StepFacts
from curate.store.layout import STEPS_LOG
from curate.store.store import RunStore

_RECORD = re.compile(r"(?P<step>\w+)\.(?P<name>.*)\.(?P<milliseconds>\d+)\.(?P<rows>\d*)", re.ASCII)
ORDER = ("measure", "match", "rules", "decide", "caption", "emit")


class StepTimer:
    """What a step reports of its work: how many rows, and whether all of it was done before."""

    rows: int | None = None
    idle: bool = False


@contextmanager
def time_step(folder: RunStore, step: str, name: str) -> Iterator[StepTimer]:
    """Record the block's duration, unless it raises or had no work; records of a unit or shard, by name, count once."""
    timer, began = StepTimer(), time.monotonic()
    yield timer
    milliseconds = round(1000 * (time.monotonic() - began))
    if timer.idle or folder.is_read_only:
        return
    folder.log(STEPS_LOG, f"{step}.{name}.{milliseconds}.{'' if timer.rows is None else timer.rows}")


def sum_timings(folder: RunStore) -> list[StepFacts]:
    """Return the work of each step, in the order of the steps; none of a step without records."""
    by_step: dict[str, dict[str, tuple[int, int | None]]] = {step: {} for step in ORDER}
    for line in folder.read_log(STEPS_LOG):
        if (record := _RECORD.fullmatch(line)) and record["step"] in by_step:
            took = int(record["milliseconds"]), int(record["rows"]) if record["rows"] else None
            records = by_step[record["step"]]
            records[record["name"]] = max(records.get(record["name"], took), took, key=lambda pair: pair[0])
    facts = []
    for step, records in by_step.items():
        known = [rows for _, rows in records.values() if rows is not None]
        seconds = sum(milliseconds for milliseconds, _ in records.values()) / 1000
        rows = sum(known) if len(known) == len(records) else None
        facts += [StepFacts(step=step, units=len(records), rows=rows, seconds=seconds)] if records else []
    return facts
