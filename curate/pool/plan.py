"""The plan of a run: lists the input files and groups consecutive ones into units, the elements that Beam distributes.

A unit is one or more consecutive tars of a source, or consecutive row groups of Parquet files; no sample is looked at,
but for the footers of Parquet files. The plan depends on the recipe's inputs alone, so the same inputs give the same
units, and a unit's tables can be reused.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from curate import ids, schema
from curate.errors import RecipeError
from curate.pool.columns import ColumnFault, find_columns, without_views
from curate.pool.listing import InputFile, list_files
from curate.recipe.measure import PrecomputedEmbeddings
from curate.recipe.recipe import Recipe, Source
from curate.signals.precomputed import EmbeddingFault, find_dimension, in_npz, sidecar_fingerprint

UNIT_BYTES = (1 << 10, 64 << 20)  # of images: for small pools, for large ones
UNIT_ROWS = (25_000, 100_000)  # of imageless Parquet
_ATTEMPTS = 3
_TRIED = 20  # files that may bring no embeddings before a source is said to bring none
UNITS = 16  # small pools are cut into about as many units, so that all cores have work


@dataclass(frozen=True)
class Part:
    """A tar, or the row groups from `groups[0]` to below `groups[1]` of a Parquet file: one, or none of an empty file.

    `fault` (reason, detail) is set where the file cannot be used; `beside` tells a change of the .npz beside the file that
    brings embeddings.
    """

    path: str
    size: int
    fingerprint: str
    groups: tuple[int, int] | None = None
    rows: int | None = None
    fault: tuple[str, str] | None = None
    beside: str = ""


@dataclass(frozen=True)
class Unit:
    """Consecutive parts of one source; `key` names its content, its place and its source."""

    index: int
    source: str
    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        """The stem of the unit's files."""
        return f"{self.index:05d}"

    @property
    def key(self) -> str:
        """Digest of everything that determines what the unit's files hold before measuring."""
        return ids.digest([self.index, self.source, [[p.path, p.size, p.fingerprint, p.groups] for p in self.parts]])

    @property
    def beside(self) -> list[str]:
        """What tells a change of the embeddings that are brought beside its files."""
        return [part.beside for part in self.parts]


@dataclass(frozen=True)
class Pool:
    """What all units have in common; small, so that it can go along to every worker.

    Attributes:
        key: digest of all units.
        images: whether samples have images (tars, or Parquet with an image column), or are rows of text.
        rows: how many there are where footers tell, else None.
        brings: the parts of a sample that Parquet columns bring (such as url, width, language).
        scores: name and type of the score columns that the pool brings.
        output: imageless pools: the columns of all inputs, of which the curated Parquet consists, but `uid`.
        embeddings: the dimension of the embeddings that it brings, by the names of `measure.embeddings`.
    """

    key: str
    images: bool
    rows: int | None
    brings: frozenset[str]
    scores: pa.Schema
    output: pa.Schema | None
    embeddings: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """All units, in the order of the recipe's sources and their files."""

    units: tuple[Unit, ...]
    pool: Pool

    @property
    def files(self) -> list[Part]:
        """One part of each input file."""
        return list({part.path: part for unit in self.units for part in unit.parts}.values())


@dataclass(frozen=True)
class _Footer:
    """What a Parquet file's footer says: per row group its rows and bytes, and the columns."""

    file: InputFile
    groups: tuple[tuple[int, int], ...]
    schema: pa.Schema | None
    fault: tuple[str, str] | None
    beside: str = ""


