"""Emitting on Beam: shards are elements, laid out from the units' numbers of kept rows."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.pvalue import AsList, AsSingleton, TaggedOutput

from curate.base.numeric.arrays import U64
from curate.decide.dedup import exact
from curate.emit.layout import Layout, Shard, lay_out
from curate.emit.output_format import emit_shard, find_output
from curate.emit.settings import EmitSettings
from curate.pool.plan import Unit
from curate.publish.audit import Audit
from curate.store.error_notes import noting_errors
from curate.store.manifest import Published, written_file
from curate.store.tables import OpenTables
from curate.store.timings import time_step
from pipelines.steps.functions import FlatMap, Map
from pipelines.steps.hashes import Batch, repeated_hashes
from pipelines.steps.threads import do_in_threads
from pipelines.steps.units import Answers, Packet, Units, pack, unpack


def hash_names(units: Units, settings: EmitSettings, n_buckets: int) -> Answers:
    """Hash the names that kept rows may get; return PCollection[uint64[n]] of those that several may: they are named by uid."""
    kind = find_output(settings.pool.has_images)

    def hash_unit(tables: OpenTables, unit: Unit) -> Iterator[Any]:
        hashes = kind.name_hashes(tables)
        for bucket, part in enumerate(exact.split_buckets(hashes, n_buckets)) if len(hashes) else ():
            yield bucket, (unit.index, part)

    return units.ask("Emit: hash names", hash_unit, combine=_Repeated())


class _Repeated(beam.PTransform):
    def expand(self, hashed: beam.PCollection[Any]) -> beam.PCollection[U64]:
        grouped = hashed | beam.ParDo(Batch()) | beam.GroupByKey()
        return grouped | Map(lambda item: repeated_hashes(item[1]))


def emit(
    units: Units, settings: EmitSettings, audit: beam.PCollection[Audit], repeated: beam.PCollection[U64]
) -> tuple[beam.PCollection[tuple[int, int]], beam.PCollection[list[Published]]]:
    """Lay the shards out and write them; return PCollection[(shard, rows)], and the manifest's lines of their files.

    `audit`, one, of all units, comes once nothing speaks against emitting; `repeated` are of `hash_names`.
    """
    layout = audit | "Emit: lay out" >> Map(lambda all_units: Layout.of(all_units.kept, settings.output.rows_per_shard))
    fields = audit | "Emit: fields" >> Map(lambda all_units: settings.find_fields(all_units.fields))

    def slices(packet: Packet, layout: Layout) -> list[Packet]:
        return [pack(shard.index, shard.slices) for shard in lay_out(unpack(packet), layout)]

    def write(item: tuple[int, Iterable[bytes]], repeated: list[U64], fields: pa.Schema) -> list[Any]:
        store, slices = settings.store, (unpack((item[0], slices)) for slices in item[1])
        shard = Shard.of(item[0], chain.from_iterable(slices))
        with noting_errors(store), time_step(store, "emit", f"{shard.index:05d}") as timer:
            timer.rows = shard.rows
            hashes = np.sort(np.concatenate([np.zeros(0, np.uint64), *repeated]))
            emit_shard(replace(settings, fields=fields), shard, hashes)
            files = find_output(settings.pool.has_images).files(shard.stem)
            lines = [written_file(store, path, shard.rows if has_rows else None) for path, has_rows in files.items()]
            return [(shard.index, shard.rows), TaggedOutput("lines", lines)]

    shards = (
        units.end_pass() | "Emit: slices" >> FlatMap(slices, AsSingleton(layout)) | "Emit: shards" >> beam.GroupByKey()
    )
    writing = beam.ParDo(do_in_threads(write), AsList(repeated), AsSingleton(fields))
    written = shards | "Emit: write" >> writing.with_outputs("lines", main="rows")
    return written["rows"], written["lines"]
