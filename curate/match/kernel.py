"""The compiled half of the matcher: tables of the prefixes of entries, and the loop over texts (numba, no GIL).

In: entries of one language; UTF-8 bytes (uint8) and offsets (int64) of texts. Out: parts of `Tables`; offsets (int64)
and ids (int32) of the distinct entries in each text. `curate.match.matcher` states the definition.

An atom of the spaced text is a character without boundaries, the text between such characters and spaces, or the empty
text between two spaces; its hash includes whether a space precedes it. An entry is a run of whole atoms; the first one
follows a space or is a character without boundaries. Each prefix of whole atoms that several entries share, or that is
an entry, has a slot in the table of its language. Every other entry has a slot at its first unshared prefix. There are
about 1.3 slots per entry, of 16 bytes at 60% load, regardless of the length of entries, followed by the bytes of the
entries and a filter. A walk starts at each atom where an entry may begin, continues while prefixes have slots, and
compares all bytes there: hashes only narrow down the search.

Texts are processed in blocks that fit into the first caches, stage by stage, so that cache misses of a stage overlap:
spaced bytes, atoms, hashes (prefetched), first prefixes, longer prefixes. It works on little-endian machines only. All
kernels are in one file, because numba's cache only notices changes in the file of a compiled function. numba has no
prefetch, so an intrinsic emits LLVM's instruction.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

from curate.base.numeric.arrays import I32, I64, U8, U64
from curate.base.numeric.text_hash import load_u64

Int = int | np.int64

PADDING = 64  # readable bytes required after the last byte of the pool
MAX_LENGTH = (1 << 15) - 1  # bytes of an entry
CODE_POINTS = 0x40000
# Kinds of bytes in a text: copied as it is; an atom may end there; gets spaces around it; becomes a space.
PLAIN, EDGE, MARK, WHITE = range(4)
_BLOCK_BYTES, _BLOCK_TEXTS = 4096, 512
_TEXT_AT = 17  # offset of the first text of a block, after a space
_INSERTED = 64  # maximum ids for insertion sort

_SPACE = np.uint8(32)
_K1, _K2, _K3 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
_U0, _U1, _U2, _U6 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(6)
_U17, _U31, _U32, _U33, _U63 = np.uint64(17), np.uint64(31), np.uint64(32), np.uint64(33), np.uint64(63)
_LOW, _LENGTH = np.uint64(2**32 - 1), np.uint64(MAX_LENGTH)

_jit = numba.njit(cache=True, nogil=True)
_at = np.uint64  # for indices: numba checks signed ones for negative values, which takes half of the time


class Tables(NamedTuple):
    """The entries of all languages as the kernel reads them; read-only once built."""

    # Buckets of four slots, filled in order, open addressing by the hash of a prefix. First what finds them: 31 bits of
    # the hash and 1 << 32 | entry that ends there + 1, or 0; all 0 where it is free. Then what they mean: start in the
    # pool << 32 | length of the prefix << 17 | length of the prefix, or of the entry where it is the only one that
    # begins so << 2 | a space follows the entry << 1 | several entries begin so.
    slots: U64
    filter: U64  # a Bloom filter over the hashes of prefixes of several atoms
    pool: U8  # bytes of the entries
    # For each language: start of its slots, number of buckets, start of its filter, and shift of the filter's hashes.
    parts: I64
    kinds: U8  # of each byte: PLAIN, EDGE, MARK or WHITE
    has_no_boundary: U8  # of each code point, 0 or 1


class _Scratch(NamedTuple):
    """The spaced texts of a block, their atoms, and their heads: the atoms where an entry may begin."""

    bytes: U8
    edges: I64  # possible ends of atoms in the last text
    start: I64  # of an atom
    length: I64
    hash: U64
    is_head: I64
    head: I64  # the atom of a head
    slot: I64  # of that atom
    # Start of each text among the atoms and heads, and end of its bytes
    atom_at: I64
    head_at: I64
    end_at: I64


@_jit
def _new_scratch(size: int) -> _Scratch:
    ints, begins = np.empty((6, size), np.int64), np.zeros((3, _BLOCK_TEXTS + 1), np.int64)
    spaced, hashes = np.empty(size, np.uint8), np.empty(size, np.uint64)
    heads = ints[3], ints[4], ints[5]
    return _Scratch(spaced, ints[0], ints[1], ints[2], hashes, *heads, begins[0], begins[1], begins[2])


def _intrinsic(function: Any) -> Any:
    """Return a numba intrinsic; in interpreted kernels it does nothing."""
    return (lambda *_: None) if numba.config.DISABLE_JIT else intrinsic(function)


@_intrinsic
def prefetch(_typing: Any, array: Any, index: Any) -> Any:
    """Prefetch array[index] into the cache, without waiting."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer, i32 = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer()), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, i32, i32, i32])
        function = builder.module.declare_intrinsic("llvm.prefetch", (pointer.type,), kind)
        builder.call(function, [pointer, i32(0), i32(3), i32(1)])  # for reading, keep it, data
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


