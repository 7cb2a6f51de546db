"""Emitting and publishing on Beam: shards are elements, laid out from the units' numbers of kept rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsList, AsSingleton

from curate.captions.work import summarise
from curate.decide import dedup
from curate.output.output_format import emit_shard, find_output
from curate.output.settings import EmitSettings, Shard, lay_out
from curate.pool.plan import Unit
from curate.publish.audit import Audit, PublishSettings, check_damage
from curate.publish.drift import measure_drifts, merge, sample_unit
from curate.publish.publish import Results, publish
from curate.run.context import RunContext
from curate.store.error_notes import noting_errors
from curate.store.facts import DriftFacts
from curate.store.manifest import Published, digest_file
from curate.store.timings import time_step
from curate.transforms.fold import Fold
from curate.transforms.threads import MapInThreads

_RESULTS = ("t", "pool", "survivors", "sums", "drift", "captioned")


@dataclass
class MeasureDrift(beam.PTransform):
    """Measure the drift of each source from samples of its embeddings. Only where embeddings are kept."""

    settings: PublishSettings

    def expand(self, units: beam.PCollection[Unit]) -> beam.PCollection[list[DriftFacts]]:
        """PCollection[Unit], decided → PCollection of one list[DriftFacts], by way of one sample a unit and source."""
        settings, measure = self.settings, self.settings.recipe.measure
        return (
            units
            | "Sample" >> beam.FlatMap(lambda unit: sample_unit(measure, unit.source, settings.tables(unit)))
            | "Merge" >> beam.CombinePerKey(Fold(lambda one, other: merge([one, other])))
            | "Together" >> beam.combiners.ToDict()
            | "Measure" >> beam.Map(measure_drifts)
        )


@dataclass
class Emit(beam.PTransform):
    """Refuse too much damage, lay the shards out and write them."""

    settings: EmitSettings
    publishing: PublishSettings
    n_buckets: int

    def expand(self, audits: beam.PCollection[Audit]) -> beam.PCollection[Shard]:
        """PCollection[Audit] → PCollection[Shard], those written.

        Names that several kept rows may have are found first: their rows are named by uid.
        """
        repeated = (
            audits
            | "Names" >> beam.FlatMap(self._name_buckets)
            | "Buckets" >> beam.GroupByKey()
            | "Repeated" >> beam.Map(lambda item: dedup.repeated(item[1]))
        )
        return (
            audits.pipeline
            | beam.Create([None])
            | "LayOut" >> beam.FlatMap(self._lay_out, AsList(audits))
            | beam.Reshuffle()
            | "Write" >> MapInThreads(self._write, AsList(repeated))
        )

    def _name_buckets(self, audit: Audit) -> Iterator[tuple[int, Any]]:
        hashes = find_output(self.settings.pool.images).name_hashes(self.settings.tables(audit.unit))
        if len(hashes):
            yield from enumerate(dedup.split_buckets(hashes, self.n_buckets))

    def _lay_out(self, _: None, audits: list[Audit]) -> list[Shard]:
        with noting_errors(self.settings.store):
            check_damage(self.publishing, audits)
        return lay_out([(audit.unit, audit.kept) for audit in audits], self.settings.output.rows_per_shard)

    def _write(self, shard: Shard, repeated: list[Any]) -> Shard:
        store = self.settings.store
        with noting_errors(store), time_step(store, "emit", f"{shard.index:05d}") as timer:
            timer.rows = shard.rows
            return emit_shard(self.settings, shard, np.sort(np.concatenate([np.zeros(0, np.uint64), *repeated])))


@dataclass
class Digest(beam.PTransform):
    """Make the manifest's lines of all tables and shards, by reading each file once."""

    settings: PublishSettings

    def expand(self, inputs: Any) -> beam.PCollection[Published]:
        """`audits`: PCollection[Audit], and `shards`: PCollection[Shard] → PCollection[Published], one a file."""
        tables = inputs["audits"] | "Tables" >> beam.FlatMap(self._tables)
        shards = inputs["shards"] | "Shards" >> beam.FlatMap(self._files)
        return (tables, shards) | beam.Flatten() | MapInThreads(lambda file: digest_file(self.settings.store, *file))

    def _tables(self, audit: Audit) -> Iterator[tuple[str, None]]:
        yield from ((path, None) for path in self.settings.unit_files(audit.unit))

    def _files(self, shard: Shard) -> Iterator[tuple[str, int | None]]:
        files = find_output(self.settings.pool.images).files(shard.stem)
        yield from ((path, shard.rows if has_rows else None) for path, has_rows in files.items())


@dataclass
class Publish(beam.PTransform):
    """Write what describes the run and its shards, and `_SUCCESS` last."""

    context: RunContext

    def expand(self, inputs: Any) -> beam.PCollection[None]:
        """Return a PCollection of one None, once the run is complete, from PCollections by name.

        Always: audits, shards, digests, thresholds, recalls. Where there are any, of one element each: t, pool, survivors,
        sums, drift, captioned.
        """
        lists = {name: AsList(inputs[name]) for name in ("audits", "shards", "digests", "thresholds", "recalls")}
        single = {n: AsSingleton(inputs[n]) for n in _RESULTS if inputs.get(n) is not None}
        start = inputs["audits"].pipeline | beam.Create([None])
        return start | beam.Map(self._publish, **lists, **single)

    def _publish(
        self, _: None, audits: list[Audit], shards: list[Shard], digests: list[Published], **found: Any
    ) -> None:
        captions, captioned = self.context.recipe.captions, found.get("captioned")
        work = summarise(captions, self.context.engine_ids, captioned) if captions and captioned else []
        results = Results(
            t=found.get("t"),
            thresholds=dict(found["thresholds"]),
            recalls=dict(found["recalls"]),
            **{name: found.get(name) for name in ("pool", "survivors", "sums")},
            drift=found.get("drift") or [],
            caption_work=work,
        )
        with noting_errors(self.context.store):
            publish(PublishSettings.of(self.context), audits, shards, results, digests)