def make_plan(recipe: Recipe, content: bool = False) -> Plan:
    """Lists the inputs and groups them.

    Args:
        recipe: the checked recipe.
        content: stamp input files by their content instead of size and etag or mtime.

    Raises:
        RecipeError: a file is missing, no file of a source can be used, or sources do not go together.
    """
    pieces: list[tuple[Source, list[Part]]] = []
    schemas: list[tuple[Source, pa.Schema]] = []
    dimensions: dict[str, int] = {}
    for source in recipe.input:
        files = _listed(source, content)
        if source.format == "webdataset":
            if recipe.measure.embeddings:
                raise RecipeError(
                    f"measure.embeddings: source {source.name!r} is of tars, which bring none; accepted: Parquet sources, or "
                    "a model in measure.clip"
                )
            pieces.append((source, [Part(f.path, f.size, f.fingerprint) for f in files]))
        else:
            footers = _read_footers(source, files, recipe.measure.embeddings, content)
            for one in recipe.measure.embeddings:
                found = _dimension(one, source, footers)
                if dimensions.setdefault(one.name, found) != found:
                    raise RecipeError(
                        f"measure.embeddings {one.name!r}: those of source {source.name!r} have {found} dimensions, those of "
                        f"an earlier one {dimensions[one.name]}; embeddings of one model have the same"
                    )
            schemas += [(source, footer.schema) for footer in footers if footer.schema and not footer.fault]
            pieces.append((source, [part for footer in footers for part in _parts(footer)]))
    images = [s.name for s in recipe.input if s.format == "webdataset"]
    imageless: list[str] = []
    for source, columns in schemas:
        (images if find_columns(columns, source.columns).image else imageless).append(source.name)
    if images and imageless:
        raise RecipeError(
            f"input: source {images[0]!r} has images and source {imageless[0]!r} has "
            f"{'files without' if imageless[0] in images else 'none'}; a recipe has sources with images "
            "(tars, Parquet with an image column) or imageless Parquet sources, not both"
        )
    units = _units(pieces, bool(images))
    rows = [part.rows for unit in units for part in unit.parts if not part.fault]
    pool = Pool(
        key=ids.digest([unit.key for unit in units]),
        images=bool(images),
        rows=None if None in rows else sum(n or 0 for n in rows),
        brings=frozenset(_brought(schemas)),
        scores=_score_schema(schemas),
        embeddings=dimensions,
        output=None if images else _output_schema(schemas),
    )
    return Plan(units, pool)


def _listed(source: Source, content: bool) -> list[InputFile]:
    try:
        return list_files(source.paths, source.storage, content)
    except RecipeError as error:
        raise RecipeError(f"input {source.name!r}: {error}") from None
    except (OSError, ImportError, ValueError) as error:
        raise RecipeError(f"input {source.name!r}: {source.path} cannot be listed: {error}") from None


def _dimension(one: PrecomputedEmbeddings, source: Source, footers: list[_Footer]) -> int:
    """Of the embeddings that a source brings, told by its first file that has some. Raises RecipeError where none has."""
    faults = []
    for footer in footers:
        if footer.schema and not footer.fault and footer.groups:
            try:
                return find_dimension(one, footer.file.path, footer.schema, source)
            except EmbeddingFault as fault:
                faults.append(f"{footer.file.path}: {fault}")
                if len(faults) == _TRIED:
                    break
    raise RecipeError(
        f"measure.embeddings {one.name!r}: source {source.name!r} brings no such embeddings: "
        f"{faults[0] if faults else 'no file has rows'}; accepted: columns of lists of numbers, or arrays of the .npz beside "
        "each file"
    )


def _read_footers(
    source: Source, files: list[InputFile], brings: Sequence[PrecomputedEmbeddings], content: bool
) -> list[_Footer]:
    with ThreadPoolExecutor(16) as pool:
        footers = list(pool.map(lambda file: _read_footer(source, file, brings, content), files))
    usable = [footer for footer in footers if not footer.fault]
    if not usable and footers:
        reasons = "; ".join(f"{f.file.path}: {f.fault[1]}" for f in footers[:3] if f.fault)
        raise RecipeError(f"input {source.name!r}: none of {len(footers)} files can be used: {reasons}")
    names = {name for footer in usable if footer.schema for name in footer.schema.names}
    for part, asked in source.columns:
        for column in (asked,) if isinstance(asked, str) else asked or ():
            if column not in names:
                raise RecipeError(
                    f"input {source.name!r}: columns.{part}: no column {column!r}; columns: {', '.join(sorted(names))}"
                )
    return footers


def _read_footer(source: Source, file: InputFile, brings: Sequence[PrecomputedEmbeddings], content: bool) -> _Footer:
    if file.size == 0:
        return _Footer(file, (), None, ("empty_file", "0 bytes"))
    try:
        metadata = _retried(source, file)
        columns = metadata.schema.to_arrow_schema().remove_metadata()
    except (pa.ArrowException, ValueError) as error:
        return _Footer(file, (), None, ("not_parquet", " ".join(str(error).split())[:300]))
    except OSError as error:
        return _Footer(file, (), None, ("unreadable", " ".join(str(error).split())[:300]))
    try:
        find_columns(columns, source.columns)
    except ColumnFault as fault:
        return _Footer(file, (), columns, (fault.reason, fault.detail))
    beside_it = sidecar_fingerprint(file.path, source.storage, content) if in_npz(brings, columns.names) else ""
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    return _Footer(file, tuple((group.num_rows, group.total_byte_size) for group in groups), columns, None, beside_it)


