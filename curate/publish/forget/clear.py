"""Clears forgotten rows in a unit's tables.

A forgotten row keeps its position (unit, row), uid, source, input file, and the status `ok`. All of its measured values
become null, it matches no entry, and its rule is `forgotten`. Every step recognizes it, because it is readable but has
no caption. A row that could not be read stays `failed`. Rows in `answers`, `captions` and `regions` are removed.
`samples` is rewritten last, so that a repeated request finds the same rows until then.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import schema, stages
from curate.base.numeric.arrays import Mask
from curate.base.numeric.vectors import no_embeddings
from curate.pool.registry import find_downloading
from curate.publish.forget.rows import find_rows
from curate.recipe.source import Source
from curate.store.chunks import keep_rows, map_notes
from curate.store.items import Items
from curate.store.tables import UnitTables

_ALIGNED = {field.name for field in schema.ALIGNED}
_SAMPLES_KEEP = {*_ALIGNED, "source", "shard", "status"}
_DETAIL = "a name in it was removed on request"


def clear_unit(tables: UnitTables, items: Items, names: Sequence[str], source: Source) -> list[str]:
    """Clear the items' rows in a unit's tables and in its downloads. Return the files that were rewritten."""
    rewritten = _clear_downloads(tables, items, source)
    for name, table, note in _cleared(tables, items, names):
        tables.rewrite(name, table, tables.key(name), note)
        rewritten.append(tables.file(name))
    return rewritten


def _clear_downloads(tables: UnitTables, items: Items, source: Source) -> list[str]:
    """Clear rows in the files that their source downloaded for the run. `samples` must still have their positions."""
    kind = find_downloading(source)
    if not kind:
        return []
    samples = tables.read("samples", ["shard", "key"])
    rows = np.flatnonzero(_find_rows(tables, items) & samples["key"].is_valid().to_numpy())
    columns = samples.take(rows).to_pydict()
    columns |= tables.read("members", ["offset", "size"]).take(rows).to_pydict()
    cleared: dict[str, tuple[list[str], list[tuple[int, int]]]] = {}
    for shard, key, offsets, sizes in zip(*columns.values(), strict=True):
        keys, spans = cleared.setdefault(shard, ([], []))
        keys.append(key)
        spans += zip(offsets, sizes, strict=True)
    files = []
    for shard, of_shard in cleared.items():
        files += kind.clear(source, shard, *of_shard)
    return files


def find_leftovers(tables: UnitTables, items: Items, names: Sequence[str]) -> list[str]:
    """Return which of these tables of the unit still have rows of the items that are not cleared."""
    return [tables.file(name) for name, _, _ in _cleared(tables, items, names)]


def _cleared(
    tables: UnitTables, items: Items, names: Sequence[str]
) -> Iterator[tuple[str, pa.Table, dict[str, Any] | None]]:
    """Yield the name, the cleared content and the note of each table that must be cleared, with `samples` last."""
    rows = _find_rows(tables, items)
    if not rows.any():
        return
    mask = pa.array(rows)
    for name in sorted(filter(tables.exists, names), key=lambda name: name == "samples"):
        old, note = tables.read(name), tables.note(name) or None
        if name in stages.STAGE["caption"].tables:
            stay = ~items.find("uid", old["uid"])
            if not stay.all():
                yield name, old.filter(pa.array(stay)), note and keep_rows(note, stay)
            continue
        new, new_note = _clear_aligned(name, old, mask), note
        if name == "samples" and note:
            new_note = map_notes(note, partial(_clear_note, rows=old.filter(mask)))
        # Compare only the cleared rows: a NaN in another row is not equal to itself.
        if not new.filter(mask).equals(old.filter(mask)) or new_note != note:
            yield name, new, new_note


def _find_rows(tables: UnitTables, items: Items) -> Mask:
    """Return the items' rows, and unreadable rows with the same file and key, because their errors name the key."""
    rows = find_rows(tables, items)
    if not rows.any():
        return rows
    samples = tables.read("samples", ["shard", "key", "status"])
    failed = np.flatnonzero(pc.not_equal(samples["status"], pa.scalar(schema.OK)).to_numpy())
    if len(failed):
        pairs = list(zip(samples["shard"].to_pylist(), samples["key"].to_pylist(), strict=True))
        named = {pairs[i] for i in np.flatnonzero(rows) if pairs[i][1] is not None}
        rows[[i for i in failed if pairs[i] in named]] = True
    return rows


def _clear_aligned(name: str, table: pa.Table, rows: pa.BooleanArray) -> pa.Table:
    """Return a row-aligned table in which these rows look like rows that could not be read."""
    retained, blanks = _ALIGNED, {}
    if name == "samples":
        retained = _SAMPLES_KEEP
    elif name == "decisions":  # rows that could not be read stay `failed`
        failed = pc.is_in(table["rule"], pa.array([stages.FAILED]))
        rule = pc.if_else(failed, pa.scalar(stages.FAILED), pa.scalar(stages.FORGOTTEN))
        no_repeats = pa.scalar(0, schema.REPEATS.type)
        blanks = {"kept": False, "rule": rule, "probability": 0.0, schema.REPEATS.name: no_repeats}
    for index, field in enumerate(table.schema):
        if field.name not in retained:
            blank = blanks.get(field.name, _blank(field.type))
            table = table.set_column(index, field, pc.if_else(rows, blank, table.column(index)))
    return table


def _blank(kind: pa.DataType) -> pa.Scalar:
    if pa.types.is_fixed_size_list(kind):
        return no_embeddings(kind.list_size, 1).cast(kind)[0]
    return pa.scalar([] if pa.types.is_list(kind) else None, kind)


def _clear_note(note: dict[str, Any], rows: pa.Table) -> dict[str, Any]:
    """Return the note of `samples` without details of damage that name a row, such as the last in a truncated tar."""
    keys: dict[str, list[str]] = {}
    for shard, key in zip(*rows.select(["shard", "key"]).to_pydict().values(), strict=True):
        if key:
            keys.setdefault(shard, []).append(f"{key}.")
    failures = [
        [shard, reason, _DETAIL if any(key in (detail or "") for key in keys.get(shard, ())) else detail]
        for shard, reason, detail in note.get("failures", ())
    ]
    return note | ({"failures": failures} if "failures" in note else {})
