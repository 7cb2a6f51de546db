"""Columns of texts compared with columns of captions, whole columns at a time.

In: string or large_string [rows], nulls allowed. Out: masks, counts, words; and the few rows that gates of numbers and
names must read in Python.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.numeric.arrays import I64, Mask
from curate.captions.gates.names import may_be_name
from curate.captions.gates.numerals import NUMBER_WORDS

# Runs between spaces; but each character of Han and kana, and each four of scripts of South-East Asia without spaces.
_WORD = r"[\p{Han}\p{Hiragana}\p{Katakana}]|[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]{1,4}|"
_WORD += r"[^\s\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]+"


class Words(NamedTuple):
    """The runs of letters in a column of texts: in lower case, which of them have a capital, and the row of each."""

    lowered: pa.Array
    marked: Mask
    rows: I64


def split_words(column: pa.Array) -> Words:
    """Return the words of a column; a null has none."""
    lists = pc.split_pattern_regex(filled(column), r"[^\p{L}]+")
    words, rows = pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    some = pc.not_equal(words, "")  # before the first run and behind the last one
    words, rows = words.filter(some), rows[to_mask(some)]
    lowered = pc.utf8_lower(words)
    return Words(lowered, to_mask(pc.not_equal(lowered, words)), np.asarray(rows, np.int64))


def word_keys(a: Words, b: Words) -> tuple[I64, I64]:
    """Return a number for each word of two columns: equal for equal words of one row."""
    ids = pa.concat_arrays([a.lowered, b.lowered]).dictionary_encode().indices.to_numpy()
    return a.rows << 32 | ids[: len(a.rows)], b.rows << 32 | ids[len(a.rows) :]


def filled(column: pa.Array) -> pa.Array:
    """Return the column as string, null as the empty one."""
    return pc.fill_null(column.cast(pa.string()), "")


def to_mask(column: pa.Array) -> Mask:
    """Return a boolean column as bool [rows], null as false."""
    return np.asarray(pc.fill_null(column, False).to_numpy(zero_copy_only=False), np.bool_)


def normalised(column: pa.Array) -> pa.Array:
    """Return lower case, one space for all that is no letter, mark or digit, none at the ends; null is empty."""
    lowered = pc.utf8_lower(filled(column))
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(lowered, r"[^\p{L}\p{M}\p{N}]+", " "))


def brought_in(texts: pa.Array, originals: pa.Array, holds: Callable[[pa.Array], pa.Array]) -> Mask:
    """Return which texts hold something that their captions do not; captions are looked at where texts do."""
    bad = to_mask(holds(filled(texts)))
    rows = np.flatnonzero(bad)
    bad[rows] = ~to_mask(holds(filled(originals.take(pa.array(rows)))))
    return bad


def count_words(column: pa.Array) -> I64:
    """Return the number of words of each text; 0 of null."""
    return np.asarray(pc.count_substring_regex(filled(column), _WORD).to_numpy(zero_copy_only=False), np.int64)


def read_rows(
    rows: I64, texts: pa.Array, originals: pa.Array, sources: pa.Array | None = None
) -> Iterator[tuple[int, str, str, str]]:
    """Return of each of these rows its number, text, caption and source, empty where null."""
    columns = [filled(column.take(pa.array(rows))).to_pylist() for column in (texts, originals)]
    columns.append([""] * len(rows) if sources is None else filled(sources.take(pa.array(rows))).to_pylist())
    return zip(rows.tolist(), *columns, strict=True)


def flatten(lists: pa.ListArray) -> tuple[I64, I64]:
    """Return the values of all lists, and the row of each."""
    ids = pc.list_flatten(lists).to_numpy(zero_copy_only=False)
    rows = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    return np.asarray(ids, np.int64), np.asarray(rows, np.int64)


def number_suspects(texts: pa.Array, originals: pa.Array) -> I64:
    """Return rows that `numbers` may fail: all with numbers, but ASCII without number words and with equal figures."""
    suspect = np.zeros(len(texts), np.bool_)
    spelt = suspect.copy()
    for column in (filled(texts), filled(originals)):
        suspect |= to_mask(pc.match_substring_regex(column, r"\pN|&#?\w+;|" + NUMBER_WORDS))
        spelt |= to_mask(pc.match_substring_regex(column, r"[^\x00-\x7f]|&#?\w+;|" + NUMBER_WORDS))
    rows = pa.array(np.flatnonzero(suspect & ~spelt))
    figures = [pc.replace_substring_regex(filled(c.take(rows)), r"[^0-9.,']+", " ") for c in (texts, originals)]
    suspect[rows.to_numpy()] = ~to_mask(pc.equal(*figures))
    return np.flatnonzero(suspect & to_mask(texts.is_valid()) & to_mask(originals.is_valid()))


def name_suspects(texts: pa.Array, originals: pa.Array) -> I64:
    """Return rows that `names` may fail: what is not plain ASCII or may be a code, and a word with a capital on one
    side that the other lacks, which may be a name."""
    both = to_mask(texts.is_valid()) & to_mask(originals.is_valid())
    suspect = np.zeros(len(texts), np.bool_)
    for column in (texts, originals):
        suspect |= to_mask(pc.match_substring_regex(filled(column), r"[^\x00-\x7f]|&#?\w+;|[a-zA-Z]-?[0-9]"))
    sides = split_words(texts), split_words(originals)
    keys = word_keys(*sides)
    for side, side_keys, other_keys in ((sides[0], *keys), (sides[1], *keys[::-1])):
        alone = np.flatnonzero(side.marked & ~np.isin(side_keys, other_keys))
        coded = side.lowered.take(pa.array(alone)).dictionary_encode()
        may = np.array([may_be_name(word) for word in coded.dictionary.to_pylist()], np.bool_)
        suspect[side.rows[alone[may[coded.indices.to_numpy()]]]] = True
    return np.flatnonzero(suspect & both)
