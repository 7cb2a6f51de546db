"""Shows the progress of a run by counting its files, which works on every engine and for resumed runs.

Downloads are counted by shard, with the rates of the last minute and the reasons for failures.
"""

import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from curate.ask.status import count_done, seconds_between
from curate.base.errors import CurateError
from curate.base.process import at_interrupt, background_thread
from curate.base.stages import COUNTED, USUAL
from curate.base.wording import format_bytes, pluralize
from curate.cli import common
from curate.cli.common import Escaped, plain
from curate.download.rates import read_downloads
from curate.store.checkpoints import MEASURED, steps_done
from curate.store.facts import DownloadFacts, read_facts
from curate.store.layout import SUCCESS_FILE
from curate.store.store import RunStore

_WINDOW = 60.0  # rates are computed over this time
_BETWEEN_LINES = 10.0  # seconds between two lines
_BETWEEN = 2.0  # minimum seconds between two reads of the log of downloads
_SHARE = 0.02  # maximum share of the time for reading this log, which has a line per shard
_REASONS = 4  # number of reasons to show
_NOTHING = "no unit is finished yet; repeat the command to continue"


class _Progress:
    """How many files each step has written, how many URLs were tried, and the recent download rate."""

    def __init__(self, folder: RunStore, units: int, urls: int) -> None:
        self._folder, self.units, self.urls = folder, units, urls
        self._first = steps_done[MEASURED]
        self._next = float("-inf")  # when to read the log of downloads again
        self._before = deque([(time.monotonic(), 0, 0)])
        self.counts = Counter[str]()
        self.tried, self.downloads = 0, ""

    def poll(self, stop: threading.Event, seconds: float) -> Iterator[None]:
        """Read the progress repeatedly until the run has ended, and then once more."""
        took = 0.0
        while not stop.is_set():
            stop.wait(seconds_between(self._folder, seconds, took))
            began = time.monotonic()
            self.read(stop.is_set())
            took = time.monotonic() - began
            yield

    def read(self, ended: bool = False) -> None:
        """Count files, and read the log of downloads, unless it was read a moment ago. At the end, always read it."""
        for step, folder, suffix, _ in COUNTED:
            with suppress(OSError):  # the folder may change while it is listed
                self.counts[step] = count_done(self._folder.files(folder), suffix)
        began = time.monotonic()
        if not self.urls or (began < self._next and not ended):
            return
        try:
            facts = read_downloads(self._folder)[0]
            if facts is None and ended and self._folder.exists(SUCCESS_FILE):  # a finished run has no log of downloads
                facts = read_facts(self._folder).downloads
        except (OSError, ValueError, CurateError):  # an incomplete last line
            return
        done = time.monotonic()
        self._next = done + max(_BETWEEN, (done - began) / _SHARE)
        if facts is None or facts.urls == self.tried:
            return
        self._before.append((began, facts.came, facts.bytes))
        while began - self._before[1][0] > _WINDOW:
            self._before.popleft()
        (since, came, size), self.tried = self._before[0], facts.urls
        seconds = max(began - since, 1e-3)
        self.downloads = describe_downloads(facts, (facts.came - came) / seconds, (facts.bytes - size) / seconds)

    def texts(self, of_downloads: str = "", always: Collection[str] = ()) -> list[str]:
        """Return the progress of each step that has started or is in `always`."""
        download = [f"download {self.tried:,}/{self.urls:,} URLs{of_downloads}"] if self.tried else []
        steps = [(step, noun) for step, _, _, noun in COUNTED if self.counts[step] or step in always]
        steps = [(step, "shard" if (self.counts[step], noun) == (1, "shards") else noun) for step, noun in steps]
        of_all = {"units": f"/{self.units}"}
        images = {"measure": self.images}
        return download + [f"{s} {self.counts[s]}{of_all.get(noun, '')} {noun}{images.get(s, '')}" for s, noun in steps]

    @property
    def images(self) -> str:
        """The number of images measured so far, as text; empty once all units are measured. A unit may take hours."""
        images = steps_done[MEASURED] - self._first
        return f" ({pluralize(images, 'image')})" if images and self.counts["measure"] < self.units else ""


