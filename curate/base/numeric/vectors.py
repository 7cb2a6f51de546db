"""Converts embeddings between tables and numpy. A column of fixed-size lists is a matrix with zeros for missing rows.

Missing rows are zeros and not nulls, because Arrow writes null fixed-size lists to Parquet but cannot read them. Exact
products are added up in float64 in the order of dimensions, so they are the same on every processor.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from curate.base.numeric.arrays import F32, F64, I64


def embedding_column(values: npt.NDArray[Any], rows: I64, n: int) -> pa.FixedSizeListArray:
    """Return a column of n float16 lists: `values[i]` at row `rows[i]`, and zeros in all other rows."""
    flat = pa.array(spread(values.astype(np.float16), rows, n).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def no_embeddings(dimension: int, n: int) -> pa.FixedSizeListArray:
    """Return a column with n rows that have no embeddings."""
    return embedding_column(np.zeros((0, dimension), np.float32), np.zeros(0, np.int64), n)


def embedding_matrix(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.float16]:
    """Return the column as float16 [n, dimension], without a copy if it is one array."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    assert isinstance(array, pa.FixedSizeListArray)
    return np.asarray(array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), array.type.list_size))


def drop_nonfinite_rows(column: pa.ChunkedArray | pa.Array) -> tuple[pa.ChunkedArray, int]:
    """Drop embeddings that contain NaN or infinity. Also return how many there were."""
    chunks, count = [], 0
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        matrix = embedding_matrix(chunk)
        rows = np.flatnonzero(np.isfinite(matrix).all(axis=1))
        count += len(matrix) - len(rows)
        chunks.append(chunk if len(rows) == len(matrix) else embedding_column(matrix[rows], rows, len(matrix)))
    return pa.chunked_array(chunks, column.type), count


def spread(values: npt.NDArray[Any], rows: I64, n: int) -> npt.NDArray[Any]:
    """Return n values: the given values at their rows, and zeros elsewhere."""
    result = np.zeros((n, *values.shape[1:]), values.dtype)
    result[rows] = values
    return result


def normalized(rows: npt.NDArray[Any]) -> F32:
    """Return the rows scaled to length 1. Rows of zeros are not changed."""
    rows = np.asarray(rows, np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0))


@njit(nogil=True, cache=True)
def squares(points: F32 | F64) -> F64:
    """Return a·a for each row."""
    out = np.empty(len(points))
    for i in range(len(points)):
        out[i] = dot(points[i], points[i])
    return out


@njit(nogil=True, cache=True)
def dot(a: F32 | F64, b: F32 | F64) -> float:
    """Return a·b for each row. It is exact if the values were float16."""
    total = 0.0
    for k in range(len(a)):
        total += np.float64(a[k]) * np.float64(b[k])
    return total
