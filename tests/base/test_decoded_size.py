"""What columns of a Parquet file take in memory is known before they are read."""

import io
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.decoded_size import TooLarge, check_claimed, check_decoded

ROWS, LONG = 400, 100_000
LIMIT = ROWS * LONG // 2


def repeated(value: Any, kind: pa.DataType, rows: int = ROWS) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value], kind))


def written(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", **options)
    return sink.getvalue()


def check(content: bytes, limit: int = LIMIT, columns: list[str] | None = None) -> None:
    footer = pq.read_metadata(pa.BufferReader(content))
    check_decoded(pa.BufferReader(content), footer, range(footer.num_row_groups), columns, limit)


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
BOMBS = {
    "text": written(pa.table({"a": repeated("x" * LONG, pa.string())})),
    "bytes": written(pa.table({"a": repeated(b"x" * LONG, pa.binary())})),
    "the first value is short": written(pa.table({"a": ["a"] + ["x" * LONG] * (ROWS - 1)})),
    "the first is null": written(pa.table({"a": [None] + ["x" * LONG] * (ROWS - 1)})),
    "two columns": written(pa.table({name: ["x" * (LONG // 3)] * ROWS for name in "ab"})),
    "two row groups": written(pa.table({"a": ["x" * (LONG // 3)] * 2 * ROWS}), row_group_size=ROWS),
    "a struct": written(pa.table({"a": pa.array([{"bytes": b"x" * LONG, "path": "p"}] * ROWS, STRUCT)})),
    "a list": written(pa.table({"a": [["x" * LONG]] * ROWS})),
    "a list, first empty": written(pa.table({"a": [[], *[["x" * LONG]] * ROWS]})),
    "a list in a struct": written(pa.table({"a": [{"b": ["x" * LONG]}] * ROWS})),
    "a map": written(pa.table({"a": pa.array([[("k", "x" * LONG)]] * ROWS, pa.map_(pa.string(), pa.string()))})),
    "a list of one": written(pa.table({"a": pa.array([["x" * LONG]] * ROWS, pa.list_(pa.string(), 1))})),
    "structs in a list": written(pa.table({"a": [[{"b": b"x" * LONG}]] * ROWS})),
    "deltas": written(
        pa.table({"a": ["x" * LONG] * ROWS}), use_dictionary=False, column_encoding={"a": "DELTA_BYTE_ARRAY"}
    ),
    "a list of nulls": written(pa.table({"a": pa.array([[None] * LIMIT], pa.list_(pa.float32()))})),
}


@pytest.mark.parametrize("case", BOMBS)
def test_few_bytes_that_stand_for_many_are_refused(case: str) -> None:
    assert len(BOMBS[case]) < 100_000
    with pytest.raises(TooLarge, match=r"^it holds more than 20,000,000 bytes, unpacked; accepted: at most that$"):
        check(BOMBS[case])


@pytest.mark.parametrize("case", sorted(BOMBS.keys() - {"a list of nulls"}))
def test_what_is_as_large_as_allowed_passes(case: str) -> None:
    check(BOMBS[case], 3 * ROWS * LONG)


def test_other_columns_do_not_count() -> None:
    content = written(pa.table({"a": ["x" * LONG] * ROWS, "b": ["y"] * ROWS}))
    check(content, columns=["b"])
    with pytest.raises(TooLarge):
        check(content, columns=["a", "b"])


def test_a_few_long_values_among_many_pass() -> None:
    check(written(pa.table({"a": ["x" * LONG, *map(str, range(10_000))]})))


def number(value: int) -> bytes:
    """A number as a footer has it: of Thrift's compact protocol."""
    value, out = 2 * value, bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def test_rows_that_are_only_claimed_are_refused() -> None:
    content = written(pa.table({"a": list(map(str, range(8191)))}))
    size = struct.unpack("<I", content[-8:-4])[0]
    footer = content[-8 - size : -8].replace(number(8191), number(10**12))
    claimed = content[: -8 - size] + footer + struct.pack("<I", len(footer)) + b"PAR1"
    metadata = pq.read_metadata(pa.BufferReader(claimed))
    assert metadata.num_rows == 10**12
    with pytest.raises(TooLarge):
        check_claimed(metadata, 1 << 31)
    with pytest.raises(TooLarge):
        check(claimed, 1 << 31)
    check_claimed(pq.read_metadata(pa.BufferReader(content)), 1 << 31)


def test_little_memory_is_taken_for_it() -> None:
    pool = pa.system_memory_pool()
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        for case in BOMBS.keys() - {"a list of nulls"}:
            with pytest.raises(TooLarge):
                check(BOMBS[case])
    finally:
        pa.set_memory_pool(before)
    assert pool.max_memory() < LIMIT // 2
