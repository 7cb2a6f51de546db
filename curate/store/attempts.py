"""Counts attempts at a unit or a download shard that never ended, because one of its rows may have killed the worker.

An attempt writes a file, and removes it when it ends, even after an error or an interrupt. So a file that is still
there belongs to an attempt that was killed or is running now. This works on any engine, and over all starts of the run.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from curate.base.process import cleaned_up
from curate.store.layout import ATTEMPTS
from curate.store.store import RunStore

ISOLATE_AFTER = 3  # after this many killed attempts, risky work runs in a subprocess
MAX_ATTEMPTS = 6  # counting stops at this number


@contextmanager
def attempt(store: RunStore, work: str, counts: Callable[[], bool] = lambda: False) -> Iterator[int]:
    """Yield the number of earlier attempts at some work that never ended, at most MAX_ATTEMPTS.

    This attempt ends with the block. `work` is the name of a unit or a shard in the run. When the attempt ends, all
    attempts at this work are forgotten. They count again if a later start of the run repeats work that killed them.
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
    """Count all attempts so far as one, because the work has made progress; `killed` of them never ended.

    If machines are preempted again and again, rows are not to blame. Work that is already suspected stays suspected.
    """
    first = ISOLATE_AFTER if killed >= ISOLATE_AFTER else 1
    store.delete_files([f"{ATTEMPTS}/{work}/{number}" for number in range(first, min(killed, MAX_ATTEMPTS - 1) + 1)])


def read_attempts(store: RunStore) -> dict[str, int]:
    """Return, for each piece of work, the number of attempts that have not ended, including a running one."""
    return Counter(file.removeprefix(f"{ATTEMPTS}/").rpartition("/")[0] for file in store.files(ATTEMPTS))
