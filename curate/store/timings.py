"""Records the time and resources of each step during a run; publishing adds them up.

In: a run folder. Out: StepFacts and UsedFacts, for run.json and the tables `steps` and `used`, and the requests sent to
caption engines. A record is a part of a line in the run's log of steps. It is about a unit or shard, with the resources
that its process used since the last record, or about requests to an engine. If the same work is done again, there is
another record: only the longest time counts, but all resources and requests count. Damaged records are ignored. The log
is kept until the run is finished, so it covers all commands of the run, but not a reused run.
"""

import operator
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt
from typing import NamedTuple

from curate.base.meter import CPU, ENGINE, METER, Used
from curate.base.stages import STAGES, stage_of
from curate.store.facts import StepFacts, UsedFacts
from curate.store.layout import STEPS_LOG
from curate.store.manifest import Lines
from curate.store.store import RunStore

_RECORD = re.compile(
    r"(?P<step>\w+)\.(?P<name>.*)\.(?P<milliseconds>\d+)\.(?P<rows>\d*)(?:-(?P<failed>\d+))?"
    r"(?: (?P<cpu>\d+)(?P<used>( \w+-\w+-\d+)*))?",
    re.ASCII,
)
_LINE = 400  # a process writes its waiting records when they have this many characters
_lock = threading.Lock()
_waiting: dict[str, tuple[RunStore, list[str]]] = {}  # waiting records, by URL of the run folder
_SENT, DEDUP = "sent", "dedup"


class Sent(NamedTuple):
    """Requests sent to an engine: their number, the seconds of work, and the tokens in prompts and answers."""

    requests: int = 0
    seconds: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0

    def plus(self, other: "Sent") -> "Sent":
        return Sent(*map(operator.add, self, other))


class StepTimer:
    """What a step reports about its work: its rows, its failed rows, and whether all of it was already done."""

    rows: int | None = None
    failed: int = 0
    idle: bool = False


@contextmanager
def time_step(folder: RunStore, step: str, name: str) -> Iterator[StepTimer]:
    """Record how long the block takes, unless it raises or had no work. Records with the same name count once."""
    timer, began = StepTimer(), time.monotonic()
    with METER.at(step) as block:
        yield timer
    milliseconds = round(1000 * (time.monotonic() - began))
    if timer.idle or folder.is_read_only:
        return
    rows = f"{'' if timer.rows is None else timer.rows}{f'-{timer.failed}' if timer.failed else ''}"
    _record(folder, f"{step}.{name}.{milliseconds}.{rows} {round(1000 * block.cpu)}{_format(METER.take())}")


def log_used(folder: RunStore, step: str = "") -> None:
    """Record the resources that this process used since its last record. Outside of steps, they count toward `step`."""
    used = METER.take()
    if step:
        used[step, CPU] += used.pop((ENGINE, CPU), 0.0)
    _record(folder, f"used.{uuid.uuid4().hex}.0. 0{_format(used)}")
    write_records()


def log_unit(folder: RunStore, step: str, unit: int) -> None:
    """Record that deduplication has finished a unit; `step` has the start of the command, position and name."""
    if not folder.is_read_only:
        _record(folder, f"{DEDUP}.{step}.{unit}.0.")


def log_sent(folder: RunStore, kind: str, engine: str, sent: Sent) -> None:
    """Record the requests that were sent to an engine for one kind of captions."""
    requests, seconds, *tokens = sent
    _record(folder, ".".join(map(str, (_SENT, kind, engine, *tokens, round(1000 * seconds), requests))))


def _record(folder: RunStore, record: str) -> None:
    """Write a record: immediately to a disk, or together with others to a store, where each write is a request."""
    with _lock:
        records = _waiting.setdefault(folder.url, (folder, []))[1]
        records.append(record)
        is_full = folder.is_local or sum(map(len, records)) > _LINE
    if is_full:
        write_records()


