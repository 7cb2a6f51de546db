"""The compiled half of the matcher: token table, entry trie and the matching loop, over Arrow buffers (numba, no GIL).

In: entries; UTF-8 bytes (uint8) and offsets (int64) of texts. Out: `Tables` of the entries; offsets (int64) and
ids (int32) of the distinct entries in each text. A token is what lies between single spaces of the spaced text, the
empty one included; `curate.match.matcher` states the definition.

Texts pass in blocks that fit the nearest caches, stage by stage: bytes, boundaries, tokens, slots (prefetched), known
tokens, heads of longer entries (prefetched), ids. So the misses of one stage overlap, and few branches depend on data.
The price is scratch, local to a call: 50 bytes a token of a block, which holds at least one whole text.

A token of up to 16 bytes is compared by its first and last 8 bytes and its length, which hold all of it; a longer one
by all its bytes. Hashes only choose where to look. Little-endian machines only. One file, however long: numba's cache
notices a change of a compiled function's own file alone, and building and matching must share one hash.

What numba has not, a prefetch, is made of LLVM's instruction: without it matching takes 1.2 to 1.5 times as long.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

from curate.base.numeric.arrays import I32, I64, U8, U64, Mask, string_buffers
from curate.base.numeric.text_hash import load_u64

Int = int | np.int64

PADDING = 64  # bytes that must be readable behind the last byte of the tokens
_BLOCK_BYTES, _BLOCK_TEXTS = 4096, 512
_INSERTED = 64  # up to how many ids are sorted by insertion
_FILTER_BITS = 20

_IS_BOUNDARY = np.zeros(256, np.int64)
_IS_BOUNDARY[[*b" \t\n\r,.;:?!`"]] = 1
_SPACE = 32  # a boundary above it is punctuation, and a token itself
_STARTS, _CONTINUES = 1, 2  # a token: first of an entry of several tokens; a later one of such an entry

_ALL, _LOW, _CHILD = np.uint64(2**64 - 1), np.uint64(2**32 - 1), np.uint64(2**31 - 1)
_K1, _K2, _K3 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
_U0, _U1, _U2, _U6, _U31, _U32 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(6), np.uint64(31), np.uint64(32)
_U63, _FILTER_SHIFT = np.uint64(63), np.uint64(64 - _FILTER_BITS)

_jit = numba.njit(cache=True, nogil=True)


class Tables(NamedTuple):
    """What the kernel knows of the entries; read-only once built.

    Nodes are the token ids, then the deeper nodes of the trie; a terminal is the first entry that ends at a node or -1.
    """

    # Slots of four, open addressing by token hash: first 8 bytes; last 8 bytes (0 where the length is at most 8);
    # flags << 32 | length + 1 (0: free); terminal << 32 | token id.
    word: U64
    # Slots of two, open addressing by (node, token): node << 32 | token (all ones: free);
    # terminal << 32 | goes on << 31 | child.
    edge: U64
    filter: U64  # bits, set where the hashes of the edges that leave a token fall
    pool: U8  # bytes of the distinct tokens
    token_at: I64  # where in them each lies
    shifts: U64  # of the token and edge hashes, from 64 bits to a slot


class _Scratch(NamedTuple):
    """The tokens of one block: where each lies, its slot, what the slot holds, and the heads of longer entries."""

    start: I64
    length: I64
    slot: I64
    known: U64
    flags: U8
    head: I64


def _intrinsic(function: Any) -> Any:
    """Return numba's intrinsic; nothing happens where kernels are interpreted."""
    return (lambda *_: None) if numba.config.DISABLE_JIT else intrinsic(function)


