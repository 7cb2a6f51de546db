"""The compiled half of the matcher: token table, entry trie and the matching loop, over Arrow buffers (numba, no GIL).

In: UTF-8 bytes (uint8) and offsets (int64) of entries or texts. Out: `Tables` for entries; offsets (int32) and ids
(int32) of the entries in each text. A token is what lies between single spaces of the spaced text, the empty one
included; `curate.metadata.match` states the definition.

Texts pass in blocks that fit the first-level caches, stage by stage (bytes → boundaries → tokens → records → ids), so
that the loads of one stage overlap and few branches depend on them. That costs scratch of up to 60 bytes for each byte
of a block, and a block holds at least one whole text. Scratch is local to a call: threads share read-only tables alone.

A token of up to 16 bytes is compared by its first and last 8 bytes and its length, which hold all of it; a longer one
by its bytes as well. Hashes only choose where to look. Little-endian machines only, as Arrow's own buffers are there.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]

PADDING = 64  # bytes that must be readable behind the last byte of a text or an entry
BLOCK_BYTES = 1 << 14
FILTER_BITS = 20

_BOUNDARIES = b" \t\n\r,.;:?!`"
_SPACE = 32  # a boundary above it is punctuation, and a token itself
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_LOW = np.uint64(0xFFFFFFFF)
_K1, _K2, _K3 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
_U1, _U3, _U6, _U31, _U32, _U63 = (np.uint64(n) for n in (1, 3, 6, 31, 32, 63))
_STARTS, _CONTINUES = np.uint8(1), np.uint8(2)  # a token: first of an entry of several; a later one of such an entry

_jit = numba.njit(cache=True, nogil=True)


class Tables(NamedTuple):
    """What the kernel knows of the entries; read-only once built.

    word: slots of four, open addressing by token hash: first 8 bytes; last 8 bytes (0 where the length is at most 8);
        flags << 32 | length + 1 (0: free); terminal << 32 | token id.
    edge: slots of two, open addressing by (node, token): node << 32 | token (all ones: free);
        terminal << 32 | goes on << 31 | child. Nodes are the token ids, then the deeper nodes of the trie.
    filter: bits that are set where hashes of (token, token) at the head of an entry fall.
    same_as: per entry, the next one of its duplicates, or -1. A terminal is -1 (no entry ends here), the id of the only
        entry that does, or -2 - id of the first of several.
    pool, token_start: bytes of the entries, and where in them each token lies.
    shifts: of the word and edge hashes, from 64 bits to a slot.
    """

    word: U64
    edge: U64
    filter: U64
    same_as: I32
    pool: U8
    token_start: I64
    shifts: U64


@intrinsic
def _load64(typing_context: Any, array: Any, index: Any) -> Any:
    """The 8 bytes of a uint8 array from `index`, unaligned, as one uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(64).as_pointer())
        return builder.load(pointer, align=1)

    return types.uint64(array, types.intp), codegen


@intrinsic
def _boundary_bits(typing_context: Any, array: Any, index: Any) -> Any:
    """Bit i of the uint64 is set where byte `index` + i of a uint8 array is a boundary; LLVM picks the instructions."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        vector = ir.VectorType(ir.IntType(8), 64)
        chunk = builder.load(builder.bitcast(builder.gep(data, [args[1]]), vector.as_pointer()), align=1)
        bits = ir.Constant(ir.VectorType(ir.IntType(1), 64), [0] * 64)
        for byte in _BOUNDARIES:
            bits = builder.or_(bits, builder.icmp_unsigned("==", chunk, ir.Constant(vector, [byte] * 64)))
        return builder.bitcast(bits, ir.IntType(64))

    return types.uint64(array, types.intp), codegen


@intrinsic
def _trailing_zeros(typing_context: Any, word: Any) -> Any:
    """The number of zero bits below the lowest set bit of a uint64; 64 for zero."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.intp(types.uint64), codegen


@_jit
def _ends(data: U8, start: int, length: int) -> tuple[np.uint64, np.uint64]:
    """A token's first 8 bytes, and its last 8 where it is longer than that."""
    first, last = _load64(data, start), np.uint64(0)
    if length < 8:
        first &= (_U1 << (np.uint64(length) << _U3)) - _U1
    if length > 8:
        last = _load64(data, start + length - 8)
    return first, last


