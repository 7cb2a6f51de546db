"""Publishing on Beam: drift, the digest of each file, and once all are there, what describes the run."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsList, AsSingleton

from curate.captions.work import summarise
from curate.output.layout import Shard
from curate.output.output_format import find_output
from curate.pool.plan import Unit
from curate.publish.audit import Audit, PublishSettings
from curate.publish.compact import compact_chunk, lay_out_chunks
from curate.publish.drift import measure_drifts, merge, sample_unit
from curate.publish.publish import Results, publish
from curate.run.context import RunContext
from curate.store.chunks import Chunk
from curate.store.error_notes import noting_errors
from curate.store.facts import DriftFacts
from curate.store.manifest import Published, written_file
from curate.transforms.fold import Fold
from curate.transforms.threads import FlatMapInThreads, MapInThreads

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
            | "Sample" >> FlatMapInThreads(lambda unit: sample_unit(measure, unit.source, settings.tables(unit)))
            | "Merge" >> beam.CombinePerKey(Fold(lambda one, other: merge([one, other])))
            | "Together" >> beam.combiners.ToDict()
            | "Measure" >> beam.Map(measure_drifts)
        )


@dataclass
class Compact(beam.PTransform):
    """Put the tables of many small units into few files; those of others stay as they are."""

    settings: PublishSettings

    def expand(self, audits: beam.PCollection[Audit]) -> beam.PCollection[str]:
        """PCollection[Audit] → PCollection[str], the files of all tables."""
        sizes = audits | "Sizes" >> beam.Map(lambda audit: (audit.unit.index, audit.unit.source, audit.rows))
        return (
            audits.pipeline
            | beam.Create([None])
            | "LayOut" >> beam.FlatMap(self._lay_out, AsList(sizes))
            | beam.Reshuffle()
            | "Merge" >> FlatMapInThreads(self._compact)
        )

    def _lay_out(self, _: None, sizes: list[tuple[int, str, int]]) -> list[Chunk]:
        return lay_out_chunks([(source, rows) for _, source, rows in sorted(sizes)])

    def _compact(self, chunk: Chunk) -> list[str]:
        with noting_errors(self.settings.store):
            return compact_chunk(self.settings, chunk)


@dataclass
class Digest(beam.PTransform):
    """Make the manifest's lines of all tables and shards, by what each file was when it was written."""

    settings: PublishSettings

    def expand(self, inputs: Any) -> beam.PCollection[Published]:
        """`tables`: PCollection[str], and `shards`: PCollection[Shard] → PCollection[Published], one a file."""
        tables = inputs["tables"] | "Tables" >> beam.Map(lambda path: (path, None))
        shards = inputs["shards"] | "Shards" >> beam.FlatMap(self._files)
        return (tables, shards) | beam.Flatten() | MapInThreads(lambda file: written_file(self.settings.store, *file))

    def _files(self, shard: Shard) -> Iterator[tuple[str, int | None]]:
        files = find_output(self.settings.pool.has_images).files(shard.stem)
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
