"""entries.parquet: for each metadata entry, the rows that match it at each step, and the probability that it has."""

from typing import Any

import numpy as np
import pyarrow as pa

from curate import schema
from curate.decide import balance
from curate.decide.schemes.scheme import Scheme
from curate.numeric.arrays import I64
from curate.store.layout import ENTRIES_FILE, METADATA_FILE
from curate.store.store import RunStore


def write_entries(store: RunStore, pool: I64, survivors: I64, sums: I64, scheme: Scheme | None, t: int | None) -> None:
    """Write entries.parquet.

    Args:
        store: the run folder.
        pool: int64[entries], rows of the pool that match, before any rule.
        survivors: int64[entries], rows that match when balancing begins; p follows from them.
        sums: int64[2, entries], expected rows in fixed point (2⁻³²), and kept rows.
        scheme, t: of balance; None where nothing is balanced: then p is 1.
    """
    metadata = store.read_parquet(METADATA_FILE)
    p: Any = np.ones(len(survivors))
    if scheme is not None and t is not None:
        p = balance.probabilities(survivors, scheme.limits(t, survivors, metadata.drop_columns(["entry_id"])))
    columns = [*metadata.columns, pool, survivors, p, sums[0] / float(balance.ONE), sums[1]]
    arrays = [pa.array(c) if isinstance(c, np.ndarray) else c for c in columns]
    store.write_parquet(ENTRIES_FILE, pa.Table.from_arrays(arrays, schema=schema.ENTRIES))
