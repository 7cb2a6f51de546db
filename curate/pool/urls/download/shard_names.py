"""The names of img2dataset's shards and samples: numbers, of fifteen digits, so that many lists may share a folder.

And the columns that its Parquet files have here besides its own: what became of each row (see `fetch.Outcome`).
"""

import math

import pyarrow as pa

_DIGITS = 15
NUMBERS = 1_000_000_000_000_000

OUTCOMES = pa.schema(
    [
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("attempts", pa.int32()),
        ("attempted", pa.timestamp("s", "UTC")),
        ("may_pass", pa.bool_()),
    ]
)


def shard_stem(number: int) -> str:
    """Return the name of a shard's files without suffix."""
    return f"{number:0{_DIGITS}d}"


def keys_of(number: int, rows: int, max_rows: int) -> list[str]:
    """Return the keys that img2dataset gives the rows of a shard of at most `max_rows`."""
    digits = _row_digits(max_rows)
    return [f"{number * 10**digits + row:0{digits + _DIGITS}d}" for row in range(rows)]


def stem_of(key: str) -> str:
    """Return the name of the files of the shard that a key is of."""
    return key[:_DIGITS]


def row_of(key: str, max_rows: int) -> int:
    """Return which row of a shard of at most `max_rows` has a key."""
    return int(key[-_row_digits(max_rows) :])


def _row_digits(max_rows: int) -> int:
    return math.ceil(math.log10(max_rows))
