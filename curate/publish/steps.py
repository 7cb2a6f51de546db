"""Publishing over all units: the audit, drift, the manifest's lines, and once all are there, what describes the run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

from curate.captions.work import summarise
from curate.decide.decide_rows import Decided
from curate.pool.plan import Unit
from curate.publish.audit import Audit, PublishSettings, audit_unit, check_damage
from curate.publish.compact import compact_chunk, lay_out_chunks
from curate.publish.drift import DriftSample, Group, measure_drifts, merge, sample_unit
from curate.publish.publish import Results, publish
from curate.run.context import RunContext
from curate.run.units import Answer, Fold, Total, Units
from curate.store.chunks import Chunk
from curate.store.manifest import Lines, Published, written_file
from curate.store.tables import OpenTables

Sources = Sequence[tuple[str, int]]


def sources_of(plan: Sequence[Unit]) -> list[tuple[str, int]]:
    """Return the source of units that follow each other, and how many these are."""
    return [(source, sum(1 for _ in of)) for source, of in groupby(unit.source for unit in plan)]


def audit(units: Units, settings: PublishSettings) -> Answer:
    """Count all rows of all units: an Audit. Too much damage ends the run."""
    counted = units.ask("Audit: count", _count, settings, combine=Total(Audit))
    return units.get("Audit: check", _check, counted, settings)


def _count(tables: OpenTables, unit: Unit, settings: PublishSettings) -> Iterator[Audit]:
    yield audit_unit(settings, tables, unit)


def _check(counted: Audit, settings: PublishSettings) -> Audit:
    check_damage(settings, counted)
    return counted


def measure_drift(units: Units, settings: PublishSettings) -> Answer:
    """Measure the drift of each source from samples of its embeddings, which are kept: list[DriftFacts]."""
    samples = units.ask("Drift: sample", _sample, settings, combine=Fold(_merge))
    return units.get("Drift: measure", measure_drifts, samples)


def _sample(tables: OpenTables, unit: Unit, settings: PublishSettings) -> Iterator[dict[Group, DriftSample]]:
    yield dict(sample_unit(settings.recipe.measure, unit.source, tables))


def _merge(left: Mapping[Group, DriftSample], right: Mapping[Group, DriftSample]) -> dict[Group, DriftSample]:
    both = {group: merge([left[group], right[group]]) for group in left.keys() & right.keys()}
    return {**left, **right, **both}


def compact(units: Units, settings: PublishSettings, audited: Answer, sources: Sources) -> Answer:
    """Put the tables of many small units into few files; those of others stay as they are.

    `audited`, of all units, comes once all tables are there. Returns a list of list[Published], the manifest's lines of
    all tables.
    """
    chunks = units.get("Compact: chunks", _chunks, audited, sources)
    return units.each("Compact: merge", chunks, _compact, settings)


def _chunks(audited: Audit, sources: Sources) -> list[Chunk]:
    return lay_out_chunks(sources, audited.sizes)


def _compact(chunk: Chunk, settings: PublishSettings) -> list[Published]:
    return [written_file(settings.store, path) for path in compact_chunk(settings, chunk)]


@dataclass(frozen=True)
class Findings:
    """What is known of the whole run once it is published: each the answer of a step."""

    audit: Answer  # Audit
    tables: Answer  # of `compact`
    shards: tuple[Answer, Answer]  # of `emit`
    decided: Decided
    uids: Answer  # of `sort_uids`
    drift: Answer | None = None  # of `measure_drift`
    captioned: Answer | None = None  # of `captions.unit.caption`


def publish_run(units: Units, context: RunContext, findings: Findings, sources: Sources) -> Answer:
    """Write what describes the run and its shards, and `_SUCCESS` last; the answer is None once the run is complete."""
    decided = findings.decided
    shard_rows, shard_lines = findings.shards
    lines = units.combine("Publish: lines", [findings.tables, shard_lines], Total(Lines))
    thresholds = units.combine("Publish: thresholds", decided.thresholds) if decided.thresholds else None
    scales = units.combine("Publish: derived", decided.scales) if decided.scales else None
    counts = (decided.pool, decided.survivors, decided.sums)
    answers = (thresholds, scales, decided.choice, findings.drift, findings.captioned, decided.large, findings.uids)
    return units.get(
        "Publish",
        partial(_publish, context, list(sources), tuple(decided.recalls)),
        *(lines, findings.audit, shard_rows, *answers, *counts, *decided.recalls.values()),
    )


def _publish(
    context: RunContext,
    sources: list[tuple[str, int]],
    places: tuple[int, ...],
    lines: Lines,
    audit: Audit,
    shards: list[tuple[int, int]],
    *values: Any,
) -> None:
    thresholds, scales, choice, drift, captioned, large, uids, pool, survivors, sums, *recalls = values
    captions = context.recipe.captions
    results = Results(
        choice=choice,
        thresholds=dict(thresholds or ()),
        recalls=dict(zip(places, recalls, strict=True)),
        pool=pool,
        survivors=survivors,
        sums=sums,
        uids=uids,
        scales={at: scale for part in scales or () for at, scale in part.items()},
        large_groups=large,
        drift=drift or [],
        caption_work=summarise(captions, context.engine_ids, captioned) if captions and captioned else [],
    )
    publish(PublishSettings.of(context), audit, dict(shards), results, sources, lines)
