"""Rows for kinds of captions."""

import pyarrow as pa

from curate.captions.kinds.kind import ROWS


def make_rows(per_row, **columns):
    """Rows of `ROWS`; uids count from 0 where there are none, other columns that are not given are null."""
    count = len(next(iter(columns.values())))
    columns = {"uid": [f"{i:032x}" for i in range(count)], **columns}
    columns["per_row"] = per_row if isinstance(per_row, list) else [per_row] * count
    return pa.table([columns.get(name, [None] * count) for name in ROWS.names], schema=ROWS)
