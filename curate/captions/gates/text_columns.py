"""Compare columns of texts with columns of captions, with vectorized operations.

In: string or large_string [rows], nulls allowed. Out: masks, counts, words, and the few rows that gates read in Python.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.numeric.arrays import I64, Mask
from curate.captions.gates.gate import Candidates

# Runs between spaces; also each Han or kana character, and each four characters of Southeast Asian scripts.
_WORD = r"[\p{Han}\p{Hiragana}\p{Katakana}]|[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]{1,4}|"
_WORD += r"[^\s\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]+"


def split_words(column: pa.Array) -> list[list[str]]:
    """Return each text's runs of letters; none for null."""
    lists: Any = pc.split_pattern_regex(filled(column), r"[^\p{L}]+")
    return [[word for word in words if word] for words in lists.to_pylist()]


def filled(column: pa.Array) -> pa.StringArray:
    """Return the column as strings, with "" for null."""
    strings = column.cast(pa.string()).fill_null("")
    assert isinstance(strings, pa.StringArray)
    return strings


def to_texts(column: pa.Array | pa.ChunkedArray) -> list[str]:
    """Return a column's texts, with "" for null."""
    return [text or "" for text in column.to_pylist()]


def to_mask(column: pa.BooleanArray) -> Mask:
    """Return a boolean column as bool [rows], null as false."""
    return np.asarray(column.fill_null(False).to_numpy(zero_copy_only=False), np.bool_)


def matches(column: pa.Array, pattern: str) -> Mask:
    """Return which texts match an RE2 pattern; null counts as ""."""
    return to_mask(pc.match_substring_regex(filled(column), pattern))


def are_equal(a: pa.Array, b: pa.Array | pa.Scalar) -> Mask:
    """Return where two columns, or a column and a value, are equal and not null."""
    return to_mask(pc.equal(a, b))


def normalized(column: pa.Array) -> pa.StringArray:
    """Return lower-case words: other characters become one space, stripped at the ends; null becomes ""."""
    lowered = pc.utf8_lower(filled(column))
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(lowered, r"[^\p{L}\p{M}\p{N}]+", " "))


def brought_in(candidates: Candidates, pattern: str) -> Mask:
    """Return which texts match a pattern that their captions do not match."""
    bad = matches(candidates.texts, pattern)
    rows = np.flatnonzero(bad)
    bad[rows] = ~matches(candidates.originals.take(rows), pattern)
    return bad


def count_words(column: pa.Array) -> I64:
    """Return each text's number of words; 0 for null."""
    return np.asarray(pc.count_substring_regex(filled(column), _WORD).to_numpy(zero_copy_only=False), np.int64)


def read_rows(rows: I64, candidates: Candidates) -> Iterator[tuple[int, str, str, str]]:
    """Return each of these rows' number, text, caption and source, with "" for null."""
    sources = pa.nulls(len(candidates.texts), pa.string()) if candidates.sources is None else candidates.sources
    columns = (to_texts(column.take(rows)) for column in (candidates.texts, candidates.originals, sources))
    return zip(rows.tolist(), *columns, strict=True)