# ---- hashes and slots


@_jit
def _hash_atom(data: U8, start: int, length: int) -> np.uint64:
    """Return a hash of all bytes of an atom and its length. Only its high bits are well mixed."""
    half = np.uint64(min(length, 8)) << _U2
    first = load_u64(data, start) & ((_U1 << half << half) - _U1)
    last = load_u64(data, start + max(length - 8, 0)) if length > 8 else _U0
    h: np.uint64 = (first * _K1) ^ ((last + np.uint64(length)) * _K2)
    if length > 16:
        for i in range(start + 8, start + length - 8, 8):
            h = (h ^ (h >> _U31) ^ load_u64(data, i)) * _K1
    return (h ^ (h >> _U32)) * _K3


@_jit
def _chain(h: np.uint64, atom: np.uint64, spaced: bool) -> np.uint64:
    """Return the hash of a prefix and one more atom; the hash of a single atom is the atom's."""
    h = ((h >> _U31 | h << _U33) ^ (atom + np.uint64(spaced))) * _K2
    return h ^ (h >> _U32)


@_jit
def _bucket(h: np.uint64, buckets: np.uint64) -> Int:
    """Return the index at which the search for a hash starts, for a table with this number of buckets."""
    return 8 * np.int64((h >> _U32) * buckets >> _U32)


@_jit
def _same_bytes(a: U8, i: int, b: U8, j: int, length: int) -> bool:
    """Return whether `length` bytes are equal; 8 more must be readable."""
    while length > 8:
        if load_u64(a, i) != load_u64(b, j):
            return False
        i, j, length = i + 8, j + 8, length - 8
    half = np.uint64(length) << _U2
    return bool((load_u64(a, i) ^ load_u64(b, j)) & ((_U1 << half << half) - _U1) == _U0)


@_jit
def _is_prefix(meta: np.uint64, pool: U8, data: U8, start: int, length: int) -> bool:
    has_length = bool(np.int64(meta >> _U17 & _LENGTH) == length)
    return has_length and _same_bytes(pool, np.int64(meta >> _U32), data, start, length)


@_jit
def _find(
    slots: U64, pool: U8, first: int, buckets: np.uint64, h: np.uint64, data: U8, start: int, length: int
) -> tuple[Int, bool]:
    """Return the slot of the prefix data[start:start + length] and True, or the free slot for it and False."""
    slot, size, mark = _bucket(h, buckets), 8 * np.int64(buckets), h & _LOW | _U1
    while slots[_at(first + slot)] != _U0:
        if slots[_at(first + slot)] >> _U32 == mark and _is_prefix(
            slots[_at(first + slot + 4)], pool, data, start, length
        ):
            return first + slot, True
        if slot & 3 != 3:
            slot += 1
        else:
            slot = slot + 5 if slot + 5 < size else 0
    return first + slot, False


@_jit
def _get_bit(bits: U64, first: int, h: np.uint64, shift: np.uint64) -> np.uint64:
    bit = h * _K3 >> shift
    value: np.uint64 = bits[np.uint64(first) + (bit >> _U6)] >> (bit & _U63) & _U1
    return value


@_jit
def _read_character(data: U8, i: int, has_no_boundary: U8) -> tuple[Int, int]:
    c = np.int64(data[i])
    if c < 0x80:
        return np.int64(has_no_boundary[c]), 1
    if c < 0xE0:
        return np.int64(has_no_boundary[(c & 0x1F) << 6 | np.int64(data[i + 1]) & 0x3F]), 2
    if c < 0xF0:
        point = (c & 0xF) << 12 | (np.int64(data[i + 1]) & 0x3F) << 6 | np.int64(data[i + 2]) & 0x3F
        return np.int64(has_no_boundary[point]), 3
    point = (c & 7) << 18 | (np.int64(data[i + 1]) & 0x3F) << 12 | (np.int64(data[i + 2]) & 0x3F) << 6
    point |= np.int64(data[i + 3]) & 0x3F
    return np.int64(has_no_boundary[point]) if point < CODE_POINTS else 0, 4


