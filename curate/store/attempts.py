"""Attempts at a unit, or a shard to download, that did not end: what killed a worker may be one of its rows.

Who works at it writes a file meanwhile, and removes it however that ends, by an interrupt too. Those that are there
were killed, on whatever engine and in whatever run of the command, or are at work at the same moment.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from curate.base.process import cleaned_up
from curate.store.layout import ATTEMPTS
from curate.store.store import RunStore

ISOLATE_AFTER = 3  # that were killed, from which on a subprocess does what may have killed them
MAX_ATTEMPTS = 6  # that are counted


@contextmanager
def attempt(store: RunStore, work: str, counts: Callable[[], bool] = lambda: False) -> Iterator[int]:
    """Yield how many attempts at some work did not end, of MAX_ATTEMPTS at most; this one does where the block is left.

    `work` is its name in the run: of a unit, or of a shard. They are forgotten then, unless they still count, for the
    next start of the run does what killed them again.
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
    """Let all attempts so far count as one, of which `killed` did not end: some of the work is done that was not.

    Where a machine is taken away again and again, none of that is what kills workers. What is suspected stays so.
    """
    first = ISOLATE_AFTER if killed >= ISOLATE_AFTER else 1
    store.delete_files([f"{ATTEMPTS}/{work}/{number}" for number in range(first, min(killed, MAX_ATTEMPTS - 1) + 1)])


def read_attempts(store: RunStore) -> dict[str, int]:
    """Return how many attempts at each piece of work were killed; work in progress has one, too."""
    return Counter(file.removeprefix(f"{ATTEMPTS}/").rpartition("/")[0] for file in store.files(ATTEMPTS))
