"""Embeddings that a Parquet pool supplies: columns with lists of numbers, or arrays in each file's .npz (DataComp).

Out: float16 lists of unit length, row by row, for the table `embeddings`. A row has zeros if its numbers are not
finite, are all zero, or are more or fewer than in other rows. Only the rows of the part are read from an .npz into
memory.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from fsspec.implementations.local import LocalFileSystem

from curate.base.decoded_size import MAX_DECODED, check_decoded, read_footer
from curate.base.errors import TransientError, reraised
from curate.base.numeric.arrays import F32
from curate.base.numeric.vectors import embedding_column
from curate.base.wording import one_line
from curate.read.columns import is_any
from curate.read.errors import EmbeddingError, retry
from curate.read.listing import check_state, file_state, list_files
from curate.recipe.files import open_zip, read_npy_header
from curate.recipe.measure import PrecomputedEmbeddings
from curate.recipe.source import Source

MAX_DIMENSION = 1 << 16
_MAX_BYTES = 1 << 30  # maximum size of an array's rows in one part
_BLOCK = 4096  # rows for which lengths are computed together, in float64


class FileRows(NamedTuple):
    """Where the rows of a part are in their file."""

    path: str  # path of the Parquet file
    first: int  # index of the first row in the part
    total: int  # number of rows in the whole file
    sidecar_fingerprint: str  # of the .npz next to it; empty if there is none
    storage: dict[str, Any]  # options of the file system


def sidecar(path: str) -> str:
    """Return the path of the .npz that belongs to a Parquet file."""
    return f"{path.rpartition('.')[0] if '.' in path.rpartition('/')[2] else path}.npz"


def sidecar_fingerprint(path: str, storage: dict[str, Any], content: bool) -> str:
    """Return the fingerprint of the .npz next to a file; empty if there is none.

    Raises RecipeError if it is not a file.
    """
    fs, inner = fsspec.core.url_to_fs(sidecar(path), **storage)
    if not fs.exists(inner):
        return ""
    npz = list_files((sidecar(path),), storage, content)[0]
    return npz.fingerprint if content else file_state(npz.path, storage)


def find_dimension(options: PrecomputedEmbeddings, path: str, columns: pa.Schema, source: Source) -> int:
    """Return the dimension of the embeddings in a file. Raises EmbeddingError."""
    lengths = {name: _dimension(name, path, columns, source) for name in (options.image, options.text)}
    if len(set(lengths.values())) > 1:
        raise EmbeddingError(f"{options.image} and {options.text} differ in length: {list(lengths.values())}")
    return lengths[options.image]


def read_embeddings(
    names: tuple[str, str], dimension: int, rows: tuple[pa.Table, npt.NDArray[np.bool_]], file_rows: FileRows
) -> tuple[pa.Array, pa.Array]:
    """Return the image and text embeddings of a part, from columns or arrays with these names.

    `rows` are the part's table, and a bool [rows] that says which rows are usable: only these get embeddings. Raises
    EmbeddingError if the column or array is missing, damaged, or does not fit the file's rows, and RunError if the .npz
    changed after the plan.
    """
    table, usable = rows
    sides = []
    for name in names:
        if name in table.schema.names:
            vectors: npt.NDArray[Any] = _of_column(name, table[name], dimension)
        else:
            vectors = _of_array(name, file_rows, len(table), dimension)
        unit = np.empty(vectors.shape, np.float16)
        for first in range(0, len(unit), _BLOCK):
            block = slice(first, first + _BLOCK)
            unit[block] = _unit_rows(vectors[block], usable[block])
        sides.append(embedding_column(unit, np.arange(len(table)), len(table)))
    return sides[0], sides[1]


def _unit_rows(rows: npt.NDArray[Any], usable: npt.NDArray[np.bool_]) -> npt.NDArray[np.float16]:
    """Return rows of length 1 as float16.

    Rows that have this length, up to rounding, are unchanged; rows of zeros stay zero.
    """
    wide = rows.astype(np.float64)
    largest = np.abs(wide).max(axis=1, initial=0)
    good = usable & np.isfinite(largest) & (largest > 0)
    wide[~good], largest = 0, np.where(good, largest, 1)
    scaled = wide / largest[:, None]  # scale first, so that no square overflows or underflows
    lengths = np.linalg.norm(scaled, axis=1)
    is_unit = np.abs(lengths * largest - 1) < 2.0**-9
    return np.where(is_unit[:, None], wide, scaled / np.where(good, lengths, 1)[:, None]).astype(np.float16)


def _dimension(name: str, path: str, columns: pa.Schema, source: Source) -> int:
    if name not in columns.names:
        return int(_safely(path, source.storage, lambda opened: _open(opened, name, path)[1][1]))
    kind = columns.field(name).type
    _check_lists(name, kind)
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    unreadable = reraised(EmbeddingError, f"column {name!r} cannot be read", pa.ArrowException, OSError)
    with unreadable, fsspec.open(path, "rb", **source.storage) as opened:
        footer = read_footer(opened)
        for group in range(footer.num_row_groups):
            file = check_decoded(opened, footer, [group], [name], MAX_DECODED)
            for batch in file.iter_batches(1024, [group], [name], use_threads=False):
                lengths = pc.list_value_length(batch.column(0))
                frequent = pc.mode(lengths.filter(pc.greater(lengths, pa.scalar(0))))
                if len(frequent):
                    return int(frequent[0]["mode"].as_py())
    raise EmbeddingError(f"column {name!r} contains only nulls")


def _check_lists(name: str, kind: pa.DataType) -> None:
    lists = (pa.ListType, pa.LargeListType, pa.FixedSizeListType)
    if not (isinstance(kind, lists) and is_any(kind.value_type, pa.types.is_floating, pa.types.is_integer)):
        raise EmbeddingError(f"column {name!r} is {kind}; accepted: lists of numbers, all of one length")


def _of_column(name: str, column: pa.ChunkedArray, dimension: int) -> F32:
    lists = column.combine_chunks()
    _check_lists(name, lists.type)
    out = np.zeros((len(lists), dimension), np.float32)
    fit = pc.equal(pc.list_value_length(lists), pa.scalar(dimension)).fill_null(False)
    if lists.null_count < len(lists) and not pc.any(fit).as_py():
        raise EmbeddingError(f"column {name!r} has no row of {dimension} numbers, as in the first file")
    values = pc.list_flatten(lists.filter(fit)).cast(pa.float32(), safe=False)  # nulls become NaN, which is not finite
    out[fit.to_numpy(zero_copy_only=False)] = values.to_numpy(zero_copy_only=False).reshape(-1, dimension)
    return out


def _of_array(name: str, file_rows: FileRows, rows: int, dimension: int) -> npt.NDArray[Any]:
    path, where = file_rows.path, f"{sidecar(file_rows.path)}: array {name!r}"
    if not file_rows.sidecar_fingerprint:
        raise EmbeddingError(f"{path}: has no column {name!r}, and there is no {sidecar(path)}")

    def read(opened: Any) -> npt.NDArray[Any]:
        stream, shape, kind, is_fortran = _open(opened, name, path)
        with stream:
            if shape != (file_rows.total, dimension):
                accepted = f"{file_rows.total:,} × {dimension}: rows of the Parquet file × dimension of the first file"
                raise EmbeddingError(f"{where} is {shape[0]:,} × {shape[1]}; accepted: {accepted}")
            # In Fortran order, the numbers of one dimension are contiguous; otherwise, the numbers of one row are.
            if rows * dimension * kind.itemsize > _MAX_BYTES:
                problem = f"{rows:,} rows take more than {_MAX_BYTES:,} bytes"
                raise EmbeddingError(f"{where}: {problem}; accepted: at most that")
            n, size = (dimension, kind.itemsize) if is_fortran else (1, dimension * kind.itemsize)
            start, data = stream.tell(), bytearray()
            for column in range(n):
                stream.seek(start + (column * file_rows.total + file_rows.first) * size)
                data += stream.read(rows * size)
            if file_rows.first + rows == file_rows.total:
                stream.read(1)  # reading beyond the end of a member checks its checksum
        if len(data) != n * rows * size:
            raise EmbeddingError(f"{where} ends before its last row")
        return np.frombuffer(data, kind).reshape(rows, dimension, order="F" if is_fortran else "C")

    check_state(sidecar(path), file_rows.storage, file_rows.sidecar_fingerprint, file_rows.sidecar_fingerprint)
    array: npt.NDArray[Any] = _safely(path, file_rows.storage, read)
    return array


def _safely(path: str, storage: dict[str, Any], read: Callable[[Any], Any]) -> Any:
    where, is_local = sidecar(path), False

    def attempt() -> Any:
        with fs.open(inner, "rb") as opened:
            return read(opened)

    try:
        fs, inner = fsspec.core.url_to_fs(where, **storage)
        is_local = isinstance(fs, LocalFileSystem)
        if is_local and os.path.exists(inner) and not os.path.isfile(inner):
            raise EmbeddingError(f"{where}: is not a regular file")
        return attempt() if is_local else retry(attempt, where)
    except FileNotFoundError:
        raise EmbeddingError(f"{where}: no such file") from None
    except (EmbeddingError, MemoryError, TransientError):
        raise
    except Exception as error:  # errors of stores, and of readers that find damaged bytes
        is_transient = isinstance(error, OSError) and not is_local
        message = f"{type(error).__name__} {one_line(error, 200)}".strip()
        raise EmbeddingError(f"{where}: cannot be read: {message}", is_transient) from None


def _open(opened: Any, name: str, path: str) -> tuple[Any, tuple[int, int], np.dtype[Any], bool]:
    """Return an array in an .npz: a stream after its header, shape [rows, dimension], type, and Fortran order."""
    where = f"{sidecar(path)}: array {name!r}"
    archive = open_zip(opened)
    members = archive.namelist()
    if f"{name}.npy" not in members:
        arrays = ", ".join(sorted(member.removesuffix(".npy") for member in members)[:12])
        raise EmbeddingError(f"{where} does not exist; arrays: {arrays[:500] or 'none'}")
    stream = archive.open(f"{name}.npy")
    with reraised(EmbeddingError, where, ValueError):
        shape, is_fortran, kind = read_npy_header(stream)
    if len(shape) != 2 or kind.kind != "f" or not 1 <= shape[1] <= MAX_DIMENSION:
        problem = f"{kind} {list(shape)}"[:100]
        raise EmbeddingError(f"{where} is {problem}; accepted: floating-point numbers [rows, dimension]")
    return stream, (int(shape[0]), int(shape[1])), kind, is_fortran