# ---- building


@_jit
def _meta(start: int, key: int, length: int, spaced: bool, goes_on: bool) -> np.uint64:
    lengths = np.uint64(start) << _U32 | np.uint64(key) << _U17 | np.uint64(length) << _U2
    return lengths | np.uint64(spaced) << _U1 | np.uint64(goes_on)


@_jit
def _put(
    tables: Tables, slot: int, atoms: _Scratch, k: int, n: int, entry: int, meta: np.uint64, shift: np.uint64
) -> None:
    tables.slots[slot] = (atoms.hash[k] & _LOW | _U1) << _U32 | np.uint64(entry + 1)
    tables.slots[slot + 4] = meta
    for i in range(max(k, 1), min(k + 2, n)):
        bit = atoms.hash[i] * _K3 >> shift
        tables.filter[np.int64(bit >> _U6)] |= _U1 << (bit & _U63)


@_jit
def _cut_entry(tables: Tables, ends: I64, atoms: _Scratch) -> tuple[Int, Any]:
    """Split an entry into atoms like a text and hash its prefixes; return its atoms, and if space follows."""
    _cut_texts(tables, tables.pool, ends, np.zeros(1, np.int32), atoms)
    n = np.int64(atoms.atom_at[1])
    for k in range(n):
        h, before_space = (
            _hash_atom(atoms.bytes, atoms.start[k], atoms.length[k]),
            atoms.bytes[atoms.start[k] - 1] == _SPACE,
        )
        atoms.hash[k] = _chain(atoms.hash[k - 1], h, before_space) if k else h
    kind, _ = _read_character(atoms.bytes, atoms.start[n - 1], tables.has_no_boundary)
    return n, kind == 0


