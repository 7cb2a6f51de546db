"""The names of img2dataset's shards and samples: numbers, of fifteen digits, so that many lists may share a folder.

And the columns that its Parquet files have here besides its own: what became of each row (see `fetch.Outcome`).
"""

import math

import pyarrow as pa

from curate.base.schema import define

_DIGITS = 15
NUMBERS = 1_000_000_000_000_000
STATISTICS = "_stats.json"  # what the name of a shard's statistics ends with
ENDINGS = (".tar", ".parquet", STATISTICS)  # and those of all its files

_TEXT = pa.string()
OUTCOMES = define(
    reason=_TEXT, detail=_TEXT, attempts=pa.int32(), attempted=pa.timestamp("s", "UTC"), may_pass=pa.bool_()
)


def shard_stem(number: int) -> str:
    """Return the name of a shard's files without suffix."""
    return f"{number:0{_DIGITS}d}"


def keys_of(number: int, rows: int, max_rows: int) -> list[str]:
    """Return the keys that img2dataset gives the rows of a shard of at most `max_rows`."""
    digits = math.ceil(math.log10(max_rows))
    return [f"{shard_stem(number)}{row:0{digits}d}" for row in range(rows)]


def stem_of(key: str) -> str:
    """Return the name of the files of the shard that a key is of."""
    return key[:_DIGITS]


def row_of(key: str) -> int:
    """Return which row of its shard has a key."""
    return int(key[_DIGITS:])
