"""The compiled half of matching by language: tables of the prefixes of entries, and the loop over texts (no GIL).

In: entries of one language; UTF-8 bytes (uint8) and offsets (int64) of texts. Out: parts of `Tables`; offsets (int64)
and ids (int32) of the distinct entries in each text. `curate.match.language_matcher` states the definition.

An atom of the spaced text is a character without boundaries, what lies between such ones and spaces, or the nothing
between two spaces; its hash also says whether a space comes before it. An entry begins and ends where atoms do, and so
is a run of atoms, of which the first follows a space or is a character without boundaries. Each prefix of whole atoms
that several entries share, or that is an entry, has a slot in a table of its language; and each other entry has one at
the first prefix that it shares with none. So there are about 1.3 slots an entry, of 16 bytes at 60 % load, whatever the
length of entries; behind them are the bytes of the entries and a few bits. A walk starts at each atom that may begin an
entry, goes on while prefixes have slots, and compares all bytes there: hashes only choose where to look.

Texts pass in blocks, stage by stage, so that the misses of one stage overlap: spaced bytes, atoms, hashes (prefetched),
first prefixes, longer ones. Little-endian machines only. `curate.match.kernel` is the same for entries with boundaries
alone, and faster.
"""

from typing import NamedTuple

import numba
import numpy as np

from curate.base.numeric.arrays import I32, I64, U8, U64, Mask
from curate.base.numeric.text_hash import load_u64
from curate.match.kernel import Int, append_sorted, hash_token, prefetch

MAX_LENGTH = (1 << 11) - 1  # bytes of an entry
# Classes of characters, bits of a table by code point.
NO_BOUNDARY, WHITE = 1, 2
CODE_POINTS = 0x40000
_BLOCK_BYTES, _BLOCK_TEXTS = 4096, 512

_SPACE = np.uint8(32)
# Of a byte: 1 where an atom may end, at spaces, ASCII punctuation, and the first bytes of characters of three bytes or
# four; 2 or 3 where it is not copied as it is: MetaCLIP's marks, and white space that becomes a space.
_KIND = np.zeros(256, np.int64)
_KIND[[*b" !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", *range(0xE0, 0x100)]] = 1
_KIND[[*b",.;:?!`"]] = 2
_KIND[[*b"\t\n\r"]] = 3
_IS_PLAIN = np.zeros(256, np.int64)  # the bytes of ASCII that are no white space
_IS_PLAIN[33:127] = 1

_K1, _K2, _K3 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
_U0, _U1, _U2, _U3, _U6, _U8 = (np.uint64(n) for n in (0, 1, 2, 3, 6, 8))
_U13, _U24, _U31, _U32, _U33, _U63 = (np.uint64(n) for n in (13, 24, 31, 32, 33, 63))
_LOW, _LENGTH = np.uint64(2**32 - 1), np.uint64(MAX_LENGTH)

_jit = numba.njit(cache=True, nogil=True)
_at = np.uint64  # of an index: a signed one is first asked whether it counts from the end, which takes half of the time


class Tables(NamedTuple):
    """What the kernel knows of the entries of all languages; read-only once built."""

    # Buckets of four slots, filled in order, open addressing by the hash of a prefix. First what finds them: 31 bits of
    # the hash and 1 << 32 | entry that ends there + 1, or 0; all 0 where it is free. Then what they mean: place in the
    # pool << 24 | length of the prefix << 13 | length of the prefix, or of the entry where it is the only one that
    # begins so << 2 | a space follows the entry << 1 | several entries begin so.
    slots: U64
    filter: U64  # bits, set where the hashes of prefixes of several atoms fall
    pool: U8  # bytes of the entries
    # Of each language where its slots begin, how many buckets they are, where its filter begins, and its shift.
    places: I64
    classes: U8  # of each code point


