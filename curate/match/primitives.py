"""What the matcher's kernel needs and numba has not: a prefetch, and a sort that no text makes slow.

Compiled into the functions of `curate.match.kernel`: numba's cache does not notice a change here by itself, so touch
that file too. Without the prefetch matching takes 1.2 to 1.5 times as long.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

from curate.base.numeric.arrays import I32

_INSERTED = 64  # up to how many ids are sorted by insertion

_jit = numba.njit(cache=True, nogil=True)


@intrinsic
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
def sort_unique(ids: I32, a: int, b: int, out: I32, n: int) -> int:
    """Write ids[a:b], ascending and each once, to `out` from n; return the new n."""
    if b - a > _INSERTED:
        for i in range(b - a):
            out[n + i] = ids[a + i]
        _heap_sort(out[n : n + b - a])
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
def _heap_sort(ids: I32) -> None:
    """Sort in place; by heap, because it has no slow inputs and texts are untrusted."""
    start, stop = len(ids) // 2, len(ids)
    while stop > 1:
        if start > 0:
            start -= 1
        else:
            stop -= 1
            ids[0], ids[stop] = ids[stop], ids[0]
        x, hole = ids[start], start
        while 2 * hole + 1 < stop:
            child = 2 * hole + 1
            if child + 1 < stop and ids[child + 1] > ids[child]:
                child += 1
            if ids[child] <= x:
                break
            ids[hole] = ids[child]
            hole = child
        ids[hole] = x


@intrinsic
def load_u64(_typing: Any, array: Any, index: Any) -> Any:
    """Return the 8 bytes of a uint8 array from `index`, unaligned, as one uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(64).as_pointer())
        return builder.load(pointer, align=1)

    return types.uint64(array, types.intp), codegen
