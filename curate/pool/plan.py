"""Plans a run: lists the input files and groups consecutive parts into units, which Beam distributes.

The plan depends only on the recipe's inputs, so the same inputs give the same units. Planning looks at no sample.
"""

import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from curate.base import ids
from curate.base.errors import RecipeError, reraised
from curate.download.retry_record import Retries, Retry
from curate.pool.formats.grouping import group, group_size
from curate.pool.formats.input_format import FileColumns, InputPart, PlannedSource
from curate.pool.join import KEYS
from curate.pool.registry import find_downloading, find_format, plan_source
from curate.pool.score_groups import ScoreGroup, find_score_groups
from curate.read.columns import plain_type
from curate.recipe.recipe import Recipe
from curate.recipe.source import Source
from curate.store.chunks import Chunk
from curate.store.layout import unit_stem

# A unit's size in small and large pools with images. 2 GiB are about ten tars from img2dataset, each with 10,000 images
# of 256 pixels. Memory holds a unit's tables and embeddings. A kill loses less than a unit's work (see
# `curate.store.checkpoints`).
UNIT_BYTES = (1 << 10, 2 << 30)
UNIT_ROWS = (25_000, 100_000)  # for a pool without images
UNITS = 16  # small pools are split into about as many units, so that all cores have work


Planned = Sequence[tuple[Source, PlannedSource]]
NamedParts = tuple[str, tuple[InputPart, ...]]  # of a unit, with the name of their source


@dataclass(frozen=True, slots=True)
class Unit:
    """Consecutive parts of one source; units partition the input."""

    index: int  # its position in the plan, which names its files
    source: str  # the name of its source
    parts: tuple[InputPart, ...]
    reuse_index: int | None = None  # the index of the unit with the same key in the run to reuse, if it has one
    reuse_chunk: Chunk | None = None  # the chunk that contains it there
    chunk: Chunk | None = None  # the chunk that contains it in this run's folder, if it is published
    # for a chunk in a finished run, which readers treat as one unit: the index of its last unit
    last: int | None = None
    moved: tuple[str, str] | None = None  # the folder for its files, and their folder in the run to reuse

    @property
    def before(self) -> "Unit":
        """The same unit in an older run or round, with its files at their old paths, and all its rows."""
        folder, old = self.moved or ("", "")
        parts = (replace(part, path=old + part.path.removeprefix(folder), left_out=()) for part in self.parts)
        return replace(self, parts=tuple(parts), moved=None)

    @property
    def name(self) -> str:
        return unit_stem(self.index, self.last)

    @property
    def title(self) -> str:
        """A label for people: its name, and its files, or the first of them."""
        others = f" and {len(self.parts) - 1:,} more" if self.parts[1:] else ""
        return f"unit {self.name} ({self.parts[0].path}{others})"

    @property
    def key(self) -> str:
        """Digest of everything that determines its measurements except the recipe; its index does not matter."""
        return ids.digest([self.source, [_determining(part) for part in self.parts]])


def _determining(part: InputPart) -> list[Any]:
    content = [part.path, part.size, part.fingerprint, part.groups]
    content += [part.listing_fingerprint] if part.listing_fingerprint else []
    content += [["retry", part.retry.round, part.retry.rows]] if part.retry else []
    content += [["limit", part.limit]] if part.limit else []
    return [*content, ["left out", part.left_out]] if part.left_out else content