class _Atoms(NamedTuple):
    """The atoms of one block: where each lies, how long it is, its hash, and whether an entry may begin there."""

    start: I64
    length: I64
    hash: U64
    is_head: I64


class _Heads(NamedTuple):
    """The atoms where an entry may begin, later those where some do; the hash of each and the next, and what begins."""

    atom: I64
    second: U64
    slot: I64  # of the atom
    entry: I32  # of one atom; -1: none
    work: I64  # the heads at which there may be longer entries


class _Block(NamedTuple):
    """The spaced bytes of some texts, where atoms of the last one may end, and where what each text has begins."""

    bytes: U8
    edges: I64
    atom_at: I64
    head_at: I64
    work_at: I64
    end_at: I64  # where its bytes end


@_jit
def _class_at(data: U8, i: int, classes: U8) -> tuple[Int, int]:
    """Return the class of the character at i, and its length in bytes."""
    c = np.int64(data[i])
    if c < 0x80:
        return np.int64(classes[c]), 1
    if c < 0xE0:
        return np.int64(classes[(c & 0x1F) << 6 | np.int64(data[i + 1]) & 0x3F]), 2
    if c < 0xF0:
        point = (c & 0xF) << 12 | (np.int64(data[i + 1]) & 0x3F) << 6 | np.int64(data[i + 2]) & 0x3F
        return np.int64(classes[point]), 3
    point = (c & 7) << 18 | (np.int64(data[i + 1]) & 0x3F) << 12 | (np.int64(data[i + 2]) & 0x3F) << 6
    point |= np.int64(data[i + 3]) & 0x3F
    return np.int64(classes[point]) if point < CODE_POINTS else 0, 4


@_jit
def _chain(h: np.uint64, atom: np.uint64, spaced: bool) -> np.uint64:
    """Return the hash of a prefix, which of one atom is that atom's, and one more atom, before which may be a space."""
    h = ((h >> _U31 | h << _U33) ^ (atom + np.uint64(spaced))) * _K2
    return h ^ (h >> _U32)


@_jit
def _bucket(h: np.uint64, buckets: np.uint64) -> Int:
    """Return where among the words of so many buckets the search for a hash begins."""
    return 8 * np.int64((h >> _U32) * buckets >> _U32)


@_jit
def _mark_of(h: np.uint64) -> np.uint64:
    """Return what a slot has of a hash."""
    return h & _LOW | _U1


@_jit
def _next(slot: Int, size: int) -> Int:
    """Return the place of the next slot of a language, in words."""
    if slot & 3 != 3:
        return slot + 1
    return slot + 5 if slot + 5 < size else 0


@_jit
def _same_bytes(a: U8, i: int, b: U8, j: int, length: int) -> bool:
    """Return whether so many bytes are equal; 8 more must be readable."""
    while length > 8:
        if load_u64(a, i) != load_u64(b, j):
            return False
        i, j, length = i + 8, j + 8, length - 8
    half = np.uint64(length) << _U2
    return bool((load_u64(a, i) ^ load_u64(b, j)) & ((_U1 << half << half) - _U1) == _U0)


@_jit
def _find(
    slots: U64, pool: U8, first: int, buckets: np.uint64, h: np.uint64, data: U8, start: int, length: int
) -> tuple[Int, bool]:
    """Return the slot of a prefix, which is data[start:start + length], and True; or the free one where it would be."""
    slot, size, mark = _bucket(h, buckets), 8 * np.int64(buckets), _mark_of(h)
    while slots[_at(first + slot)] != _U0:
        if slots[_at(first + slot)] >> _U32 == mark and _is_prefix(
            slots[_at(first + slot + 4)], pool, data, start, length
        ):
            return first + slot, True
        slot = _next(slot, size)
    return first + slot, False


@_jit
def _is_prefix(meta: np.uint64, pool: U8, data: U8, start: int, length: int) -> bool:
    """Return whether a slot is that of the prefix data[start:start + length]."""
    has_length = bool(np.int64(meta >> _U13 & _LENGTH) == length)
    return has_length and _same_bytes(pool, np.int64(meta >> _U24), data, start, length)


