"""The columns that expressions may use in these tests, and the content of a file that they must not read."""

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
    """A table with the columns above; columns without values are null."""
    rows = len(next(iter(columns.values())))
    return pa.table({f.name: pa.array(columns.get(f.name, [None] * rows), f.type) for f in COLUMNS})
