"""Captions against Python's own decoding, splitting and counting, on any text and any bytes."""

import sys

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.base.compiling import interpreting
from curate.base.schema import SAMPLE_REASONS
from curate.read.text import MAX_CHARACTERS, caption_status, check_captions

SPACES = "".join(c for c in map(chr, range(sys.maxunicode + 1)) if c.isspace())
TYPES = [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()]
# Looks like white space to some, and is none to Python; then bytes at the edges of the UTF-8 table.
ODD = "\u200b\u180e\u2060\ufeff\x00\x1b\x7f\x80\xad\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff"
texts = st.text(alphabet=st.one_of(st.sampled_from(SPACES + ODD + "ab"), st.characters(codec="utf-8")), max_size=40)
EDGES = [b"\xc0\x80", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xff"]
blobs = st.lists(
    st.one_of(texts.map(str.encode), st.binary(max_size=6), st.sampled_from([*EDGES, b"\xef\xbb\xbf", b"\xe2\x80"])),
    max_size=4,
).map(b"".join)


def raw_column(blobs, kind):
    """A column with any bytes, as a Parquet reader may return it."""
    big = kind in (pa.large_string(), pa.large_binary())
    column = pa.array(blobs, pa.large_binary() if big else pa.binary())
    return pa.Array.from_buffers(kind, len(column), column.buffers(), column.null_count)


def rows_of(checked):
    for column in checked:
        column.validate(full=True)
    return list(zip(*(column.to_pylist() for column in checked), strict=True))


def naive(raw):
    if raw is None:
        return None, None, None, "no_caption", "the caption is missing or null"
    text, status, error = caption_status(raw)
    return text, None if text is None else len(text.split()), None if text is None else len(text), status, error


@given(st.lists(st.one_of(st.none(), blobs), max_size=8), st.sampled_from(TYPES), st.integers(0, 3))
def test_column_equals_caption_by_caption(rows, kind, skip):
    column = raw_column(rows, kind)[skip:]
    assert rows_of(check_captions(column)) == [naive(raw) for raw in rows[skip:]]


@given(st.lists(st.one_of(st.none(), texts), max_size=8), st.sampled_from(TYPES), st.integers(0, 3))
def test_counts_equal_python(rows, kind, skip):
    found = check_captions(pa.array(rows, kind)[skip:])
    assert (found.words.type, found.characters.type) == (pa.int32(), pa.int32())
    ok = [status == "ok" for status in found.status.to_pylist()]
    bare = [t.removeprefix("\ufeff") if good else None for t, good in zip(rows[skip:], ok, strict=True)]
    assert found.words.to_pylist() == [None if t is None else len(t.split()) for t in bare]
    assert found.characters.to_pylist() == [None if t is None else len(t) for t in bare]


def test_interpreted_kernel_equals_compiled():
    column = pa.array(["日本 語", "é ʃ", "a 🐈"])
    with interpreting(True):
        interpreted = check_captions(column)
    assert interpreted == check_captions(column)


def test_every_white_space_character_splits():
    odd = ODD.replace("\0", "")  # which is refused
    words = check_captions(pa.array([f"a{c}b" for c in SPACES] + [f"a{c}b" for c in odd])).words
    assert words.to_pylist() == [2] * len(SPACES) + [1] * len(odd)
    assert len(SPACES) == 29


REASONS = [
    (b"a cat", "ok", None), (b"", "empty_caption", "0 characters of white space"),
    (b"\xef\xbb\xbf", "empty_caption", "0 characters of white space"),
    (" \t\r\n\u00a0\u3000".encode(), "empty_caption", "6 characters of white space"),
    (b"caf\xe9", "caption_not_utf8", "byte 0xe9 at 3: unexpected end of data"),
    (b"\xef\xbb\xbfcaf\xff", "caption_not_utf8", "byte 0xff at 6: invalid start byte"),
    (b"a\0b", "caption_nul", "NUL at character 1"), (b"\0", "caption_nul", "NUL at character 0"),
    (b"\0" * 20_000, "caption_nul", "NUL at character 0"), ("é".encode() * MAX_CHARACTERS, "ok", None),
    ("é".encode() * (MAX_CHARACTERS + 1), "caption_too_long", "10001 characters"),
]  # fmt: skip


def test_reasons():
    for raw, status, error in REASONS:
        text, *found = caption_status(raw)
        assert found == [status, error]
        assert (text is not None) == (status == "ok")
        assert status == "ok" or status in SAMPLE_REASONS
        assert rows_of(check_captions(pa.array([raw], pa.binary())))[0][0::3] == (text, status)


def test_a_mark_at_the_beginning_is_dropped_and_only_there():
    assert caption_status(b"\xef\xbb\xbf\xef\xbb\xbfa")[0] == "\ufeffa"
    assert check_captions(pa.array(["\ufeffa cat", "a\ufeff", "b"])).caption.to_pylist() == ["a cat", "a\ufeff", "b"]


def test_other_types_and_none():
    with pytest.raises(TypeError, match="int64, not string"):
        check_captions(pa.array([1]))
    assert all(rows_of(check_captions(pa.array([], kind))) == [] for kind in TYPES)