@_jit
def _token_hash(data: U8, start: int, length: int, first: np.uint64, last: np.uint64) -> np.uint64:
    """A hash of all bytes of a token and its length; its high bits are the good ones."""
    h = (first * _K1) ^ ((last + np.uint64(length)) * _K2)
    for i in range(start + 8, start + length - 8, 8):  # runs only beyond 16 bytes
        h = (h ^ (h >> _U31) ^ _load64(data, i)) * _K1
    return (h ^ (h >> _U32)) * _K3


@_jit
def _pair_hash(key: np.uint64) -> np.uint64:
    """A hash of node << 32 | token; its high bits are the good ones."""
    h = key * _K1
    return (h ^ (h >> _U32)) * _K3


@_jit
def _pair_key(node: np.int32, token: np.int32) -> np.uint64:
    return np.uint64(node) << _U32 | np.uint64(token)


@_jit
def _edge_slot(edge: U64, key: np.uint64, shift: np.uint64) -> int:
    """Where in `edge` the key lies, or the free place where it would."""
    slot = 2 * np.int64(_pair_hash(key) >> shift)
    while edge[slot] != key and edge[slot] != _ALL:
        slot += 2
        if slot == len(edge):
            slot = 0
    return slot


@_jit
def _same_bytes(a: U8, start_a: int, b: U8, start_b: int, length: int) -> bool:
    for i in range(length):
        if a[start_a + i] != b[start_b + i]:
            return False
    return True


@_jit
def _number_tokens(pool: U8, offsets: I64) -> tuple[I32, I64, I64]:
    """The token id of every token occurrence in the entries, in order, and each distinct token's start and length."""
    occurrences = len(offsets) - 1 + np.count_nonzero(pool[: offsets[-1]] == _SPACE)
    ids = np.empty(occurrences, np.int32)
    starts, lengths = np.empty(occurrences, np.int64), np.empty(occurrences, np.int64)
    size = 16
    while size < 2 * occurrences:
        size *= 2
    slots = np.full(size, -1, np.int32)
    n = distinct = 0
    for entry in range(len(offsets) - 1):
        start, stop = offsets[entry], offsets[entry + 1]
        for i in range(start, stop + 1):
            if i < stop and pool[i] != _SPACE:
                continue
            length = i - start
            first, last = _ends(pool, start, length)
            slot = np.int64(_token_hash(pool, start, length, first, last) >> _U32) & (size - 1)
            while slots[slot] >= 0:
                token = slots[slot]
                if lengths[token] == length and _same_bytes(pool, starts[token], pool, start, length):
                    break
                slot = (slot + 1) & (size - 1)
            else:
                slots[slot] = distinct
                starts[distinct], lengths[distinct] = start, length
                distinct += 1
            ids[n] = slots[slot]
            n += 1
            start = i + 1
    return ids, starts[:distinct].copy(), lengths[:distinct].copy()


@_jit
def _grow_trie(pool: U8, offsets: I64, ids: I32, distinct: int, edge: U64, shift: np.uint64) -> tuple[I32, U8]:
    """Adds every entry to the edge slots (value: the child). Returns the node where each entry ends, and for each node
    whether edges leave it (_STARTS) and, for a token, whether it continues an entry (_CONTINUES)."""
    ends, flags = np.empty(len(offsets) - 1, np.int32), np.zeros(len(ids), np.uint8)
    n, nodes = 0, distinct
    for entry in range(len(offsets) - 1):
        node = ids[n]
        for i in range(offsets[entry], offsets[entry + 1]):
            if pool[i] != _SPACE:
                continue
            n += 1
            flags[node] |= _STARTS
            flags[ids[n]] |= _CONTINUES
            slot = _edge_slot(edge, _pair_key(node, ids[n]), shift)
            if edge[slot] == _ALL:
                edge[slot], edge[slot + 1] = _pair_key(node, ids[n]), np.uint64(nodes)
                nodes += 1
            node = np.int32(edge[slot + 1])
        n += 1
        ends[entry] = node
    return ends, flags


