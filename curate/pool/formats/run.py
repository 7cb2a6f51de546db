"""Reads the kept rows of another run from its shards, with that run's measurements and decisions.

It reads only files that the run's manifest lists. A shard is a tar with a Parquet file of columns beside it, or, in a
pool without images, only a Parquet file. The columns with the run's decisions are renamed as in
`schema.INPUT_DECISIONS`. Other formats that take rows from a run (`Source.input_run`) read its Parquet files with
`list_kept` and `read_run`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.base.errors import CurateError, DamagedError, RecipeError
from curate.base.numeric.arrays import whole
from curate.base.process import process_cache
from curate.base.schema import INPUT_DECISIONS, INPUT_PROBABILITY, OWN_COLUMNS
from curate.base.wording import one_line
from curate.pool.formats import input_format as interface
from curate.pool.formats.found_files import FoundFiles
from curate.pool.formats.input_format import Batches, InputPart, PartRows, PlannedSource
from curate.pool.formats.missing import sidecar
from curate.pool.formats.parquet import ParquetInput, ParquetSource, rename, seen_names
from curate.pool.formats.webdataset import WebdatasetInput, WebdatasetSource
from curate.read.columns import Columns, score_type
from curate.read.errors import InputError
from curate.read.listing import InputFile, list_source
from curate.recipe.section import Column, UserPath
from curate.recipe.source import Source
from curate.store.facts import InputRunFacts, RunFacts, read_facts
from curate.store.layout import MANIFEST_FILE, RUN_FILE, SUCCESS_FILE
from curate.store.manifest import how_to_go_on, no_run, read_manifest
from curate.store.store import RunStore

SHA256 = "sha256:"  # the prefix of fingerprints that hash the content
_TARS, _PARQUET = WebdatasetInput(), ParquetInput()
# In the Parquet file beside a tar: img2dataset's facts about the download, which each sample's json repeats.
_DOWNLOAD = frozenset({"error_message", "original_width", "original_height", "exif"})


class RunSource(Source):
    """The kept rows of a finished run, with that run's scores and languages. No model has to run again.

    The first run is the run in `path`. Its table `decisions` records whether each row was kept. The columns above come
    from this table.

    - Rows keep their uids but not their embeddings.
    - In the shards, `probability` is the product of both runs' probabilities. In the same way, curate multiplies by the
      column `input_probability` of any other pool that has one. Null counts as 1.
    - curate reads each row once, even if the first run repeats it. To repeat it again, set
      `output: {repeat: input_repeats}`.
    """

    example: ClassVar[Any] = {"name": "first", "format": "run", "path": "run1"}
    gives = (
        Column("scores", "input_probability", "float64", "The row's `probability` in the first run's `decisions`."),
        Column("scores", "input_draw", "float64", "The row's `draw` in the first run's table `decisions`."),
        Column("scores", "input_repeats", "int32", "The row's `repeats` in the first run's `decisions`, if any."),
    )

    path: UserPath = Field(examples=["run1"])
    """Folder of the finished run."""

    @property
    def input_run(self) -> str:
        return self.path


@dataclass(frozen=True)
class KeptRows:
    """The kept rows of a finished run, and the names of its columns here."""

    source: Source
    store: RunStore
    facts: RunFacts
    column_names: dict[str, str]  # for a pool without images: the columns that its recipe names, by role

    @cached_property
    def names(self) -> dict[str, str]:
        """The decision columns: their names in the shards → their names here."""
        return {original: name for original, name in INPUT_DECISIONS.items() if original in self.facts.emitted}

    @property
    def columns(self) -> Columns:
        return Columns() if self.facts.pool.images else Columns.model_validate({"uid": "uid", **self.column_names})

    def files(self, suffix: str) -> dict[str, str]:
        try:
            lines = [line for line in read_manifest(self.store) if line.path.startswith("shards/")]
        except CurateError as error:
            raise self.source.error(error) from None
        return {line.path: line.sha256 for line in lines if line.path.endswith(suffix)}

    def parquet(self, path: str) -> ParquetSource:
        name, storage = self.source.name, self.source.storage
        source = ParquetSource(name=name, format=_PARQUET.key, path=path, storage=storage, columns=self.columns)
        source._names = self.names
        return source

    def shards(self, suffix: str) -> str:
        """Return the paths of all shards' files with a suffix. Raises RecipeError if there are none."""
        names = [path.removeprefix("shards/").removesuffix(suffix) for path in self.files(suffix)]
        names.sort(key=lambda name: (len(name), name))  # numbers may have six digits
        if not names:
            raise self.source.error(f"{self.source.input_run}: the run kept no sample")
        folder = f"{str(self.source.input_run).rstrip('/')}/shards"
        return f"{folder}/{names[0]}{suffix}" if len(names) == 1 else f"{folder}/{{{','.join(names)}}}{suffix}"

    def see_columns(self, columns: interface.FileColumns) -> interface.FileColumns:
        """Return what a shard's Parquet file supplies; the run's renamed decisions are among its scores."""
        names = columns.schema.names
        others = [name for name in columns.scores if name not in INPUT_DECISIONS.values()]
        scores = (*others, *(name for name in self.names.values() if name in names))
        nameable = tuple(name for name in columns.nameable if name in names and name not in scores)
        return replace(columns, scores=scores, nameable=nameable)

    def check_probability(self, columns: Iterable[interface.FileColumns]) -> None:
        """Raise RecipeError if the run drew its rows at random, but no column has their probabilities."""
        drew = any(self.facts.recipe.get(name) for name in ("balance", "sample"))
        drew = drew or INPUT_PROBABILITY in self.facts.pool.scores  # an earlier stage did
        if drew and not any(INPUT_PROBABILITY in kind.schema.names for kind in columns):
            problem = "the run drew its rows at random, but its shards have no probabilities"
            cause = "its output.columns does not list `probability`, or its input already has a column of that name"
            accepted = "accepted: a run whose shards have the column `probability`"
            raise self.source.error(f"{self.source.input_run}: {problem}: {cause}; {accepted}")


