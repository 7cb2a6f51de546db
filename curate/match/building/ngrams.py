"""Counts the words and pairs of words of texts, exactly.

In: UTF-8 text (bytes), and a class for each code point. Out: two tables, `words` (word string · count int64, in order
of first appearance) and `pairs` (first, second int32: rows of `words` · count int64).

A word is a run of WORD characters, or one SINGLE character. SPACE and BREAK characters are not words. Two consecutive
words are a pair unless a BREAK is between them. A kernel splits the text, and Arrow counts.
"""

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.numeric.arrays import I64, U8
from curate.base.schema import define

WORD, SINGLE, BREAK, SPACE = range(4)

WORDS = define(word=pa.large_string(), count=pa.int64())
PAIRS = define(first=pa.int32(), second=pa.int32(), count=pa.int64())

_jit = numba.njit(cache=True, nogil=True)


def make_classes(spaces: str, breaks: str, singles: Sequence[tuple[int, int]]) -> U8:
    """Return the class of each code point (uint8); `singles` are inclusive ranges; breaks stay breaks."""
    classes = np.full(0x110000, WORD, np.uint8)
    for first, last in singles:
        classes[first : last + 1] = SINGLE
    classes[[*map(ord, breaks)]] = BREAK
    classes[[*map(ord, spaces)]] = SPACE
    return classes


def count_ngrams(text: bytes, classes: U8) -> tuple[pa.Table, pa.Table]:
    """Count the words and pairs of a text."""
    octets, ends = _cut_words(np.frombuffer(text, np.uint8), classes)
    buffers = [None, pa.py_buffer(ends.data), pa.py_buffer(octets.data)]
    runs: Any = pa.Array.from_buffers(pa.large_string(), len(ends) - 1, buffers).dictionary_encode()
    codes = runs.indices.to_numpy()
    is_word = pc.not_equal(runs.dictionary, pa.scalar("", pa.large_string())).to_numpy(zero_copy_only=False)
    counts = np.bincount(codes, minlength=len(is_word))[is_word]
    words = pa.table([runs.dictionary.filter(pa.array(is_word)), pa.array(counts)], schema=WORDS)
    is_pair = is_word[codes[:-1]] & is_word[codes[1:]]
    rows = (np.cumsum(is_word) - 1)[codes]
    keys, times = pc.value_counts(pa.array(rows[:-1][is_pair] << 32 | rows[1:][is_pair])).flatten()
    pairs = np.asarray(keys)
    sides = [pa.array(half.astype(np.int32)) for half in (pairs >> 32, pairs & (2**32 - 1))]
    return words, pa.table([*sides, times], schema=PAIRS)


@_jit
def _cut_words(data: U8, classes: U8) -> tuple[U8, I64]:
    """Return the concatenated bytes of the words, and offsets (int64); an empty word is a BREAK."""
    octets, ends = np.empty(len(data), np.uint8), np.zeros(1024, np.int64)
    at = size = n = 0
    in_word = False
    while at < len(data):
        code, width = np.int64(data[at]), 1
        if code >= 0xF0:
            width, code = 4, code & 7
        elif code >= 0xE0:
            width, code = 3, code & 15
        elif code >= 0xC0:
            width, code = 2, code & 31
        for i in range(at + 1, at + width):
            code = code << 6 | np.int64(data[i] & 63)
        kind = classes[code]
        if n + 3 > len(ends):
            ends = np.concatenate((ends, np.zeros(len(ends), np.int64)))
        if in_word and kind != WORD:
            n, in_word = n + 1, False
            ends[n] = size
        if kind <= SINGLE:
            for i in range(at, at + width):
                octets[size] = data[i]
                size += 1
            in_word = kind == WORD
        if SINGLE <= kind <= BREAK:
            n += 1
            ends[n] = size
        at += width
    if in_word:
        n += 1
        ends[n] = size
    return octets[:size], ends[: n + 1]
