"""XXH3-128 of many texts at once, for lengths from 17 to 240 bytes, which nearly all texts have. It releases the GIL.

The library xxhash computes other lengths. It needs a call per text, takes seven times as long, and keeps the GIL.
Source: the specification of XXH3 (Y. Collet, doc/xxhash_spec.md in xxHash), with seed 0 and the default secret. All of
this is in one file, because numba's cache notices only changes in the file of a compiled function.
"""

import numpy as np
import pyarrow as pa
from numba import njit

from curate.base.numeric.arrays import I64, U8, U64, string_buffers

Halves = tuple[np.uint64, np.uint64]  # the low and the high 64 bits

SHORTEST, LONGEST = 17, 240
_SECRET = np.frombuffer(
    bytes.fromhex(
        "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
        "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
        "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3"
    ),
    np.uint8,
)
_P1, _P2, _P4 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x85EBCA77C2B2AE63)
_MX1, _LOW = np.uint64(0x165667919E3779F9), np.uint64(2**32 - 1)
_U0, _U8, _U16, _U32, _U37 = (np.uint64(n) for n in (0, 8, 16, 32, 37))

_jit = njit(cache=True, nogil=True)


@_jit
def hash_texts(data: U8, ends: I64, halves: U64) -> None:
    """Write both halves of each text's hash to `halves` (uint64[texts, 2]). Texts with other lengths are skipped.

    Text i is data[ends[i]:ends[i + 1]].
    """
    for i in range(len(halves)):
        n = ends[i + 1] - ends[i]
        if SHORTEST <= n <= LONGEST:
            halves[i, 1], halves[i, 0] = _hash(data[ends[i] : ends[i + 1]], np.uint64(n))


def compile_kernels() -> None:
    """Compile the hash, unless numba's cache has it."""
    hash_texts(*string_buffers(pa.array([], pa.string())), np.empty((0, 2), np.uint64))


@_jit
def _hash(data: U8, n: np.uint64) -> Halves:
    low, high = n * _P1, _U0
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
    mixed = low * _P1 + high * _P4 + n * _P2
    return _avalanche(low + high), _U0 - _avalanche(mixed)


@_jit
def _mix(low: np.uint64, high: np.uint64, data: U8, i: int, j: int, secret: int) -> Halves:
    a, b, c, d = load_u64(data, i), load_u64(data, i + 8), load_u64(data, j), load_u64(data, j + 8)
    low += _fold(a ^ load_u64(_SECRET, secret), b ^ load_u64(_SECRET, secret + 8))
    high += _fold(c ^ load_u64(_SECRET, secret + 16), d ^ load_u64(_SECRET, secret + 24))
    return low ^ (c + d), high ^ (a + b)


@_jit
def load_u64(data: U8, at: int) -> np.uint64:
    """Return 8 bytes as a little-endian number. LLVM turns this into one load, because the index is unsigned."""
    word, i = _U0, np.uint64(at)
    for k in range(8):
        word |= np.uint64(data[i + np.uint64(k)]) << np.uint64(8 * k)
    return word


@_jit
def _fold(a: np.uint64, b: np.uint64) -> np.uint64:
    """Return the XOR of the halves of the 128-bit product."""
    a_low, a_high, b_low, b_high = a & _LOW, a >> _U32, b & _LOW, b >> _U32
    middle = a_high * b_low + (a_low * b_low >> _U32)
    carry = a_low * b_high + (middle & _LOW)
    return a * b ^ (a_high * b_high + (middle >> _U32) + (carry >> _U32))


@_jit
def _avalanche(h: np.uint64) -> np.uint64:
    h = (h ^ (h >> _U37)) * _MX1
    return h ^ (h >> _U32)