class RunInput(interface.InputFormat):
    """The kept rows of a finished run of curate."""

    key = "run"
    section = RunSource
    has_members = True  # if the run has images

    def plan(self, source: RunSource, embeddings: interface.Embeddings, content: bool) -> PlannedSource:
        """List the shards. Raises RecipeError if the run is unfinished, kept nothing, or has no probabilities."""
        run = _open(source)
        if run.facts.pool.images:
            planned = _plan_tars(source, run, content)
        else:
            planned = _PARQUET.plan(run.parquet(run.shards(".parquet")), embeddings, content)
            planned = replace(planned, columns=tuple(map(run.see_columns, planned.columns)))
        run.check_probability(planned.columns)
        return planned

    def recognize(self, listed: FoundFiles) -> interface.Recognized | None:
        if not listed.is_folder or not listed.exists(f"{listed.path}/{RUN_FILE}"):
            return None
        template = "basic" if listed.exists(f"{listed.path}/shards/00000.tar") else "texts"
        return interface.Recognized({"path": listed.path}, len(listed.names), template)

    def read(self, source: RunSource, part: InputPart, scores: pa.Schema, output: pa.Schema | None) -> Batches:
        run = read_run(source)
        if part.path.endswith(".tar"):
            return _read_tar(source, part, run, scores)
        return _PARQUET.read(run.parquet(part.path), part, scores, output)

    def reread(self, source: RunSource, part: InputPart, rows: PartRows) -> Iterator[interface.InputSample]:
        return _TARS.reread(_tars(source, part.path), part, rows)

    def reread_images(self, source: RunSource, part: InputPart, rows: PartRows) -> Iterator[bytes | None]:
        return _TARS.reread_images(_tars(source, part.path), part, rows)

    def reread_table(self, source: RunSource, part: InputPart, rows: PartRows, output: pa.Schema) -> pa.Table:
        return _PARQUET.reread_table(read_run(source).parquet(part.path), part, rows, output)

    def missing_column(self, source: RunSource, name: str) -> str:
        try:
            run = read_run(source)
            columns = run.store.schema(next(iter(run.files(".parquet")))).names
            return f"the columns of its shards: {', '.join(seen_names(columns, run.names))}"[:300]
        except (CurateError, OSError, pa.ArrowException, StopIteration):
            return ""

    def url_column(self, source: RunSource, output: pa.Schema) -> str | None:
        """Return the URL column in the run's recipe, if the run still exists."""
        try:
            return _PARQUET.url_column(read_run(source).parquet(source.path), output)
        except (CurateError, OSError):
            return super().url_column(source, output)


def read_input_runs(sources: Iterable[Source]) -> dict[str, InputRunFacts]:
    """Return the facts about each source that is a run, by name."""
    runs = {source.name: _open(source) for source in sources if source.input_run}
    names = ("name", "identity", "rows", "kept")
    return {
        source: InputRunFacts(column_names=run.column_names, **{name: getattr(run.facts, name) for name in names})
        for source, run in runs.items()
    }