@_jit
def _cut_entry(pool: U8, start: int, stop: int, classes: U8, atoms: _Atoms) -> tuple[int, bool]:
    """Cut an entry into atoms, with hashes as in a spaced text; return how many, and whether a space follows it.

    As in a text, a space counts as being before the entry unless its first character has no boundary.
    """
    n, i, at = 0, start, start
    before_space = True  # whether a space comes before `at`
    kind = 0
    while i < stop:
        kind, size = _class_at(pool, i, classes)
        is_space = pool[i] == _SPACE
        if is_space or kind & NO_BOUNDARY:
            if i > at or (is_space and before_space):
                n = _add_entry_atom(pool, at, i - at, n > 0 and before_space, atoms, n)
                before_space = False
            if not is_space:
                n = _add_entry_atom(pool, i, size, n > 0 and before_space, atoms, n)
            before_space = is_space
            at = i + size
        i += size
    ends_open = (kind & NO_BOUNDARY) == 0
    if ends_open:
        n = _add_entry_atom(pool, at, stop - at, n > 0 and before_space, atoms, n)
    return n, ends_open


@_jit
def _add_entry_atom(pool: U8, start: int, length: int, spaced: bool, atoms: _Atoms, n: int) -> int:
    atoms.start[n], atoms.length[n] = start, length
    h = hash_token(pool, start, length)
    atoms.hash[n] = _chain(atoms.hash[n - 1], h, spaced) if n else h
    return n + 1


@_jit
def _meta(start: int, key: int, length: int, spaced: bool, goes_on: bool) -> np.uint64:
    place = np.uint64(start) << _U24 | np.uint64(key) << _U13 | np.uint64(length) << _U2
    return place | np.uint64(spaced) << _U1 | np.uint64(goes_on)


@_jit
def _put(
    tables: Tables, slot: int, atoms: _Atoms, k: int, n: int, entry: int, meta: np.uint64, shift: np.uint64
) -> None:
    """Put an entry of n atoms alone into a free slot, that of its first k + 1."""
    tables.slots[slot] = _mark_of(atoms.hash[k]) << _U32 | np.uint64(entry + 1)
    tables.slots[slot + 4] = meta
    for i in range(max(k, 1), min(k + 2, n)):
        _set_bit(tables.filter, atoms.hash[i], shift)


