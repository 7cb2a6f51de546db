"""Parquet files as their footers describe them: row groups as parts, columns, and files that cannot be used.

A store that does not answer is tried again; files without rows, or with a fault, are one part each.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.decoded_size import read_footer
from curate.base.errors import RecipeError
from curate.base.wording import one_line
from curate.pool.formats.input_format import InputPart
from curate.read.columns import Columns, find_columns
from curate.read.faults import EmbeddingFault, InputFault, retry
from curate.read.listing import InputFile
from curate.read.precomputed import find_dimension, sidecar_fingerprint
from curate.recipe.measure import PrecomputedEmbeddings
from curate.recipe.source import Source

_THREADS = 16
_MANY, _TOGETHER = 1000, 1000  # row groups of a file with so many are parts of so many rows at least
_TRIED = 20  # files without embeddings before a source is said to supply none


@dataclass(frozen=True)
class Footer:
    """What a Parquet file's footer states."""

    parts: tuple[InputPart, ...]  # one a row group, so that a damaged one costs no other; one of a file without rows
    schema: pa.Schema | None = None  # the columns; None of a file with a fault, which is one part


def read_footers(
    source: Source, columns: Columns, files: list[InputFile], embeddings: Sequence[PrecomputedEmbeddings], content: bool
) -> list[Footer]:
    """Read the footers. Raises RecipeError where no file can be used, or none has a column that the recipe names."""
    with ThreadPoolExecutor(_THREADS) as pool:
        footers = list(pool.map(lambda file: _read_footer(source, columns, file, embeddings, content), files))
    usable = [footer for footer in footers if footer.schema]
    if not usable and footers:
        faulty = [footer.parts[0] for footer in footers[:3]]
        reasons = "; ".join(f"{part.path}: {part.fault[1]}" for part in faulty if part.fault)
        raise source.error(f"none of {len(footers)} files can be used: {reasons}")
    names = {name for footer in usable if footer.schema for name in footer.schema.names}
    for part, requested in columns:
        for column in (requested,) if isinstance(requested, str) else requested or ():
            if column not in names:
                raise source.error(f"columns.{part}: no column {column!r}; columns: {', '.join(sorted(names))}")
    return footers


def _read_footer(
    source: Source, columns: Columns, file: InputFile, embeddings: Sequence[PrecomputedEmbeddings], content: bool
) -> Footer:
    whole = InputPart(file.path, file.size, file.fingerprint, (0, 0), 0)

    def read() -> pq.FileMetaData:
        with fsspec.open(file.path, "rb", **source.storage) as opened:
            return read_footer(opened)

    def faulty(reason: str, detail: str) -> Footer:
        return Footer((replace(whole, fault=(reason, detail)),))

    if file.fault:
        return faulty(*file.fault)
    if file.size == 0:
        return faulty("empty_file", "0 bytes")
    try:
        metadata = retry(read, file.path)
        schema = metadata.schema.to_arrow_schema().remove_metadata()
        find_columns(schema, columns)
    except InputFault as fault:
        return faulty(fault.reason, fault.detail)
    except (pa.ArrowException, ValueError) as error:
        return faulty("not_parquet", one_line(error, 300))
    except OSError as error:
        return faulty("unreadable", one_line(error, 300))
    # What is no column is an array of the .npz beside the file
    in_sidecar = {name for options in embeddings for name in (options.image, options.text)} - set(schema.names)
    fingerprint = sidecar_fingerprint(file.path, source.storage, content) if in_sidecar else ""
    parts: list[InputPart] = []
    least = _TOGETHER if metadata.num_row_groups > _MANY else 0
    first = size = rows = 0
    for stop in range(1, metadata.num_row_groups + 1):
        group = metadata.row_group(stop - 1)
        size, rows = size + group.total_byte_size, rows + group.num_rows
        if rows >= least or stop == metadata.num_row_groups:
            part = replace(whole, size=size, groups=(first, stop), rows=rows)
            parts.append(replace(part, sidecar_fingerprint=fingerprint))
            first, size, rows = stop, 0, 0
    return Footer(tuple(parts or [whole]), schema)


def embedding_dimension(embeddings: PrecomputedEmbeddings, source: Source, footers: Sequence[Footer]) -> int:
    """Return the dimension of the embeddings of the first file that has some. Raises RecipeError where none has."""
    faults: list[str] = []
    for footer in footers:
        if footer.schema and any(part.rows for part in footer.parts) and len(faults) < _TRIED:
            try:
                return find_dimension(embeddings, footer.parts[0].path, footer.schema, source)
            except EmbeddingFault as fault:
                faults.append(f"{footer.parts[0].path}: {fault}")
    problem = f"source {source.name!r} supplies no such embeddings: {faults[0] if faults else 'no file has rows'}"
    accepted = "columns of lists of numbers, or arrays of the .npz of each file"
    raise RecipeError(f"measure.embeddings {embeddings.name!r}: {problem}; accepted: {accepted}")