@_jit
def _insert(
    tables: Tables, bounds: I64, entry: int, room: int, shift: np.uint64, atoms: _Scratch, other: _Scratch
) -> int:
    """Add an entry of the pool to the slots of its language; return the number of new slots, or -1 if it is full."""
    slots, pool, start, stop = tables.slots, tables.pool, bounds[0], bounds[1]
    buckets = np.uint64(len(slots) // 8)
    n, spaced = _cut_entry(tables, bounds, atoms)
    if n + 1 > room:
        return -1
    used = 0
    for k in range(n):
        h, key, is_last = atoms.hash[k], atoms.start[k] + atoms.length[k] - _TEXT_AT, k == n - 1
        slot, is_there = _find(slots, pool, 0, buckets, h, pool, start, key)
        if not is_there:
            _put(tables, slot, atoms, k, n, entry, _meta(start, key, stop - start, spaced, False), shift)
            return used + 1
        meta, ends = slots[slot + 4], slots[slot] & _LOW  # `ends`: the entry that ends here, + 1
        if not meta & _U1:  # the slot has a single other entry
            at, length = np.int64(meta >> _U32), np.int64(meta >> _U2 & _LENGTH)
            if length > key:  # move it one atom further
                m, is_spaced = _cut_entry(tables, np.array([at, at + length]), other)
                further = other.start[k + 1] + other.length[k + 1] - _TEXT_AT
                free, _ = _find(slots, pool, 0, buckets, other.hash[k + 1], pool, at, further)
                moved = _meta(at, further, length, is_spaced, False)
                _put(tables, free, other, k + 1, m, np.int64(ends) - 1, moved, shift)
                used += 1
                ends, meta = _U0, _meta(at, key, key, False, True)
            elif is_last:  # the same entry
                return used
            meta |= _U1
        if is_last and ends == _U0:
            ends, meta = np.uint64(entry + 1), _meta(start, key, key, spaced, True)
        slots[slot], slots[slot + 4] = (h & _LOW | _U1) << _U32 | ends, meta
    return used


@_jit
def fill_slots(tables: Tables, offsets: I64, ids: I32, shift: int, most: int) -> int:
    """Fill the empty tables of one language; return the number of used slots, or -1 if it would exceed `most`."""
    atoms, other = _new_scratch(MAX_LENGTH + 128), _new_scratch(MAX_LENGTH + 128)
    used = 0
    for i in range(len(ids)):
        new = _insert(tables, offsets[i : i + 2], ids[i], most - used, np.uint64(shift), atoms, other)
        if new < 0:
            return -1
        used += new
    return used


# ---- matching


@_jit
def _space(data: U8, start: int, stop: int, kinds: U8, to: U8, n: int, edges: I64) -> tuple[Int, Int]:
    """Write the spaced text to `to` from n, and possible ends of atoms to `edges`; return new n and their number."""
    to[_at(n)] = _SPACE
    n += 1
    k: Int = 0
    for i in range(start, stop):
        c = data[_at(i)]
        kind = np.int64(kinds[_at(c)])
        to[_at(n)] = c
        edges[_at(k)] = n
        if kind <= EDGE:  # nearly always; other branches could not be predicted
            k += kind
            n += 1
        elif kind == MARK:
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
def _cut_texts(tables: Tables, data: U8, offsets: I64, languages: I32, block: _Scratch) -> None:
    """Split texts into atoms. An entry may begin at an atom after a space, or at a character without boundaries."""
    spaced, edges, has_no_boundary = block.bytes, block.edges, tables.has_no_boundary
    starts, lengths, is_head = block.start, block.length, block.is_head
    size, n = _TEXT_AT - 1, np.int64(0)
    for t in range(len(languages)):
        if languages[t] >= 0:
            at = size + 1
            size, last = _space(data, offsets[t], offsets[t + 1], tables.kinds, spaced, size, edges)
            before_space: Int = 1
            for k in range(last):
                i = edges[_at(k)]
                width = 1
                is_space = np.int64(spaced[_at(i)] == _SPACE)
                if spaced[_at(i)] >= 0xE0:
                    if i < at:
                        continue
                    kind, width = _read_character(spaced, i, has_no_boundary)
                    if not kind:
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
def _part(tables: Tables, language: int) -> tuple[Int, np.uint64, Int, np.uint64]:
    """Return the start of a language's slots, its buckets, the start of its filter, and the filter's shift."""
    at, parts = 4 * np.int64(max(language, 0)), tables.parts
    return parts[_at(at)], np.uint64(parts[_at(at + 1)]), parts[_at(at + 2)], np.uint64(parts[_at(at + 3)])


@_jit
def _find_heads(tables: Tables, languages: I32, block: _Scratch) -> None:
    """List the atoms at which an entry may begin, and prefetch their slots."""
    slots, spaced, starts, lengths = tables.slots, block.bytes, block.start, block.length
    hashes, is_head, heads = block.hash, block.is_head, block.head
    n = 0
    for t in range(len(languages)):
        first, buckets, _, _ = _part(tables, languages[t])
        for j in range(block.atom_at[t], block.atom_at[t + 1]):
            h = _hash_atom(spaced, starts[_at(j)], lengths[_at(j)])
            hashes[_at(j)], heads[_at(n)] = h, j
            prefetch(slots, first + _bucket(h, buckets))
            n += is_head[_at(j)]
        block.head_at[t + 1] = n


@_jit
def _match_mark(slots: U64, at: int, mark: np.uint64) -> Int:
    slot: Int = np.int64(-1)
    for k in range(4):
        slot = at + k if slots[_at(at + k)] >> _U32 == mark else slot
    return slot


@_jit
def _find_slots(tables: Tables, languages: I32, block: _Scratch) -> None:
    """Keep the heads that probably have a slot, and prefetch the bytes of their entries."""
    slots, pool = tables.slots, tables.pool
    hashes, heads, head_slot, head_at = block.hash, block.head, block.slot, block.head_at
    n = begin = 0
    for t in range(len(languages)):
        stop = head_at[t + 1]
        first, buckets, _, _ = _part(tables, languages[t])
        size = 8 * np.int64(buckets)
        for i in range(begin, stop):
            j = heads[_at(i)]
            h = hashes[_at(j)]
            at, mark = first + _bucket(h, buckets), h & _LOW | _U1
            slot = _match_mark(slots, at, mark)
            while slot < 0 and slots[_at(at + 3)] != _U0:
                at = at + 8 if at + 8 < first + size else first
                slot = _match_mark(slots, at, mark)
            heads[_at(n)], head_slot[_at(n)] = j, slot
            n += slot >= 0
            prefetch(pool, np.int64(slots[_at(max(slot, first) + 4)] >> _U32))
        begin, head_at[t + 1] = stop, n


@_jit
def _collect(tables: Tables, languages: I32, block: _Scratch, ids: I32, id_at: I64) -> bool:
    """Write each text's ids, repeated and unsorted, to `ids` from id_at[t] to id_at[t + 1]; return False if full."""
    slots, pool, bits, spaced = tables.slots, tables.pool, tables.filter, block.bytes
    starts, lengths, hashes, heads, head_slot = block.start, block.length, block.hash, block.head, block.slot
    n = 0
    for t in range(len(languages)):
        id_at[t] = n
        first, buckets, words, shift = _part(tables, languages[t])
        stop, end = block.atom_at[t + 1], block.end_at[t]
        for i in range(block.head_at[t], block.head_at[t + 1]):
            j, slot = heads[_at(i)], head_slot[_at(i)]
            start, h, key = starts[_at(j)], hashes[_at(j)], lengths[_at(j)]
            is_there = _is_prefix(slots[_at(slot + 4)], pool, spaced, start, key)
            if not is_there:  # another hash has the same mark
                slot, is_there = _find(slots, pool, first, buckets, h, spaced, start, key)
            while is_there:
                meta, ends = slots[_at(slot + 4)], slots[_at(slot)] & _LOW
                length = np.int64(meta >> _U2 & _LENGTH)
                if length > key:  # a single entry
                    is_met = start + length < end and _same_bytes(pool, np.int64(meta >> _U32), spaced, start, length)
                else:
                    is_met = ends != _U0
                if is_met and (not meta & _U2 or spaced[_at(start + length)] == _SPACE):
                    if n == len(ids):
                        return False
                    ids[_at(n)] = np.int64(ends) - 1
                    n += 1
                j += 1
                if not meta & _U1 or j == stop:
                    break
                h = _chain(h, hashes[_at(j)], spaced[_at(starts[_at(j)] - 1)] == _SPACE)
                if not _get_bit(bits, words, h, shift):
                    break
                key = starts[_at(j)] + lengths[_at(j)] - start
                slot, is_there = _find(slots, pool, first, buckets, h, spaced, start, key)
    id_at[len(languages)] = n
    return True


@_jit
def _sort_unique(ids: I32, a: int, b: int, out: I32, n: int) -> int:
    if b - a > _INSERTED:
        order = np.argsort(ids[a:b], kind="mergesort")  # unlike the default, it has no slow inputs
        for i in range(b - a):
            out[n + i] = ids[a + order[i]]
    else:
        for i in range(a, b):
            x, hole = ids[i], n + i - a
            while hole > n and out[hole - 1] > x:
                out[hole] = out[hole - 1]
                hole -= 1
            out[hole] = x
    last = np.int32(-1)
    m = n
    for i in range(n, n + b - a):
        x = out[i]
        out[m] = x
        m += x > last
        last = max(x, last)
    return m


@_jit
def match_texts(tables: Tables, data: U8, offsets: I64, languages: I32, limit: int) -> tuple[I64, I32]:
    """Return the distinct entries in each text, ascending: int64 offsets, and int32 ids.

    `data` (uint8) are the bytes of the texts, `offsets` (int64, one more than texts) their starts, `languages` the
    language whose entries each text is matched with; negative: none. Raises OverflowError above `limit` ids.
    """
    texts = len(offsets) - 1
    block = _new_scratch(3 * _BLOCK_BYTES + 2 * _BLOCK_TEXTS + 128)
    ids, out, out_at = np.empty(4096, np.int32), np.empty(4 * texts + 64, np.int32), np.zeros(texts + 1, np.int64)
    id_at = np.empty(_BLOCK_TEXTS + 1, np.int64)
    n, first = np.int64(0), 0
    while first < texts:
        stop = first + 1
        while stop < min(texts, first + _BLOCK_TEXTS) and offsets[stop + 1] - offsets[first] <= _BLOCK_BYTES:
            stop += 1
        size = 3 * (offsets[stop] - offsets[first]) + 2 * (stop - first) + 128
        if size > len(block.bytes):
            block = _new_scratch(size)
        numbers = languages[first:stop]
        _cut_texts(tables, data, offsets[first : stop + 1], numbers, block)
        _find_heads(tables, numbers, block)
        _find_slots(tables, numbers, block)
        while not _collect(tables, numbers, block, ids, id_at):
            ids = np.empty(2 * len(ids), np.int32)
        if n + id_at[stop - first] > len(out):
            longer = np.empty(2 * len(out) + id_at[stop - first], np.int32)
            longer[:n] = out[:n]
            out = longer
        for t in range(stop - first):
            n = _sort_unique(ids, id_at[t], id_at[t + 1], out, n)
            out_at[first + t + 1] = n
        if n > limit:
            raise OverflowError
        first = stop
    return out_at, out[:n].copy()
