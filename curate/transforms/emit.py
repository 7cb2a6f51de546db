"""Emitting on Beam: shards are elements, laid out from the units' numbers of kept rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsList

from curate.decide import dedup
from curate.output.layout import Shard, lay_out
from curate.output.output_format import emit_shard, find_output
from curate.output.settings import EmitSettings
from curate.publish.audit import Audit, PublishSettings, check_damage
from curate.store.error_notes import noting_errors
from curate.store.timings import time_step
from curate.transforms.threads import FlatMapInThreads, MapInThreads


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
            | "Names" >> FlatMapInThreads(self._name_buckets)
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
        hashes = find_output(self.settings.pool.has_images).name_hashes(self.settings.tables(audit.unit))
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
