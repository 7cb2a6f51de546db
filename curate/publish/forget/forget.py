"""Removes samples from a published run.

In: a run folder and a list of items. Out: the folder without the rows that the items name, and without rows that are
linked to them. A row is linked if it has the same uid, URL or image (also as an attachment of a published sample), or
was dropped as a duplicate of such a row. Only files with such rows are rewritten. The record has no perceptual hashes,
because they show what an image looks like.

If this process is killed, no reader treats the folder as finished, and the request can be completed. First, a mark is
written to `tmp/` and `_SUCCESS` is deleted. Then the record is written. The record has the whole request, and every
step can be repeated. `curate run` of the folder's recipe completes the request too, because the record blocks its
items.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from curate.base.errors import RecipeError, RunError
from curate.base.numeric.arrays import whole
from curate.decide.draw.entry_sums import sparse_sums
from curate.pool.plan import Unit
from curate.publish.audit import Audit, PublishSettings, audit_unit, check_conservation, write_failures
from curate.publish.describe import describe_run, mark_published
from curate.publish.forget.clear import clear_unit
from curate.publish.forget.rows import Survey, count_shards, find_shards, link_items, rewrite_shard, survey
from curate.publish.uids import sort_uids
from curate.recipe.source import find_source
from curate.run.context import open_context
from curate.run.in_process import InProcessUnits
from curate.store import layout
from curate.store.facts import ForgottenFacts, read_facts
from curate.store.forgotten import Record, origins
from curate.store.items import KINDS, NOTHING, Items
from curate.store.lock import clear_tmp, locked
from curate.store.manifest import Lines, digest_file, no_run, read_manifest
from curate.store.store import RunStore
from curate.store.tables import UnitTables

_UIDS = 4_000_000  # number of uids to sort at a time: 64 MB


@dataclass(frozen=True)
class Forgotten:
    """The result of a request, or what it would change."""

    requested: int  # number of items in the request
    already_recorded: int  # how many of them the record already had
    absent: Items  # items that match no row of the pool
    rows: Survey  # rows of the pool that the items match, and rows that are linked to them
    shards: tuple[str, ...]  # shards that have published samples among these rows
    has_images: bool  # whether the pool has images; otherwise, a sha256 matches no row
    completed: bool = False  # whether an interrupted request was completed first
    lost: int = 0  # items of an interrupted request that were not recorded, so that you must request them again
    report_deleted: bool = False  # whether a report was deleted

    @property
    def changes(self) -> bool:
        return self.already_recorded < self.requested or bool(self.rows.units)


def forget(url: str, requested: Items, dry_run: bool = False) -> Forgotten:
    """Forget items. Without items, complete an interrupted request. With `dry_run`, only return what would change.

    Raises RecipeError if there is no run, and RunError if it is not finished, or if another `forget` works on it.
    """
    folder = RunStore(url)
    if not folder.exists(layout.RUN_FILE):
        raise no_run(folder, url)
    interrupted = _is_interrupted(folder)
    if not len(requested) and (dry_run or not interrupted):
        begun = "An earlier request was interrupted: run the command without --dry-run to complete it"
        given = f"{url}: the request names no rows; give --uids, --urls or --sha256"
        raise RecipeError(f"{given}. {begun}" if interrupted else given)
    if dry_run:
        return _plan(folder, requested)[0]
    with locked(folder, "forget"):
        interrupted = _is_interrupted(folder)  # checked again, because another request may have just ended
        lost = 0
        if interrupted:
            earlier = Record.read_checked(folder)
            lost = lost_items(folder, earlier)
            _republish(folder, earlier.items, None)
        has_report = folder.exists(layout.REPORT_FILE)
        result, record = _plan(folder, requested)
        if result.changes:
            folder.write_json(layout.FORGETTING_FILE, {"items": len(requested), "record": record.facts.to_json()})
            folder.delete_file(layout.SUCCESS_FILE)
            record.write(folder)
            _republish(folder, record.items, result.rows.units)
        clear_tmp(folder)  # a killed request may have left copies there
    return replace(result, completed=interrupted, lost=lost, report_deleted=has_report and result.changes)


def _is_interrupted(folder: RunStore) -> bool:
    if folder.exists(layout.SUCCESS_FILE) and folder.exists(layout.MANIFEST_FILE):
        return False
    if not folder.exists(layout.SUCCESS_FILE) and folder.exists(layout.FORGETTING_FILE):
        return True
    reason = f"the run is not finished (no {layout.SUCCESS_FILE})"
    raise RunError(f"{folder.url}: {reason}; run its recipe again, then forget")


def lost_items(folder: RunStore, record: Record) -> int:
    """Return how many items of an interrupted request were not recorded; 0 if there is no such request."""
    if not folder.exists(layout.FORGETTING_FILE):
        return 0
    begun = folder.read_json(layout.FORGETTING_FILE)
    is_recorded = "record" in begun and record.extends(ForgottenFacts.model_validate(begun["record"]))
    return 0 if is_recorded else int(begun["items"])


def _plan(folder: RunStore, requested: Items) -> tuple[Forgotten, Record]:
    context, units = open_context(folder)
    settings = PublishSettings.of(context)
    record = Record.read_checked(folder)
    items = link_items(settings, units, requested) if len(requested) else NOTHING
    rows = survey(settings, units, requested, items)
    shards = tuple(find_shards(folder, items))
    result = Forgotten(
        requested=len(requested),
        already_recorded=len(requested) - len(requested - record.items),
        absent=requested - Items(**{kind: items[kind][rows.counts[kind] > 0] for kind in KINDS}) - record.items,
        rows=rows,
        shards=shards,
        has_images=settings.pool.has_images,
    )
    return result, record.append(items, origins(items, requested), rows=rows.counts, shards=len(shards))


def _republish(folder: RunStore, items: Items, touched: Sequence[Unit] | None) -> None:
    """Remove the items' samples from all files, and rewrite the files that describe the run, with `_SUCCESS` last.

    `touched` are the units that have rows to clear. If it is None, all units are read, and the digests of all files are
    computed again.
    """
    context, units = open_context(folder)
    settings = PublishSettings.of(context)
    rewritten: list[str] = []
    for unit in units if touched is None else touched:
        source = find_source(settings.sources, unit.source)
        rewritten += clear_unit(settings.tables(unit), items, settings.table_names, source)
    for name in find_shards(folder, items):
        rewritten += rewrite_shard(folder, settings.output, name, items)
    count_shards(folder)
    audit = Audit()
    folder.delete(layout.FAILURES_PARTS)
    for unit in units:
        audit.add(audit_unit(settings, settings.tables(unit), unit))
    counted = check_conservation(audit, sum(folder.read_json(layout.SIZES_FILE).values()))
    write_failures(folder, audit)
    folder.delete(layout.FAILURES_PARTS)
    if "matches" in settings.table_names:
        _count_entries(folder, [settings.tables(unit) for unit in units])
    facts = read_facts(folder)
    remaining = {verdict.name: counted.get(verdict.name, 0) for verdict in facts.verdicts(True)}
    digests = _digest(folder, None if touched is None else set(rewritten))
    in_process = InProcessUnits(units, context)
    uids = in_process.value(sort_uids(in_process, folder, facts.repeats, 1 + facts.kept // _UIDS))
    describe_run(folder, facts.changed(counts=remaining), digests, audit, uids)
    mark_published(folder)


def _count_entries(folder: RunStore, all_tables: Sequence[UnitTables]) -> None:
    """Count the kept rows of each entry again.

    Other columns of entries.parquet stay, because the run decided by them.
    """
    entries = folder.read_parquet(layout.ENTRIES_FILE)
    entry_ids = entries["entry_id"].to_numpy()
    kept = np.zeros(int(entry_ids.max(initial=-1)) + 1, np.int64)
    for tables in all_tables:
        matches = whole(tables.read("matches", ["entry_ids"])["entry_ids"])
        assert isinstance(matches, pa.ListArray)
        is_kept = tables.read("decisions", ["kept"])["kept"].to_numpy().astype(np.int64)
        kept += sparse_sums(matches, [is_kept], len(kept)).dense(len(kept))[0]
    slot = entries.column_names.index("kept")
    counted = entries.set_column(slot, entries.schema.field(slot), pa.array(kept[entry_ids]))
    if not counted.equals(entries):
        folder.write_parquet(layout.ENTRIES_FILE, counted)


def _digest(folder: RunStore, rewritten: Collection[str] | None) -> Lines:
    """Return the manifest's lines for tables and shards. Digest only files that were rewritten, or all files (None)."""
    sizes = folder.read_json(layout.SIZES_FILE)
    lines = []
    tops = ("tables", "shards", layout.POOL, layout.INPUTS, layout.MODELS)
    for line in read_manifest(folder):
        if line.path.startswith(tuple(f"{top}/" for top in tops)) and line.path != layout.SIZES_FILE:
            is_current = rewritten is not None and line.path not in rewritten
            rows = sizes.get(line.path.removeprefix("shards/"), line.rows)
            lines.append(line if is_current else digest_file(folder, line.path, rows))
    return Lines(lines)
