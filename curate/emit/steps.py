"""Emits all units: assigns kept rows to shards, and writes each shard separately."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa

from curate.base.numeric.arrays import U64
from curate.decide.dedup import exact
from curate.emit.columns import SIDECAR
from curate.emit.layout import Layout, Shard, Slice
from curate.emit.output_format import emit_shard, find_output
from curate.emit.settings import EmitSettings
from curate.pool.plan import Unit
from curate.read.field_types import find_field_columns, merge_dtypes
from curate.run.units import Answer, Fold, SideOutput, Units
from curate.store.tables import OpenTables
from curate.store.timings import time_step
from curate.store.validity import recorded_line


def hash_names(units: Units, settings: EmitSettings, n_buckets: int = 1) -> Answer:
    """Hash the names that kept rows may get; return a list of uint64[n] with repeated names, which no row gets."""
    hashes = units.pairs("Emit: hash names", _hash, settings, n_buckets)
    names = units.group("Emit: repeated names", hashes, lambda _, buckets: [SideOutput(exact.repeated(buckets))])
    return names.side_output


def _hash(tables: OpenTables, unit: Unit, settings: EmitSettings, n_buckets: int) -> Iterator[tuple[int, Any]]:
    hashes = find_output(settings.output.format, settings.pool.has_images).name_hashes(tables)
    yield from enumerate(exact.split_buckets(hashes, n_buckets)) if len(hashes) else ()


def emit(units: Units, settings: EmitSettings, audit: Answer, repeated: Answer) -> tuple[Answer, Answer]:
    """Write all shards. Return (0, the JSON_DTYPE of all), and a list with the list[Published] of each shard.

    `audit` of all units is available once the run may emit; `repeated` is from `hash_names`.
    """
    output, names = settings.output, [*SIDECAR.names, *settings.emitted.parquet]
    layout = units.get("Emit: lay out", lambda counts: Layout.of(counts.kept, output.rows_per_shard), audit)
    fields = units.get("Emit: fields", lambda counts: find_field_columns(counts.fields, names), audit)
    slices = units.pairs("Emit: slices", lambda _, unit, whole: whole.slices(unit), layout)
    written = units.group("Emit: write", slices, _write, repeated, fields, settings)
    wider = Fold[Any](lambda a, b: (0, None if None in (a[1], b[1]) else merge_dtypes(a[1], b[1])))
    return units.combine("Emit: types", [written.items], wider), written.side_output


def _write(
    index: int, slices: Sequence[Slice], repeated: list[U64], fields: pa.Schema, settings: EmitSettings
) -> Iterator[Any]:
    store, shard = settings.store, Shard.of(index, slices)
    with time_step(store, "emit", f"{index:05d}") as timer:
        timer.rows = shard.rows
        in_order = sorted(filter(len, repeated), key=itemgetter(0))  # one per bucket
        hashes = np.concatenate([np.zeros(0, np.uint64), *in_order])
        dtype = emit_shard(replace(settings, fields=fields), shard, hashes)
        files = find_output(settings.output.format, settings.pool.has_images).files(shard.stem)
        lines = [recorded_line(store, path, shard.rows if has_rows else None) for path, has_rows in files.items()]
        yield index, dtype
        yield SideOutput(lines)
