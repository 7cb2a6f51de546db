"""Publishes a run: checks the sums, writes what describes the shards, and puts `_SUCCESS` last."""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from curate import schema
from curate.captions.work import Captioned, summarise
from curate.output.shards import Shard
from curate.publish.audit import Audit, all_failures, check_conservation
from curate.publish.describe import describe_run
from curate.publish.entries import write_entries
from curate.publish.uids import write_uids
from curate.recipe.rules import Top
from curate.run.context import RunContext
from curate.schema import KEPT
from curate.store.facts import (
    CaptionWork,
    ContentFacts,
    DriftFacts,
    EvaluationFacts,
    NearFacts,
    PoolFacts,
    RuleFacts,
    RunFacts,
    read_claim,
)
from curate.store.layout import ENTRIES_FILE, EVALUATION_FACTS_FILE, FAILURES_FILE, SIZES_FILE
from curate.store.manifest import Published
from curate.store.timings import sum_timings

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Results:
    """What the pipeline found that is not in the tables of units.

    Attributes:
        t: rows that an entry may have, given or solved; None without balance.
        thresholds: rule → value of each top rule; None where no row reached it.
        recalls: place of a deduplication pass by nearness → int64[2]: of a sample's close pairs, how many there are, and
            how many were compared; zeros where all are.
        pool: int64[entries], matching rows of the pool; None without match.
        survivors: int64[entries], matching rows when balancing began.
        sums: int64[2, entries], expected (fixed point) and kept rows.
        drift: rows of table `drift`; none where no embeddings are kept.
        captioned: what became of each unit's requests; None without captions.
    """

    t: int | None
    thresholds: dict[str, float | None]
    recalls: dict[int, I64]
    pool: I64 | None
    survivors: I64 | None
    sums: I64 | None
    drift: list[DriftFacts] | None = None
    captioned: list[Captioned] | None = None


def publish(
    context: RunContext, audits: Iterable[Audit], shards: Iterable[Shard], results: Results, digests: list[Published]
) -> None:
    """Writes everything but tables and shards, then the manifest, then `_SUCCESS`.

    Args:
        context: the run.
        audits: one per unit.
        shards: what was emitted.
        results: thresholds, t and entry vectors.
        digests: the manifest's lines of all tables and shards.

    Raises:
        ConservationError: rows in are not kept + dropped + failed.
    """
    audits = sorted(audits, key=lambda audit: audit.unit.index)
    shards = sorted(shards, key=lambda shard: shard.index)
    folder = context.store
    counts = check_conservation(audits, sum(shard.rows for shard in shards))
    folder.write_parquet(FAILURES_FILE, all_failures(audits))
    if results.pool is not None and results.survivors is not None and results.sums is not None:
        write_entries(context, results.pool, results.survivors, results.sums, results.t)
    else:
        folder.write_parquet(ENTRIES_FILE, schema.ENTRIES.empty_table())
    suffix = "tar" if context.pool.images else "parquet"
    folder.write_json(SIZES_FILE, {f"{shard.index:05d}.{suffix}": shard.rows for shard in shards})
    write_uids(context, [audit.unit.index for audit in audits], counts[KEPT])
    context.store.delete("parts")
    _remove_strays(context, digests)
    describe_run(folder, _make_facts(context, counts, results, [audit.unit.source for audit in audits]), digests)


def _make_facts(context: RunContext, counts: Counter[str], results: Results, sources: list[str]) -> RunFacts:
    """Return what run.json will hold, its `content` still empty."""
    claim = read_claim(context.store)
    now = time.time()
    recipe, pool, captions = context.recipe, context.pool, context.recipe.captions
    evaluation = context.store.read_json(EVALUATION_FACTS_FILE) if recipe.dedup.against else None
    return RunFacts(
        **claim.model_dump(),
        evaluation=evaluation and EvaluationFacts.model_validate(evaluation),
        pool=PoolFacts(
            images=pool.images, supplied=sorted(pool.brings), scores=pool.scores.names, embeddings=pool.embeddings
        ),
        units=[(source, sum(1 for _ in units)) for source, units in groupby(sources)],
        rules=[_rule_facts(name, spec, results.thresholds.get(name)) for name, spec in recipe.rules.items()],
        t=results.t,
        steps=sum_timings(context.store),
        drift=results.drift or [],
        caption_work=[
            CaptionWork.model_validate(row) for row in summarise(captions, context.engine_ids, results.captioned)
        ]
        if captions and results.captioned
        else [],
        near=[
            NearFacts(place=place, **by.model_dump(exclude_none=True), sampled=int(pairs), found=int(met))
            for place, by in recipe.dedup.near.items()
            for pairs, met in [results.recalls[place]]
        ],
        counts={stage.name: counts[stage.name] for stage in schema.run_stages(recipe, bool(context.blocklist_key))},
        finished=now,
        seconds=now - claim.started,
        content=ContentFacts(languages={}, files={}, shards=0, bytes=0, digest="", means={}),
    )


def _rule_facts(name: str, spec: str | Top, threshold: float | None) -> RuleFacts:
    if isinstance(spec, str):
        return RuleFacts(name=name, sql=spec)
    return RuleFacts(name=name, top=spec.top, of=spec.of, threshold=threshold)


def _remove_strays(context: RunContext, digests: list[Published]) -> None:
    """Removes files in `tables/` and `shards/` that are not of this run."""
    known = {line.path for line in digests} | {SIZES_FILE}
    for top in ("tables", "shards"):
        for path in context.store.files(top):
            if path not in known:
                context.store.delete(path)
