"""The settings for emitting, and the keys of shards."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curate.base import ids
from curate.base.process import CORES, Cache
from curate.base.schema import INPUT_PROBABILITY
from curate.base.stages import VERSIONS
from curate.captions.mix import EmittedTexts, emitted_texts
from curate.captions.settings import CaptionSettings
from curate.decide.settings import decisions_key
from curate.emit.columns import EmittedColumns, find_emitted, read_kept, read_kept_samples
from curate.emit.layout import Shard, Slice
from curate.pool.plan import Pool, Unit
from curate.pool.reread import UnitRereader
from curate.recipe.captions import Captions
from curate.recipe.output import OUTPUTS, Output
from curate.recipe.source import Source, find_source
from curate.run.context import RunContext, StepSettings
from curate.store.store import RunStore
from curate.store.table_file import TableFile
from curate.store.tables import OpenTables, UnitTables

_SYN_JSON = 2  # increase it when syn.json changes


@dataclass(frozen=True)
class EmitSettings(StepSettings):
    """The settings for emitting."""

    store: RunStore
    sources: tuple[Source, ...]
    pool: Pool
    output: Output
    decisions_key: str
    captioning: Any  # determines the captions; None without captions
    text_tables: tuple[str, ...]  # tables with texts in this run
    captions: Captions | None
    seed: int
    emitted: EmittedColumns  # columns of samples, scores and decisions besides the fixed ones
    derived: tuple[str, ...]  # derived columns
    fields: pa.Schema = field(default_factory=lambda: pa.schema([]))  # fields of the samples' json in the Parquet files
    # Rows and values of units in progress: two per shard if one unit ends and the next begins
    recent: Cache[pa.Table] = field(default_factory=lambda: Cache(4 * CORES), compare=False)
    decided: Cache[TableFile] = field(default_factory=lambda: Cache(4 * CORES + 2), compare=False)
    named: Cache[list[str | None]] = field(default_factory=lambda: Cache(1 << 16), compare=False)  # see `_names_of`

    @classmethod
    def of(cls, context: RunContext) -> "EmitSettings":
        captions = context.recipe.captions
        return cls(
            store=context.store,
            sources=context.sources,
            pool=context.pool,
            output=context.recipe.output,
            decisions_key=decisions_key(context),
            captioning=CaptionSettings.of(context).key_fields if captions else None,
            text_tables=(() if captions is None else ("captions", "regions") if captions.regions else ("captions",)),
            captions=captions,
            seed=context.recipe.seed,
            emitted=find_emitted(context),
            derived=tuple(context.recipe.derive),
        )

    @property
    def key(self) -> str:
        """The key of all shards, without `fields`, which are known later."""
        package = OUTPUTS.package(self.output.format) if self.output.format else None
        has_syn_json = self.captions and self.captions.output.syn_json
        texts = filter(None, [self.captioning, _SYN_JSON if has_syn_json else None, package])
        return ids.digest([VERSIONS["emit"], self.decisions_key, self.output.model_dump(), *texts])

    def decisions(self, unit: Unit) -> TableFile:
        """Return the parts of a unit's decisions that shards need, read once for all shards with its rows."""

        def read() -> TableFile:
            with self.store.open_parquet(self.tables(unit).file("decisions")) as file:
                needed = {"kept", *self.emitted.parquet, *self.emitted.json}
                file.read([name for name in file.names if name in needed])  # cached
                return file

        return self.decided.get(unit.index, read)

    def open_tables(self, unit: Unit) -> OpenTables:
        tables = OpenTables(self.store, unit.index, last=unit.last, _files={"decisions": self.decisions(unit)})
        self._names_of(unit, tables)
        return tables

    def shard_key(self, shard: Shard) -> str:
        """Return the key of one shard, which includes its units' decisions and texts, because reads may have failed."""
        names = [self._names_of(part.unit) for part in shard.slices]
        decided, texts = [key for key, *_ in names], [text for _, *of_unit in names for text in of_unit]
        fields = [[column.name, str(column.type)] for column in self.fields]
        return ids.digest([self.key, fields, shard.index, decided, *texts])

    def _names_of(self, unit: Unit, tables: OpenTables | None = None) -> list[str | None]:
        """Return the identities of a unit's decisions and text tables, from its tables if these are open."""

        def read() -> list[str | None]:
            texts = [(tables or self.tables(unit)).note(name)["content"] for name in self.text_tables]
            return [self.decisions(unit).key, *texts]

        return self.named.get(unit.index, read)

    def reader(self, unit: Unit, tables: UnitTables) -> UnitRereader:
        """Return a reader for rows of a unit; here and below, `tables` are the unit's."""
        return UnitRereader(unit, find_source(self.sources, unit.source), tables)

    def kept_rows(self, part: Slice, tables: UnitTables, columns: list[str]) -> pa.Table:
        rows = self.recent.get((part.unit.index, *columns), lambda: read_kept_samples(tables, columns))
        return rows.slice(part.first, part.count)

    def kept_values(self, part: Slice, tables: UnitTables, columns: tuple[str, ...]) -> pa.Table:
        """Return columns of `samples`, `scores` and `decisions` for a slice's rows."""
        name, was_drawn = (part.unit.index, "values", *columns), INPUT_PROBABILITY in self.pool.scores.names
        values = self.recent.get(name, lambda: read_kept(tables, columns, self.derived, was_drawn))
        return values.slice(part.first, part.count)

    def texts_to_emit(self, tables: UnitTables, uids: Sequence[str], captions: Sequence[str]) -> list[EmittedTexts]:
        """Return the texts for rows with these uids and original captions, as the shards have them."""
        return emitted_texts(self.captions, self.seed, tables, uids, captions)
