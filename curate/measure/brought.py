"""Embeddings that a Parquet pool brings: columns of lists of numbers, or arrays of the .npz beside each file (DataComp).

In: a part, a row group of a Parquet file; names of a column or an array for the image's side and for the text's. Out:
float16 lists of one length, row by row, zeros where a row has none, as table `embeddings` has them. Of an .npz only the
rows of the part are held: an array is read from where its rows begin (stored), or streamed up to there (deflated).

Embeddings may be of any length: what uses them goes by their direction. A row whose numbers are not finite has none.
"""

import zipfile
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate import ids
from curate.measure.gauge import Gauged, Signal
from curate.measure_sections import Brought
from curate.recipe import Source

MAX_DIMENSION = 1 << 16

F32 = npt.NDArray[np.float32]


class EmbeddingFault(ValueError):
    """The embeddings that go with a file are missing, damaged or do not fit it."""


class _Header(NamedTuple):
    """Of an array in an .npz: [rows, dimension] numbers."""

    rows: int
    dimension: int
    dtype: np.dtype[Any]


def beside(path: str) -> str:
    """The .npz that goes with a Parquet file."""
    return f"{path.rpartition('.')[0] if '.' in path.rpartition('/')[2] else path}.npz"


def signal(options: Brought, identity: dict[str, Any]) -> Signal:
    """The signal that brings the embeddings; it has no columns in `scores`. `identity` is `identify` of it."""
    key = ids.digest(["brought", 1, options.image, options.text, identity["dimension"]])
    return Signal(options.name, (), key, bring=(options.image, options.text), dimension=identity["dimension"])


def in_npz(options: Sequence[Brought], columns: Sequence[str]) -> list[str]:
    """What is asked for and no column of a Parquet file, so it is to be in the .npz beside it."""
    return [name for one in options for name in (one.image, one.text) if name not in columns]


def find_dimension(options: Brought, path: str, columns: pa.Schema, source: Source) -> int:
    """The dimension of the embeddings of a file. Raises EmbeddingFault, or OSError."""
    found = {name: _dimension(name, path, columns, source) for name in (options.image, options.text)}
    if len(set(found.values())) > 1:
        raise EmbeddingFault(f"{options.image} and {options.text} differ in length: {list(found.values())}")
    return found[options.image]


def bring(
    signal: Signal, path: str, table: pa.Table, span: tuple[int, int], ok: npt.NDArray[np.bool_], source: Source
) -> Gauged:
    """The embeddings of a part.

    Args:
        signal: one that brings.
        path: the Parquet file.
        table: the part's rows.
        span: where the part's rows begin in the file, and how many rows the file has.
        ok: bool [rows], the readable rows: only these get their embeddings.
        source: the recipe's source, for its storage options.

    Raises:
        EmbeddingFault: there is no such column or array, it is damaged, or it does not fit the file's rows.
        OSError: the file cannot be read now.
    """
    assert signal.bring is not None and signal.dimension is not None
    sides = []
    for name in signal.bring:
        if name in table.schema.names:
            rows = _of_column(name, table[name], signal.dimension)
        else:
            rows = _of_array(name, path, span, len(table), signal.dimension, source)
        rows[~(ok & np.isfinite(rows).all(axis=1))] = 0
        flat = pa.array(rows.astype(np.float16).reshape(-1), pa.float16())
        sides.append(pa.FixedSizeListArray.from_arrays(flat, signal.dimension))
    return Gauged((), (sides[0], sides[1]))


def nothing(signal: Signal, rows: int) -> Gauged:
    """Rows without embeddings."""
    assert signal.dimension is not None
    flat = pa.array(np.zeros(rows * signal.dimension, np.float16), pa.float16())
    none = pa.FixedSizeListArray.from_arrays(flat, signal.dimension)
    return Gauged((), (none, none))