@_intrinsic
def prefetch(_typing: Any, array: Any, index: Any) -> Any:
    """Start to fetch array[index] into the cache, without waiting for it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer, i32 = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer()), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, i32, i32, i32])
        function = builder.module.declare_intrinsic("llvm.prefetch", (pointer.type,), kind)
        builder.call(function, [pointer, i32(0), i32(3), i32(1)])  # for reading, keep it, data
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@_jit
def _sort_unique(ids: I32, a: int, b: int, out: I32, n: int) -> int:
    """Write ids[a:b], ascending and each once, to `out` from n; return the new n."""
    if b - a > _INSERTED:
        order = np.argsort(ids[a:b], kind="mergesort")  # which no ids make slow, unlike the default
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
def append_sorted(ids: I32, id_at: I64, out: I32, n: int, out_at: I64) -> tuple[I32, int]:
    """Write each text's ids, ascending and each once, to `out` from n, and where they end to `out_at`.

    Returns `out`, a longer one where they have no room, and the new n.
    """
    if n + id_at[-1] > len(out):
        longer = np.empty(2 * len(out) + id_at[-1], np.int32)
        for i in range(n):
            longer[i] = out[i]
        out = longer
    for t in range(len(id_at) - 1):
        n = _sort_unique(ids, id_at[t], id_at[t + 1], out, n)
        out_at[t] = n
    return out, n


@_jit
def _ends(data: U8, start: int, length: int) -> tuple[np.uint64, np.uint64]:
    """Return a token's first 8 bytes, and its last 8 where it is longer than that; without a branch."""
    half = np.uint64(min(length, 8)) << _U2
    first = load_u64(data, start) & ((_U1 << half << half) - _U1)
    last = load_u64(data, start + max(length - 8, 0))
    return first, last if length > 8 else _U0


@_jit
def hash_token(data: U8, start: int, length: int) -> np.uint64:
    """Return a hash of all bytes of a token and its length; its high bits are the good ones."""
    first, last = _ends(data, start, length)
    h: np.uint64 = (first * _K1) ^ ((last + np.uint64(length)) * _K2)
    if length > 16:
        for i in range(start + 8, start + length - 8, 8):
            h = (h ^ (h >> _U31) ^ load_u64(data, i)) * _K1
    return (h ^ (h >> _U32)) * _K3


@_jit
def _pair_hash(key: np.uint64) -> np.uint64:
    """Return a hash of node << 32 | token; its high bits are the good ones."""
    h = key * _K1
    return (h ^ (h >> _U32)) * _K3


@_jit
def _edge_slot(edge: U64, key: np.uint64, shift: np.uint64) -> Int:
    """Return where in `edge` the key lies, or the free place where it would."""
    slot: Int = 2 * np.int64(_pair_hash(key) >> shift)
    while edge[slot] != key and edge[slot] != _ALL:
        slot = slot + 2 if slot + 2 < len(edge) else 0
    return slot


@_jit
def _same_bytes(a: U8, start_a: int, b: U8, start_b: int, length: int) -> bool:
    for i in range(length):  # noqa: SIM110 (a generator does not compile)
        if a[start_a + i] != b[start_b + i]:
            return False
    return True


@_jit
def _grow_trie(ids: I32, entry_at: I32, distinct: int, edge: U64, shift: np.uint64) -> tuple[I32, U8]:
    """Add every entry to the edge slots, whose values are children as yet; return each entry's last node and flags.

    Flags are of each node (_CONTINUES: of a token, at any node).
    """
    ends = np.empty(len(entry_at) - 1, np.int32)
    flags = np.zeros(2 * len(ids), np.uint8)  # a token may add a node and an edge's child
    nodes = distinct
    for entry in range(len(ends)):
        node = np.int64(ids[entry_at[entry]])
        for i in range(entry_at[entry] + 1, entry_at[entry + 1]):
            flags[node] |= np.uint8(_STARTS)
            flags[ids[i]] |= np.uint8(_CONTINUES)
            key = np.uint64(node) << _U32 | np.uint64(ids[i])
            slot = _edge_slot(edge, key, shift)
            if edge[slot] == _ALL:
                edge[slot], edge[slot + 1] = key, np.uint64(nodes)
                nodes += 1
            node = np.int64(edge[slot + 1])
        ends[entry] = node
    return ends, flags


