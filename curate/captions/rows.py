"""A unit's kept rows, and a caption section's requests for them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.numeric.arrays import F64, I64
from curate.captions.gates.gate import PASSED
from curate.captions.gates.text_columns import to_texts
from curate.captions.kinds.kind import ROWS
from curate.captions.settings import CaptionSettings
from curate.decide.rules.row_counts import RowFacts, count_columns, count_rows
from curate.expressions.check import check_count
from curate.llm.engine import Request
from curate.recipe.captions import MAX_PER_ROW, CaptionSection
from curate.recipe.section import Requested
from curate.store.tables import UnitTables


@dataclass(frozen=True)
class Rows(RowFacts):
    """A unit's kept rows, in order."""

    table: pa.Table  # uid, caption, language, sha256 (null where the pool has no images)
    sources: pa.Array  # string, texts that the next section starts from; null if there is none

    @classmethod
    def read(cls, tables: UnitTables, counts: I64 | None) -> "Rows":
        decisions = tables.read("decisions", ["kept", "probability"])
        kept = decisions["kept"].to_numpy()
        return cls.of(tables, np.flatnonzero(kept), counts, decisions["probability"].to_numpy()[kept])

    @classmethod
    def of(cls, tables: UnitTables, rows: I64, counts: I64 | None, probability: F64) -> "Rows":
        table = tables.read("samples", ["uid", "caption", "language", "sha256"]).take(rows).combine_chunks()
        entry_ids = None
        if counts is not None:
            entry_ids = tables.read("matches", ["entry_ids"])["entry_ids"].take(rows).combine_chunks()
        return cls(rows, probability, entry_ids, counts, table, pa.nulls(len(rows), pa.string()))

    def with_sources(self, texts: pa.Table, source: tuple[type[CaptionSection], str] | None) -> "Rows":
        """Return these rows with new sources: each row's first text of that kind and style that passed."""
        first: dict[str, str] = {}
        if source is not None:
            columns = (texts[name].to_pylist() for name in ("uid", "kind", "style", "text", "gate"))
            for uid, kind, style, text, gate in zip(*columns, strict=True):
                if (kind, style, gate) == (source[0].kind, source[1], PASSED):
                    first.setdefault(uid, text)
        return replace(self, sources=pa.array(map(first.get, to_texts(self.table["uid"])), pa.string()))

    def indices(self, uids: Sequence[str]) -> I64:
        """Return the index of each uid's row (int64). Raises ArrowInvalid for an unknown uid."""
        indices: pa.Array = pc.index_in(pa.array(uids, pa.string()), value_set=self.column("uid"))
        return indices.to_numpy(zero_copy_only=True).astype(np.int64)

    def column(self, name: str) -> pa.Array:
        return self.table[name].combine_chunks()


def make_requests(settings: CaptionSettings, tables: UnitTables, task: Requested, rows: Rows) -> list[Request]:
    """Return the requests of a section, by row."""
    counts = task.section.per_row
    if isinstance(counts, str):
        expression = check_count("per_row", counts, count_columns(settings.visible, settings.match is not None))
        counts = count_rows(expression, settings.visible, tables.read_measured, rows, MAX_PER_ROW)
    per_row = np.broadcast_to(np.asarray(counts, np.int32), len(rows.rows))
    table = rows.table.append_column("source", rows.sources).append_column("per_row", pa.array(per_row))
    return list(task.section.requests(table.select(ROWS.names).cast(ROWS), settings.seed))
