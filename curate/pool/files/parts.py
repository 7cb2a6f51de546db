"""The rows of parts, in files: what a unit's element would be too small for.

In: batches of PLANNED. Out: parts of consecutive rows, some megabytes of images, each with a Parquet file of its rows
that is named by the part's fingerprint: of names, sizes, versions, and all that tables say. The process that plans has
these files; it puts them into the run's folder for all others (`share_rows`), until the run ends.
"""

import json
import os
import shutil
import tempfile
from atexit import register
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.base import ids, schema
from curate.base.numeric.arrays import whole
from curate.base.process import at_interrupt, in_threads
from curate.pool.files.captions import JoinedFiles
from curate.pool.files.listing import FileTree
from curate.pool.formats.grouping import group, group_size
from curate.pool.formats.input_format import InputPart, Places
from curate.read.listing import InputFile
from curate.recipe.source import Source
from curate.store.layout import LISTS
from curate.store.store import RunStore

ROW_BYTES = 1 << 14  # that a row counts for besides its image
PART_BYTES = (1 << 10, 1 << 28)  # of parts in small and in large sources
_PARTS = 64  # small sources are cut into about as many
_ABOUT = "curate"  # what is stated of a part besides its rows
_IDENTITY = ("name", "size", "fingerprint", "status", "text", "text_size", "text_fingerprint", "digest", "other")


@dataclass(frozen=True)
class PartFiles:
    """The rows of a part."""

    root: str  # what names count from
    rows: pa.Table  # PLANNED without `other` and `digest`; `fields` from tables
    others: dict[str, int]  # how many files between them are no rows, by suffix

    def take(self, places: Places) -> "PartFiles":
        """Return some rows, by their numbers."""
        return replace(self, rows=self.rows.take(places))

    @property
    def images(self) -> list[InputFile | None]:
        """Each row's image, as it was listed; None where there is none that may be read."""
        return self._files("name", "size", "fingerprint")

    @property
    def texts(self) -> list[InputFile | None]:
        """The file with each row's caption; None where a table has it, or the row failed."""
        return self._files("text", "text_size", "text_fingerprint")

    @property
    def table(self) -> pa.Table | None:
        """What tables say of each row; None without any."""
        if "fields" not in self.rows.column_names:
            return None
        fields = whole(self.rows["fields"])
        return pa.table(fields.flatten(), names=[field.name for field in fields.type])

    def _files(self, *names: str) -> list[InputFile | None]:
        columns = (self.rows[name].to_pylist() for name in ("status", *names))
        root = self.root.rstrip("/")
        return [
            InputFile(f"{root}/{name}", size, fingerprint) if status == schema.OK and name is not None else None
            for status, name, size, fingerprint in zip(*columns, strict=True)
        ]


def make_parts(source: Source, tree: FileTree, joined: JoinedFiles) -> Iterator[InputPart]:
    """Yield the parts of a source, and write their rows into files of this process."""
    waiting: deque[pa.Table] = deque()
    size = group_size(joined.weight, _PARTS, PART_BYTES)

    def items() -> Iterator[tuple[int, str]]:
        for batch in joined.batches():
            waiting.append(pa.table(batch))
            weights = pc.if_else(batch["other"].is_valid(), 0, pc.add(batch["size"].fill_null(0), ROW_BYTES))
            yield from zip(weights.to_pylist(), batch["name"].to_pylist(), strict=True)

    for some in group(items(), lambda item: item[0], lambda item: item[1], size):
        rows = _take(waiting, len(some))
        fingerprint = ids.table_digest(rows.select(_IDENTITY))
        others = Counter(rows["other"].drop_null().to_pylist())
        rows = rows.filter(rows["other"].is_null()).drop_columns(["other", "digest"])
        about = {_ABOUT: json.dumps({"root": tree.full_path(""), "others": others})}
        pq.write_table(rows.replace_schema_metadata(about), f"{_folder()}/{_name(source, fingerprint)}")
        first = next((row["name"] for row in rows.slice(0, 1).to_pylist() if row["status"] == schema.OK), "")
        total = pc.sum(rows["size"]).as_py() or 0
        yield InputPart(tree.full_path(first), total, fingerprint, rows=len(rows))


def _take(waiting: deque[pa.Table], count: int) -> pa.Table:
    """Return the first rows of tables, which have at least so many, and leave the rest."""
    taken = []
    while count:
        table = waiting.popleft()
        if len(table) > count:
            waiting.appendleft(table.slice(count))
            table = table.slice(0, count)
        taken.append(table)
        count -= len(table)
    return pa.concat_tables(taken)


def read_rows(source: Source, part: InputPart, run: str) -> PartFiles:
    """Return the rows of a part, which this process has planned, or which are in the run's folder. Raises OSError."""
    name = _name(source, part.fingerprint)
    planned = f"{_folder()}/{name}"
    if os.path.exists(planned):
        table = pq.read_table(planned, use_threads=False)
    else:
        table = RunStore(run).read_parquet(f"{LISTS}/{name}")
    about = json.loads(table.schema.metadata[_ABOUT.encode()])
    return PartFiles(about["root"], table, about["others"])


def share_rows(source: Source, parts: Sequence[InputPart], run: RunStore) -> None:
    """Put the rows of parts into the run's folder, for all processes. Raises OSError."""

    def put(name: str) -> None:
        with open(f"{_folder()}/{name}", "rb") as planned, run.create(f"{LISTS}/{name}") as file:
            shutil.copyfileobj(planned, file, 1 << 20)

    deque(in_threads(put, {_name(source, part.fingerprint) for part in parts}), 0)


def _name(source: Source, fingerprint: str) -> str:
    return f"{ids.digest([source.name, fingerprint])}.parquet"


@cache
def _folder() -> str:
    folder = tempfile.mkdtemp(prefix="curate-files-")
    remove = partial(shutil.rmtree, folder, ignore_errors=True)
    register(remove)
    at_interrupt(remove)
    return folder
