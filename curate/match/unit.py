"""Writes a unit's table `matches`: the metadata entries in each caption.

In: `samples.caption`, `language`, `status`. Out: `entry_ids` list<int32>, ascending, empty if the sample could not be
read. If texts are matched by language, also `language_key`, the key of the entries they are matched with.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids, schema
from curate.base.numeric.arrays import whole
from curate.base.process import process_cache
from curate.base.stages import VERSIONS
from curate.match.languages import keys_of, languages_digest
from curate.match.matcher import Matcher, compile_kernels, open_matcher
from curate.pool.plan import Unit
from curate.recipe.recipe import REFERENCE
from curate.run.context import RunContext
from curate.run.units import Units
from curate.store.layout import ENTRIES_FILE, METADATA_FILE
from curate.store.store import RunStore
from curate.store.tables import OpenTables, UnitTables
from curate.store.timings import time_step

_COLUMNS = ["entry", "source", "language"]
NO_ENTRY = "\0"  # for lines of the list that are not entries: no caption contains it


@dataclass(frozen=True)
class MatchSettings:
    """The settings for matching."""

    store: RunStore  # the run folder with the entries
    metadata_key: str  # digest of the entries
    mode: str  # of `match`

    @classmethod
    def of(cls, context: RunContext) -> "MatchSettings":
        assert context.recipe.match is not None
        return cls(context.store, context.metadata_key, context.recipe.match.mode)

    def key(self, samples_key: str | None) -> str:
        """Return the key of `matches` from that of the unit's `samples`; empty if `samples` has none and may change."""
        by_language = [languages_digest()] if self.mode != REFERENCE else []
        parts = [VERSIONS["match"], samples_key, self.metadata_key, self.mode, *by_language]
        return ids.digest(parts) if samples_key else ""


class Languages(NamedTuple):
    """The languages of entries."""

    names: list[str]  # in the order of first appearance
    codes: npt.NDArray[np.int32]  # index of each entry's language in `names`


@dataclass(frozen=True)
class Entries:
    """The metadata of a run, loaded."""

    table: pa.Table  # entry, source, language (string); an entry's id is its row, other rows have NO_ENTRY

    @classmethod
    def of(cls, metadata: pa.Table) -> Self:
        entry_ids = metadata["entry_id"].to_numpy()
        rows = np.full(int(entry_ids.max(initial=-1)) + 1, -1)
        rows[entry_ids] = np.arange(len(entry_ids))
        if len(rows) == len(entry_ids):
            return cls(metadata.select(_COLUMNS))
        table = metadata.select(_COLUMNS).combine_chunks().take(pa.array(rows, mask=rows < 0))
        return cls(pa.table([whole(column).fill_null(NO_ENTRY) for column in table.columns], names=_COLUMNS))

    @cached_property
    def keys(self) -> npt.NDArray[np.uint64]:
        """`ids.entry_keys` of the entries, without languages, because no text matches entries of two languages."""
        return ids.entry_keys(whole(self.table["entry"]))

    @cached_property
    def languages(self) -> Languages:
        column = whole(self.table["language"]).dictionary_encode()
        return Languages([str(name) for name in column.dictionary.to_pylist()], column.indices.to_numpy())


def load_entries(settings: MatchSettings) -> Entries:
    """Return the metadata, loaded once per process. That of a finished run comes from its table `entries`."""

    def load() -> Entries:
        file = METADATA_FILE if settings.store.exists(METADATA_FILE) else ENTRIES_FILE
        return Entries.of(settings.store.read_parquet(file, ["entry_id", *_COLUMNS]))

    # Only one run's entries are cached, to save memory.
    return process_cache(f"entries {settings.metadata_key}", load, replaces="entries ")


def keep_entries(metadata_key: str, metadata: pa.Table) -> None:
    """Cache a run's metadata, which this process has read, for `load_entries`."""
    process_cache(f"entries {metadata_key}", lambda: Entries.of(metadata), replaces="entries ")


def load_matcher(settings: MatchSettings) -> Matcher:
    """Return the matcher of the run's metadata, opened once per process and built once per machine."""

    def load() -> Matcher:
        return open_matcher(settings.metadata_key, settings.mode, lambda: load_entries(settings).table)

    return process_cache(f"matcher {settings.metadata_key} {settings.mode}", load, replaces="matcher ")


def match_unit(settings: MatchSettings, tables: UnitTables) -> None:
    """Write the unit's `matches` unless they are current; its `samples` must exist."""
    key = settings.key(tables.key("samples"))
    if key and tables.is_done("matches", key):
        return
    samples = tables.read("samples", ["unit", "row", "uid", "caption", "language", "status"])
    readable = pc.equal(samples["status"], pa.scalar(schema.OK))
    texts = pc.if_else(readable, samples["caption"], pa.scalar(None, pa.string()))
    matcher = load_matcher(settings)
    matched = samples.select(["unit", "row", "uid"])
    table = matched.append_column("entry_ids", matcher.match(texts, samples["language"])).cast(schema.MATCHES)
    if settings.mode != REFERENCE:
        table = table.append_column(schema.LANGUAGE_KEY, keys_of(samples["language"], matcher.keys))
    tables.write("matches", table, key)


def read_matches(tables: UnitTables) -> pa.ListArray:
    """Return the entry ids of all rows of a unit (list<int32>)."""
    matches = whole(tables.read("matches", ["entry_ids"])["entry_ids"])
    assert isinstance(matches, pa.ListArray)
    return matches


def match(units: Units, context: RunContext) -> None:
    """Write `matches` of each measured unit; captions that were just measured are still in memory."""
    units.then("Match", _match, MatchSettings.of(context))


def _match(tables: OpenTables, unit: Unit, settings: MatchSettings) -> Unit:
    compile_kernels()
    with time_step(settings.store, "match", unit.name) as timer:
        match_unit(settings, tables)
        timer.rows, timer.idle = tables.rows(), "matches" not in tables.written
    return unit