def _dimension(name: str, path: str, columns: pa.Schema, source: Source) -> int:
    if name not in columns.names:
        with fsspec.open(beside(path), "rb", **source.storage) as opened:
            return _open(opened, name, path)[1].dimension
    kind = columns.field(name).type
    if pa.types.is_fixed_size_list(kind) and _is_number(kind.value_type):
        return int(kind.list_size)
    if not ((pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _is_number(kind.value_type)):
        raise EmbeddingFault(f"column {name!r} is {kind}; accepted: lists of numbers, all of one length")
    with fsspec.open(path, "rb", **source.storage) as opened:
        for batch in pq.ParquetFile(opened, pre_buffer=False).iter_batches(1024, columns=[name], use_threads=False):
            lengths = {len(value) for value in batch.column(0) if value.is_valid}
            if lengths:
                return int(max(lengths))
    raise EmbeddingFault(f"column {name!r} holds nothing but nulls")


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind))


def _of_column(name: str, column: pa.ChunkedArray, dimension: int) -> F32:
    lists = column.combine_chunks()
    if not (hasattr(lists, "flatten") and _is_number(getattr(lists.type, "value_type", lists.type))):
        raise EmbeddingFault(f"column {name!r} is {lists.type}; accepted: lists of numbers, all of one length")
    out = np.zeros((len(lists), dimension), np.float32)
    rows = np.flatnonzero(lists.is_valid().to_numpy(zero_copy_only=False))
    lists = lists.drop_null()
    lengths = np.array(pc.list_value_length(lists))
    if (lengths != dimension).any():
        row = int(np.flatnonzero(lengths != dimension)[0])
        raise EmbeddingFault(
            f"column {name!r}: row {rows[row]} has {lengths[row]} numbers; the first file's have {dimension}"
        )
    values = lists.flatten().cast(pa.float32()).to_numpy(zero_copy_only=False)  # a null is NaN, so not finite
    out[rows] = values.reshape(-1, dimension)
    return out


def _of_array(name: str, path: str, span: tuple[int, int], rows: int, dimension: int, source: Source) -> F32:
    first, total = span
    try:
        with fsspec.open(beside(path), "rb", **source.storage) as opened:
            stream, header = _open(opened, name, path)
            with stream:
                if (header.rows, header.dimension) != (total, dimension):
                    raise EmbeddingFault(
                        f"{beside(path)}: array {name!r} is {header.rows:,} × {header.dimension}; accepted: {total:,} × "
                        f"{dimension}, one row for each of the Parquet file's, as long as in the first file"
                    )
                size = dimension * header.dtype.itemsize
                stream.seek(first * size, 1)
                data = stream.read(rows * size)
                if first + rows == total:
                    stream.read(1)  # the end of a member is where its checksum is compared
    except FileNotFoundError:
        raise EmbeddingFault(f"{path}: has no column {name!r}, and there is no {beside(path)}") from None
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise EmbeddingFault(f"{beside(path)}: cannot be read: {' '.join(str(error).split())}") from None
    if len(data) != rows * size:
        raise EmbeddingFault(f"{beside(path)}: array {name!r} ends before its last row")
    return np.frombuffer(data, header.dtype).reshape(rows, dimension).astype(np.float32)


def _open(opened: Any, name: str, path: str) -> tuple[Any, _Header]:
    """An array of an .npz, as a stream that stands behind its header."""
    where = f"{beside(path)}: array {name!r}"
    archive = zipfile.ZipFile(opened)
    members = archive.namelist()
    if f"{name}.npy" not in members:
        arrays = ", ".join(sorted(member.removesuffix(".npy") for member in members)[:12])
        raise EmbeddingFault(f"{where} is not there; arrays: {arrays or 'none'}")
    stream = archive.open(f"{name}.npy")
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream, max_header_size=4096)
    except (ValueError, SyntaxError) as error:
        raise EmbeddingFault(f"{where} is no array: {' '.join(str(error).split())[:100]}") from None
    if len(shape) != 2 or fortran or dtype.kind != "f" or not 1 <= shape[1] <= MAX_DIMENSION:
        raise EmbeddingFault(f"{where} is {dtype} {list(shape)}; accepted: floating-point numbers [rows, dimension]")
    return stream, _Header(int(shape[0]), int(shape[1]), dtype)
