"""Publishes a run: checks the sums, writes what describes the shards, and puts `_SUCCESS` last."""

from collections.abc import Iterable

from curate import schema
from curate.output.layout import Shard
from curate.output.output_format import find_output
from curate.publish.audit import Audit, all_failures, check_conservation, count_drops
from curate.publish.describe import describe_run
from curate.publish.entries import write_entries
from curate.publish.settings import PublishSettings
from curate.publish.summary import Results, summarise_run
from curate.publish.uids import write_uids
from curate.recipe.deciding import SCHEMES
from curate.schema import KEPT
from curate.store.layout import ENTRIES_FILE, FAILURES_FILE, SIZES_FILE
from curate.store.manifest import Published
from curate.store.store import RunStore


def publish(
    settings: PublishSettings,
    audits: Iterable[Audit],
    shards: Iterable[Shard],
    results: Results,
    digests: list[Published],
) -> None:
    """Write everything but tables and shards, then the manifest, then `_SUCCESS`.

    Args:
        settings: of the run.
        audits: one per unit.
        shards: what was emitted.
        results: of the pipeline.
        digests: the manifest's lines of all tables and shards.

    Raises:
        ConservationError: rows in are not kept + dropped + failed.
    """
    store, kind = settings.store, find_output(settings.pool.images)
    audits = sorted(audits, key=lambda audit: audit.unit.index)
    shards = sorted(shards, key=lambda shard: shard.index)
    counts = check_conservation(audits, sum(shard.rows for shard in shards))
    store.write_parquet(FAILURES_FILE, all_failures(audits))
    if results.pool is not None and results.survivors is not None and results.sums is not None:
        balance = settings.recipe.balance
        scheme = SCHEMES.find(balance.scheme) if balance else None
        write_entries(store, results.pool, results.survivors, results.sums, scheme, results.t)
    else:
        store.write_parquet(ENTRIES_FILE, schema.ENTRIES.empty_table())
    store.write_json(SIZES_FILE, {f"{shard.index:05d}.{kind.suffix}": shard.rows for shard in shards})
    write_uids(store, [settings.tables(audit.unit) for audit in audits], counts[KEPT])
    store.delete("parts")
    _remove_strays(store, digests)
    facts = summarise_run(settings, counts, results, [audit.unit.source for audit in audits])
    describe_run(store, facts, digests, count_drops(audits))


def _remove_strays(store: RunStore, digests: list[Published]) -> None:
    """Remove files in `tables/` and `shards/` that are not of this run."""
    known = {line.path for line in digests} | {SIZES_FILE}
    for top in ("tables", "shards"):
        for path in store.files(top):
            if path not in known:
                store.delete(path)
