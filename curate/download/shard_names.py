"""Names shards and samples like img2dataset, with 15-digit numbers, so that many lists can share a folder.

It also has the columns that curate adds to a shard's Parquet file: the outcome of each row (see `fetch.Outcome`).
"""

import math

import pyarrow as pa

from curate.base.schema import define

_DIGITS = 15
NUMBERS = 1_000_000_000_000_000
STATISTICS = "_stats.json"  # suffix of the file with a shard's statistics
ENDINGS = (".tar", ".parquet", STATISTICS)  # suffixes of all files of a shard

_TEXT = pa.string()
OUTCOMES = define(
    reason=_TEXT, detail=_TEXT, attempts=pa.int32(), attempted=pa.timestamp("s", "UTC"), may_pass=pa.bool_()
)


def shard_stem(number: int) -> str:
    """Return the name of a shard's files, without suffix."""
    return f"{number:0{_DIGITS}d}"


def keys_of(number: int, rows: int, max_rows: int) -> list[str]:
    """Return the keys that img2dataset gives to the rows of a shard with at most `max_rows`."""
    digits = math.ceil(math.log10(max_rows))
    return [f"{shard_stem(number)}{row:0{digits}d}" for row in range(rows)]


def stem_of(key: str) -> str:
    """Return the name, without suffix, of the shard that has a key."""
    return key[:_DIGITS]


def row_of(key: str) -> int:
    """Return the row number of a key in its shard."""
    return int(key[_DIGITS:])
