"""Attempts at a unit that did not end: what killed a worker may be one of the unit's rows.

Who measures a unit writes a file meanwhile, and removes it however that ends, by an interrupt too. Those that are there
were killed, on whatever engine and in whatever run of the command, or are at work at the same moment.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from curate.base.process import cleaned_up
from curate.store.layout import unit_parts
from curate.store.store import RunStore

MOST = 6  # that are counted


@contextmanager
def attempt(store: RunStore, unit: int) -> Iterator[int]:
    """Yield how many attempts at the unit did not end, of MOST at most; this one does where the block is left."""
    folder = unit_parts("attempts", unit)
    earlier = 0
    while earlier < MOST and not store.write_bytes(f"{folder}/{earlier}", b"", keep=lambda: True):
        earlier += 1
    mine = f"{folder}/{min(earlier, MOST - 1)}"
    with cleaned_up(partial(store.delete_file, mine)):
        yield earlier
    if earlier:
        store.delete(folder)
