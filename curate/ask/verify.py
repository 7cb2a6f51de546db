"""Check the integrity of a published run from its files: digests, sums, shards against decisions and uids.npy.

Forgotten data must be absent: tables must equal the result of clearing them, the images in every tar are hashed, and
sidecars and Parquet shards are searched for uids, URLs and images.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from curate.base import schema, stages
from curate.base.errors import ConservationError, RunError
from curate.base.wording import pluralize
from curate.pool.plan import Unit
from curate.pool.registry import find_format
from curate.publish.audit import PublishSettings, count_verdicts
from curate.publish.forget.clear import find_leftovers
from curate.publish.forget.rows import digest_members
from curate.publish.uids import PAIR, pair_bytes, read_uids, sort_pairs, uid_pairs
from curate.run.context import open_context
from curate.store import layout
from curate.store.facts import read_facts
from curate.store.forgotten import Record
from curate.store.items import Items
from curate.store.manifest import Published, find_faults, how_to_go_on, no_run, read_manifest
from curate.store.store import RunStore

_FORGOTTEN = "contains forgotten data"
_OF_EVERY_RUN = {layout.RUN_FILE, layout.SIZES_FILE, layout.ENTRIES_FILE, layout.FAILURES_FILE}
_OF_EVERY_RUN |= {layout.UIDS_FILE, layout.STATISTICS_FILE}
_MARKS = (layout.MANIFEST_FILE, layout.SUCCESS_FILE)  # the manifest cannot list them


def verify_run(url: str) -> tuple[list[str], list[str]]:
    """Return two lists: the checks that were made, and the errors. There are no errors if the run is intact.

    Raises RecipeError if there is no run, RunError if it is not finished.
    """
    folder = RunStore(url)
    if not folder.exists(layout.RUN_FILE):
        raise no_run(folder, url)
    if missing := [name for name in (layout.SUCCESS_FILE, layout.MANIFEST_FILE) if not folder.exists(name)]:
        raise RunError(f"{url}: the run is not finished (no {', no '.join(missing)}); {how_to_go_on(folder, url)}")
    lines = read_manifest(folder)
    checked = [f"{len(lines):,} files by sha256 ({sum(line.bytes for line in lines):,} bytes)"]
    listed = {line.path for line in lines}
    if errors := list(_check_files(folder, lines, listed)):
        return checked, errors
    if layout.RUN_FILE not in listed:
        return checked, [f"{layout.RUN_FILE}: is not in the manifest, although every run has it"]
    context, units = open_context(folder)
    settings = PublishSettings.of(context)
    if errors := list(_check_complete(settings, units, listed)):
        return checked, errors
    for check in (_check_rows, _check_absence):
        summary, differing = check(settings, units)
        checked += summary
        errors += differing
    return checked, errors


def _check_files(folder: RunStore, lines: list[Published], listed: set[str]) -> Iterator[str]:
    hints = {
        layout.FORGOTTEN_FILE: "; do not delete it: restore it from a copy",
        layout.REPORT_FILE: f"; `curate report {folder.url}` writes it again",
    }
    for path, error in find_faults(folder, lines).items():
        yield f"{path}: {error}{hints.get(path, '')}"
    if not folder.read_bytes(layout.MANIFEST_FILE).startswith(b"PAR1"):  # the rest was readable
        yield f"{layout.MANIFEST_FILE}: is damaged (it does not begin like a Parquet file)"
    if size := folder.digest(layout.SUCCESS_FILE)[0]:
        yield f"{layout.SUCCESS_FILE}: has {size:,} bytes, but must be empty"
    for path in folder.files():
        if path not in listed and path not in _MARKS and not path.startswith(("tmp/", "logs/")):
            yield f"{path}: is not in the manifest{hints.get(path, '')}"


def _check_complete(settings: PublishSettings, units: list[Unit], listed: set[str]) -> Iterator[str]:
    """Yield required files that the manifest lacks: those that every run has, and this run's tables and shards."""
    yield from (f"{path}: is not in the manifest, although every run has it" for path in sorted(_OF_EVERY_RUN - listed))
    needed = [settings.tables(unit).file(name) for unit in units for name in settings.table_names]
    if layout.SIZES_FILE in listed:
        for name in settings.store.read_json(layout.SIZES_FILE):
            needed += settings.output.files(layout.stem_of(name))
    yield from (f"{path}: is not in the manifest, although this run needs it" for path in needed if path not in listed)