@_jit
def _insert(
    tables: Tables, start: int, stop: int, entry: int, room: int, shift: np.uint64, mine: _Atoms, other: _Atoms
) -> int:
    """Add an entry of the pool to the slots of its language; return how many more are taken, or -1 without room."""
    slots, pool = tables.slots, tables.pool
    buckets = np.uint64(len(slots) // 8)
    n, spaced = _cut_entry(pool, start, stop, tables.classes, mine)
    if n + 1 > room:
        return -1
    taken = 0
    for k in range(n):
        h, key, is_last = mine.hash[k], mine.start[k] + mine.length[k] - start, k == n - 1
        slot, is_there = _find(slots, pool, 0, buckets, h, pool, start, key)
        if not is_there:
            _put(tables, slot, mine, k, n, entry, _meta(start, key, stop - start, spaced, False), shift)
            return taken + 1
        meta, ends = slots[slot + 4], slots[slot] & _LOW  # `ends`: which entry does, + 1
        if not meta & _U1:  # another entry alone is there
            at, length = np.int64(meta >> _U24), np.int64(meta >> _U2 & _LENGTH)
            if length > key:  # it moves one atom further
                m, is_spaced = _cut_entry(pool, at, at + length, tables.classes, other)
                further = other.start[k + 1] + other.length[k + 1] - at
                free, _ = _find(slots, pool, 0, buckets, other.hash[k + 1], pool, at, further)
                moved = _meta(at, further, length, is_spaced, False)
                _put(tables, free, other, k + 1, m, np.int64(ends) - 1, moved, shift)
                taken += 1
                ends, meta = _U0, _meta(at, key, key, False, True)
            elif is_last:  # it is the same
                return taken
            meta |= _U1
        if is_last and ends == _U0:
            ends, meta = np.uint64(entry + 1), _meta(start, key, key, spaced, True)
        slots[slot], slots[slot + 4] = _mark_of(h) << _U32 | ends, meta
    return taken


@_jit
def _set_bit(bits: U64, h: np.uint64, shift: np.uint64) -> None:
    place = h * _K3 >> shift
    bits[np.int64(place >> _U6)] |= _U1 << (place & _U63)


@_jit
def _get_bit(bits: U64, first: int, h: np.uint64, shift: np.uint64) -> np.uint64:
    place = h * _K3 >> shift
    bit: np.uint64 = bits[np.uint64(first) + (place >> _U6)] >> (place & _U63) & _U1
    return bit


@_jit
def fill_slots(tables: Tables, offsets: I64, ids: I32, shift: int, most: int) -> int:
    """Fill empty tables of one language, whose entries i, of id ids[i], are pool[offsets[i]:offsets[i + 1]].

    Returns how many slots are taken, or -1 where that would be more than `most`.
    """
    longest = 1
    for i in range(len(ids)):
        longest = max(longest, offsets[i + 1] - offsets[i])
    mine, other = _new_atoms(longest + 2), _new_atoms(longest + 2)
    taken = 0
    for i in range(len(ids)):
        if offsets[i + 1] > offsets[i]:
            room = most - taken
            more = _insert(tables, offsets[i], offsets[i + 1], ids[i], room, np.uint64(shift), mine, other)
            if more < 0:
                return -1
            taken += more
    return taken


@_jit
def _new_atoms(count: int) -> _Atoms:
    return _Atoms(
        np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.uint64), np.empty(count, np.int64)
    )


@_jit
def _strip(data: U8, start: int, stop: int, classes: U8) -> tuple[int, int]:
    """Return where a text begins and ends without white space at its ends."""
    if start < stop and _IS_PLAIN[data[start]] & _IS_PLAIN[data[stop - 1]]:
        return start, stop
    while start < stop:
        kind, size = _class_at(data, start, classes)
        if not kind & WHITE:
            break
        start += size
    while start < stop:
        last = stop - 1
        while data[last] & 0xC0 == 0x80 and last > start:
            last -= 1
        if not _class_at(data, last, classes)[0] & WHITE:
            break
        stop = last
    return start, stop


@_jit
def _space(data: U8, start: int, stop: int, to: U8, n: int, edges: I64) -> tuple[Int, Int]:
    """Write a text, spaced, to `to` from n, and where atoms may end to `edges`; return the new n, and how many."""
    to[_at(n)] = _SPACE
    n += 1
    k = 0
    for i in range(start, stop):
        c = data[_at(i)]
        kind = _KIND[c]
        to[_at(n)] = c
        edges[_at(k)] = n
        if kind <= 1:  # nearly always; and no other branch, which could not be predicted
            k += kind
            n += 1
        elif kind == 2:
            edges[_at(k + 1)], edges[_at(k + 2)] = n + 1, n + 2
            to[_at(n)], to[_at(n + 1)], to[_at(n + 2)] = _SPACE, c, _SPACE
            k += 3
            n += 3
        else:
            to[_at(n)] = _SPACE
            k += 1
            n += 1
    to[_at(n)] = _SPACE
    edges[_at(k)] = n
    return n + 1, k + 1


