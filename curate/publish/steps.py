"""Publishing over all units: the audit, drift, the manifest's lines, and once all are there, what describes the run."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from curate.base.errors import RunError
from curate.base.wording import pluralise
from curate.pool.plan import Unit
from curate.publish.audit import Audit, PublishSettings, audit_unit, check_damage
from curate.publish.drift import DriftSample, Group, measure_drifts, merge, sample_unit
from curate.publish.publish import Results, compact_units, lay_out_chunks, publish
from curate.run.context import RunContext
from curate.run.units import Answer, Fold, Total, Units
from curate.store.chunks import Chunk
from curate.store.forgotten import count_forgotten_since
from curate.store.manifest import Lines, Published
from curate.store.tables import OpenTables
from curate.store.validity import recorded_line

Sources = Sequence[tuple[str, int]]


def sources_of(plan: Sequence[Unit]) -> list[tuple[str, int]]:
    """Return the source of units that follow each other, and how many these are."""
    return [(source, sum(1 for _ in consecutive)) for source, consecutive in groupby(unit.source for unit in plan)]


def audit(units: Units, settings: PublishSettings) -> Answer:
    """Count all rows of all units: an Audit. Too much damage ends the run."""
    counted = units.ask("Audit: count", lambda tables, unit: [audit_unit(settings, tables, unit)], combine=Total(Audit))
    return units.get("Audit: check", check_damage, settings, counted)


def measure_drift(units: Units, settings: PublishSettings) -> Answer:
    """Measure the drift of each source from samples of its embeddings, which are kept: list[DriftFacts]."""

    def sample(tables: OpenTables, unit: Unit) -> list[dict[Group, DriftSample]]:
        return [dict(sample_unit(settings.recipe.measure, unit.source, tables))]

    return units.get("Drift: measure", measure_drifts, units.ask("Drift: sample", sample, combine=Fold(_merge)))


def _merge(left: Mapping[Group, DriftSample], right: Mapping[Group, DriftSample]) -> dict[Group, DriftSample]:
    both = {group: merge([left[group], right[group]]) for group in left.keys() & right.keys()}
    return {**left, **right, **both}


def compact(units: Units, settings: PublishSettings, audited: Answer, sources: Sources) -> Answer:
    """Put the tables of many small units into few files, once `audited` is there; return lists of manifest lines."""
    chunks = units.get("Compact: chunks", lambda counted: lay_out_chunks(sources, counted.sizes), audited)
    store, names = settings.store, settings.table_names

    def merge_chunk(chunk: Chunk) -> list[Published]:
        return [recorded_line(store, path) for path in compact_units(store, names, chunk)]

    return units.each("Compact: merge", chunks, merge_chunk)


def publish_run(
    units: Units,
    /,
    context: RunContext,
    sources: Sources,
    tables: Answer,
    shards: tuple[Answer, Answer],
    **findings: Any,
) -> Answer:
    """Write what describes the run and its shards, and `_SUCCESS` last; the answer is None once the run is complete.

    `tables` are of `compact`, `shards` of `emit`, `findings` the fields of `Results` that answers of all units give.
    """
    types, lines = shards
    lines = units.combine("Publish: lines", [tables, lines], Total(Lines))
    return units.get("Publish", partial(_publish, context, list(sources)), lines, types, **findings)


def _publish(
    context: RunContext, sources: list[tuple[str, int]], lines: Lines, types: tuple[int, Any] | None, **findings: Any
) -> None:
    if count := count_forgotten_since(context.store, context.reuse):  # some tables may be of before, and some of after
        assert context.reuse is not None
        problem = f"{pluralise(count, 'item')} forgotten there while this run reused its tables"
        raise RunError(f"{context.reuse.url}: {problem}; run again, which takes them out here too")
    json_dtype = types[1] if types else None
    publish(PublishSettings.of(context), Results(sources=sources, json_dtype=json_dtype, **findings), lines)
