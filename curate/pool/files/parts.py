"""The rows of parts, in Parquet files that the parts' fingerprints name, since a unit's element is too small for names.

They are this process's; the run's folder has copies for all others, until the run ends. Adding a file changes the parts
near its name alone.
"""

import json
import os
import shutil
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.base import ids
from curate.base.numeric.arrays import whole
from curate.base.process import in_threads, process_folder
from curate.base.schema import OK
from curate.pool.formats.grouping import group, group_size
from curate.pool.formats.input_format import InputPart, Places
from curate.read.listing import InputFile
from curate.recipe.source import Source
from curate.store.layout import LISTS
from curate.store.store import RunStore

ROW_BYTES = 1 << 14  # that a row counts for besides its image
PART_BYTES = (1 << 10, 1 << 28)  # of parts in small and in large sources
_PARTS = 64  # small sources are cut into about as many
_BATCH, _ABOUT = 1 << 14, b"curate"


class PartFiles:
    """The rows of a part, and the files that they are of."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows, about = rows, json.loads(rows.schema.metadata[_ABOUT])
        self.root: str = about["root"]  # the folder that names count from
        self.others: dict[str, int] = about["others"]  # files that are no rows, by suffix
        fields: Any = whole(rows["fields"]) if "fields" in rows.column_names else None
        # What tables say of each row; None without any
        self.table = None if fields is None else pa.table(fields.flatten(), names=[f.name for f in fields.type])

    def files(self, kind: str = "") -> list[InputFile | None]:
        """Return each row's image, or with `text_` the file of its caption, as listed; None where the row failed."""
        names = "status", kind.rstrip("_") or "name", f"{kind}size", f"{kind}fingerprint"
        return [
            InputFile(f"{self.root}/{name}", size, fingerprint) if status == OK and name else None
            for status, name, size, fingerprint in zip(*(self.rows[name].to_pylist() for name in names), strict=True)
        ]


def make_parts(source: Source, root: str, database: Any) -> Iterator[InputPart]:
    """Yield the parts of a source, and write their rows."""
    waiting: list[pa.Table] = []  # rows that are in no part yet
    weight = database.execute(
        f"SELECT sum(coalesce(size, 0) + coalesce(text_size, 0) + {ROW_BYTES})::BIGINT FROM rows"
    ).fetchall()[0][0]

    def items() -> Iterator[tuple[int, str]]:
        for batch in database.sql("FROM rows ORDER BY name, number").to_arrow_reader(_BATCH):
            waiting.append(pa.table(batch))
            sizes = pc.add(batch["size"].fill_null(0), batch["text_size"].fill_null(0))
            weights = pc.if_else(batch["other"].is_valid(), 0, pc.add(sizes, ROW_BYTES))
            yield from zip(weights.to_pylist(), batch["name"].to_pylist(), strict=True)

    limit = group_size(weight, _PARTS, PART_BYTES)
    for items_of_part in group(items(), lambda item: item[0], lambda item: item[1], limit):
        table = pa.concat_tables(waiting)
        waiting[:] = [table.slice(len(items_of_part))]
        rows = table.slice(0, len(items_of_part)).drop_columns(["number"])
        fingerprint = ids.digest(rows.to_pylist())
        others = Counter(rows["other"].drop_null().to_pylist())
        about = json.dumps({"root": root, "others": others})
        rows = rows.filter(rows["other"].is_null()).replace_schema_metadata({_ABOUT: about})
        pq.write_table(rows, f"{process_folder()}/{_name(source, fingerprint)}")
        first = next(filter(None, PartFiles(rows.slice(0, 1)).files()), None)
        path, size = first.path if first else root, pc.sum(rows["size"]).as_py() or 0
        yield InputPart(path, size, fingerprint, rows=len(rows))


def read_part(source: Source, part: InputPart, run: str, positions: Places | None = None) -> PartFiles:
    """Return rows of a part, up to its limit or at `places`; this process planned it, or a run's folder has them.

    Raises OSError.
    """
    name = _name(source, part.fingerprint)
    planned = f"{process_folder()}/{name}"
    with open(planned, "rb") if os.path.exists(planned) else RunStore(run).open(f"{LISTS}/{name}") as file:
        rows = pq.read_table(file, use_threads=False)
    return PartFiles(rows.slice(0, part.limit) if positions is None else rows.take(positions))


def share_parts(source: Source, parts: Sequence[InputPart], run: RunStore) -> None:
    """Put the rows of parts into the run's folder. Raises OSError."""

    def put(name: str) -> None:
        with open(f"{process_folder()}/{name}", "rb") as rows, run.create(f"{LISTS}/{name}") as file:
            shutil.copyfileobj(rows, file, 1 << 20)

    deque(in_threads(put, {_name(source, part.fingerprint) for part in parts}), 0)


def _name(source: Source, fingerprint: str) -> str:
    return f"{ids.digest([source.name, fingerprint])}.parquet"
