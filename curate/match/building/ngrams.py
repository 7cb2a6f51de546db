"""Counts the words and pairs of words of texts, exactly: compiled, and without Python's lock.

In: UTF-8 text (bytes), and a class for each code point. Out: two tables, `words` (word string · count int64, in the
order of their first places) and `pairs` (first, second int32: rows of `words` · count int64).

A word is a run of WORD characters, or one SINGLE character. SPACE and BREAK characters are no words; a BREAK besides
ends a pair: two words in a row are one, unless a BREAK lies between them.

Both are counted in open-addressing hash tables, which grow: a hash only chooses where to look, a word is compared by
its bytes. Words pass in batches, stage by stage, so that what one stage prefetches is there for the next. In memory are
the text, and at most 64 bytes a word and a pair. One file: numba's cache notices a change of a compiled function's own
file alone.
"""

from collections.abc import Sequence

import numba
import numpy as np
import pyarrow as pa

from curate.base.numeric.arrays import I64, U8, U64, string_buffers
from curate.base.process import process_cache
from curate.base.schema import define
from curate.match.kernel import prefetch

WORD, SPACE, BREAK, SINGLE = range(4)

WORDS = define(word=pa.large_string(), count=pa.int64())
PAIRS = define(first=pa.int32(), second=pa.int32(), count=pa.int64())

_START, _LENGTH, _COUNT = range(3)  # of a word, in its row
_FIRST_SLOTS, _BATCH = 1 << 12, 64
_FREE = np.uint64(2**64 - 1)
_SEED, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_U32, _U29, _MIX = np.uint64(32), np.uint64(29), np.uint64(0x9E3779B97F4A7C15)
_LOW = np.uint64(2**32 - 1)

_jit = numba.njit(cache=True, nogil=True)
Int = int | np.int64


def make_classes(spaces: str, breaks: str, singles: Sequence[tuple[int, int]]) -> U8:
    """Return the class of each code point (uint8): `singles` are ranges, whose ends belong to them; breaks hold."""
    classes = np.full(0x110000, WORD, np.uint8)
    for first, last in singles:
        classes[first : last + 1] = SINGLE
    classes[[*map(ord, breaks)]] = BREAK
    classes[[*map(ord, spaces)]] = SPACE
    return classes


def count_ngrams(text: bytes, classes: U8) -> tuple[pa.Table, pa.Table]:
    """Return the words and the pairs of a text."""
    process_cache("ngrams", _compile)
    data = np.frombuffer(text, np.uint8)
    rows, (keys, counts) = _count(data, classes)
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(rows[:, _LENGTH])])
    octets = _gather(data, rows, ends)
    buffers = [None, pa.py_buffer(ends.data), pa.py_buffer(octets.data)]
    strings = pa.Array.from_buffers(pa.large_string(), len(rows), buffers)
    words = pa.table([strings, pa.array(np.ascontiguousarray(rows[:, _COUNT]))], schema=WORDS)
    sides = [pa.array(half.astype(np.int32)) for half in (keys >> _U32, keys & _LOW)]
    return words, pa.table([*sides, pa.array(counts.view(np.int64))], schema=PAIRS)


def _compile() -> bool:
    """Compile or load the kernels: in one thread, before others need them."""
    _gather(np.zeros(1, np.uint8), _count(np.zeros(1, np.uint8), np.zeros(256, np.uint8))[0], np.zeros(2, np.int64))
    return True


def hash_words(words: pa.Array) -> U64:
    """Return a hash of each word (uint64), the same everywhere."""
    data, ends = string_buffers(words)
    return np.asarray(_hash_all(data, ends))


@_jit
def _hash_all(data: U8, ends: I64) -> U64:
    hashes = np.empty(len(ends) - 1, np.uint64)
    for i in range(len(hashes)):
        hashes[i] = _hash(data, ends[i], ends[i + 1])
    return hashes


@_jit
def _hash(data: U8, start: int, stop: int) -> np.uint64:
    """Return FNV-1a of the bytes, mixed: any of its bits may choose a place."""
    h = _SEED
    for i in range(start, stop):
        h = (h ^ np.uint64(data[i])) * _PRIME
    mixed: np.uint64 = _mix(h)
    return mixed


@_jit
def _mix(h: np.uint64) -> np.uint64:
    h = (h ^ (h >> _U29)) * _MIX
    return h ^ (h >> _U32)


