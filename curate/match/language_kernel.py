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

from curate.base.numeric.arrays import I32, I64, U8, U64
from curate.base.numeric.text_hash import load_u64
from curate.match.kernel import Int, prefetch, sort_unique

MAX_LENGTH = (1 << 16) - 1  # bytes of an entry
# Classes of characters, bits of a table by code point.
NO_BOUNDARY, WHITE = 1, 2
CODE_POINTS = 0x40000
_BLOCK_BYTES, _BLOCK_TEXTS = 4096, 512

_SPACE = np.uint8(32)
_REPLACED = np.arange(256, dtype=np.uint8)
_REPLACED[[*b"\t\n\r"]] = 32
_IS_MARK = np.zeros(256, np.int64)
_IS_MARK[[*b",.;:?!`"]] = 1
# Where an atom may end: spaces, ASCII punctuation, and the first bytes of characters of three or four bytes.
_IS_EDGE = np.zeros(256, np.int64)
_IS_EDGE[[*b" \t\n\r!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", *range(0xE0, 0x100)]] = 1

_K1, _K2, _K3 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
_U0, _U1, _U2, _U3, _U6, _U8 = (np.uint64(n) for n in (0, 1, 2, 3, 6, 8))
_U18, _U31, _U32, _U63 = (np.uint64(n) for n in (18, 31, 32, 63))
_LOW, _LENGTH = np.uint64(2**32 - 1), np.uint64(MAX_LENGTH)

_jit = numba.njit(cache=True, nogil=True)


class Tables(NamedTuple):
    """What the kernel knows of the entries of all languages; read-only once built."""

    # Buckets of four slots, filled in order, open addressing by the hash of a prefix. First what finds them: 31 bits of
    # the hash and 1 << 32 | entry that ends there + 1, or 0; all 0 where it is free. Then what they mean: place in the
    # pool << 18 | length << 2 | a space follows the entry << 1 | longer entries begin so.
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
    """The atoms at which an entry may begin, the hash of each and of it and the next one, and what begins there."""

    atom: I64
    first: U64
    second: U64
    slot: I64  # of the first prefix; -1: none, -2: it takes a search
    entry: I32  # of one atom; -1: none
    work: I64  # the heads at which more than one slot is to be looked at


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
def _hash_atom(data: U8, start: int, length: int) -> np.uint64:
    """Return a hash of all bytes of an atom, its length, and whether the byte before it is a space."""
    half = np.uint64(min(length, 8)) << _U2
    first = load_u64(data, start) & ((_U1 << half << half) - _U1)
    last = load_u64(data, start + length - 8) if length > 8 else _U0
    h: np.uint64 = (first * _K1) ^ ((last + np.uint64(length)) * _K2)
    if length > 16:
        for i in range(start + 8, start + length - 8, 8):
            h = (h ^ (h >> _U31) ^ load_u64(data, i)) * _K1
    return (h ^ (h >> _U32)) * _K3


@_jit
def _chain(h: np.uint64, atom: np.uint64, spaced: bool) -> np.uint64:
    """Return the hash of a prefix and one more atom; all bits of it are good."""
    h = (h ^ (h >> _U31)) * _K1 ^ (atom + np.uint64(spaced))
    h = (h ^ (h >> _U32)) * _K2
    return h ^ (h >> _U31)


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
    previous = atoms.hash[n - 1] if n else _U0
    atoms.hash[n] = _chain(previous, _hash_atom(pool, start, length), spaced)
    return n + 1


