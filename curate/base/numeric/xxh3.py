"""XXH3-128 of many strings at once, as hex digits: compiled, and without the GIL (numba).

In: two string columns; what is hashed is `first NUL second`. Out: 32 hex digits a row, as the library xxhash gives them (seed 0,
default secret), which takes four times as long row by row, and holds the GIL.

Source: the specification of XXH3 (Y. Collet, doc/xxhash_spec.md of the repository xxHash). A row is put together in scratch, so
that there is one kind of input: any pair of columns is hashed without joining them first. Little-endian machines only. One file:
numba's cache notices a change of a compiled function's own file alone.
"""

from typing import Any

import numba
import numpy as np
import pyarrow as pa
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

from curate.base.numeric.arrays import I32, I64, U8, U16, U64, Mask

Halves = tuple[np.uint64, np.uint64]  # the low and the high 64 bits

_SECRET = np.frombuffer(
    bytes.fromhex(
        "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248e"
        "e03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8fa763fe39c343ff9dcbbc7c70b4f1d8a"
        "51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8f"
        "f8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
    ),
    np.uint8,
)
_SECRET_SIZE = 192
_BLOCK, _STRIPE = 1024, 64
_P32_1, _P32_2, _P32_3 = np.uint64(0x9E3779B1), np.uint64(0x85EBCA77), np.uint64(0xC2B2AE3D)
_P1, _P2, _P3 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
_P4, _P5 = np.uint64(0x85EBCA77C2B2AE63), np.uint64(0x27D4EB2F165667C5)
_MX1, _MX2 = np.uint64(0x165667919E3779F9), np.uint64(0x9FB21C651E98DF25)
_LOW = np.uint64(2**32 - 1)
_ODD_8, _ODD_16 = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF)
_U0, _U1, _U2, _U3, _U8, _U13, _U16, _U19, _U24, _U28 = (np.uint64(n) for n in (0, 1, 2, 3, 8, 13, 16, 19, 24, 28))
_U29, _U32, _U33, _U35, _U37, _U47, _U54 = (np.uint64(n) for n in (29, 32, 33, 35, 37, 47, 54))
_WORDS = _SECRET.view(np.uint64)
# What short inputs are mixed with: 1 to 3 bytes, 4 to 8, 9 to 16, none
_FLIP_SHORT, _FLIP_SHORT_HIGH = ((word ^ word >> _U32) & _LOW for word in _WORDS[:2])
_FLIP_MIDDLE, _FLIP_LONG, _FLIP_LONG_HIGH, _FLIP_EMPTY, _FLIP_EMPTY_HIGH = _WORDS[2:12:2] ^ _WORDS[3:12:2]
_START = np.array([_P32_3, _P1, _P2, _P3, _P4, _P32_2, _P5, _P32_1], np.uint64)
_HEX = np.frombuffer(bytes(range(256)).hex().encode(), np.uint16)  # the two digits of each byte

_jit = numba.njit(cache=True, nogil=True)


