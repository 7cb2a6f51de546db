"""The names of img2dataset's shards and samples: numbers, here of fifteen digits, so that those of many lists may lie together.

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


def keys_of(number: int, rows: int, most: int) -> list[str]:
    """Return the keys that img2dataset gives the rows of a shard of at most `most`."""
    digits = _row_digits(most)
    return [f"{number * 10**digits + row:0{digits + _DIGITS}d}" for row in range(rows)]


def stem_of(key: str) -> str:
    """Return the name of the files of the shard that a key is of."""
    return key[:_DIGITS]


def row_of(key: str, most: int) -> int:
    """Return which row of a shard of at most `most` has a key."""
    return int(key[-_row_digits(most) :])


def _row_digits(most: int) -> int:
    return math.ceil(math.log10(most))
