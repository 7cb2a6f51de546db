"""Takes samples out of a published run, and keeps them out.

In: a run folder and what to forget. Out: the folder without the rows that were named, and without those that hang together
with them: of the same uid, URL or image (also as another file of a published sample), and those that had lost to one of them
as duplicates, which would come in their place in a later run. Only files that hold some of them are rewritten. A picture that stands at many URLs, as a placeholder
does, joins all their rows: `dry_run` tells how many before. Perceptual hashes are not in the record, since they tell what a
picture looks like: a copy encoded otherwise is known while it is in the pool as somebody's duplicate, not when it comes new.

Killed at any moment it leaves a folder that no reader takes for finished, and that goes on: a mark in `tmp/` stands and
`_SUCCESS` is gone before the record is written; the record says all that is to be done, and every step may be done again;
`_SUCCESS` comes last. `curate run` of the folder's recipe goes on as well, since the record blocks what it names.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import schema
from curate.decide import balance
from curate.errors import RecipeError, RunError
from curate.forget.rows import clear_unit, find_rows, image_sizes, names_of, spread, uids_beside
from curate.forget.shards import count_shards, find_holders, find_shards, rewrite_shard
from curate.pool.plan import Unit
from curate.publish.audit import all_failures, audit_unit, check_conservation, count_drops
from curate.publish.describe import describe_run
from curate.publish.settings import PublishSettings
from curate.publish.uids import read_uids, write_uids
from curate.run.context import RunContext
from curate.run.opened import open_ledger
from curate.schema import KEPT
from curate.store.facts import read_facts
from curate.store.forgotten import Record, counts, forgotten_mask, origins
from curate.store.items import KINDS, NOTHING, Hashes, Items, hex_of
from curate.store.layout import (
    ENTRIES_FILE,
    FAILURES_FILE,
    FORGETTING_FILE,
    MANIFEST_FILE,
    REPORT_FILE,
    RUN_FILE,
    SIZES_FILE,
    SUCCESS_FILE,
)
from curate.store.lock import clear_tmp, locked
from curate.store.manifest import Published, digest_file, no_run, read_manifest
from curate.store.store import RunStore


@dataclass(frozen=True)
class Forgotten:
    """What a request found, and what was, or would be, done.

    Attributes:
        asked: how many items were asked for.
        absent: those of them that name no row of the pool.
        known: how many of them were in the record already.
        rows: rows of the pool by what they were: `asked` by an item, `joined` by an equal uid, URL or image of such a row or
            because they lost to one as duplicates, `failed` the rows of both that could not be read.
        kept: how many of them were published.
        shards: the shards that hold those.
        like: published uids that a row asked for had lost to as a duplicate, and that stay: pictures may be alike.
        finished: an earlier request that had been interrupted was carried out first.
        lost: of how many items that request was, where it was interrupted before the record had them: they must be asked for again.
        report: whether there was a report, which was deleted.
        images: whether the pool has images; without, no row is known by a sha256, whatever its own columns hold.
    """

    asked: int
    absent: Items = NOTHING
    known: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    shards: tuple[str, ...] = ()
    like: tuple[str, ...] = ()
    finished: bool = False
    lost: int = 0
    report: bool = False
    images: bool = True

    @property
    def changes(self) -> bool:
        """Whether there was anything to do."""
        return self.known < self.asked or any(self.rows.values())


@dataclass(frozen=True)
class _Survey:
    """The rows of a pool that items name: their names, which units hold some, and numbers (see Forgotten)."""

    names: dict[str, Hashes]
    units: tuple[Unit, ...]
    rows: dict[str, int]
    kept: int
    like: tuple[str, ...]


def forget(url: str, asked: Items, dry_run: bool = False) -> Forgotten:
    """Forgets items, or says what that would change.

    Args:
        url: the run folder.
        asked: none to only carry out what was interrupted.
        dry_run: change nothing.

    Raises:
        RecipeError: there is no run.
        RunError: it is not finished, or another `forget` is at work.
    """
    folder = RunStore(url)
    if not folder.exists(RUN_FILE):
        raise no_run(folder, url)
    pending = _check_state(folder)
    if not len(asked) and (dry_run or not pending):
        why = (
            "an earlier request waits, and is carried out without --dry-run" if pending else "no earlier request waits"
        )
        raise RecipeError(f"{url}: nothing is named, and {why}; give --uids, --urls or --sha256")
    if dry_run:
        return _plan(folder, asked)[0]
    with locked(folder, "forget"):
        pending = _check_state(folder)  # again: the one before may have just ended
        lost = _finish(folder) if pending else 0
        report = folder.exists(REPORT_FILE)
        found, record, units = _plan(folder, asked)
        if found.changes:
            folder.write_json(FORGETTING_FILE, {"items": len(asked), "seal": record.facts.seal})
            folder.delete(SUCCESS_FILE)
            record.write(folder)
            _carry_out(folder, record, units)
        clear_tmp(folder)  # what was killed may have left copies there
    return replace(found, finished=pending, lost=lost, report=report and found.changes)


def _check_state(folder: RunStore) -> bool:
    """Whether a request was begun and not carried out. Raises RunError where the run is not finished for another reason."""
    if folder.exists(SUCCESS_FILE) and folder.exists(MANIFEST_FILE):
        return False
    if not folder.exists(SUCCESS_FILE) and folder.exists(FORGETTING_FILE):
        return True
    raise RunError(f"{folder.url}: the run is not finished (no {SUCCESS_FILE}); run its recipe again, then forget")


def _finish(folder: RunStore) -> int:
    """Carries out what was begun. Returns of how many items it was, where the record does not have them yet: 0 where it has."""
    record = Record.read_named(folder)
    lost = lost_items(folder, record)
    _carry_out(folder, record, None)
    return lost


def lost_items(folder: RunStore, record: Record) -> int:
    """Of how many items a request was that was interrupted before the record had them; 0 where there is none."""
    if not folder.exists(FORGETTING_FILE):
        return 0
    begun = folder.read_json(FORGETTING_FILE)
    return 0 if begun.get("seal") in [None, *record.table["seal"].to_pylist()] else int(begun["items"])


def _plan(folder: RunStore, asked: Items) -> tuple[Forgotten, Record, tuple[Unit, ...]]:
    """What is found, the record with the request, and the units that hold rows of it."""
    context, units = open_ledger(folder)
    record = before = Record.read_named(folder)
    items = _spread(context, units, asked) if len(asked) else NOTHING
    survey = _survey(context, units, asked, items)
    rows = counts(items, survey.names)
    shards = find_shards(folder, items)
    record = record.append(items, origins(items, asked), rows=rows, shards=len(shards))
    absent = Items(**{kind: asked[kind][~np.isin(asked[kind], survey.names[kind])] for kind in KINDS}) - before.items
    found = Forgotten(
        asked=len(asked),
        absent=absent,
        known=len(asked) - len(asked - before.items),
        rows=survey.rows,
        kept=survey.kept,
        shards=tuple(shards),
        like=survey.like,
        images=context.pool.images,
    )
    return found, record, survey.units


def _spread(context: RunContext, units: Sequence[Unit], asked: Items) -> Items:
    """All names that hang together with what was asked for, those of samples that have one of the images beside their own included."""
    items = spread(context, units, asked, near=True)
    while context.has_members and len(items.sha256):
        found, sizes = [items.sha256[:0]], set()
        for unit in units:
            images, lengths = image_sizes(context, unit, items)
            found.append(images)
            sizes |= lengths
        all_sizes = len(np.unique(np.concatenate(found))) == len(items.sha256)
        beside = [uids_beside(context, unit, sizes if all_sizes else None) for unit in units]
        among = Items.of({"uid": (bytes.fromhex(uid) for part in beside for uid in part.to_pylist())}) - items
        more = find_holders(context.store, items, among) if len(among) else NOTHING
        if not len(more):
            break
        items = spread(context, units, items | more, near=True)
    return items


def _survey(context: RunContext, units: Sequence[Unit], asked: Items, items: Items) -> _Survey:
    """Looks at the rows that the items name, and that are not forgotten yet."""
    names: dict[str, list[Hashes]] = {kind: [] for kind in KINDS}
    holding, rows, kept = [], dict.fromkeys(("asked", "joined", "failed"), 0), 0
    like: set[str] = set()
    for unit in units:
        hit = find_rows(context, unit, items) if len(items) else np.zeros(0, bool)
        if not hit.any():
            continue
        hit &= ~forgotten_mask(context.read("samples", unit, ["status", "characters"]))
        for kind, values in names_of(context, unit, hit).items():
            names[kind].append(values)
        direct = hit & find_rows(context, unit, asked)
        verdicts = context.read("decisions", unit, ["kept", "rule", "duplicate_of"])
        lost = pc.fill_null(pc.equal(verdicts["rule"], schema.DUPLICATE), False)
        like |= set(verdicts["duplicate_of"].filter(pc.and_(lost, pa.array(direct))).to_pylist())
        failed = pc.fill_null(pc.equal(verdicts["rule"], schema.FAILED), False).to_numpy()
        if hit.any():
            holding.append(unit)
            rows["asked"] += int(direct.sum())
            rows["joined"] += int((hit & ~direct).sum())
            rows["failed"] += int((hit & failed).sum())
            kept += int((hit & verdicts["kept"].to_numpy()).sum())
    if like:
        stay = Items.of({"uid": [read_uids(context.store).tobytes()]}) - items
        named = Items.of({"uid": map(bytes.fromhex, like)})
        like = set(hex_of(named.uid[stay.holds("uid", named.uid)]))
    found = {kind: np.concatenate([items[kind][:0], *parts]) for kind, parts in names.items()}
    return _Survey(found, tuple(holding), rows, kept, tuple(sorted(like)))


def _carry_out(folder: RunStore, record: Record, touched: Iterable[Unit] | None) -> None:
    """Does all that the record says; whatever is done already stays as it is.

    Args:
        folder: the run folder, without `_SUCCESS`.
        record: as it stands there.
        touched: the units that hold rows to clear; None: unknown, so that all are looked at and digested again.
    """
    context, units = open_ledger(folder)
    items = record.items
    rewritten = [
        file
        for unit in (units if touched is None else touched)
        for file in clear_unit(context, unit, items, context.tables)
    ]
    for name in find_shards(folder, items):
        rewritten += rewrite_shard(folder, name, items)
    count_shards(folder)
    settings = PublishSettings.of(context)
    audits = [audit_unit(settings, unit) for unit in units]
    counted = check_conservation(audits, sum(folder.read_json(SIZES_FILE).values()))
    failures = all_failures(audits)
    if not failures.equals(folder.read_parquet(FAILURES_FILE)):
        folder.write_parquet(FAILURES_FILE, failures)
    write_uids(folder, [settings.tables(unit) for unit in units], counted[KEPT])
    if context.recipe.match:
        _count_entries(context, units)
    facts = read_facts(folder)
    left = {stage.name: counted.get(stage.name, 0) for stage in schema.run_stages(facts.recipe, True)}
    digests = _digest(folder, None if touched is None else set(rewritten))
    describe_run(folder, facts.changed(counts=left), digests, count_drops(audits))


def _count_entries(context: RunContext, units: Sequence[Unit]) -> None:
    """Counts the kept rows of each entry anew; all else in entries.parquet says how the run decided, and stays."""
    entries = context.store.read_parquet(ENTRIES_FILE)
    kept = np.zeros(len(entries), np.int64)
    for unit in units:
        matches = context.read("matches", unit, ["entry_ids"])["entry_ids"].combine_chunks()
        own = context.read("decisions", unit, ["kept"])["kept"].to_numpy().astype(np.int64)
        kept += balance.entry_sums(matches, own, len(entries)).astype(np.int64)
    place = entries.column_names.index("kept")
    counted = entries.set_column(place, entries.schema.field(place), pa.array(kept))
    if not counted.equals(entries):
        context.store.write_parquet(ENTRIES_FILE, counted)


def _digest(folder: RunStore, rewritten: set[str] | None) -> list[Published]:
    """The manifest's lines of tables and shards: as they were of what stayed as it was."""
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