def describe_downloads(facts: DownloadFacts, images: float, size: float) -> str:
    """Return the share of URLs downloaded, images and bytes per second, and the most common reasons for failures."""
    shares = [f"{reason} {count / facts.urls:.1%}" for reason, count in facts.reasons.items()]
    rest = " …" if len(shares) > _REASONS else ""
    failed = f"; {', '.join(shares[:_REASONS])}{rest}" if shares else ""
    return f"{facts.came / facts.urls:.1%} downloaded, {images:,.0f} images/s, {format_bytes(size)}/s{failed}"


@contextmanager
def show_progress(folder: RunStore, units: int, urls: int = 0) -> Iterator[None]:
    """During the block, show bars on a terminal, or print lines elsewhere. At an interrupt, print what is finished."""
    has_ended = False

    def print_finished() -> None:
        if not has_ended:
            progress = _Progress(folder, units, urls)
            progress.read()
            texts = "  ".join(progress.texts())
            kept = f"finished: {texts}; repeat the command to continue" if texts else _NOTHING
            os.write(2, f"{kept}\n".encode())

    at_interrupt(print_finished)
    show = _bars if sys.stderr.isatty() else _lines
    try:
        with background_thread(lambda stop: show(_Progress(folder, units, urls), stop), "progress"):
            yield
    finally:
        has_ended = True


@contextmanager
def show_sample(folder: RunStore, units: int) -> Iterator[None]:
    """Like `show_progress`, but for measuring a sample of the pool, and only if the block takes long."""
    progress = _Progress(folder, units, 0)

    def read() -> str:
        progress.read()
        return "  ".join(progress.texts(always=USUAL[:1]))

    def show(stop: threading.Event) -> None:
        if sys.stderr.isatty() and not stop.wait(common.SLOW):
            _bars(progress, stop)
        _print_changes(read, stop)

    with background_thread(show, "progress"):
        yield


@contextmanager
def show_counting(folder: RunStore, parts: int) -> Iterator[None]:
    """During the block, print on standard error how many parts of a metadata build are counted."""

    def read() -> str:
        counted = len({name[:6] for name in folder.names("counts")})
        return f"counted {counted:,} of {parts:,} parts" if counted else ""

    with background_thread(partial(_print_changes, read), "progress"):
        yield


def _print_changes(read: Callable[[], str], stop: threading.Event) -> None:
    last = ""
    while not stop.wait(_BETWEEN_LINES):
        if (text := read()) != last:
            print(text, file=sys.stderr, flush=True)
            last = text


def _bars(progress: _Progress, stop: threading.Event) -> None:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.text import Text

    texts = TextColumn("{task.description:8}"), TextColumn("{task.fields[what]}")
    bars = Progress(texts[0], BarColumn(), MofNCompleteColumn(), texts[1], TimeElapsedColumn())
    of_downloads = Text(style="dim")  # the text is too long for the line of a bar
    with Live(Group(bars, of_downloads), console=Console(file=plain(sys.stderr)), transient=True):
        sys.stderr = Escaped(sys.stderr)  # prints lines above the bars
        tasks = {"download": bars.add_task("download", total=progress.urls, what="URLs", start=False, visible=False)}
        for step, _, _, noun in COUNTED:
            total = progress.units if noun == "units" else None
            first = step == "measure"
            tasks[step] = bars.add_task(step, total=total, what=noun, start=first, visible=first)
        for _ in progress.poll(stop, 0.3):
            of_downloads.plain = progress.downloads
            bars.update(tasks["measure"], what=f"units{progress.images}")
            for step, count in {"download": progress.tried, **progress.counts}.items():
                if count:
                    bars.start_task(tasks[step])
                    bars.update(tasks[step], completed=count, visible=True)


def _lines(progress: _Progress, stop: threading.Event) -> None:
    last: list[str] = []
    for _ in progress.poll(stop, _BETWEEN_LINES):
        if (texts := progress.texts(f": {progress.downloads} ", always=USUAL)) != last:
            print("  ".join(texts), file=sys.stderr, flush=True)
            last = texts
