"""Emitting and publishing on Beam: shards are elements, laid out from the units' numbers of kept rows."""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsIter, AsList, AsSingleton

from curate.decide import dedup
from curate.output.shards import Shard, emit_shard, lay_out, name_hashes
from curate.pool.plan import Unit
from curate.publish.audit import Audit, audit_unit, check_damage
from curate.publish.publish import Results, publish
from curate.run.context import RunContext
from curate.store.error_notes import noting_errors
from curate.store.manifest import Published, digest_file
from curate.store.timings import time_step

_FOUND = ("t", "pool", "survivors", "sums", "drift", "captioned")


class AuditUnits(beam.PTransform):
    """PCollection[UnitResult] → PCollection[Audit]: counts every row from the files that stand."""

    def __init__(self, context: RunContext) -> None:
        super().__init__()
        self._context = context

    def expand(self, verdicts: beam.PCollection[Any]) -> beam.PCollection[Audit]:
        """One audit per unit."""
        context = self._context
        return verdicts | beam.Map(lambda v: audit_unit(context, v.unit))


class Emit(beam.PTransform):
    """PCollection[Audit] → PCollection[Shard]: refuses too much damage, lays the shards out and writes them."""

    def __init__(self, context: RunContext, n_buckets: int) -> None:
        super().__init__()
        self._context, self._n = context, n_buckets

    def expand(self, audits: beam.PCollection[Audit]) -> beam.PCollection[Shard]:
        """Keys that several kept rows have are found first: their rows are named by uid."""
        context, n = self._context, self._n
        if context.pool.images:
            repeated = (
                audits
                | "Names" >> beam.FlatMap(lambda a: enumerate(dedup.split_buckets(name_hashes(context, a.unit), n)))
                | "Buckets" >> beam.GroupByKey()
                | "Repeated" >> beam.Map(lambda item: dedup.repeated(item[1]))
            )
        else:
            repeated = audits.pipeline | "NoNames" >> beam.Create([np.zeros(0, np.uint64)])
        return (
            audits.pipeline
            | beam.Create([None])
            | "LayOut" >> beam.FlatMap(_lay_out, context, AsList(audits))
            | beam.Reshuffle()
            | "Write" >> beam.Map(_emit, context, AsIter(repeated))
        )


def _lay_out(_: None, context: RunContext, audits: list[Audit]) -> list[Shard]:
    with noting_errors(context.store):
        check_damage(context, audits)
    return lay_out([(audit.unit, audit.kept) for audit in audits], context.recipe.output.rows_per_shard)


def _emit(shard: Shard, context: RunContext, repeated: Iterable[Any]) -> Shard:
    with noting_errors(context.store), time_step(context.store, "emit", f"{shard.index:05d}") as watch:
        watch.rows = shard.rows
        return emit_shard(context, shard, np.sort(np.concatenate([np.zeros(0, np.uint64), *repeated])))


class Digest(beam.PTransform):
    """Units and shards → PCollection[Published]: the manifest's lines of all tables and shards."""

    def __init__(self, context: RunContext) -> None:
        super().__init__()
        self._context = context

    def expand(self, inputs: Any) -> beam.PCollection[Published]:
        """Reads each file as it stands, spread over the workers."""
        context = self._context
        tables = inputs["audits"] | "Tables" >> beam.FlatMap(lambda audit: _tables(context, audit.unit))
        shards = inputs["shards"] | "Shards" >> beam.FlatMap(lambda shard: _files(context, shard))
        return (tables, shards) | beam.Flatten() | beam.Map(lambda file: digest_file(context.store, *file))


def _tables(context: RunContext, unit: Unit) -> Iterator[tuple[str, None]]:
    for name in context.tables:
        yield context.table(name, unit), None
    if context.recipe.captions:
        yield f"tables/captions/{unit.name}_stats.json", None


def _files(context: RunContext, shard: Shard) -> Iterator[tuple[str, int | None]]:
    if context.pool.images:
        yield f"{shard.stem}.tar", shard.rows
    yield f"{shard.stem}.parquet", shard.rows
    yield f"{shard.stem}_stats.json", None


class Publish(beam.PTransform):
    """Everything that a run needs to be complete → `_SUCCESS`."""

    def __init__(self, context: RunContext) -> None:
        super().__init__()
        self._context = context

    def expand(self, inputs: Any) -> beam.PCollection[None]:
        """`inputs`: audits, shards, digests, thresholds, recalls; t, pool, survivors, sums, drift, captioned where there are any."""
        context = self._context
        lists = {name: AsList(inputs[name]) for name in ("audits", "shards", "digests", "thresholds", "recalls")}
        single = {n: AsSingleton(inputs[n]) for n in _FOUND if inputs.get(n) is not None}
        start = inputs["audits"].pipeline | beam.Create([None])
        return start | beam.Map(_publish, context, **lists, **single)


def _publish(
    _: None,
    context: RunContext,
    audits: list[Audit],
    shards: list[Shard],
    digests: list[Published],
    thresholds: list[tuple[str, float | None]],
    recalls: list[tuple[int, Any]],
    **found: Any,
) -> None:
    results = Results(thresholds=dict(thresholds), recalls=dict(recalls), **{name: found.get(name) for name in _FOUND})
    with noting_errors(context.store):
        publish(context, audits, shards, results, digests)
