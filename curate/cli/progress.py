"""Progress of a run, by the files that are present: correct on every runner, and for resumed runs too."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from curate.store.store import RunStore

STEPS = (
    ("measure", "tables/samples", ".parquet", "units"),
    ("decide", "tables/decisions", ".parquet", "units"),
    ("answers", "parts/answers", ".parquet", "batches"),
    ("caption", "tables/captions", ".parquet", "units"),
    ("emit", "shards", "_stats.json", "shards"),
)


@contextmanager
def show_progress(folder: RunStore, units: int) -> Iterator[None]:
    """Show bars on a terminal, and plain lines elsewhere, on standard error while the block runs."""
    stop = threading.Event()
    target = _bars if sys.stderr.isatty() else _lines
    thread = threading.Thread(target=target, args=(folder, units, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _poll(folder: RunStore, stop: threading.Event, seconds: float) -> Iterator[list[int]]:
    """Yield how many files each step has written, until the run has ended and once more."""
    while not stop.is_set():
        stop.wait(seconds if folder.is_local else 10)
        yield [_count(folder, place, suffix) for _, place, suffix, _ in STEPS]


def _count(folder: RunStore, place: str, suffix: str) -> int:
    try:
        return sum(name.endswith(suffix) for name in folder.files(place))
    except OSError:  # the folder changes while it is listed
        return 0


def _bars(folder: RunStore, units: int, stop: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[what]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks = []
        for step, _, _, what in STEPS:
            total = units if what == "units" else None
            tasks.append(progress.add_task(step, total=total, what=what, start=False, visible=False))
        for counts in _poll(folder, stop, 0.3):
            for task, found in zip(tasks, counts, strict=True):
                if found:
                    progress.start_task(task)
                    progress.update(task, completed=found, visible=True)


def _lines(folder: RunStore, units: int, stop: threading.Event) -> None:
    last: list[int] = []
    printed = time.monotonic()
    for counts in _poll(folder, stop, 0.5):
        if counts != last and (stop.is_set() or time.monotonic() - printed > 10):
            texts = [
                f"{step} {n}" + (f"/{units}" if what == "units" else "")
                for (step, _, _, what), n in zip(STEPS, counts, strict=True)
                if n or step not in ("answers", "caption")
            ]
            print("  ".join(texts), file=sys.stderr, flush=True)
            last, printed = counts, time.monotonic()