@_jit
def _finish_tables(tables: Tables, ends: I32, flags: U8) -> None:
    """Fill the tables but for the keys of the edges."""
    word, edge, token_at, distinct = tables.word, tables.edge, tables.token_at, len(tables.token_at) - 1
    terminal = np.full(len(flags), -1, np.int32)
    for entry in range(len(ends)):
        if terminal[ends[entry]] < 0:
            terminal[ends[entry]] = entry
    for at in range(0, len(edge), 2):
        if edge[at] == _ALL:
            continue
        child = np.int64(edge[at + 1])
        edge[at + 1] |= np.uint64(terminal[child]) << _U32 | np.uint64(flags[child] & _STARTS) << _U31
        if np.int64(edge[at] >> _U32) < distinct:
            h = _pair_hash(edge[at]) >> _FILTER_SHIFT
            tables.filter[np.int64(h >> _U6)] |= _U1 << (h & _U63)
    for token in range(distinct):
        start, length = token_at[token], token_at[token + 1] - token_at[token]
        slot: Int = 4 * np.int64(hash_token(tables.pool, start, length) >> tables.shifts[0])
        while word[slot + 2] != _U0:
            slot = slot + 4 if slot + 4 < len(word) else 0
        word[slot], word[slot + 1] = _ends(tables.pool, start, length)
        word[slot + 2] = np.uint64(flags[token]) << _U32 | np.uint64(length + 1)
        word[slot + 3] = np.uint64(terminal[token]) << _U32 | np.uint64(token)


def build_tables(entries: pa.Array, home_bits: int = 64) -> Tables:
    """Return the tables of entries (strings), whose ids are their places.

    Only the `home_bits` highest bits of a hash choose a slot: tests make all hashes collide, nothing else sets it.
    """
    cut = pc.split_pattern(entries, " ")
    tokens, entry_at = cut.flatten().dictionary_encode(), cut.offsets.to_numpy()
    del cut  # as large as the tables, which follow
    ids, (data, token_at) = tokens.indices.to_numpy(), string_buffers(tokens.dictionary)
    pool = np.concatenate([data[: token_at[-1]], np.zeros(PADDING, np.uint8)])
    del data, tokens
    pa.default_memory_pool().release_unused()  # it would keep as much as the tables take
    # Of the number of slots, of which at most half are taken.
    bits = [max(4, (2 * keys - 1).bit_length()) for keys in (len(token_at) - 1, len(ids) - len(entry_at) + 1)]
    tables = Tables(
        word=_in_lines(4 << bits[0], _U0),
        edge=_in_lines(2 << bits[1], _ALL),
        filter=np.zeros(1 << (_FILTER_BITS - 6), np.uint64),
        pool=pool,
        token_at=token_at,
        shifts=np.array([64 - min(n, home_bits) for n in bits], np.uint64),
    )
    _finish_tables(tables, *_grow_trie(ids, entry_at, len(token_at) - 1, tables.edge, tables.shifts[1]))
    return tables


def _in_lines(size: int, value: np.uint64) -> U64:
    """Return `size` uint64 of `value` that begin at a cache line, so that no slot lies across two."""
    array = np.full(size + 8, value)
    skip = -array.ctypes.data % 64 // 8
    return array[skip : skip + size]


@_jit
def _new_scratch(tokens: int) -> _Scratch:
    places = np.empty((4, tokens), np.int64)
    known, flags = np.empty(tokens, np.uint64), np.empty(tokens, np.uint8)
    return _Scratch(places[0], places[1], places[2], known, flags, places[3])


@_jit
def _find_marks(data: U8, n: int, marks: I64) -> int:
    """Put the places of the boundaries among the first n bytes into `marks`, then one beyond all; return how many."""
    k = 0
    for i in range(n):  # without a branch, which could not be predicted
        marks[k] = i
        k += _IS_BOUNDARY[data[i]]
    marks[k] = 1 << 62
    return k