def _check_rows(settings: PublishSettings, units: list[Unit]) -> tuple[list[str], list[str]]:
    """Check that every row counts once, and that shards and uids.npy hold the kept rows."""
    facts = read_facts(settings.store)
    errors: list[str] = []
    kept, repeated = [np.zeros(0, PAIR)], [np.zeros(0, PAIR)]
    verdicts = Counter[str]()
    columns = ["uid", "kept", "rule", *([schema.REPEATS.name] if facts.repeats else [])]
    for unit in units:
        tables = settings.tables(unit)
        file, samples = tables.file("decisions"), tables.read("samples", ["uid", "status"])
        decisions = tables.read("decisions", columns)
        try:
            verdicts += count_verdicts(samples, decisions, unit)
        except ConservationError as error:
            errors.append(f"{file}: {error}")
        is_kept = decisions["kept"].to_numpy()
        kept.append(uid_pairs(decisions["uid"].filter(decisions["kept"])))
        if facts.repeats:
            repeats = decisions[schema.REPEATS.name].to_numpy()
            repeated.append(np.repeat(kept[-1], repeats[is_kept]))
            if (repeats[~is_kept] != 0).any():
                errors.append(f"{file}: a dropped row has a value above 0 in `repeats`")
    counts = facts.counts
    errors += [
        f"{layout.RUN_FILE}: says {counts.get(name, 0):,} rows {name}, but tables/decisions has {verdicts[name]:,}"
        for name in {**counts, **verdicts}
        if counts.get(name, 0) != verdicts[name]
    ]
    uids = sort_pairs(np.concatenate(kept))
    if (uids[1:] == uids[:-1]).any():
        errors.append("tables/decisions: two kept rows have the same uid")
    expected = sort_pairs(np.concatenate(repeated)) if facts.repeats else uids
    if not np.array_equal(read_uids(settings.store), expected):
        errors.append(f"{layout.UIDS_FILE}: differs from the kept uids of tables/decisions")
    errors += _check_shards(settings, uids)
    rows, failed, published = verdicts.total(), verdicts[stages.FAILED], verdicts[stages.KEPT]
    sums = f"{published:,} kept + {rows - failed - published:,} dropped + {failed:,} failed"
    return [f"{pluralize(rows, 'sample')} = {sums}", f"{len(uids):,} kept uids against shards and uids.npy"], errors


def _check_shards(settings: PublishSettings, kept: np.ndarray) -> Iterator[str]:
    folder, kind = settings.store, settings.output
    uids = [np.zeros(0, PAIR)]
    for name, rows in folder.read_json(layout.SIZES_FILE).items():
        stem = layout.stem_of(name)
        sidecar = folder.read_parquet(f"{stem}.parquet", ["uid", *(["key"] if kind.has_members else [])])
        uids.append(uid_pairs(sidecar["uid"]))
        if len(sidecar) != rows:
            yield f"{layout.SIZES_FILE}: says {rows} rows for {name}, but its Parquet file has {len(sidecar)}"
        names = kind.names(folder, stem)
        if names is not None and names != set(sidecar["key"].to_pylist()):
            yield f"shards/{name}: its samples differ from those of {stem}.parquet"
    if not np.array_equal(sort_pairs(np.concatenate(uids)), kept):
        yield "shards: their uids differ from the kept uids of tables/decisions"


def _check_absence(settings: PublishSettings, units: list[Unit]) -> tuple[list[str], list[str]]:
    """Check that the run contains no data that `curate forget` removed; does nothing if it removed none."""
    facts, record = read_facts(settings.store), Record.read(settings.store)
    named = facts.forgotten
    if not len(record) and not named:
        rows = facts.counts.get(stages.FORGOTTEN, 0)
        return [], [f"{layout.FORGOTTEN_FILE}: is missing, although {rows:,} rows are forgotten"] if rows else []
    errors = list(_find_forgotten(settings, units, record.items))
    if not named or len(record) != named.items or not record.extends(named):
        errors.insert(0, f"{layout.FORGOTTEN_FILE}: does not match its digest in {layout.RUN_FILE}")
    requested = f"{pluralize(record.requested, 'item')} requested"
    return [f"forgotten items are absent from tables, shards and uids.npy ({requested})"], errors


def _find_forgotten(settings: PublishSettings, units: list[Unit], items: Items) -> Iterator[str]:
    folder = settings.store
    for unit in units:
        for file in find_leftovers(settings.tables(unit), items, settings.table_names):
            yield f"{file}: {_FORGOTTEN}"
    if items.holds("uid", pair_bytes(read_uids(folder))).any():
        yield f"{layout.UIDS_FILE}: {_FORGOTTEN}"
    for name in folder.read_json(layout.SIZES_FILE):
        sidecar = folder.read_parquet(f"{layout.stem_of(name)}.parquet")
        columns = {("uid", "uid"), *settings.output.item_columns}
        if not settings.output.item_columns:  # the shard has the columns of the inputs
            urls = (find_format(source).url_column(source, sidecar.schema) for source in settings.recipe.input)
            columns |= {("url", url) for url in urls if url}
        listed = [(kind, sidecar[column]) for kind, column in columns if column in sidecar.column_names]
        if any(items.find(kind, values.cast(pa.string())).any() for kind, values in listed):
            yield f"{layout.stem_of(name)}.parquet: {_FORGOTTEN}"
        if len(items.sha256):
            for member, digest in digest_members(folder, settings.output, name):
                if items.has_image(digest):
                    yield f"shards/{name}: {member!r} is an image that was forgotten"
