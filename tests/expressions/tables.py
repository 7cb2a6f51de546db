"""The columns that expressions of these tests see, and a file that none of them may read."""

import pyarrow as pa

SECRET = "the secret of another file"
COLUMNS = pa.schema(
    [
        ("caption", pa.string()), ("url", pa.large_string()), ("words", pa.int32()), ("width", pa.int32()),
        ("height", pa.int32()), ("phash", pa.uint64()), ("clip_score", pa.float32()), ("safe", pa.bool_()),
        ("taken", pa.timestamp("us")), ("tags", pa.list_(pa.string())), ("price", pa.decimal128(5, 2)),
        ("Odd Name", pa.float64()),
    ]
)  # fmt: skip


def table(**columns):
    """A table of the columns above, nulls where none are given."""
    rows = len(next(iter(columns.values())))
    return pa.table({f.name: pa.array(columns.get(f.name, [None] * rows), f.type) for f in COLUMNS})
