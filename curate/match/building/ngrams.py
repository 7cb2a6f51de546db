"""Counts the words and pairs of words of texts, exactly: compiled, and without Python's lock.

In: UTF-8 text (bytes), and a class for each code point. Out: two tables, `words` (word string · count int64, in the
order of their first places) and `pairs` (first, second int32: rows of `words` · count int64).

A word is a run of WORD characters, or one SINGLE character. SPACE and BREAK characters are no words; a BREAK besides
ends a pair: two words in a row are one, unless a BREAK lies between them.

Both are counted in open-addressing hash tables, which grow: a hash only chooses where to look, a word is compared by
its bytes. In memory are the text, 40 bytes a word and 32 a pair. One file: numba's cache notices a change of a compiled
function's own file alone.
"""

import numba
import numpy as np
import pyarrow as pa

from curate.base.numeric.arrays import I32, I64, U8, U64, string_buffers
from curate.base.process import process_cache
from curate.base.schema import define

WORD, SPACE, BREAK, SINGLE = range(4)

WORDS = define(word=pa.large_string(), count=pa.int64())
PAIRS = define(first=pa.int32(), second=pa.int32(), count=pa.int64())

_START, _LENGTH, _COUNT, _HASH = range(4)  # of a word, in its row
_FIRST_SLOTS = 1 << 12
_FREE = np.uint64(2**64 - 1)
_SEED, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_U32, _U29, _MIX = np.uint64(32), np.uint64(29), np.uint64(0x9E3779B97F4A7C15)

_jit = numba.njit(cache=True, nogil=True)
Int = int | np.int64


def make_classes(spaces: str, breaks: str, singles: list[tuple[int, int]]) -> U8:
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
    rows, keys, counts = _count(data, classes)
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(rows[:, _LENGTH])])
    octets = _gather(data, rows, ends)
    buffers = [None, pa.py_buffer(ends.data), pa.py_buffer(octets.data)]
    strings = pa.Array.from_buffers(pa.large_string(), len(rows), buffers)
    words = pa.table([strings, pa.array(np.ascontiguousarray(rows[:, _COUNT]))], schema=WORDS)
    sides = [pa.array(half.astype(np.int32)) for half in (keys >> _U32, keys & np.uint64(2**32 - 1))]
    return words, pa.table([*sides, pa.array(counts)], schema=PAIRS)


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
def _count(data: U8, classes: U8) -> tuple[I64, U64, I64]:
    """Return a row for each word, and for each pair its key, first << 32 | second, and count."""
    slots, rows, n_words = np.full(_FIRST_SLOTS, -1, np.int32), np.empty((_FIRST_SLOTS, 4), np.int64), 0
    keys, counts, n_pairs = np.full(_FIRST_SLOTS, _FREE), np.zeros(_FIRST_SLOTS, np.int64), 0
    at = stop = 0
    before = -1
    while True:
        start, stop, at, ends_pair = _next_word(data, classes, at)
        if ends_pair:
            before = -1
        if start == stop:
            break
        if 2 * n_words >= len(slots):
            slots, rows = _grow_words(slots, rows, n_words)
        h = _hash(data, start, stop)
        slot, word = _find(slots, rows, data, h, start, stop)
        if word < 0:
            word, slots[slot] = n_words, n_words
            rows[word, _START], rows[word, _LENGTH], rows[word, _COUNT] = start, stop - start, 0
            rows[word, _HASH] = np.int64(h)
            n_words += 1
        rows[word, _COUNT] += 1
        if before >= 0:
            if 2 * n_pairs >= len(keys):
                keys, counts = _grow_pairs(keys, counts)
            key = np.uint64(before) << _U32 | np.uint64(word)
            place = _find_pair(keys, key)
            n_pairs += keys[place] == _FREE
            keys[place] = key
            counts[place] += 1
        before = word
    taken = np.flatnonzero(keys != _FREE)
    return rows[:n_words], keys[taken], counts[taken]


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
def _find(slots: I32, rows: I64, data: U8, h: np.uint64, start: int, stop: int) -> tuple[Int, Int]:
    """Return the slot of a word and the word, or the free slot where it would be and -1."""
    slot = np.int64(h & np.uint64(len(slots) - 1))
    while slots[slot] >= 0:
        word = slots[slot]
        if rows[word, _HASH] == np.int64(h) and rows[word, _LENGTH] == stop - start:
            other, i = rows[word, _START], 0
            while i < stop - start and data[other + i] == data[start + i]:
                i += 1
            if i == stop - start:
                return slot, word
        slot = (slot + 1) & (len(slots) - 1)
    return slot, -1


@_jit
def _grow_words(slots: I32, rows: I64, n: int) -> tuple[I32, I64]:
    more, wider = np.full(2 * len(slots), -1, np.int32), np.empty((2 * len(slots), 4), np.int64)
    wider[:n] = rows[:n]
    for word in range(n):
        slot = np.int64(np.uint64(rows[word, _HASH]) & np.uint64(len(more) - 1))
        while more[slot] >= 0:
            slot = (slot + 1) & (len(more) - 1)
        more[slot] = word
    return more, wider


@_jit
def _find_pair(keys: U64, key: np.uint64) -> Int:
    place = np.int64(_mix(key * _PRIME) & np.uint64(len(keys) - 1))
    while keys[place] != key and keys[place] != _FREE:
        place = (place + 1) & (len(keys) - 1)
    return place


@_jit
def _grow_pairs(keys: U64, counts: I64) -> tuple[U64, I64]:
    more, of_more = np.full(2 * len(keys), _FREE), np.zeros(2 * len(keys), np.int64)
    for i in range(len(keys)):
        if keys[i] != _FREE:
            place = _find_pair(more, keys[i])
            more[place], of_more[place] = keys[i], counts[i]
    return more, of_more


@_jit
def _gather(data: U8, rows: I64, ends: I64) -> U8:
    octets = np.empty(ends[-1], np.uint8)
    for word in range(len(rows)):
        start = rows[word, _START]
        octets[ends[word] : ends[word + 1]] = data[start : start + rows[word, _LENGTH]]
    return octets