def write_records() -> None:
    """Write this process's waiting records. If that fails, they wait for the next call."""
    for url in [*_waiting]:
        with _lock:
            folder, records = _waiting.pop(url, (None, []))
        if folder is None:
            continue
        try:
            folder.log(STEPS_LOG, ",".join(records))
        except OSError:
            with _lock:  # the log still has the line, and writes it with the next one
                _waiting.setdefault(url, (folder, []))[1][:0] = records if folder.is_local else [""]
            raise


Records = list[re.Match[str]]


def read_records(folder: RunStore) -> Records:
    """Return all records so far, except damaged ones."""
    write_records()
    records = (record for line in folder.read_log(STEPS_LOG) for record in line.split(","))
    return [*filter(None, map(_RECORD.fullmatch, records))]


def _format(used: Used) -> str:
    """Format resources, in thousandths, as a part of a record."""
    return "".join(f" {step}-{kind}-{round(1000 * value)}" for (step, kind), value in used.items() if value >= 0.0005)


def sum_sent(records: Records) -> dict[tuple[str, str], Sent]:
    """Return the requests sent, by kind and engine."""
    total: dict[tuple[str, str], Sent] = {}
    for record in records:
        if record["step"] == _SENT:
            kind, engine, *tokens = record["name"].rsplit(".", 3)
            sent = Sent(int(record["rows"]), int(record["milliseconds"]) / 1000, *map(int, tokens))
            total[kind, engine] = total.get((kind, engine), Sent()).plus(sent)
    return total


def sum_used(records: Records, lines: Lines) -> list[UsedFacts]:
    """Return each step's resources, and the bytes that it wrote according to the manifest, in order, without zeros."""
    used, rates = Used(float), dict[str, list[tuple[int, int]]]()
    for path, size in zip(lines.paths, lines.table["bytes"].to_pylist(), strict=True):
        used[stage_of(path), "stored"] += size or 0
    for record in records:
        for text in (record["used"] or "").split():
            step, kind, value = text.split("-")
            used[step, kind] += int(value) / 1000
        if record["cpu"] and int(record["rows"] or 0):
            rates.setdefault(record["step"], []).append((int(record["cpu"]), int(record["rows"])))
    kinds = {s.name: {kind: used[s.name, kind] for kind in UsedFacts.kinds() if used[s.name, kind]} for s in STAGES}
    spread = {step: _spread(pairs) for step, pairs in rates.items()}
    return [UsedFacts(step=step, spread=spread.get(step), **values) for step, values in kinds.items() if values]


def _spread(pairs: list[tuple[int, int]]) -> float | None:
    """Return the relative standard deviation of first / second over pairs, weighted by the second."""
    mean = sum(cpu for cpu, _ in pairs) / sum(rows for _, rows in pairs)
    if len(pairs) < 2 or not mean:
        return None
    squares = sum((cpu / rows / mean - 1) ** 2 * rows for cpu, rows in pairs) / sum(rows for _, rows in pairs)
    return sqrt(squares * len(pairs) / (len(pairs) - 1))


def count_failed(records: Records) -> int:
    """Return how many of the rows that this run's commands have read so far have failed."""
    failed = {record.group("step", "name"): int(record["failed"] or 0) for record in records}
    return sum(failed.values())


def sum_timings(records: Records) -> list[StepFacts]:
    """Return the work of each step, in the order of steps. Steps without records are left out."""
    by_step: dict[str, dict[str, tuple[int, int | None]]] = {stage.name: {} for stage in STAGES}
    for record in records:
        if record["step"] in by_step:
            took = int(record["milliseconds"]), int(record["rows"]) if record["rows"] else None
            times = by_step[record["step"]]
            times[record["name"]] = max(times.get(record["name"], took), took, key=lambda pair: pair[0])
    facts = []
    for step, times in by_step.items():
        counted = [rows for _, rows in times.values() if rows is not None]
        seconds = sum(milliseconds for milliseconds, _ in times.values()) / 1000
        rows = sum(counted) if len(counted) == len(times) else None
        facts += [StepFacts(step=step, units=len(times), rows=rows, seconds=seconds)] if times else []
    return facts
