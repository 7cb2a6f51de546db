"""The memory that columns of a Parquet file need is known before they are read."""

import io
import struct
import weakref
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.decoded_size import TooLarge, check_claimed, check_decoded, read_footer

ROWS, LONG = 400, 100_000
LIMIT = ROWS * LONG // 2


def repeated(value, kind, rows=ROWS):
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value], kind))


def written(column, more=None, **options):
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": column} | (more or {})), sink, compression="zstd", **options)
    return sink.getvalue()


def check(content, limit=LIMIT, columns=None):
    footer = pq.read_metadata(pa.BufferReader(content))
    check_decoded(pa.BufferReader(content), footer, range(footer.num_row_groups), columns, limit)


X, STRUCT = "x" * LONG, pa.struct([("bytes", pa.binary()), ("path", pa.string())])
MAP, DELTAS = pa.map_(pa.string(), pa.string()), {"use_dictionary": False, "column_encoding": {"a": "DELTA_BYTE_ARRAY"}}
BOMBS = {
    "text": lambda: written(repeated(X, pa.string())), "bytes": lambda: written(repeated(X.encode(), pa.binary())),
    "the first value is short": lambda: written(["a"] + [X] * (ROWS - 1)),
    "the first is null": lambda: written([None] + [X] * (ROWS - 1)),
    "two columns": lambda: written([X[: LONG // 3]] * ROWS, {"b": [X[: LONG // 3]] * ROWS}),
    "two row groups": lambda: written([X[: LONG // 3]] * 2 * ROWS, row_group_size=ROWS),
    "a struct": lambda: written(pa.array([{"bytes": X.encode(), "path": "p"}] * ROWS, STRUCT)),
    "a list": lambda: written([[X]] * ROWS), "a list, first empty": lambda: written([[], *[[X]] * ROWS]),
    "a list in a struct": lambda: written([{"b": [X]}] * ROWS),
    "a map": lambda: written(pa.array([[("k", X)]] * ROWS, MAP)),
    "a list of one": lambda: written(pa.array([[X]] * ROWS, pa.list_(pa.string(), 1))),
    "structs in a list": lambda: written([[{"b": X.encode()}]] * ROWS), "deltas": lambda: written([X] * ROWS, **DELTAS),
    "numbers of 8 bytes": lambda: written(repeated(1.5, pa.float64(), LIMIT // 7)),
    "bytes of a fixed length": lambda: written(repeated(X.encode(), pa.binary(LONG))),
    "a list of nulls": lambda: written(pa.array([[None] * LIMIT], pa.list_(pa.float32()))),
}  # fmt: skip
FIXED = {"a list of nulls", "numbers of 8 bytes", "bytes of a fixed length"}  # refused by what the footer says


@cache
def bomb(case):
    return BOMBS[case]()


@pytest.mark.parametrize("case", BOMBS)
def test_few_bytes_that_stand_for_many_are_refused(case):
    assert len(bomb(case)) < 100_000
    with pytest.raises(TooLarge, match=r"^unpacked, it has more than 20,000,000 bytes; accepted: at most that$"):
        check(bomb(case))


SIZES = {  # bytes of all texts; of deltas, with offsets; of numbers, by the footer
    "text": ROWS * LONG, "bytes": ROWS * LONG, "a list": ROWS * LONG, "a list in a struct": ROWS * LONG,
    "a list of one": ROWS * LONG, "structs in a list": ROWS * LONG, "bytes of a fixed length": ROWS * LONG,
    "the first value is short": (ROWS - 1) * LONG + 1, "the first is null": (ROWS - 1) * LONG,
    "two columns": 2 * ROWS * (LONG // 3), "two row groups": 2 * ROWS * (LONG // 3),
    "deltas": ROWS * LONG + 4 * ROWS, "numbers of 8 bytes": LIMIT // 7 * 8, "a list of nulls": 8 * LIMIT,
}  # fmt: skip


@pytest.mark.parametrize("case", SIZES)
def test_the_limit_itself_passes_and_a_byte_less_is_refused(case):
    check(bomb(case), SIZES[case])
    with pytest.raises(TooLarge):
        check(bomb(case), SIZES[case] - 1)


def test_other_columns_do_not_count():
    content = written([X] * ROWS, {"b": ["y"] * ROWS})
    check(content, columns=["b"])
    with pytest.raises(TooLarge):
        check(content, columns=["a", "b"])


def number(value):
    """A number as a footer has it: of Thrift's compact protocol."""
    value, out = 2 * value, bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def test_rows_that_are_only_claimed_are_refused():
    content = written(list(map(str, range(8191))))
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


def nested(levels, columns=1):
    """A file of a column in so many groups, which Arrow cannot write: its schema says in Thrift, of nodes name and so on."""
    leaf = b"\x15\x0c\x25\x02\x18\x01x\x00"  # bytes, optional
    count = 1 + levels + columns
    digits = bytes([count & 127 | 128, count >> 7 & 127 | 128, count >> 14])
    nodes = b"\x48\x01r\x15" + number(1 if levels else columns) + b"\x00" + levels * b"\x35\x02\x18\x01g\x15\x02\x00"
    footer = b"\x15\x02\x19\xfc" + digits + nodes + columns * leaf + b"\x16\x00\x19\x0c\x00"
    return b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1"


@pytest.mark.parametrize("case", [(20_000, 1), (5000, 1), (101, 1), (0, 10_001)])
def test_schemas_that_are_too_deep_or_wide_are_refused(case):
    """Arrow's reader ended the process by a segmentation fault, of 250 kB."""
    with pytest.raises(TooLarge, match="accepted: at most that"):
        read_footer(pa.BufferReader(nested(*case)))
    assert read_footer(pa.BufferReader(nested(100))).num_columns == 1


def test_footers_are_as_arrow_reads_them():
    for columns in (1, 13, 14, 15, 200):
        content = written([1], {f"c{i}": [1] for i in range(columns - 1)})
        assert read_footer(pa.BufferReader(content)).equals(pq.read_metadata(pa.BufferReader(content)))
    for content in (b"", b"PAR1", b"PAR1" * 2, b"no file at all", b"PAR1\xff\xff\xff\xffPAR1"):
        with pytest.raises(pa.ArrowInvalid):
            read_footer(pa.BufferReader(content))


def test_little_memory_is_taken_for_it():
    pool, before = pa.system_memory_pool(), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        for case in BOMBS.keys() - FIXED:
            with pytest.raises(TooLarge):
                check(bomb(case))
    finally:
        pa.set_memory_pool(before)
    assert pool.max_memory() < LIMIT // 2


def test_what_calls_is_let_go():
    """Pyarrow keeps an error that a file of Python raises, and with it the frames of all who called."""

    class Held:
        pass

    def call():
        held = Held()
        check(written(["x"]))
        return weakref.ref(held)

    assert call()() is None