@_jit
def _tokenise(data: U8, marks: I64, offsets: I64, null: Mask, scratch: _Scratch, token_at: I64) -> int:
    """Cut the texts of a block into tokens, from token_at[t] to token_at[t + 1] those of text t; return how many."""
    starts, lengths = scratch.start, scratch.length
    n = k = 0
    for t in range(len(offsets) - 1):
        token_at[t] = n
        start, stop = offsets[t] - offsets[0], offsets[t + 1] - offsets[0]
        while marks[k] < stop:
            at = marks[k]
            starts[n], lengths[n] = start, at - start
            starts[n + 1], lengths[n + 1] = at, 1
            n += 2 if data[at] > _SPACE else 1
            start = at + 1
            k += 1
        starts[n], lengths[n] = start, stop - start
        n += 1
        if len(null) and null[t]:  # a null has no tokens
            n = token_at[t]
    token_at[len(offsets) - 1] = n
    return n


@_jit
def _hash_tokens(word: U64, shift: np.uint64, data: U8, n: int, scratch: _Scratch) -> None:
    """Find the home slot of each of n tokens, and prefetch it."""
    for j in range(n):
        scratch.slot[j] = 4 * np.int64(hash_token(data, scratch.start[j], scratch.length[j]) >> shift)
        prefetch(word, scratch.slot[j])


@_jit
def _look_up(tables: Tables, data: U8, n: int, scratch: _Scratch) -> None:
    """Find for each of n tokens terminal << 32 | token id, and flags; an unknown token has all ones and no flags.

    Most tokens are decided by their home slot; that path has one branch.
    """
    word, known, flags = tables.word, scratch.known, scratch.flags
    for j in range(n):
        start, length, slot = scratch.start[j], scratch.length[j], scratch.slot[j]
        first, last = _ends(data, start, length)
        meta = word[slot + 2]
        differs = (word[slot] ^ first | word[slot + 1] ^ last | (meta & _LOW) ^ np.uint64(length + 1)) != _U0
        unknown = _U0 - np.uint64(differs)
        known[j] = word[slot + 3] | unknown
        flags[j] = np.uint8(meta >> _U32) & np.uint8(~unknown)
        if (differs & (meta != _U0)) | (length > 16):
            slot = _search(word, tables.token_at, tables.pool, data, start, length, slot)
            known[j] = word[slot + 3] if word[slot + 2] else _ALL
            flags[j] = np.uint8(word[slot + 2] >> _U32)


@_jit
def _search(word: U64, token_at: I64, pool: U8, data: U8, start: int, length: int, slot: Int) -> Int:
    """Return the slot of a token, or the free one that says it is unknown, from its home slot on."""
    first, last = _ends(data, start, length)
    while word[slot + 2] != _U0:
        if word[slot] == first and word[slot + 1] == last and np.int64(word[slot + 2] & _LOW) == length + 1:
            at = token_at[np.int64(word[slot + 3] & _LOW)]
            if length <= 16 or _same_bytes(pool, at, data, start, length):
                break
        slot = slot + 4 if slot + 4 < len(word) else 0
    return slot


@_jit
def _find_heads(tables: Tables, n: int, token_at: I64, texts: int, scratch: _Scratch) -> None:
    """Find the tokens that, by flags and filter, may begin an entry of several; their edges are prefetched; then n."""
    known, flags, head = scratch.known, scratch.flags, scratch.head
    flags[n] = 0
    for t in range(texts):  # no entry goes on into the next text
        flags[token_at[t]] &= np.uint8(_STARTS)
    k: Int = 0
    for j in range(n):
        h = _pair_hash(known[j] << _U32 | known[j + 1] & _LOW) >> _FILTER_SHIFT
        may = tables.filter[np.int64(h >> _U6)] >> (h & _U63) & np.uint64(flags[j] & flags[j + 1] >> 1)
        head[k] = j
        k += np.int64(may & _U1)
    head[k] = n
    for i in range(k):
        key = known[head[i]] << _U32 | known[head[i] + 1] & _LOW
        prefetch(tables.edge, 2 * np.int64(_pair_hash(key) >> tables.shifts[1]))