class PackedUnits(Sequence[Unit]):
    """A plan's units, compressed in groups of a few hundred to save memory."""

    _TOGETHER = 512
    _JSON = TypeAdapter(list[Unit])

    def __init__(self, units: Iterable[Unit] = ()) -> None:
        self._parts: list[bytes] = []
        self._length = 0
        units = iter(units)
        while batch := list(islice(units, self._TOGETHER)):
            self._parts.append(zlib.compress(self._JSON.dump_json(batch, exclude_defaults=True), 1))
            self._length += len(batch)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PackedUnits) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Unit]:
        return chain.from_iterable(map(self._unpack, range(len(self._parts))))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return list(self)[index]
        index = range(self._length)[index]
        return self._unpack(index // self._TOGETHER)[index % self._TOGETHER]

    def _unpack(self, part: int) -> list[Unit]:
        return self._JSON.validate_json(zlib.decompress(self._parts[part]))


@dataclass(frozen=True)
class Pool:
    """Facts about all units together. This is small, so that every worker can have a copy."""

    key: str  # digest of all units
    has_images: bool  # otherwise samples are rows of text
    rows: int | None  # None if unknown before the files are read
    supplied: frozenset[str]  # parts of a sample that columns supply (such as url, width, language)
    scores: pa.Schema  # name and type of the pool's score columns, including joined ones
    output: pa.Schema | None  # for a pool without images: all input columns except `uid`, for curated Parquet
    embeddings: dict[str, int] = field(default_factory=dict)  # dimensions of the supplied `measure.embeddings`
    files: int = 0  # input files; 0 in a run that is opened again
    # by source; empty in a run that is opened again
    groups: Mapping[str, tuple[ScoreGroup, ...]] = field(default_factory=dict)
    listed: str = ""  # digest of all units before any retries; likewise

    def without_named(self, columns: Collection[str]) -> "Pool":
        """Return the pool without those columns (lower case) that it supplies only because expressions name them."""
        groups = {
            source: tuple(group for group in of_source if not (group.is_named and group.columns[0].lower() in columns))
            for source, of_source in self.groups.items()
        }
        remaining = {name for group in chain.from_iterable(groups.values()) for name in group.columns}
        return replace(self, groups=groups, scores=pa.schema([f for f in self.scores if f.name in remaining]))


@dataclass(frozen=True)
class Plan:
    """All units, in the order of the recipe's sources and their files."""

    units: Sequence[Unit]
    pool: Pool

    @property
    def files(self) -> list[InputPart]:
        """One part of each input file."""
        return list({part.path: part for unit in self.units for part in unit.parts}.values())


def make_plan(
    recipe: Recipe,
    content: bool = False,
    unit_size: int | None = None,
    named: Collection[str] = (),
    retries: Retries | None = None,
) -> Plan:
    """List the inputs and group them. With `content`, fingerprints hash the files; otherwise they use etag or mtime.

    A unit has parts up to `unit_size` bytes, or rows in a pool without images; None: a size that suits the pool.
    `named` are the columns in the recipe's expressions (lower case); an input's columns among them are supplied.
    `retries` lists rows to retry. They get units of their own after all others, so that the others keep their numbers.

    Raises RecipeError if a file is missing, no file of a source can be used, or the sources do not fit together.
    """
    embeddings = recipe.measure.embeddings
    sources = [(source, plan_source(source, embeddings, content)) for source in recipe.input]
    dimensions = _dimensions(recipe, sources)
    columns = [(source, kind) for source, planned in sources for kind in planned.columns]
    has_images = _has_images(columns)
    weights = (find_format(source).weight(part, has_images) for source, planned in sources for part in planned.parts)
    suited = group_size(sum(weights), UNITS, UNIT_BYTES if has_images else UNIT_ROWS)
    size = suited if unit_size is None else unit_size
    groups_of_parts = (_group(source, planned.parts, has_images, size) for source, planned in sources)
    units = PackedUnits(_number(chain.from_iterable(groups_of_parts)))
    listed = ids.digest([unit.key for unit in units])
    if retries:
        units = PackedUnits(_number(_with_retries(units, [source for source, _ in sources], retries, has_images, size)))
    looked_up = {join.on.lower() for source in recipe.input for join in source.join if join.on not in KEYS}
    groups, scores = find_score_groups(sources, {*named, *looked_up})
    rows = [part.rows for unit in units for part in unit.parts if not part.fault]
    pool = Pool(
        key=ids.digest([unit.key for unit in units]) if retries else listed,
        has_images=has_images,
        rows=None if None in rows else sum(n or 0 for n in rows),
        supplied=frozenset(name for _, kind in columns for name in kind.supplied),
        scores=scores,
        embeddings=dimensions,
        files=len({part.path for unit in units for part in unit.parts}),
        groups=groups,
        listed=listed,
        output=None if has_images else _output_schema([kind.schema for _, kind in columns]),
    )
    return Plan(units, pool)


def _dimensions(recipe: Recipe, sources: Planned) -> dict[str, int]:
    dimensions: dict[str, int] = {}
    for source, planned in sources:
        for name in (options.name for options in recipe.measure.embeddings):
            dimension = planned.dimensions.get(name)
            if dimension is None:
                problem = f"source {source.name!r} has format {source.format}, which supplies no embeddings"
                accepted = "Parquet sources; for other formats, use a model in measure.clip instead"
                raise RecipeError(f"measure.embeddings: {problem}; accepted: {accepted}")
            if dimensions.setdefault(name, dimension) != dimension:
                problem = f"has embeddings of {dimension} dimensions, but an earlier source has {dimensions[name]}"
                remedy = "accepted: embeddings from one model"
                raise RecipeError(f"measure.embeddings {name!r}: source {source.name!r} {problem}; {remedy}")
    return dimensions


def _has_images(columns: Sequence[tuple[Source, FileColumns]]) -> bool:
    images = [source.name for source, kind in columns if kind.has_images]
    imageless = [source.name for source, kind in columns if not kind.has_images]
    if images and imageless:
        has = "files without images" if imageless[0] in images else "no images"
        problem = f"source {images[0]!r} has images, but source {imageless[0]!r} has {has}"
        accepted = "only sources with images (tars, Parquet with an image column), or only Parquet without images"
        raise RecipeError(f"input: {problem}; accepted: {accepted}")
    return bool(images)


def _group(source: Source, parts: Iterable[InputPart], has_images: bool, size: int) -> Iterator[NamedParts]:
    def name(part: InputPart) -> str:
        return f"{part.path.rpartition('/')[2]} {part.groups}"

    kind = find_format(source)
    units = group(parts, lambda part: kind.weight(part, has_images), name, size)
    return ((source.name, parts_of_unit) for parts_of_unit in units)


def _number(units: Iterable[NamedParts]) -> Iterator[Unit]:
    return (Unit(index, source, parts) for index, (source, parts) in enumerate(units))


def _with_retries(
    units: Iterable[Unit], sources: Sequence[Source], retries: Retries, has_images: bool, size: int
) -> Iterator[NamedParts]:
    """Yield the units' parts without the rows to retry, then parts with these rows, round by round."""
    downloading = {source.name: (source, kind) for source in sources if (kind := find_downloading(source))}
    tried = {name: retries.by_list(name) for name in downloading}
    lists: dict[str, dict[str, InputPart]] = {name: {} for name in downloading}  # one part of each list with retries
    for unit in units:
        parts = list(unit.parts)
        if by_list := tried.get(unit.source):
            source, kind = downloading[unit.source]
            for index, part in enumerate(parts):
                key = kind.list_key(source, part)
                if key in by_list:
                    parts[index] = _leave_out(part, by_list[key])
                    lists[unit.source].setdefault(key, parts[index])
        yield unit.source, tuple(parts)
    for number in range(1, retries.rounds + 1):
        for name, (source, kind) in downloading.items():
            again: list[InputPart] = []
            for key, part in lists[name].items():
                table = tried[name][key]
                of_round = table.filter(pc.equal(table["round"], pa.scalar(number))).to_pydict()
                retry = Retry(number, *(tuple(of_round[column]) for column in ("row", "key", "attempts")))
                later = table.filter(pc.greater(table["round"], pa.scalar(number)))
                again += kind.retry_parts(source, part, retry, set(later.to_pydict()["row"]))
            yield from _group(source, again, has_images, size)


def _leave_out(part: InputPart, tried: pa.Table) -> InputPart:
    if part.groups is None or part.rows is None:
        return part
    first, stop = part.groups
    rows = np.unique(tried["row"].to_numpy())
    left_out = rows[np.searchsorted(rows, first) : np.searchsorted(rows, stop)] - first
    return replace(part, rows=part.rows - len(left_out), left_out=tuple(left_out.tolist())) if len(left_out) else part


def _output_schema(schemas: Sequence[pa.Schema]) -> pa.Schema:
    with reraised(RecipeError, "input: columns with the same name have different types", pa.ArrowException):
        plain = [pa.schema([(f.name, plain_type(f.type)) for f in columns if f.name != "uid"]) for columns in schemas]
        return pa.unify_schemas(plain or [pa.schema([])], promote_options="permissive")
