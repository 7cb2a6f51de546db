"""The counts of entries that another run balanced by, which a recipe takes in place of its own (`balance.counts`).

With those of a whole pool, say, each of its parts is balanced as the whole would be.
"""

import numpy as np

from curate.base import ids
from curate.base.errors import RecipeError
from curate.base.numeric.arrays import I64
from curate.store.facts import read_facts
from curate.store.layout import ENTRIES_FILE, RUN_FILE, SUCCESS_FILE
from curate.store.store import RunStore


def read_counts(url: str, metadata_key: str) -> I64:
    """Return the survivors of each entry in another run (int64[entries], by id).

    `metadata_key` is the digest of the recipe's own entries. Raises RecipeError unless there is a finished run with
    these entries.
    """
    store, accepted = RunStore(url), "accepted: a finished run with the same match.metadata"
    if not (store.exists(RUN_FILE) and store.exists(SUCCESS_FILE)):
        raise RecipeError(f"balance.counts: {url} is not a finished run; {accepted}")
    facts = read_facts(store)
    if facts.metadata is None or facts.metadata.digest != metadata_key:
        raise RecipeError(f"balance.counts: {url} has {'different' if facts.metadata else 'no'} entries; {accepted}")
    table = store.read_parquet(ENTRIES_FILE, ["entry_id", "survivors"])
    entry_ids = table["entry_id"].to_numpy()
    counts = np.zeros(int(entry_ids.max(initial=-1)) + 1, np.int64)  # ids of entries that were dropped are no entry's
    counts[entry_ids] = table["survivors"].to_numpy()
    return counts


def counts_key(url: str | None, metadata_key: str) -> str:
    """Return the digest of such counts; empty where the recipe names none. Raises as `read_counts`."""
    return "" if url is None else ids.digest(read_counts(url, metadata_key).tolist())