@_jit
def _walk(edge: U64, shift: np.uint64, known: U64, flags: U8, j: int, ids: I32, n: int) -> int:
    """Put the ids of the longer entries that begin at token j into `ids` from n; return the new n, or -1 if full."""
    node = known[j] & _LOW
    while flags[j + 1] & _CONTINUES:
        j += 1
        slot = _edge_slot(edge, node << _U32 | known[j] & _LOW, shift)
        if edge[slot] == _ALL:
            break
        value = edge[slot + 1]
        if n == len(ids):
            return -1
        ids[n] = np.int64(value) >> 32
        n += ids[n] >= 0
        if not value >> _U31 & _U1:
            break
        node = value & _CHILD
    return n


@_jit
def _collect(tables: Tables, token_at: I64, texts: int, scratch: _Scratch, ids: I32, id_at: I64) -> bool:
    """Put each text's ids, repeated and unsorted, into `ids` from id_at[t] to id_at[t + 1]; return False if full."""
    known, flags, head = scratch.known, scratch.flags, scratch.head
    n = k = 0
    for t in range(texts):
        id_at[t] = n
        stop = token_at[t + 1]
        if len(ids) - n < stop - token_at[t]:
            return False
        for j in range(token_at[t], stop):
            ids[n] = np.int64(known[j]) >> 32
            n += ids[n] >= 0
        while head[k] < stop:
            n = _walk(tables.edge, tables.shifts[1], known, flags, head[k], ids, n)
            if n < 0:
                return False
            k += 1
    id_at[texts] = n
    return True


@_jit
def match_texts(tables: Tables, data: U8, offsets: I64, null: Mask, limit: int) -> tuple[I64, I32]:
    """Return the entries in each text: int64 offsets into the int32 ids, of each text ascending and each once.

    `data` (uint8) are the bytes of the texts, `offsets` (int64, one more than texts) where each begins, `null` (bool)
    which are null and match nothing; or it is empty. Raises OverflowError where there are more than `limit` ids.
    """
    texts = len(offsets) - 1
    block, marks = np.empty(_BLOCK_BYTES + 128, np.uint8), np.empty(_BLOCK_BYTES + 128, np.int64)
    scratch = _new_scratch(2 * _BLOCK_BYTES + _BLOCK_TEXTS + 2)
    token_at, id_at = np.empty(_BLOCK_TEXTS + 1, np.int64), np.empty(_BLOCK_TEXTS + 1, np.int64)
    ids, out, out_at = np.empty(4096, np.int32), np.empty(4 * texts + 64, np.int32), np.zeros(texts + 1, np.int64)
    n, first = np.int64(0), 0
    while first < texts:
        stop = first + 1
        while stop < min(texts, first + _BLOCK_TEXTS) and offsets[stop + 1] - offsets[first] <= _BLOCK_BYTES:
            stop += 1
        here = offsets[first : stop + 1]
        size = here[-1] - here[0]
        if size + 128 > len(block):
            block, marks = np.empty(size + 128, np.uint8), np.empty(size + 128, np.int64)
        source = data[here[0] : here[-1]]
        for i in range(size):  # a slice costs seconds of compiling what is said of shapes that differ
            block[i] = source[i]
        need = 2 * _find_marks(block, size, marks) + len(here) + 2
        if need > len(scratch.start):
            scratch = _new_scratch(need)
        tokens = _tokenise(block, marks, here, null[first:stop], scratch, token_at)
        _hash_tokens(tables.word, tables.shifts[0], block, tokens, scratch)
        _look_up(tables, block, tokens, scratch)
        _find_heads(tables, tokens, token_at, len(here) - 1, scratch)
        while not _collect(tables, token_at, len(here) - 1, scratch, ids, id_at):
            ids = np.empty(2 * len(ids), np.int32)
        out, n = append_sorted(ids, id_at[: len(here)], out, n, out_at[first + 1 :])
        if n > limit:
            raise OverflowError
        first = stop
    return out_at, out[:n].copy()