@_jit
def _put(slots: U64, keys: I32, h: np.uint64, key: int, entry: int, meta: np.uint64) -> None:
    """Put a prefix of `key` bytes into the next free slot."""
    slot = _bucket(h, np.uint64(len(slots) // 8))
    while slots[slot] != _U0:
        slot = _next(slot, len(slots))
    slots[slot], slots[slot + 4] = _mark_of(h) << _U32 | np.uint64(entry + 1), meta
    keys[slot] = key


@_jit
def _meta(start: int, length: int, spaced: bool, goes_on: bool) -> np.uint64:
    return np.uint64(start) << _U18 | np.uint64(length) << _U2 | np.uint64(spaced) << _U1 | np.uint64(goes_on)


@_jit
def _insert(
    tables: Tables,
    keys: I32,
    start: int,
    stop: int,
    entry: int,
    room: int,
    shift: np.uint64,
    mine: _Atoms,
    other: _Atoms,
) -> int:
    """Add an entry of the pool to the slots of its language; return how many more are taken, or -1 without room."""
    slots, pool = tables.slots, tables.pool
    n, spaced = _cut_entry(pool, start, stop, tables.classes, mine)
    if n + 1 > room:
        return -1
    taken = 0
    for k in range(n):
        h, key, is_last = mine.hash[k], mine.start[k] + mine.length[k] - start, k == n - 1
        if k:
            _set_bit(tables.filter, h, shift)
        slot = _bucket(h, np.uint64(len(slots) // 8))
        while slots[slot] != _U0:
            is_key = slots[slot] >> _U32 == _mark_of(h) and keys[slot] == key
            if is_key and _same_bytes(pool, np.int64(slots[slot + 4] >> _U18), pool, start, key):
                break
            slot = _next(slot, len(slots))
        meta, ends = slots[slot + 4], slots[slot] & _LOW  # `ends`: which entry does, + 1
        if slots[slot] == _U0:
            _put(slots, keys, h, key, entry, _meta(start, stop - start, spaced, False))
            return taken + 1
        if not meta & _U1:  # another entry alone is there
            at, length = np.int64(meta >> _U18), np.int64(meta >> _U2 & _LENGTH)
            if length > key:  # it moves one atom further
                _cut_entry(pool, at, at + length, tables.classes, other)
                _set_bit(tables.filter, other.hash[k + 1], shift)
                further = other.start[k + 1] + other.length[k + 1] - at
                _put(slots, keys, other.hash[k + 1], further, np.int64(ends) - 1, meta)
                taken += 1
                ends, meta = _U0, _meta(at, key, False, True)
            elif is_last:  # it is the same
                return taken
            meta |= _U1
        if is_last and ends == _U0:
            ends, meta = np.uint64(entry + 1), _meta(start, key, spaced, True)
        slots[slot], slots[slot + 4] = _mark_of(h) << _U32 | ends, meta
    return taken


@_jit
def _set_bit(bits: U64, h: np.uint64, shift: np.uint64) -> None:
    place = h * _K3 >> shift
    bits[np.int64(place >> _U6)] |= _U1 << (place & _U63)


@_jit
def _get_bit(bits: U64, first: int, h: np.uint64, shift: np.uint64) -> np.uint64:
    place = h * _K3 >> shift
    bit: np.uint64 = bits[first + np.int64(place >> _U6)] >> (place & _U63) & _U1
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
    keys = np.zeros(len(tables.slots), np.int32)  # the length of the prefix of each slot
    taken = 0
    for i in range(len(ids)):
        if offsets[i + 1] > offsets[i]:
            more = _insert(
                tables, keys, offsets[i], offsets[i + 1], ids[i], most - taken, np.uint64(shift), mine, other
            )
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
def _space(data: U8, start: int, stop: int, block: U8, n: int, edges: I64) -> tuple[int, int]:
    """Write a text, spaced, to `block` from n, and where atoms may end to `edges`; return the new n, and how many."""
    block[n] = _SPACE
    n += 1
    k = 0
    for i in range(start, stop):
        c = data[i]
        if _IS_MARK[c]:
            edges[k], edges[k + 1], edges[k + 2] = n, n + 1, n + 2
            block[n], block[n + 1], block[n + 2] = _SPACE, c, _SPACE
            k += 3
            n += 3
        else:  # without a branch, which could not be predicted
            block[n] = _REPLACED[c]
            edges[k] = n
            k += _IS_EDGE[c]
            n += 1
    block[n] = _SPACE
    edges[k] = n
    return n + 1, k + 1


@_jit
def _cut_text(block: U8, edges: I64, last: int, at: int, classes: U8, atoms: _Atoms, n: int) -> int:
    """Cut a spaced text into atoms from n on, by its first `last` edges; return the new n.

    `at` is where its second byte is. In `is_head` is whether an entry may begin at the atom.
    """
    before_space: Int = 1
    for k in range(last):
        i = edges[k]
        size = 1
        is_space = block[i] == _SPACE
        if block[i] >= 0xE0:
            if i < at:
                continue
            kind, size = _class_at(block, i, classes)
            if not kind & NO_BOUNDARY:
                continue
        if i > at or (is_space and before_space):
            atoms.start[n], atoms.length[n], atoms.is_head[n] = at, i - at, before_space
            n += 1
            before_space = 0
        if not is_space:
            atoms.start[n], atoms.length[n], atoms.is_head[n] = i, size, 1
            n += 1
        before_space = np.int64(is_space)
        at = i + size
    return n


@_jit
def _find_heads(tables: Tables, block: U8, atoms: _Atoms, a: int, b: int, language: int, heads: _Heads, n: int) -> int:
    """List the heads among a text's atoms, a to b, from n on, and prefetch their slots; return the new n."""
    first, buckets, words, shift = _place(tables, language)
    for j in range(a, b):
        atoms.hash[j] = _hash_atom(block, atoms.start[j], atoms.length[j])
    atoms.hash[b] = _U0
    for j in range(a, b):
        h = _chain(_U0, atoms.hash[j], False)
        second = _chain(h, atoms.hash[j + 1], block[atoms.start[j] + atoms.length[j]] == _SPACE)
        heads.atom[n], heads.first[n], heads.second[n] = j, h, second
        prefetch(tables.slots, first + _bucket(h, buckets))
        prefetch(tables.filter, words + np.int64(second * _K3 >> shift >> _U6))
        n += atoms.is_head[j]
    return n


@_jit
def _place(tables: Tables, language: int) -> tuple[Int, np.uint64, Int, np.uint64]:
    """Return where a language's slots begin, how many buckets they are, where its filter begins, and its shift."""
    first, buckets, words, shift = tables.places[4 * language : 4 * language + 4]
    return first, np.uint64(buckets), words, np.uint64(shift)


@_jit
def _find_slots(tables: Tables, heads: _Heads, a: int, b: int, language: int) -> None:
    """Find the slots of the heads of a text, from a to b, in their buckets; the entries' bytes are prefetched."""
    slots = tables.slots
    first, buckets, _, _ = _place(tables, language)
    for i in range(a, b):
        at, mark = first + _bucket(heads.first[i], buckets), _mark_of(heads.first[i])
        place = np.int64(-1) if slots[at + 3] == _U0 else np.int64(-2)
        for k in range(3, -1, -1):
            place = at + k if slots[at + k] >> _U32 == mark else place
        heads.slot[i] = place
        prefetch(tables.pool, np.int64(slots[max(place, at) + 4] >> _U18))


@_jit
def _decide_heads(
    tables: Tables, block: U8, atoms: _Atoms, a: int, b: int, stop: int, language: int, heads: _Heads, n: int
) -> int:
    """Find the entries of one atom at the heads of a text, from a to b; list those at which more may be, from n on.

    Returns the new n. The text has atoms before `stop`.
    """
    slots, pool = tables.slots, tables.pool
    first, buckets, words, shift = _place(tables, language)
    for i in range(a, b):
        slot, j = heads.slot[i], heads.atom[i]
        heads.entry[i] = -1
        is_work = slot == -2
        if slot >= 0:
            meta, start = slots[slot + 4], atoms.start[j]
            length = np.int64(meta >> _U2 & _LENGTH)
            if length == atoms.length[j] and _same_bytes(pool, np.int64(meta >> _U18), block, start, length):
                if not meta & _U2 or block[start + length] == _SPACE:
                    heads.entry[i] = np.int64(slots[slot] & _LOW) - 1
                second = heads.second[i]
                is_work = meta & _U1 & _get_bit(tables.filter, words, second, shift) != _U0 and j + 1 < stop
                prefetch(slots, first + _bucket(second, buckets))
            else:
                heads.slot[i], is_work = -2, True
        heads.work[n] = i
        n += is_work
    return n


@_jit
def _walk(
    tables: Tables, block: U8, atoms: _Atoms, head: int, j: int, stop: int, end: int, language: int, ids: I32, n: int
) -> int:
    """Put the ids of entries that begin at atom `head`, and do not end before j, into `ids` from n; return the new n.

    The text has atoms before `stop`, and bytes before `end`, the last a space. Returns -1 where `ids` is full.
    """
    slots, pool = tables.slots, tables.pool
    first, buckets, words, shift = _place(tables, language)
    size, start, h = 8 * np.int64(buckets), atoms.start[head], _U0
    for i in range(head, stop):
        h = _chain(h, atoms.hash[i], i > head and block[atoms.start[i] - 1] == _SPACE)
        if i < j:
            continue
        if i > head and not _get_bit(tables.filter, words, h, shift):
            break
        key = atoms.start[i] + atoms.length[i] - start
        slot, goes_on = _bucket(h, buckets), False
        while slots[first + slot] != _U0:
            if slots[first + slot] >> _U32 == _mark_of(h):
                meta = slots[first + slot + 4]
                length = np.int64(meta >> _U2 & _LENGTH)
                is_alone = not meta & _U1  # the entry, whose first bytes are the prefix
                fits = (length == key or is_alone) and start + length < end
                if fits and _same_bytes(pool, np.int64(meta >> _U18), block, start, length):
                    entry = np.int64(slots[first + slot] & _LOW) - 1
                    if entry >= 0 and (not meta & _U2 or block[start + length] == _SPACE):
                        if n == len(ids):
                            return -1
                        ids[n] = entry
                        n += 1
                    if length == key:
                        goes_on = not is_alone
                        break
            slot = _next(slot, size)
        if not goes_on:
            break
    return n


@_jit
def _collect(tables: Tables, block: _Block, atoms: _Atoms, heads: _Heads, t: int, language: int, ids: I32) -> int:
    """Put the ids of text t of a block, unsorted, into `ids`; return how many, or -1 if it is full."""
    a, b, n = block.head_at[t], block.head_at[t + 1], 0
    if len(ids) < b - a:
        return -1
    for i in range(a, b):
        ids[n] = heads.entry[i]
        n += heads.entry[i] >= 0
    for k in range(block.work_at[t], block.work_at[t + 1]):
        i = heads.work[k]
        j = heads.atom[i]
        next_atom, stop, end = j + (heads.slot[i] >= 0), block.atom_at[t + 1], block.end_at[t]
        n = _walk(tables, block.bytes, atoms, j, next_atom, stop, end, language, ids, n)
        if n < 0:
            return -1
    return n


@_jit
def _match_block(
    tables: Tables, data: U8, offsets: I64, languages: I32, strips: bool, block: _Block, atoms: _Atoms, heads: _Heads
) -> None:
    """Find all that `_collect` needs, stage by stage, for texts that fit into a block."""
    size = 16
    for t in range(len(languages)):
        block.atom_at[t + 1] = block.atom_at[t]
        if languages[t] >= 0:
            a, b = offsets[t], offsets[t + 1]
            if strips:
                a, b = _strip(data, a, b, tables.classes)
            at = size + 1
            size, last = _space(data, a, b, block.bytes, size, block.edges)
            block.atom_at[t + 1] = _cut_text(
                block.bytes, block.edges, last, at, tables.classes, atoms, block.atom_at[t]
            )
        block.end_at[t] = size
    for t in range(len(languages)):
        block.head_at[t + 1] = block.head_at[t]
        if languages[t] >= 0:
            a, b, n = block.atom_at[t], block.atom_at[t + 1], block.head_at[t]
            block.head_at[t + 1] = _find_heads(tables, block.bytes, atoms, a, b, languages[t], heads, n)
    for t in range(len(languages)):
        if languages[t] >= 0:
            _find_slots(tables, heads, block.head_at[t], block.head_at[t + 1], languages[t])
    for t in range(len(languages)):
        block.work_at[t + 1] = block.work_at[t]
        if languages[t] >= 0:
            a, b, n = block.head_at[t], block.head_at[t + 1], block.work_at[t]
            stop = block.atom_at[t + 1]
            block.work_at[t + 1] = _decide_heads(tables, block.bytes, atoms, a, b, stop, languages[t], heads, n)


@_jit
def match_texts(tables: Tables, data: U8, offsets: I64, languages: I32, strips: bool, limit: int) -> tuple[I64, I32]:
    """Return the entries in each text: int64 offsets into the int32 ids, of each text ascending and each once.

    `data` (uint8) are the bytes of the texts, `offsets` (int64, one more than texts) where each begins, `languages`
    which language's entries each is looked up in; below 0 none. Raises OverflowError where there are more than `limit`.
    """
    texts = len(offsets) - 1
    size = 3 * _BLOCK_BYTES + 2 * _BLOCK_TEXTS + 128
    block, atoms, heads = _new_block(size), _new_atoms(size), _new_heads(size)
    ids, out, out_at = np.empty(4096, np.int32), np.empty(4 * texts + 64, np.int32), np.zeros(texts + 1, np.int64)
    n, first = np.int64(0), 0
    while first < texts:
        stop = first + 1
        while stop < min(texts, first + _BLOCK_TEXTS) and offsets[stop + 1] - offsets[first] <= _BLOCK_BYTES:
            stop += 1
        size = 3 * (offsets[stop] - offsets[first]) + 2 * (stop - first) + 128
        if size > len(block.bytes):
            block, atoms, heads = _new_block(size), _new_atoms(size), _new_heads(size)
        _match_block(tables, data, offsets[first : stop + 1], languages[first:stop], strips, block, atoms, heads)
        for t in range(stop - first):
            m = 0 if languages[first + t] < 0 else -1
            while m < 0:
                m = _collect(tables, block, atoms, heads, t, languages[first + t], ids)
                if m < 0:
                    ids = np.empty(2 * len(ids), np.int32)
            if n + m > len(out):
                longer = np.empty(2 * len(out) + m, np.int32)
                for i in range(n):
                    longer[i] = out[i]
                out = longer
            n = sort_unique(ids, 0, m, out, n)
            out_at[first + t + 1] = n
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
            slots[i] += np.uint64(more) << _U18
