"""The status of a run, finished or not: steps, failures and speed from its files, and the process that works on it.

In: a run folder, from any engine, local or in an object store; nothing is written. Out: `Status`. Lists each folder
once and opens no table. The caller asks the engine whether the holder of the folder has exited.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from curate.ask.output import Line, columns, line
from curate.base.errors import DamagedError
from curate.base.stages import COUNTED, USUAL
from curate.base.wording import format_seconds, pluralize
from curate.download.rates import read_downloads
from curate.pool.plan import Unit
from curate.store import layout
from curate.store.attempts import ISOLATE_AFTER, MAX_ATTEMPTS, read_attempts
from curate.store.error_notes import read_error_notes
from curate.store.facts import read_claim, read_facts
from curate.store.lease import Holder
from curate.store.lock import find_holder
from curate.store.manifest import how_to_go_on, no_run
from curate.store.store import RunStore
from curate.store.timings import DEDUP, Records, count_failed, read_records
from curate.store.worker_log import read_last_error

FINISHED, FAILED, NOT_YET = 0, 1, 3  # exit status
LONGEST, _TIMES = 30.0, 10  # max seconds between two listings; for local runs, relative to their duration
_WINDOW = 600.0  # seconds over which rates are computed
_LINES, _CHARACTERS = 5, 2000  # of a driver's log shown at most
_SHOWN = 5  # pieces of work named in a message

Ask = Callable[[Holder], tuple[bool | None, str]]  # whether it has exited, None if unknown; the state of its job


@dataclass(frozen=True)
class Status:
    """A run's current state: the exit status, its meaning, and the evidence.

    `steps` have a name, progress and speed; `notes` are lines, such as the end of the log of a failed run.
    """

    url: str
    exit_status: int
    state: str
    steps: tuple[tuple[str, str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def short(self) -> str:
        return "; ".join([f"{self.url}: {self.state}", *(f"{name} {done}" for name, done, _ in self.steps)])

    @property
    def lines(self) -> Iterator[Line]:
        yield line(f"{self.url}: {self.state}")
        yield from columns(self.steps)
        yield from (line(f"  {text}") for text in self.notes)


def seconds_between(store: RunStore, least: float, took: float) -> float:
    """Return how long to wait before listing the folders of a run again, if a listing took so many seconds."""
    return max(least, min(LONGEST, _TIMES * took)) if store.is_local else LONGEST


def find_status(url: str, ask: Ask) -> Status:
    """Return the status of a run. Raises RecipeError if there is none, and OSError if a store does not answer."""
    store = RunStore(url)
    holder, has_run = find_holder(store), store.exists(layout.RUN_FILE)
    if not (holder or has_run):
        raise no_run(store, url)
    if store.exists(layout.SUCCESS_FILE):
        facts, at_work = read_facts(store), f"; {holder} is now at work in this folder" if holder else ""
        counts = f"{facts.kept:,} of {facts.rows:,} rows are kept, {facts.counts.get('failed', 0):,} failed"
        return Status(url, FINISHED, f"finished after {format_seconds(facts.seconds)}: {counts}{at_work}")
    errors, has_ended = read_error_notes(store)
    exit_status, state = _judge(store, holder, ask)
    if has_ended and holder is None:
        state = "stopped with the error below, which says what to do; nobody works on it"
    if exit_status == FAILED and store.exists(layout.SUCCESS_FILE):  # it finished while curate asked its engine
        return find_status(url, ask)
    try:
        units = len(read_claim(store).unit_keys) if has_run else None
    except DamagedError:
        units = None
    records = read_records(store)
    steps = [*_count_steps(store, units, exit_status == NOT_YET)]
    steps[1:1] = _dedup_steps(records, units)
    if downloads := read_downloads(store)[0]:
        share = f"{pluralize(downloads.urls, 'URL')}, {downloads.came / downloads.urls:.1%} gave an image"
        steps.insert(0, ("download", share, f"{60 * downloads.urls / downloads.seconds:,.3g} URLs/min"))
    if failed := count_failed(records):
        steps.append(("failed", pluralize(failed, "row"), ""))
    notes = []
    if holder:
        notes += [f"see {address}" for address in (holder.page, holder.log) if address]
        notes += [holder.died] if holder.died else []
    killed = {work: count for work, count in read_attempts(store).items() if count > 1 or exit_status == FAILED}
    if killed:
        notes.append(f"in progress when a process died: {describe_attempts(killed)}")
    if error := read_last_error(store):
        notes.append(f"last error of a worker: {error}")
    if exit_status == FAILED:
        notes += [text[:_CHARACTERS] for error in errors[:_LINES] for text in error.splitlines()]
        if not has_ended and store.exists(layout.DRIVER_LOG):
            notes += store.read_bytes(layout.DRIVER_LOG)[-_CHARACTERS:].decode(errors="replace").splitlines()[-_LINES:]
    return Status(url, exit_status, state, tuple(steps), tuple(notes))


def _judge(store: RunStore, holder: Holder | None, ask: Ask) -> tuple[int, str]:
    """Return the exit status of an unfinished run and its meaning, from its holder and the answer of its engine."""
    go_on = how_to_go_on(store, store.url)
    if holder is None:
        return FAILED, f"not finished, and nobody works on it; {go_on}"
    has_ended, state = ask(holder)
    of_job = f" ({state})" if state else ""
    is_leased = holder.is_detached or not store.is_local  # and not locked: a lock ends with its process
    last_renewed = f", {holder.last_renewed}" if is_leased else ""
    if has_ended or (is_leased and holder.is_stale):
        end = "has ended" if has_ended else f"was {holder.last_renewed}, so its lease is stale"
        return FAILED, f"not finished, and {holder} {end}{of_job}; with --take-over, {go_on}"
    return NOT_YET, f"{f'waiting for {holder}' if holder.is_waiting else f'{holder} is at work'}{last_renewed}{of_job}"


def _dedup_steps(records: Records, units: int | None) -> list[tuple[str, str, str]]:
    """Return the progress of each deduplication step in the last command: units done, or "begun" for a search."""
    names = sorted({record["name"] for record in records if record["step"] == DEDUP})
    latest = [name for name in names if name.split()[0] == names[-1].split()[0]]
    done = Counter(name.rpartition(".")[0].split(" ", 2)[2] for name in latest)
    of_all = f"/{units:,}" if units else ""
    return [(name, "begun" if name.endswith("search") else f"{n:,}{of_all}", "") for name, n in done.items()]


def _count_steps(store: RunStore, units: int | None, is_at_work: bool) -> Iterator[tuple[str, str, str]]:
    """Yield the progress of each step that has begun or that all runs have; for a step in progress, also its speed."""
    now = time.time()
    for name, folder, suffix, noun in COUNTED:
        files = {path: at for path, at in store.times(folder).items() if path.endswith(suffix)}
        done, total = count_done(files, suffix), units if noun == "units" else None
        late = sorted(at for at in files.values() if at > now - _WINDOW)
        is_working = late and is_at_work and done != total
        until = now if total or not late else late[-1]  # a step without a total may have ended at its last file
        a_minute = 60 * (len(late) - 1) / max(until - late[0], 1.0) if is_working else 0.0
        speed = f"{a_minute:,.3g} {noun}/min" if a_minute else ""
        if speed and total:
            speed += f", about {format_seconds(60 * (total - done) / a_minute)} left"
        if files or name in USUAL:
            yield name, f"{done:,}/{total:,}" if total else f"{done:,}", speed


def describe_attempts(attempts: Mapping[str, int], units: Iterable[Unit] = ()) -> str:
    """Describe the work in flight when a process ended, and how often it was killed; `units` have titles."""
    titles, texts = {unit.name: unit.title for unit in units}, []
    for work, killed in sorted(attempts.items(), key=lambda item: -item[1])[:_SHOWN]:
        kind, _, stem = work.rpartition("/")
        title = stem.replace("-", " ") if stem.startswith("shard-") else titles.get(stem, f"unit {stem}")
        isolated = ", now runs in a separate process" if ISOLATE_AFTER <= killed < MAX_ATTEMPTS else ""
        texts.append(f"{f'{kind} of ' if kind else ''}{title} (killed {pluralize(killed, 'time')}{isolated})")
    if len(attempts) > _SHOWN:
        texts.append(f"and {len(attempts) - _SHOWN:,} more")
    return ", ".join(texts) or "no unit was being measured or captioned"


def count_done(paths: Iterable[str], suffix: str) -> int:
    """Return how many units, batches or shards a step's files with this suffix hold: `00000-00009.parquet` has ten."""
    done: set[int | str] = set()  # while files are compacted, a unit is in two files
    for stem in (os.path.basename(path).partition(".")[0] for path in paths if path.endswith(suffix)):
        first, _, last = stem.partition("-")
        done.update(range(int(first), int(last) + 1) if last.isdigit() else [int(stem) if stem.isdigit() else stem])
    return len(done)