def _retried(source: Source, file: InputFile) -> pq.FileMetaData:
    """The file's metadata; a store that does not answer is asked again."""
    for attempt in range(_ATTEMPTS):
        try:
            with fsspec.open(file.path, "rb", **source.storage) as opened:
                return pq.read_metadata(opened)
        except OSError as error:
            if attempt + 1 == _ATTEMPTS or isinstance(error, (FileNotFoundError, PermissionError)):
                raise
            time.sleep(attempt + 1)
    raise AssertionError("not reached")


def _parts(footer: _Footer) -> Iterator[Part]:
    """One part per row group, so that a damaged one costs no other; a file without rows or with a fault is one part."""
    file = footer.file
    if footer.fault or not footer.groups:
        yield Part(file.path, file.size, file.fingerprint, (0, 0), 0, footer.fault)
    for index, (rows, size) in enumerate(footer.groups):
        yield Part(file.path, size, file.fingerprint, (index, index + 1), rows, beside=footer.beside)


def _units(pieces: list[tuple[Source, list[Part]]], images: bool) -> tuple[Unit, ...]:
    def weight(part: Part) -> int:
        return part.size if images else part.rows or 0

    share = sum(weight(part) for _, parts in pieces for part in parts) // UNITS
    least, limit = UNIT_BYTES if images else UNIT_ROWS
    # In steps of four: units stay as they are, and are reused, while files are added to a small pool.
    while limit > share and limit >= 4 * least:
        limit //= 4
    units: list[Unit] = []
    for source, parts in pieces:
        group: list[Part] = []
        for part in parts:
            if group and sum(map(weight, group)) + weight(part) > limit:
                units.append(Unit(len(units), source.name, tuple(group)))
                group = []
            group.append(part)
        if group:
            units.append(Unit(len(units), source.name, tuple(group)))
    return tuple(units)


def _brought(schemas: list[tuple[Source, pa.Schema]]) -> Iterator[str]:
    for source, columns in schemas:
        found = find_columns(columns, source.columns)
        yield from (part for part in ("uid", "url", "key", "width", "height", "language") if getattr(found, part))


def _score_schema(schemas: list[tuple[Source, pa.Schema]]) -> pa.Schema:
    """The score columns of all sources, each of one type."""
    types: dict[str, Any] = {}
    taken = {*schema.SAMPLES.names, *schema.DECISIONS.names}
    spelled: dict[str, str] = {}
    # A column that holds integers in one file and floats in another is a score in both.
    names: dict[str, dict[str, None]] = {}
    for source, columns in schemas:
        names.setdefault(source.name, {}).update(dict.fromkeys(find_columns(columns, source.columns).scores))
    for source, columns in schemas:
        for name in (name for name in names[source.name] if name in columns.names):
            where = f"input {source.name!r}: score column {name!r}"
            if name.lower() in taken:
                raise RecipeError(
                    f"{where} has the name of a column of the run's own; choose others with columns.scores, or rename it"
                )
            if spelled.setdefault(name.lower(), name) != name:
                raise RecipeError(
                    f"{where} and {spelled[name.lower()]!r} differ in case only; SQL cannot tell them apart"
                )
            kind = columns.field(name).type
            if pa.types.is_float16(kind):
                kind = pa.float32()  # DuckDB has no half floats
            try:
                joined = pa.unify_schemas(
                    [pa.schema([(name, types.get(name, kind))]), pa.schema([(name, kind)])],
                    promote_options="permissive",
                )
            except pa.ArrowException:
                raise RecipeError(
                    f"{where} is {kind} here and {types[name]} in another file; make them alike"
                ) from None
            types[name] = joined.field(0).type
    return pa.schema(list(types.items()))


def _plain_field(field: pa.Field) -> pa.Field:
    """The field as every file can fill it: nullable, and without a dictionary."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    return pa.field(field.name, without_views(kind))


def _output_schema(schemas: list[tuple[Source, pa.Schema]]) -> pa.Schema:
    try:
        plain = [pa.schema([_plain_field(field) for field in columns if field.name != "uid"]) for _, columns in schemas]
        return pa.unify_schemas(plain or [pa.schema([])], promote_options="permissive")
    except pa.ArrowException as error:
        raise RecipeError(f"input: columns of one name hold different types: {' '.join(str(error).split())}") from None
