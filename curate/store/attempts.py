"""Counts attempts at a unit, or at a shard to download, that never ended: one of its rows may have killed the worker.

An attempt writes a file, and removes it at its end, even after an error or an interrupt. Remaining files are attempts
that were killed, on any engine and in any run of the command, or that are running now.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from curate.base.process import cleaned_up
from curate.store.layout import ATTEMPTS
from curate.store.store import RunStore

ISOLATE_AFTER = 3  # killed attempts after which risky work moves to a subprocess
MAX_ATTEMPTS = 6  # the maximum count


@contextmanager
def attempt(store: RunStore, work: str, counts: Callable[[], bool] = lambda: False) -> Iterator[int]:
    """Yield the number of earlier attempts at some work that never ended, at most MAX_ATTEMPTS.

    This attempt ends with the block. `work` is the name of a unit or a shard in the run. At the end all attempts are
    forgotten, unless the next start of the run repeats the work that killed them.
    """
    folder, earlier = f"{ATTEMPTS}/{work}", 0
    while earlier < MAX_ATTEMPTS and not store.write_bytes(f"{folder}/{earlier}", b"", keep=lambda: True):
        earlier += 1
    marker = f"{folder}/{min(earlier, MAX_ATTEMPTS - 1)}"
    with cleaned_up(partial(store.delete_file, marker)):
        yield earlier
    if earlier and not counts():
        store.delete(folder)


def reset_attempts(store: RunStore, work: str, killed: int) -> None:
    """Count all attempts so far as one, of which `killed` never ended, because the work has made progress.

    If machines are preempted again and again, rows are not to blame. Work that is already suspected stays suspected.
    """
    first = ISOLATE_AFTER if killed >= ISOLATE_AFTER else 1
    store.delete_files([f"{ATTEMPTS}/{work}/{number}" for number in range(first, min(killed, MAX_ATTEMPTS - 1) + 1)])


def read_attempts(store: RunStore) -> dict[str, int]:
    """Return the number of unfinished attempts at each piece of work, including a running one."""
    return Counter(file.removeprefix(f"{ATTEMPTS}/").rpartition("/")[0] for file in store.files(ATTEMPTS))
