"""What all writers write passes; footers that end the process, once Python looks at a column, are refused."""

import base64
import io
import itertools
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.spec import AbstractBufferedFile

from curate.base.decoded_size import TooLarge, check_claimed, check_decoded, read_footer

LIMIT = 20_000_000


def check(content, limit=LIMIT):
    opened = pa.BufferReader(content)
    footer = read_footer(opened)
    check_decoded(opened, footer, range(footer.num_row_groups), None, limit)


# Files of one column and one text, whose footers miscount the column's levels, or have an unknown key
BROKEN = (
    "P(e~L6#x|q6$&gB0u=xi1{DSX009610C*Jw87xQya&K>R6#@Vi3?%><0%I@$76KU@85|}E92E>1B>)B)7y@H36#y0j7AzJlCJ1~vRssS70s;U402VYB0ssI-0000`K~ga",
    "P(e~L6#x|q6$&gB0u=xi1{DSX009610C*Jw87xQya&K>R6#@Vi3?%><0%I@$76KU@85|}E92E>1B>)B)7y@H36#y0j7AzJlCI|prEEyOAV=w>!02VYB0ssI-0000`K~ga",
)


@pytest.mark.parametrize("case", BROKEN, ids=["levels", "key"])
def test_metadata_that_end_the_process_are_refused(case):
    """Pyarrow lets what is raised there end the process, as soon as Python looks at the column."""
    content = base64.b85decode(case)
    with pytest.raises((OSError, pa.ArrowException)):
        check(content)
    with pytest.raises((OSError, pa.ArrowException)):
        check_claimed(read_footer(pa.BufferReader(content)), LIMIT)


TEXTS = pa.array([None, "", "a", "ab" * 40, "abc"] * 300)
PLAIN = {
    "texts": TEXTS,
    "lists": pa.array([[], ["a", None], None, ["ab", "abc", "abc"]] * 300),
    "structs": pa.array([{"a": text} for text in TEXTS.to_pylist()]),
    "numbers": pa.array([*range(1499), None], pa.int32()),
}
LEAVES = {"texts": "texts", "lists": "lists.list.element", "structs": "structs.a"}


@pytest.mark.parametrize("encoding", [None, "PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_what_writers_write_passes(encoding):
    codecs = ("none", "snappy", "gzip", "lz4", "brotli", "zstd")
    for (name, values), codec, version in itertools.product(PLAIN.items(), codecs, ("1.0", "2.0")):
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


def test_lists_of_texts_take_what_their_dictionary_takes():
    """Of which dictionaries change, Arrow could not read them as such."""
    sink = io.BytesIO()
    values = [[f"{i:020}", "a"] for i in range(3000)]
    pq.write_table(pa.table({"a": values}), sink, row_group_size=1500, dictionary_pagesize_limit=9000)
    check(sink.getvalue(), 1 << 20)


class Remote(AbstractBufferedFile):  # type: ignore[misc]
    """A file of a store, which counts the bytes that it sends."""

    def __init__(self, content):
        super().__init__(None, "x", block_size=1 << 10, size=len(content))
        self.content, self.sent = content, 0

    def _fetch_range(self, start, end):
        self.sent += end - start
        return self.content[start:end]


def test_a_remote_file_is_asked_once():
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