@_jit
def _count(data: U8, classes: U8) -> tuple[I64, U64]:
    """Return a row for each word, and for each pair its key, first << 32 | second, and its count."""
    slots, rows, n_words = np.full(_FIRST_SLOTS, _FREE), np.empty((_FIRST_SLOTS, 3), np.int64), 0
    pairs, n_pairs = np.full(2 * _FIRST_SLOTS, _FREE), 0
    spans, hashes, words = np.empty((_BATCH, 2), np.int64), np.empty(_BATCH, np.uint64), np.empty(_BATCH, np.int64)
    ends_pair, keys, places = np.empty(_BATCH, np.bool_), np.empty(_BATCH, np.uint64), np.empty(_BATCH, np.int64)
    at, before, n = 0, -1, _BATCH
    while n == _BATCH:
        while 2 * (n_words + _BATCH) > len(slots):
            slots, rows = _grow_words(slots, rows, n_words, data)
        while 4 * (n_pairs + _BATCH) > len(pairs):
            pairs = _grow_pairs(pairs)
        n = 0
        while n < _BATCH:
            start, stop, at, ends_pair[n] = _next_word(data, classes, at)
            if start == stop:
                break
            spans[n, 0], spans[n, 1], hashes[n] = start, stop, _hash(data, start, stop)
            prefetch(slots, np.int64(hashes[n] & np.uint64(len(slots) - 1)))
            n += 1
        for i in range(n):
            words[i], n_words = _count_word(slots, rows, n_words, data, hashes[i], spans[i, 0], spans[i, 1])
        n_keys = 0
        for i in range(n):
            before = -1 if ends_pair[i] else before
            if before >= 0:
                keys[n_keys] = np.uint64(before) << _U32 | np.uint64(words[i])
                places[n_keys] = _home(keys[n_keys], len(pairs))
                prefetch(pairs, places[n_keys])
                n_keys += 1
            before = words[i]
        before = -1 if n < _BATCH and ends_pair[n] else before
        for i in range(n_keys):
            place = _find_pair(pairs, keys[i], places[i])
            n_pairs += pairs[place] == _FREE
            pairs[place + 1] = np.uint64(1) if pairs[place] == _FREE else pairs[place + 1] + np.uint64(1)
            pairs[place] = keys[i]
    both, n = np.empty((2, n_pairs), np.uint64), 0
    for place in range(0, len(pairs), 2):
        if pairs[place] != _FREE:
            both[0, n], both[1, n] = pairs[place], pairs[place + 1]
            n += 1
    return rows[:n_words], both


@_jit
def _next_word(data: U8, classes: U8, at: int) -> tuple[int, int, int, bool]:
    """Return where the next word begins and ends, where to go on, and whether a BREAK is before it.

    A BREAK right behind a word is before the next one. At the end of the text the word is empty.
    """
    start, ends_pair = -1, False
    while at < len(data):
        code, size = np.int64(data[at]), 1
        if code >= 0xF0:
            size, code = 4, code & 7
        elif code >= 0xE0:
            size, code = 3, code & 15
        elif code >= 0xC0:
            size, code = 2, code & 31
        for i in range(at + 1, at + size):
            code = code << 6 | np.int64(data[i] & 63)
        kind = classes[code]
        if kind == WORD:
            start = at if start < 0 else start
        elif start >= 0:
            return start, at, at, ends_pair
        elif kind == SINGLE:
            return at, at + size, at + size, ends_pair
        elif kind == BREAK:
            ends_pair = True
        at += size
    start = at if start < 0 else start
    return start, at, at, ends_pair


@_jit
def _count_word(slots: U64, rows: I64, n_words: int, data: U8, h: np.uint64, start: int, stop: int) -> tuple[Int, int]:
    """Count a word, which may be a new one; return it, and how many words there are."""
    slot = np.int64(h & np.uint64(len(slots) - 1))
    while slots[slot] != _FREE:
        word = np.int64(slots[slot] & _LOW)
        if slots[slot] >> _U32 == h >> _U32 and rows[word, _LENGTH] == stop - start:
            other, i = rows[word, _START], 0
            while i < stop - start and data[other + i] == data[start + i]:
                i += 1
            if i == stop - start:
                rows[word, _COUNT] += 1
                return word, n_words
        slot = (slot + 1) & (len(slots) - 1)
    slots[slot] = h >> _U32 << _U32 | np.uint64(n_words)
    rows[n_words, _START], rows[n_words, _LENGTH], rows[n_words, _COUNT] = start, stop - start, 1
    return n_words, n_words + 1


@_jit
def _grow_words(slots: U64, rows: I64, n_words: int, data: U8) -> tuple[U64, I64]:
    """Return twice as many slots and rows."""
    more, wider = np.full(2 * len(slots), _FREE), np.empty((2 * len(slots), 3), np.int64)
    for word in range(n_words):
        for i in range(3):
            wider[word, i] = rows[word, i]
        h = _hash(data, rows[word, _START], rows[word, _START] + rows[word, _LENGTH])
        slot = np.int64(h & np.uint64(len(more) - 1))
        while more[slot] != _FREE:
            slot = (slot + 1) & (len(more) - 1)
        more[slot] = h >> _U32 << _U32 | np.uint64(word)
    return more, wider


@_jit
def _home(key: np.uint64, size: int) -> Int:
    """Return where a pair belongs in so many words of pairs: its key, then its count."""
    place: Int = np.int64(_mix(key * _PRIME) & np.uint64(size // 2 - 1)) << 1
    return place


@_jit
def _find_pair(pairs: U64, key: np.uint64, place: Int) -> Int:
    """Return where a pair is, or is to be, from its home on."""
    while pairs[place] != key and pairs[place] != _FREE:
        place = (place + 2) & (len(pairs) - 1)
    return place


@_jit
def _grow_pairs(pairs: U64) -> U64:
    more = np.full(2 * len(pairs), _FREE)
    for i in range(0, len(pairs), 2):
        if pairs[i] != _FREE:
            place = _find_pair(more, pairs[i], _home(pairs[i], len(more)))
            more[place], more[place + 1] = pairs[i], pairs[i + 1]
    return more


@_jit
def _gather(data: U8, rows: I64, ends: I64) -> U8:
    octets = np.empty(ends[-1], np.uint8)
    for word in range(len(rows)):
        start = rows[word, _START]
        for i in range(rows[word, _LENGTH]):
            octets[ends[word] + i] = data[start + i]
    return octets