@_jit
def _cut_texts(
    tables: Tables, data: U8, offsets: I64, languages: I32, is_stripped: Mask, block: _Block, atoms: _Atoms
) -> None:
    """Cut texts into atoms. An entry may begin at one after a space, or without a boundary."""
    spaced, edges, classes = block.bytes, block.edges, tables.classes
    starts, lengths, is_head = atoms.start, atoms.length, atoms.is_head
    size, n = 16, np.int64(0)
    for t in range(len(languages)):
        if languages[t] >= 0:
            first, stop = offsets[t], offsets[t + 1]
            if not len(is_stripped) or not is_stripped[t]:
                first, stop = _strip(data, first, stop, classes)
            at = size + 1
            size, last = _space(data, first, stop, spaced, size, edges)
            before_space: Int = 1
            for k in range(last):
                i = edges[_at(k)]
                width = 1
                is_space = np.int64(spaced[_at(i)] == _SPACE)
                if spaced[_at(i)] >= 0xE0:
                    if i < at:
                        continue
                    kind, width = _class_at(spaced, i, classes)
                    if not kind & NO_BOUNDARY:
                        continue
                starts[_at(n)], lengths[_at(n)], is_head[_at(n)] = at, i - at, before_space
                n += np.int64(i > at) | is_space & before_space
                starts[_at(n)], lengths[_at(n)], is_head[_at(n)] = i, width, 1
                n += 1 - is_space
                before_space = is_space
                at = i + width
        block.atom_at[t + 1] = n
        block.end_at[t] = size


@_jit
def _find_heads(tables: Tables, languages: I32, block: _Block, atoms: _Atoms, heads: _Heads) -> None:
    """List the atoms at which an entry may begin, and prefetch their slots."""
    slots, places, spaced = tables.slots, tables.places, block.bytes
    starts, lengths, hashes, is_head, head_atom = atoms.start, atoms.length, atoms.hash, atoms.is_head, heads.atom
    n = 0
    for t in range(len(languages)):
        if languages[t] >= 0:
            first, buckets = places[4 * np.int64(languages[t])], np.uint64(places[4 * np.int64(languages[t]) + 1])
            for j in range(block.atom_at[t], block.atom_at[t + 1]):
                h = hash_token(spaced, starts[_at(j)], lengths[_at(j)])
                hashes[_at(j)], head_atom[_at(n)] = h, j
                prefetch(slots, first + _bucket(h, buckets))
                n += is_head[_at(j)]
        block.head_at[t + 1] = n


@_jit
def _match_mark(slots: U64, at: int, mark: np.uint64) -> Int:
    """Return the slot of a bucket that has this mark, or -1; without a branch."""
    place: Int = np.int64(-1)
    for k in range(4):
        place = at + k if slots[_at(at + k)] >> _U32 == mark else place
    return place


@_jit
def _find_slots(tables: Tables, languages: I32, block: _Block, atoms: _Atoms, heads: _Heads) -> None:
    """Keep the heads that have a slot, as it seems; the entries' bytes are prefetched."""
    slots, pool, places = tables.slots, tables.pool, tables.places
    hashes, head_atom, head_slot, head_at = atoms.hash, heads.atom, heads.slot, block.head_at
    n = begin = 0
    for t in range(len(languages)):
        stop = head_at[t + 1]
        at = 4 * np.int64(max(languages[t], 0))
        first, buckets = places[at], np.uint64(places[at + 1])
        size = 8 * np.int64(buckets)
        for i in range(begin, stop):
            j = head_atom[_at(i)]
            h = hashes[_at(j)]
            at, mark = first + _bucket(h, buckets), _mark_of(h)
            place = _match_mark(slots, at, mark)
            while place < 0 and slots[_at(at + 3)] != _U0:
                at = at + 8 if at + 8 < first + size else first
                place = _match_mark(slots, at, mark)
            head_atom[_at(n)], head_slot[_at(n)] = j, place
            n += place >= 0
            prefetch(pool, np.int64(slots[_at(max(place, first) + 4)] >> _U24))
        begin, head_at[t + 1] = stop, n