def hash_pairs(first: pa.Array, second: pa.Array) -> pa.Array:
    """Return string[rows], the xxh3-128 of `first NUL second`, UTF-8, as 32 hex digits; a null first is empty, a null second gives null."""
    first = first.fill_null("")  # a null may own bytes
    valid = second.is_valid().to_numpy(zero_copy_only=False) if second.null_count else np.zeros(0, np.bool_)
    valid.flags.writeable = False
    digits, ends = np.empty(16 * len(second), np.uint16), np.empty(len(second) + 1, np.int32)
    _hash_pairs(*string_buffers(first), *string_buffers(second), valid, digits, ends)
    bitmap = pa.array(valid).buffers()[1] if second.null_count else None
    buffers = [bitmap, pa.py_buffer(ends), pa.py_buffer(digits[: ends[-1] // 2])]
    return pa.Array.from_buffers(pa.string(), len(second), buffers)


def string_buffers(array: pa.Array) -> tuple[U8, I64]:
    """Return the bytes (uint8) of a string array and the offsets (int64, len + 1) into them, without a copy where they are so.

    Both read-only and aligned: each other kind would be compiled separately.
    """
    if len(array) == 0:
        data, offsets = np.zeros(0, np.uint8), np.zeros(1, np.int64)
    else:
        _, ends, chars = array.buffers()
        data = np.zeros(0, np.uint8) if chars is None else np.frombuffer(chars, np.uint8)
        wide = np.frombuffer(ends, np.int64 if pa.types.is_large_string(array.type) else np.int32)
        offsets = np.require(wide[array.offset : array.offset + len(array) + 1], np.int64, "A")
    data.flags.writeable = offsets.flags.writeable = False
    return data, offsets


@intrinsic
def load_u64(_typing: Any, array: Any, index: Any) -> Any:
    """Return the 8 bytes of a uint8 array from `index`, unaligned, as one uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(64).as_pointer())
        return builder.load(pointer, align=1)

    return types.uint64(array, types.intp), codegen


@intrinsic
def _high(_typing: Any, _a: Any, _b: Any) -> Any:
    """Return the high 64 bits of the product of two uint64: one instruction together with the low ones."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(value, wide) for value in args))
        return builder.trunc(builder.lshr(product, wide(64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), codegen


@_jit
def _swapped(h: np.uint64) -> np.uint64:
    """Return the 8 bytes in the opposite order."""
    h = (h & _ODD_8) << _U8 | (h >> _U8) & _ODD_8
    h = (h & _ODD_16) << _U16 | (h >> _U16) & _ODD_16
    return h << _U32 | h >> _U32


@_jit
def _avalanche(h: np.uint64) -> np.uint64:
    h = (h ^ (h >> _U37)) * _MX1
    return h ^ (h >> _U32)


@_jit
def _avalanche_64(h: np.uint64) -> np.uint64:
    """Mix as the older XXH64 does."""
    h = (h ^ (h >> _U33)) * _P2
    h = (h ^ (h >> _U29)) * _P3
    return h ^ (h >> _U32)


@_jit
def _fold(a: np.uint64, b: np.uint64) -> np.uint64:
    folded: np.uint64 = a * b ^ _high(a, b)
    return folded


@_jit
def _mix(low: np.uint64, high: np.uint64, data: U8, i: int, j: int, secret: int) -> Halves:
    """Mix in the 16 bytes at i, and the 16 at j."""
    a, b, c, d = load_u64(data, i), load_u64(data, i + 8), load_u64(data, j), load_u64(data, j + 8)
    low += _fold(a ^ load_u64(_SECRET, secret), b ^ load_u64(_SECRET, secret + 8))
    high += _fold(c ^ load_u64(_SECRET, secret + 16), d ^ load_u64(_SECRET, secret + 24))
    return low ^ (c + d), high ^ (a + b)


@_jit
def _hash_up_to_16(data: U8, n: int) -> Halves:
    size = np.uint64(n)
    if n > 8:
        low, high = load_u64(data, 0), load_u64(data, n - 8)
        key = low ^ high ^ _FLIP_LONG
        high ^= _FLIP_LONG_HIGH
        low = key * _P1 + ((size - _U1) << _U54)
        high = _high(key, _P1) + high + (high & _LOW) * (_P32_2 - _U1)
        low ^= _swapped(high)
        return _avalanche(low * _P2), _avalanche(_high(low, _P2) + high * _P2)
    if n > 3:
        key = (load_u64(data, 0) & _LOW | load_u64(data, n - 4) << _U32) ^ _FLIP_MIDDLE
        prime = _P1 + (size << _U2)
        low = key * prime
        high = _high(key, prime) + (low << _U1)
        low ^= high >> _U3
        low = (low ^ (low >> _U35)) * _MX2
        return low ^ (low >> _U28), _avalanche(high)
    if n > 0:
        first, middle, last = np.uint64(data[0]), np.uint64(data[n >> 1]), np.uint64(data[n - 1])
        low = first << _U16 | middle << _U24 | last | size << _U8
        high = _swapped(low) >> _U32
        high = (high << _U13 | high >> _U19) & _LOW
        return _avalanche_64(low ^ _FLIP_SHORT), _avalanche_64(high ^ _FLIP_SHORT_HIGH)
    return _avalanche_64(_FLIP_EMPTY), _avalanche_64(_FLIP_EMPTY_HIGH)


@_jit
def _hash_up_to_240(data: U8, n: int) -> Halves:
    low, high = np.uint64(n) * _P1, _U0
    if n <= 128:
        for i in range(16 * ((n - 1) // 32), -1, -16):
            low, high = _mix(low, high, data, i, n - 16 - i, 2 * i)
    else:
        for i in range(0, 128, 32):
            low, high = _mix(low, high, data, i, i + 16, i)
        low, high = _avalanche(low), _avalanche(high)
        for i in range(128, n - 31, 32):
            low, high = _mix(low, high, data, i, i + 16, i - 125)
        low, high = _mix(low, high, data, n - 16, n - 32, 103)
    mixed = low * _P1 + high * _P4 + np.uint64(n) * _P2
    return _avalanche(low + high), _U0 - _avalanche(mixed)


@_jit
def _add_stripe(sums: U64, data: U8, at: int, secret: int) -> None:
    for lane in range(8):
        value = load_u64(data, at + 8 * lane)
        key = value ^ load_u64(_SECRET, secret + 8 * lane)
        sums[lane ^ 1] += value
        sums[lane] += (key & _LOW) * (key >> _U32)


@_jit
def _merge(sums: U64, secret: int, h: np.uint64) -> np.uint64:
    for lane in range(0, 8, 2):
        h += _fold(
            sums[lane] ^ load_u64(_SECRET, secret + 8 * lane), sums[lane + 1] ^ load_u64(_SECRET, secret + 8 * lane + 8)
        )
    mixed: np.uint64 = _avalanche(h)
    return mixed


@_jit
def _hash_long(data: U8, n: int) -> Halves:
    sums = _START.copy()
    last = _SECRET_SIZE - _STRIPE
    for block in range(0, n, _BLOCK):
        for at in range(block, min(block + _BLOCK, n - _STRIPE), _STRIPE):
            _add_stripe(sums, data, at, (at - block) >> 3)
        if block + _BLOCK < n:
            for lane in range(8):
                sums[lane] = (sums[lane] ^ (sums[lane] >> _U47) ^ load_u64(_SECRET, last + 8 * lane)) * _P32_1
    _add_stripe(sums, data, n - _STRIPE, last - 7)
    size = np.uint64(n)
    return _merge(sums, 11, size * _P1), _merge(sums, last - 11, ~(size * _P2))


@_jit
def _hash_pairs(first: U8, first_at: I64, second: U8, second_at: I64, valid: Mask, digits: U16, ends: I32) -> None:
    """Write the hex digits of the hash of each row, two in a uint16, and their offsets in bytes (rows + 1).

    A row that is not valid has none; `valid` is empty where all are.
    """
    rows = len(ends) - 1
    longest = 0
    for row in range(rows):
        longest = max(longest, first_at[row + 1] - first_at[row] + second_at[row + 1] - second_at[row])
    data = np.empty(longest + 9, np.uint8)  # the NUL, and what a load of 8 bytes reads behind the last one
    k = 0
    ends[0] = 0
    for row in range(rows):
        if len(valid) == 0 or valid[row]:
            n = 0
            for i in range(first_at[row], first_at[row + 1]):
                data[n] = first[i]
                n += 1
            data[n] = 0
            n += 1
            for i in range(second_at[row], second_at[row + 1]):
                data[n] = second[i]
                n += 1
            if n <= 16:
                low, high = _hash_up_to_16(data, n)
            elif n <= 240:
                low, high = _hash_up_to_240(data, n)
            else:
                low, high = _hash_long(data, n)
            for half in (high, low):
                for shift in range(56, -8, -8):
                    digits[k] = _HEX[np.int64(half >> np.uint64(shift) & np.uint64(255))]
                    k += 1
        ends[row + 1] = 2 * k
