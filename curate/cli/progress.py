"""Show the progress of a run by its files: correct on every runner, and for resumed runs too.

Downloads are shown by shards, with the rates of the last minute and the reasons of failures.
"""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from curate.base.errors import CurateError
from curate.base.process import at_interrupt
from curate.base.wording import format_bytes
from curate.pool.urls.download.download_log import sum_downloads
from curate.store.facts import DownloadFacts, read_facts
from curate.store.layout import SUCCESS_FILE
from curate.store.store import RunStore

STEPS = (
    ("measure", "tables/samples", ".parquet", "units"),
    ("decide", "tables/decisions", ".parquet", "units"),
    ("answers", "parts/answers", ".parquet", "batches"),
    ("caption", "tables/captions", ".parquet", "units"),
    ("emit", "shards", "_stats.json", "shards"),
)
_RARE = ("answers", "caption")  # steps that most runs do not have
_WINDOW = 60.0  # seconds that rates are of
_BETWEEN = 2.0  # seconds at least between two readings of the downloads' log
_SHARE = 0.02  # of the time at most that readings take: there is a line a shard
_REASONS = 4  # that are shown


class _State(NamedTuple):
    """How many files each step has written, how many URLs were tried, and what is said of them."""

    counts: list[int]
    tried: int
    downloads: str


class _Downloads:
    """What was downloaded so far, and how fast of late."""

    def __init__(self, folder: RunStore) -> None:
        self._folder = folder
        self._next = float("-inf")  # when to read again
        self._before = deque([(time.monotonic(), 0, 0)])
        self.tried, self.text = 0, ""

    def read(self, ended: bool = False) -> None:
        """Read the log, unless it was read just now and the run has not ended."""
        now = time.monotonic()
        if now < self._next and not ended:
            return
        try:
            facts = sum_downloads(self._folder)
            if facts is None and ended and self._folder.exists(SUCCESS_FILE):  # a finished run has no log
                facts = read_facts(self._folder).downloads
        except (OSError, ValueError, CurateError):  # a line that is being written
            return
        done = time.monotonic()
        self._next = done + max(_BETWEEN, (done - now) / _SHARE)
        if facts is None or facts.urls == self.tried:
            return
        self._before.append((now, facts.came, facts.bytes))
        while now - self._before[1][0] > _WINDOW:
            self._before.popleft()
        (began, came, size), self.tried = self._before[0], facts.urls
        seconds = max(now - began, 1e-3)
        self.text = describe_downloads(facts, (facts.came - came) / seconds, (facts.bytes - size) / seconds)


def describe_downloads(facts: DownloadFacts, images: float, size: float) -> str:
    """Return the share of URLs that were downloaded, images and bytes a second, and shares of the commonest reasons."""
    shares = [f"{reason} {count / facts.urls:.1%}" for reason, count in facts.reasons.items()]
    more = " …" if len(shares) > _REASONS else ""
    failed = f"; {', '.join(shares[:_REASONS])}{more}" if shares else ""
    return f"{facts.came / facts.urls:.1%} downloaded, {images:,.0f} images/s, {format_bytes(size)}/s{failed}"


@contextmanager
def show_progress(folder: RunStore, units: int, urls: int = 0) -> Iterator[None]:
    """Show bars on a terminal, and plain lines elsewhere, on standard error while the block runs.

    `urls` are to be downloaded. Where an interrupt ends the process meanwhile, print what was finished.
    """
    stop = threading.Event()

    def tell() -> None:
        if not stop.is_set():
            os.write(2, f"{_what_is_kept(folder, units, urls)}\n".encode())

    at_interrupt(tell)
    target = _bars if sys.stderr.isatty() else _lines
    thread = threading.Thread(target=target, args=(folder, units, urls, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _poll(folder: RunStore, urls: int, stop: threading.Event, seconds: float) -> Iterator[_State]:
    """Yield how far the run is, until it has ended and once more."""
    downloads = _Downloads(folder)
    while not stop.is_set():
        stop.wait(seconds if folder.is_local else 10)
        if urls:
            downloads.read(stop.is_set())
        yield _State(_count_files(folder), downloads.tried, downloads.text)


def _what_is_kept(folder: RunStore, units: int, urls: int) -> str:
    """Return what an interrupted run has finished."""
    downloads = _Downloads(folder)
    downloads.read()
    counts = _count_files(folder)
    texts = _spell(counts, units, [step for (step, *_), n in zip(STEPS, counts, strict=True) if n])
    texts = [f"download {downloads.tried:,}/{urls:,} URLs", *texts] if downloads.tried else texts
    return f"finished: {'  '.join(texts)}; run again to continue" if texts else "no unit was finished yet"


def _spell(counts: list[int], units: int, steps: Collection[str]) -> list[str]:
    """Return how far each of the steps is."""
    shown = zip(STEPS, counts, strict=True)
    return [
        f"{step} {n}" + (f"/{units}" if what == "units" else "") for (step, _, _, what), n in shown if step in steps
    ]


def _count_files(folder: RunStore) -> list[int]:
    """Return how many files each step has written."""

    def count(place: str, suffix: str) -> int:
        try:
            return sum(name.endswith(suffix) for name in folder.files(place))
        except OSError:  # the folder changes while it is listed
            return 0

    return [count(place, suffix) for _, place, suffix, _ in STEPS]


def _bars(folder: RunStore, units: int, urls: int, stop: threading.Event) -> None:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.text import Text

    texts = TextColumn("{task.description:8}"), TextColumn("{task.fields[what]}")
    progress = Progress(texts[0], BarColumn(), MofNCompleteColumn(), texts[1], TimeElapsedColumn())
    of_downloads = Text(style="dim")  # which would leave a bar no room in its line
    with Live(Group(progress, of_downloads), console=Console(stderr=True), transient=True):
        download = progress.add_task("download", total=urls, what="URLs", start=False, visible=False)
        tasks = []
        for step, _, _, what in STEPS:
            total = units if what == "units" else None
            tasks.append(progress.add_task(step, total=total, what=what, start=False, visible=step == "measure"))
        for counts, tried, text in _poll(folder, urls, stop, 0.3):
            if tried:
                progress.start_task(download)
                progress.update(download, completed=tried, visible=True)
                of_downloads.plain = text
            for task, count in zip(tasks, counts, strict=True):
                if count:
                    progress.start_task(task)
                    progress.update(task, completed=count, visible=True)


def _lines(folder: RunStore, units: int, urls: int, stop: threading.Event) -> None:
    last: _State | None = None
    printed = float("-inf")
    for state in _poll(folder, urls, stop, 0.5):
        if state != last and (stop.is_set() or time.monotonic() - printed > 10):
            steps = [step for (step, *_), n in zip(STEPS, state.counts, strict=True) if n or step not in _RARE]
            texts = _spell(state.counts, units, steps)
            if state.tried:
                texts.insert(0, f"download {state.tried:,}/{urls:,} URLs: {state.downloads} ")
            print("  ".join(texts), file=sys.stderr, flush=True)
            last, printed = state, time.monotonic()