@_jit
def _decide_heads(tables: Tables, languages: I32, block: _Block, atoms: _Atoms, heads: _Heads) -> None:
    """Find the entries of one atom, and list the heads at which there may be longer ones."""
    slots, pool, places, bits, spaced = tables.slots, tables.pool, tables.places, tables.filter, block.bytes
    starts, lengths, hashes = atoms.start, atoms.length, atoms.hash
    head_atom, head_second, head_slot, head_entry, work = heads.atom, heads.second, heads.slot, heads.entry, heads.work
    n = 0
    for t in range(len(languages)):
        if languages[t] >= 0:
            at = 4 * np.int64(languages[t])
            first, buckets, words, shift = (
                places[at],
                np.uint64(places[at + 1]),
                places[at + 2],
                np.uint64(places[at + 3]),
            )
            stop = block.atom_at[t + 1]
            for i in range(block.head_at[t], block.head_at[t + 1]):
                slot, j = head_slot[_at(i)], head_atom[_at(i)]
                head_entry[_at(i)] = -1
                start, length, h = starts[_at(j)], lengths[_at(j)], hashes[_at(j)]
                is_there = _is_prefix(slots[_at(slot + 4)], pool, spaced, start, length)
                if not is_there:  # another hash has the same mark
                    slot, is_there = _find(slots, pool, first, buckets, h, spaced, start, length)
                if is_there:
                    meta, is_last = slots[_at(slot + 4)], j + 1 == stop
                    before_space = spaced[_at(start + length)] == _SPACE
                    second = _chain(h, _U0 if is_last else hashes[_at(j + 1)], before_space)
                    is_end = np.int64(meta >> _U2 & _LENGTH) == length
                    if is_end and (not meta & _U2 or before_space):
                        head_entry[_at(i)] = np.int64(slots[_at(slot)] & _LOW) - 1
                    head_slot[_at(i)], head_second[_at(i)], work[_at(n)] = slot, second, i
                    may_go_on = _get_bit(bits, words, second, shift) & (meta | np.uint64(not is_end)) & _U1
                    n += int(may_go_on) & (not is_last)
                    prefetch(slots, first + _bucket(second, buckets))
        block.work_at[t + 1] = n


@_jit
def _collect(  # noqa: PLR0912 (calls that pass these arrays take as long as what they would do)
    tables: Tables, languages: I32, block: _Block, atoms: _Atoms, heads: _Heads, ids: I32, id_at: I64
) -> bool:
    """Put each text's ids, repeated and unsorted, into `ids` from id_at[t] to id_at[t + 1]; return False if full."""
    slots, pool, places, bits, spaced = tables.slots, tables.pool, tables.places, tables.filter, block.bytes
    starts, lengths, hashes = atoms.start, atoms.length, atoms.hash
    head_atom, head_second, head_slot, head_entry, work = heads.atom, heads.second, heads.slot, heads.entry, heads.work
    n = 0
    for t in range(len(languages)):
        id_at[t] = n
        if languages[t] < 0:
            continue
        if len(ids) - n < block.head_at[t + 1] - block.head_at[t]:
            return False
        for i in range(block.head_at[t], block.head_at[t + 1]):
            ids[_at(n)] = head_entry[_at(i)]
            n += head_entry[_at(i)] >= 0
        at = 4 * np.int64(languages[t])
        first, buckets, words, shift = places[at], np.uint64(places[at + 1]), places[at + 2], np.uint64(places[at + 3])
        stop, end = block.atom_at[t + 1], block.end_at[t]
        for k in range(block.work_at[t], block.work_at[t + 1]):
            head = _at(work[_at(k)])
            j, slot, h = head_atom[head], head_slot[head], head_second[head]
            start, key, is_first = starts[_at(j)], lengths[_at(j)], True
            while True:
                meta, ends = slots[_at(slot + 4)], slots[_at(slot)] & _LOW
                length = np.int64(meta >> _U2 & _LENGTH)
                if length > key:  # an entry alone
                    is_met = start + length < end and _same_bytes(pool, np.int64(meta >> _U24), spaced, start, length)
                else:
                    is_met = not is_first and ends != _U0
                if is_met and (not meta & _U2 or spaced[_at(start + length)] == _SPACE):
                    if n == len(ids):
                        return False
                    ids[_at(n)] = np.int64(ends) - 1
                    n += 1
                j += 1
                if not meta & _U1 or j == stop:
                    break
                if not is_first:
                    h = _chain(h, hashes[_at(j)], spaced[_at(starts[_at(j)] - 1)] == _SPACE)
                    if not _get_bit(bits, words, h, shift):
                        break
                is_first, key = False, starts[_at(j)] + lengths[_at(j)] - start
                slot, is_there = _find(slots, pool, first, buckets, h, spaced, start, key)
                if not is_there:
                    break
    id_at[len(languages)] = n
    return True