def list_kept(source: Source) -> list[InputFile]:
    """Return the Parquet files in a run's shards, fingerprinted by content, for other formats.

    Raises RecipeError if the run has images, is not finished, kept nothing, or lacks a shard.
    """
    run = _open(source)
    if run.facts.pool.images:
        problem = "the run has images; accepted: a run without images, such as one over URLs with format: parquet"
        remedy = "to read its images, use format: run; to read its URLs, use a path such as RUN/shards/*.parquet"
        raise source.error(f"{source.input_run}: {problem}; {remedy}")
    files, digests = list_source(run.parquet(run.shards(".parquet")), False), run.files(".parquet")
    return [replace(file, fingerprint=f"{SHA256}{digests[_name_of(file.path)]}") for file in files]


def _name_of(path: str) -> str:
    return f"shards/{path.rpartition('/')[2]}"


def _open(source: Source) -> KeptRows:
    """Raises RecipeError, which names the source, if the run is not finished."""
    store, url = RunStore(str(source.input_run), source.storage), str(source.input_run)
    try:
        if not store.exists(RUN_FILE):
            raise no_run(store, url)
        if missing := [name for name in (SUCCESS_FILE, MANIFEST_FILE) if not store.exists(name)]:
            remedy = how_to_go_on(store, url)
            raise RecipeError(f"{url}: this run is not finished (missing: {', '.join(missing)}); {remedy}")
        return read_run(source)
    except CurateError as error:
        raise source.error(error) from None


def read_run(source: Source) -> KeptRows:
    """Return a source's run; a process reads its run.json once."""
    store = RunStore(str(source.input_run), source.storage)
    of_run = f"run {store.url} "
    facts = process_cache(f"{of_run}{store.state(RUN_FILE)}", partial(read_facts, store), replaces=of_run)
    return KeptRows(source, store, facts, {} if facts.pool.images else _named_columns(store.url, facts))


def _tars(source: RunSource, path: str) -> WebdatasetSource:
    return WebdatasetSource(name=source.name, format=_TARS.key, path=path, storage=source.storage)


def _plan_tars(source: RunSource, run: KeptRows, content: bool) -> PlannedSource:
    planned = _TARS.plan(_tars(source, run.shards(".tar")), (), content)
    if alone := [part.path for part in planned.parts if not part.listing_fingerprint]:
        raise source.error(f"{sidecar(alone[0])}: no such file; `curate verify {source.path}` lists all missing files")
    columns = rename(run.store.schema(sidecar(_name_of(planned.parts[0].path))).empty_table(), run.names).schema
    fields = [f for f in columns if f.name.lower() not in OWN_COLUMNS | _DOWNLOAD]
    scores = pa.schema([field for field in fields if score_type(field.type) is not None])
    supplied = frozenset({"language"} & set(columns.names))
    return replace(planned, columns=(interface.FileColumns(True, scores, supplied, tuple(scores.names)),))


def _read_tar(source: RunSource, part: InputPart, run: KeptRows, scores: pa.Schema) -> Iterator[interface.Batch]:
    # in a run's shard, every listed sample is in the tar
    name, alone = sidecar(_name_of(part.path)), replace(part, listing_fingerprint="")
    try:
        stored = seen_names(run.store.schema(name).names, run.names)
        wanted = dict.fromkeys(stored[column] for column in ("key", "language", *scores.names) if column in stored)
        table = rename(run.store.read_parquet(name, list(wanted)), run.names)
    except (DamagedError, pa.ArrowException) as error:
        raise InputError("unreadable", one_line(error, 300)) from None
    for batch in _TARS.read(_tars(source, part.path), alone, pa.schema([]), None):
        positions = pc.index_in(batch.columns["key"], whole(table["key"]))
        if positions.null_count:
            lost = batch.columns["key"].filter(pc.is_null(positions))[0]
            raise InputError("unreadable", f"{run.store.path(name)}: has no row for sample {one_line(lost)!r}")
        rows = table.take(positions)
        languages = {"language": whole(rows["language"])} if "language" in stored else {}
        supplied = {column: rows[column] for column in scores.names if column in stored}
        yield replace(batch, columns=batch.columns | languages, scores=supplied)


def _named_columns(url: str, facts: RunFacts) -> dict[str, str]:
    """Return the columns that a run's sources name, by role. Raises RecipeError if sources name different ones."""
    named = []
    for source in facts.recipe["input"]:
        before = (facts.input_runs or {}).get(source["name"])
        named.append(before.column_names if before else source.get("columns") or {})
    roles: dict[str, str] = {}
    for part in sorted(Columns.model_fields.keys() - {"uid", "image", "scores"}):
        name, *others = {columns.get(part) for columns in named}
        if others:
            names = ["a column that curate finds by its name" if n is None else repr(n) for n in (name, *others)]
            problem = f"its inputs have the {part} in different columns ({' and '.join(sorted(names))})"
            raise RecipeError(f"{url}: {problem}; accepted: runs whose inputs name the same column")
        roles |= {} if name is None else {part: name}
    return roles