@_jit
def _terminals(ends: I32, nodes: int) -> tuple[I32, I32]:
    """The terminal of each node, and the duplicate that follows each entry, or -1."""
    terminal, same_as = np.full(nodes, -1, np.int32), np.full(len(ends), -1, np.int32)
    for entry in range(len(ends) - 1, -1, -1):
        at = terminal[ends[entry]]
        if at == -1:
            terminal[ends[entry]] = entry
        else:
            same_as[entry] = at if at >= 0 else -2 - at
            terminal[ends[entry]] = -2 - entry
    return terminal, same_as


@_jit
def _fill_edges(edge: U64, bits: U64, terminal: I32, flags: U8, distinct: int) -> None:
    """Completes the value of each edge, and sets the filter bits of those that leave a token."""
    for slot in range(0, len(edge), 2):
        if edge[slot] == _ALL:
            continue
        child = np.int64(edge[slot + 1])
        edge[slot + 1] |= np.uint64(terminal[child]) << _U32 | np.uint64(flags[child] & _STARTS) << _U31
        if np.int64(edge[slot] >> _U32) < distinct:
            h = _pair_hash(edge[slot]) >> np.uint64(64 - FILTER_BITS)
            bits[np.int64(h >> _U6)] |= _U1 << (h & _U63)


@_jit
def _fill_words(word: U64, pool: U8, starts: I64, lengths: I64, terminal: I32, flags: U8, shift: np.uint64) -> None:
    """Puts every token into its slot."""
    size = len(word) // 4
    for token in range(len(starts)):
        first, last = _ends(pool, starts[token], lengths[token])
        slot = np.int64(_token_hash(pool, starts[token], lengths[token], first, last) >> shift)
        while word[4 * slot + 2] != 0:
            slot = (slot + 1) & (size - 1)
        word[4 * slot], word[4 * slot + 1] = first, last
        word[4 * slot + 2] = np.uint64(flags[token]) << _U32 | np.uint64(lengths[token] + 1)
        word[4 * slot + 3] = np.uint64(terminal[token]) << _U32 | np.uint64(token)


def build_tables(pool: U8, offsets: I64, home_bits: int = 64) -> Tables:
    """The tables of entries that lie one behind the other in `pool` (uint8, PADDING more bytes behind) from `offsets`.

    Only the `home_bits` highest bits of a hash choose a slot: tests make all hashes collide, nothing else sets it.
    """
    ids, starts, lengths = _number_tokens(pool, offsets)
    word_bits, edge_bits = _slot_bits(len(starts)), _slot_bits(len(ids) - len(offsets) + 1)
    shifts = np.array([64 - min(word_bits, home_bits), 64 - min(edge_bits, home_bits)], np.uint64)
    word, edge = np.zeros(4 << word_bits, np.uint64), np.full(2 << edge_bits, _ALL)
    bits = np.zeros(1 << (FILTER_BITS - 6), np.uint64)
    ends, flags = _grow_trie(pool, offsets, ids, len(starts), edge, shifts[1])
    terminal, same_as = _terminals(ends, len(flags))
    _fill_edges(edge, bits, terminal, flags, len(starts))
    _fill_words(word, pool, starts, lengths, terminal, flags, shifts[0])
    return Tables(word, edge, bits, same_as, pool, starts, shifts)


def _slot_bits(keys: int) -> int:
    """log2 of the slots for `keys` keys, at most 5/8 of them taken."""
    return max(4, (keys * 8 // 5).bit_length())


@_jit
def _tokenise(data: U8, marks: I64, text_start: int, text_stop: int, starts: I32, lengths: I32, n: int) -> int:
    """Appends the tokens of one spaced text to `starts` and `lengths` from `n`; returns the new n.

    marks: the boundaries from text_start on, ascending, the last one beyond text_stop.
    """
    start = text_start
    k = 0
    while marks[k] < text_stop:
        at = marks[k]
        starts[n], lengths[n] = start, at - start
        starts[n + 1], lengths[n + 1] = at, 1
        n += 2 if data[at] > _SPACE else 1
        start = at + 1
        k += 1
    starts[n], lengths[n] = start, text_stop - start
    return n + 1