@_jit
def match_texts(
    tables: Tables, data: U8, offsets: I64, languages: I32, is_stripped: Mask, limit: int
) -> tuple[I64, I32]:
    """Return the entries in each text: int64 offsets into the int32 ids, of each text ascending and each once.

    `data` (uint8) are the bytes of the texts, `offsets` (int64, one more than texts) where each begins, `languages`
    which language's entries each is looked up in; below 0 none. `is_stripped` (bool) are texts that keep white space at
    their ends; or it is empty. Raises OverflowError where there are more than `limit` ids.
    """
    texts = len(offsets) - 1
    size = 3 * _BLOCK_BYTES + 2 * _BLOCK_TEXTS + 128
    block, atoms, heads = _new_block(size), _new_atoms(size), _new_heads(size)
    ids, out, out_at = np.empty(4096, np.int32), np.empty(4 * texts + 64, np.int32), np.zeros(texts + 1, np.int64)
    id_at = np.empty(_BLOCK_TEXTS + 1, np.int64)
    n, first = np.int64(0), 0
    while first < texts:
        stop = first + 1
        while stop < min(texts, first + _BLOCK_TEXTS) and offsets[stop + 1] - offsets[first] <= _BLOCK_BYTES:
            stop += 1
        size = 3 * (offsets[stop] - offsets[first]) + 2 * (stop - first) + 128
        if size > len(block.bytes):
            block, atoms, heads = _new_block(size), _new_atoms(size), _new_heads(size)
        of = languages[first:stop]
        _cut_texts(tables, data, offsets[first : stop + 1], of, is_stripped[first:stop], block, atoms)
        _find_heads(tables, of, block, atoms, heads)
        _find_slots(tables, of, block, atoms, heads)
        _decide_heads(tables, of, block, atoms, heads)
        while not _collect(tables, of, block, atoms, heads, ids, id_at):
            ids = np.empty(2 * len(ids), np.int32)
        out, n = append_sorted(ids, id_at[: stop - first + 1], out, n, out_at[first + 1 :])
        if n > limit:
            raise OverflowError
        first = stop
    return out_at, out[:n].copy()


@_jit
def _new_block(size: int) -> _Block:
    places = np.zeros((4, _BLOCK_TEXTS + 1), np.int64)
    return _Block(np.empty(size, np.uint8), np.empty(size, np.int64), places[0], places[1], places[2], places[3])


@_jit
def _new_heads(count: int) -> _Heads:
    return _Heads(
        np.empty(count, np.int64),
        np.empty(count, np.uint64),
        np.empty(count, np.int64),
        np.empty(count, np.int32),
        np.empty(count, np.int64),
    )


@_jit
def move_slots(slots: U64, more: int) -> None:
    """Move the places in the pool that slots name by so many bytes."""
    for i in range(len(slots)):
        if i & 4 and slots[i - 4] != _U0:
            slots[i] += np.uint64(more) << _U24
