"""Pages that hold more than the footer says are refused before Arrow reads them, and those of all writers pass."""

import io
import random
import subprocess
import sys
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.spec import AbstractBufferedFile

from curate.base.decoded_size import TooLarge, check_claimed, check_decoded, read_footer
from tests.base import parquet_bytes as made
from tests.base.parquet_bytes import Column, Long, Struct, page, parquet, run, struct, text

ROWS, LONG, LIMIT = 400, 100_000, 20_000_000
BIG = 2**31 - 1


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


def check(content: bytes, limit: int = LIMIT) -> None:
    opened = pa.BufferReader(content)
    footer = read_footer(opened)
    check_decoded(opened, footer, range(footer.num_row_groups), None, limit)


def packed(body: bytes, *rest: Any, **more: Any) -> bytes:
    return page(zstd(body), *rest, size=len(body), **more)


DICTIONARY = packed(text(b"x" * LONG), 1, kind=made.DICTIONARY)
INDICES = packed(b"\1" + run(ROWS, 0), ROWS, made.RLE_DICTIONARY)
GROWING = made.deltas([0] + [LONG] * (ROWS - 1)) + made.deltas([LONG] + [0] * (ROWS - 1)) + b"x" * LONG
LEVELS = [text(run(1, 0) + run(BIG // 2, 1)), text(run(BIG // 2, 1))]
LIES = {
    "a hidden dictionary": Column(DICTIONARY + INDICES, ROWS, codec=6),
    "hidden deltas": Column(packed(GROWING, ROWS, made.DELTA_BYTE_ARRAY), ROWS, codec=6),
    "a larger page": Column(packed(text(b"x" * LIMIT), 1), 1, codec=6, size=100),
    "many pages": Column(packed(text(b"x" * (LIMIT // 3)), 1) * 4, 4, codec=6, size=100),
    "more values": Column(page(b"".join(LEVELS), BIG // 2), 1, made.INT32, repetition=made.REPEATED),
    "more in its dictionary": Column(page(b"", BIG, kind=made.DICTIONARY) + page(b"", 1), 1),
    "many tiny pages": Column(page(b"", 0) * 10_000 + page(text(b"x"), 1), 1),
}


@pytest.mark.parametrize("case", LIES)
def test_what_pages_hold_counts_whatever_the_footer_says(case: str) -> None:
    content = parquet(LIES[case].values, LIES[case])
    assert len(content) < 300_000
    with pytest.raises(TooLarge, match="it holds more than 20,000,000 bytes, unpacked"):
        check(content)


DELTAS = made.zeros(BIG)
DAMAGED = {
    "more lengths": Column(page(DELTAS, 100, made.DELTA_LENGTH_BYTE_ARRAY), 100),
    "more prefixes": Column(page(DELTAS + DELTAS, 100, made.DELTA_BYTE_ARRAY), 100),
    "more suffixes": Column(page(made.zeros(100) + DELTAS, 100, made.DELTA_BYTE_ARRAY), 100),
    "suffixes behind levels": Column(
        page(b"ab" + made.zeros(9) + DELTAS, 100, made.DELTA_BYTE_ARRAY, made.DATA_V2, definition=2), 100
    ),
    "deltas that end": Column(page(made.zeros(100)[:-1], 100, made.DELTA_LENGTH_BYTE_ARRAY), 100),
    "no deltas": Column(page(b"\xff" * 40, 100, made.DELTA_LENGTH_BYTE_ARRAY), 100),
    "a late dictionary": Column(packed(text(b"x"), 1) + DICTIONARY + INDICES, ROWS + 1, codec=6),
    "no header": Column(b"", 1, size=1),
    "no fields": Column(bytes(9), 1),
    "a field of another type": Column(struct({1: Long(0), 2: 1, 3: 1}), 1),
    "a size below 0": Column(page(b"", 1, size=-1), 1),
    "levels that it has not": Column(page(b"ab", 1, kind=made.DATA_V2, definition=3), 1),
    "structs in structs": Column(b"\x1c" * 2000, 1),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_pages_that_are_damaged_are_refused(case: str) -> None:
    with pytest.raises(pa.ArrowInvalid):
        check(parquet(DAMAGED[case].values, DAMAGED[case]))


def test_files_made_so_are_read() -> None:
    """That of a lie a file would be read, were it not for the lie."""
    values = [b"abc", b"abcd", b"b"]
    prefixed = made.deltas([0, 3, 0]) + made.deltas([3, 1, 1]) + b"abcdb"
    columns = [
        Column(page(b"".join(map(text, values)), 3), 3),
        Column(page(prefixed, 3, made.DELTA_BYTE_ARRAY), 3),
        Column(page(made.deltas([3, 4, 1]) + b"abcabcdb", 3, made.DELTA_LENGTH_BYTE_ARRAY), 3),
        Column(page(prefixed, 3, made.DELTA_BYTE_ARRAY, made.DATA_V2, definition=0), 3),
        Column(page(text(b"abc"), 1, kind=made.DICTIONARY) + page(b"\1" + run(3, 0), 3, made.RLE_DICTIONARY), 3),
    ]
    content = parquet(3, *columns)
    check(content, 200_000)
    table = pq.read_table(pa.BufferReader(content))
    assert [column.to_pylist() for column in table.columns] == [values] * 4 + [[b"abc"] * 3]


BROKEN = {
    "levels that are not counted right": Column(page(text(b"x"), 1), 1, more={16: struct({3: [Long(1)] * 5})}),
    "a key that nobody has": Column(page(text(b"x"), 1), 1, chunk={8: struct({2: struct({1: [b"c0"]})})}),
}


@pytest.mark.parametrize("case", BROKEN)
def test_metadata_that_end_the_process_are_refused(case: str) -> None:
    """Pyarrow lets what is raised there end the process, as soon as Python looks at the column."""
    content = parquet(1, BROKEN[case])
    with pytest.raises((OSError, pa.ArrowException)):
        check(content)
    with pytest.raises((OSError, pa.ArrowException)):
        check_claimed(read_footer(pa.BufferReader(content)), LIMIT)


@pytest.mark.thorough
def test_such_metadata_still_end_the_process() -> None:
    """Where not, the check before can go."""
    content = parquet(1, BROKEN["levels that are not counted right"])
    code = f"import pyarrow as pa, pyarrow.parquet as pq; pq.read_metadata(pa.BufferReader({content!r}))"
    done = subprocess.run([sys.executable, "-c", f"{code}.row_group(0).column(0)"], check=False, capture_output=True)
    assert done.returncode == -6


TEXTS = pa.array([None, "", "a", "ab" * 40, "abc"] * 300)
PLAIN = {
    "texts": TEXTS,
    "lists": pa.array([[], ["a", None], None, ["ab", "abc", "abc"]] * 300),
    "structs": pa.array([{"a": text} for text in TEXTS.to_pylist()]),
    "numbers": pa.array([*range(1499), None], pa.int32()),
}
LEAVES = {"texts": "texts", "lists": "lists.list.element", "structs": "structs.a"}


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "lz4", "brotli", "zstd"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("encoding", [None, "PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_what_writers_write_passes(encoding: str | None, version: str, codec: str) -> None:
    for name, values in PLAIN.items():
        encodings = {LEAVES[name]: encoding} if encoding and name in LEAVES else None
        sink = io.BytesIO()
        pq.write_table(
            pa.table({name: values}), sink, compression=codec, data_page_version=version, data_page_size=1 << 11,
            use_dictionary=not encodings, column_encoding=encodings, row_group_size=700, dictionary_pagesize_limit=100,
        )  # fmt: skip
        check(sink.getvalue(), 10 * values.nbytes + 300_000)
        if name == "texts":
            with pytest.raises(TooLarge):
                check(sink.getvalue(), values.nbytes // 2)


def test_lists_of_texts_take_what_their_dictionary_takes() -> None:
    """Of which dictionaries change, Arrow could not read them as such."""
    sink = io.BytesIO()
    values = [[f"{i:020}", "a"] for i in range(3000)]
    pq.write_table(pa.table({"a": values}), sink, row_group_size=1500, dictionary_pagesize_limit=9000)
    check(sink.getvalue(), 1 << 20)


class Remote(AbstractBufferedFile):  # type: ignore[misc]
    """A file of a store, which counts the bytes that it sends."""

    def __init__(self, content: bytes):
        super().__init__(None, "x", block_size=1 << 10, size=len(content))
        self.content, self.sent = content, 0

    def _fetch_range(self, start: int, end: int) -> bytes:
        self.sent += end - start
        return self.content[start:end]


def test_a_remote_file_is_asked_once() -> None:
    sink = io.BytesIO()
    rng = random.Random(0)
    table = pa.table({name: [rng.randbytes(500) for _ in range(1000)] for name in "abc"})
    pq.write_table(table, sink, row_group_size=500, use_dictionary=["b"], data_page_size=1 << 12)
    opened = Remote(sink.getvalue())
    footer = read_footer(opened)
    for group in range(2):
        opened.sent = 0
        read = check_decoded(opened, footer, [group], None, 1 << 30).read_row_group(group, use_threads=False)
        assert read.equals(table.slice(500 * group, 500))
        assert opened.sent < len(opened.content) // 2 + 10_000
    check_decoded(opened, footer, [0], ["b"], 1 << 30)
    with pytest.raises(TooLarge):
        check_decoded(opened, footer, [0], None, 1 << 10)


def test_struct_of_tests_is_thrift() -> None:
    assert struct({1: 5, 3: True, 4: Struct(b"\0"), 6: b"ab"}) == b"\x15\x0a\x21\x1c\0\x28\2ab\0"
