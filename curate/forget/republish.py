"""Writes a published run again without the samples that its record names; whatever is done already stays as it is."""

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa

from curate.decide import balance
from curate.forget.clear import clear_unit
from curate.forget.shards import count_shards, find_shards, rewrite_shard
from curate.pool.plan import Unit
from curate.publish.audit import all_failures, audit_unit, check_conservation, count_drops
from curate.publish.describe import describe_run
from curate.publish.settings import PublishSettings
from curate.publish.uids import write_uids
from curate.run.opened import open_context
from curate.schema import KEPT
from curate.store.facts import read_facts
from curate.store.items import Items
from curate.store.layout import ENTRIES_FILE, FAILURES_FILE, SIZES_FILE
from curate.store.manifest import Published, digest_file, read_manifest
from curate.store.store import RunStore
from curate.store.tables import UnitTables


def republish(folder: RunStore, items: Items, touched: Sequence[Unit] | None) -> None:
    """Take the items' samples out of all files, and describe the run again, with `_SUCCESS` last.

    Args:
        folder: the run folder, without `_SUCCESS`.
        items: what its record holds.
        touched: the units that hold rows to clear; None: unknown, so that all are read, and all files digested again.
    """
    context, units = open_context(folder)
    settings = PublishSettings.of(context)
    rewritten = [
        file
        for unit in (units if touched is None else touched)
        for file in clear_unit(settings.tables(unit), items, settings.table_names)
    ]
    for name in find_shards(folder, items):
        rewritten += rewrite_shard(folder, name, items)
    count_shards(folder)
    audits = [audit_unit(settings, unit) for unit in units]
    counted = check_conservation(audits, sum(folder.read_json(SIZES_FILE).values()))
    failures = all_failures(audits)
    if not failures.equals(folder.read_parquet(FAILURES_FILE)):
        folder.write_parquet(FAILURES_FILE, failures)
    all_tables = [settings.tables(unit) for unit in units]
    write_uids(folder, all_tables, counted[KEPT])
    if "matches" in settings.table_names:
        _count_entries(folder, all_tables)
    facts = read_facts(folder)
    left = {stage.name: counted.get(stage.name, 0) for stage in facts.stages(True)}
    digests = _digest(folder, None if touched is None else set(rewritten))
    describe_run(folder, facts.changed(counts=left), digests, count_drops(audits))


def _count_entries(folder: RunStore, all_tables: Sequence[UnitTables]) -> None:
    """Count the kept rows of each entry again; the rest of entries.parquet says how the run decided, and stays."""
    entries = folder.read_parquet(ENTRIES_FILE)
    kept = np.zeros(len(entries), np.int64)
    for tables in all_tables:
        matches = tables.read("matches", ["entry_ids"])["entry_ids"].combine_chunks()
        is_kept = tables.read("decisions", ["kept"])["kept"].to_numpy().astype(np.int64)
        kept += balance.entry_sums(matches, is_kept, len(entries)).astype(np.int64)
    place = entries.column_names.index("kept")
    counted = entries.set_column(place, entries.schema.field(place), pa.array(kept))
    if not counted.equals(entries):
        folder.write_parquet(ENTRIES_FILE, counted)


def _digest(folder: RunStore, rewritten: Collection[str] | None) -> list[Published]:
    """Return the manifest's lines of tables and shards, digesting only the files that were rewritten; None: all."""
    lines = [
        line
        for line in read_manifest(folder)
        if line.path.startswith(("tables/", "shards/")) and line.path != SIZES_FILE
    ]
    sizes = folder.read_json(SIZES_FILE)
    return [
        line
        if rewritten is not None and line.path not in rewritten
        else digest_file(folder, line.path, sizes.get(line.path.removeprefix("shards/"), line.rows))
        for line in lines
    ]
