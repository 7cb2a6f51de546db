"""Rows that are forgotten: which they are, and what is left of them in a unit's tables.

A forgotten row keeps its place (unit, row), its uid, source and input file, and the status `ok`; all that was measured of
it is null, it matches nothing, and its verdict is `forgotten`. That is how every step knows it: readable, and without a
caption. One that could not be read stays `failed`, without its key, URL and caption. Texts of it in `answers`, `captions`
and `regions` are rows that go.

Tables are rewritten one by one, `samples` last: until then whoever begins again finds the same rows in it.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate import schema
from curate.numeric.vectors import no_embeddings
from curate.pool.byte_sources import open_source
from curate.pool.plan import Unit
from curate.run.context import RunContext
from curate.store.items import KINDS, NOTHING, WIDTHS, Hashes, Items, column_hashes

Mask = npt.NDArray[np.bool_]

_STAYS = {"unit", "row", "uid", "source", "shard", "status"}
_DETAIL = "a name in it was taken out on request"


def find_rows(context: RunContext, unit: Unit, items: Items) -> Mask:
    """The rows that have one of these uids, URLs or images."""
    wanted = [kind for kind in KINDS if len(items[kind])]
    table = context.read("samples", unit, ["row", *wanted])
    found = np.zeros(len(table), bool)
    for kind in wanted:
        found |= items.find(kind, table[kind])
    return found


def find_duplicates(context: RunContext, unit: Unit, items: Items) -> Mask:
    """The rows that lost to one of these uids when duplicates were dropped."""
    table = context.read("decisions", unit, ["rule", "duplicate_of"])
    lost = pc.fill_null(pc.equal(table["rule"], schema.DUPLICATE), False)
    winners = pc.if_else(lost, table["duplicate_of"], pa.scalar(None, pa.string()))
    return items.find("uid", winners)


def names_of(context: RunContext, unit: Unit, rows: Mask) -> dict[str, Hashes]:
    """The uids, URLs and images of some rows, as they come."""
    if not rows.any():
        return {kind: np.zeros(0, f"S{WIDTHS[kind]}") for kind in KINDS}
    table = context.read("samples", unit, list(KINDS)).filter(pa.array(rows))
    found = {}
    for kind in KINDS:
        values, there = column_hashes(table[kind], kind)
        found[kind] = values[there]
    return found


def neighbours(
    context: RunContext, unit: Unit, fresh: Items, known: Items, near: bool = False, beside: bool = False
) -> Items:
    """The names of rows that have one of `fresh`, without those in `known`.

    With `near` also of those that lost to one, with `beside` of those that have one of the images beside their own.

    Rows that could not be read tell nothing: what an image of 0 bytes has in common with another means nothing.
    """
    rows = find_rows(context, unit, fresh)
    if near:
        rows |= find_duplicates(context, unit, fresh)
    if beside:
        rows |= find_rows_beside(context, unit, fresh)
    if rows.any():
        rows &= pc.equal(context.read("samples", unit, ["status"])["status"], schema.OK).to_numpy(zero_copy_only=False)
    return Items.of({kind: [values.tobytes()] for kind, values in names_of(context, unit, rows).items()}) - known


def spread(context: RunContext, units: Sequence[Unit], asked: Items, near: bool = False) -> Items:
    """All names of the rows that hang together with what was asked for by an equal uid, URL or image, and those asked for.

    With `near` also of those that lost to one of them when duplicates were dropped: without it they would come in its place.
    """
    known = fresh = asked
    while len(fresh):
        found = NOTHING
        for unit in units:
            found |= neighbours(context, unit, fresh, known, near)
        known, fresh = known | found, found
    return known


def uids_beside(context: RunContext, unit: Unit, sizes: set[int] | None) -> pa.Array:
    """The uids of kept rows that have another file than image and texts, of one of these sizes; None: of any."""
    file = context.table("members", unit)
    if not context.store.exists(file):
        return pa.array([], pa.string())
    kept = context.read("decisions", unit, ["kept"])["kept"]
    members = context.store.read_parquet(file, ["suffix", "offset", "size"]).filter(kept)
    samples = context.read("samples", unit, ["uid", "offset"]).filter(kept).combine_chunks()
    files = _files_beside(members, samples)
    if sizes is not None:
        files = files.filter(pc.is_in(files["size"], pa.array(sorted(sizes), pa.int64())))
    return samples["uid"].combine_chunks().take(files["row"].combine_chunks()).unique()


def find_rows_beside(context: RunContext, unit: Unit, items: Items) -> Mask:
    """The rows that have one of the images as another file than their own image: read again from the pool."""
    file = context.table("members", unit)
    samples = context.read("samples", unit, ["shard", "offset"]).combine_chunks()
    found = np.zeros(len(samples), bool)
    if not context.has_members or not len(items.sha256) or not context.store.exists(file):
        return found
    files = _files_beside(context.store.read_parquet(file, ["suffix", "offset", "size"]), samples)
    shards = samples["shard"].combine_chunks().take(files["row"].combine_chunks())
    for shard in shards.unique().to_pylist():
        here = files.filter(pc.equal(shards, shard)).to_pydict()
        with open_source(shard, context.source(unit).storage) as opened:
            for row, offset, size in zip(*here.values(), strict=True):
                found[row] |= items.has_image(hashlib.sha256(opened.read(offset, size)).digest())
    return found


def _files_beside(members: pa.Table, samples: pa.Table) -> pa.Table:
    """The files that rows have beside their image and texts: row, offset, size."""
    members = members.combine_chunks()
    row = pc.list_parent_indices(members["suffix"]).combine_chunks()
    suffix, offset, size = (pc.list_flatten(members[name]).combine_chunks() for name in ("suffix", "offset", "size"))
    own = pc.fill_null(pc.equal(offset, samples["offset"].combine_chunks().take(row)), False)
    beside = pc.invert(pc.or_(own, pc.is_in(suffix, pa.array(["txt", "json"]))))
    return pa.table({"row": row, "offset": offset, "size": size}).filter(beside)


def image_sizes(context: RunContext, unit: Unit, items: Items) -> tuple[Hashes, set[int]]:
    """Which of the images the unit's rows have, and the bytes of those."""
    table = context.read("samples", unit, ["sha256", "bytes"])
    rows = items.find("sha256", table["sha256"])
    values = column_hashes(table["sha256"], "sha256")[0][rows]
    return values, set(table["bytes"].filter(pa.array(rows)).to_pylist())


def clear_unit(context: RunContext, unit: Unit, items: Items, tables: Sequence[str]) -> list[str]:
    """Clears the rows that the items name, in those of the unit's tables that hold more of them than they may.

    Returns:
        The files that were rewritten.
    """
    rewritten = []
    for name, table, note in _cleared(context, unit, items, tables):
        file = context.table(name, unit)
        context.store.write_parquet(file, table, context.store.footer(file)[0], note)
        rewritten.append(file)
    return rewritten


def leftovers(context: RunContext, unit: Unit, items: Items, tables: Sequence[str]) -> list[str]:
    """The unit's tables that hold more of forgotten rows than they may."""
    return [name for name, _, _ in _cleared(context, unit, items, tables)]


def _cleared(
    context: RunContext, unit: Unit, items: Items, tables: Sequence[str]
) -> Iterator[tuple[str, pa.Table, str | None]]:
    """Tables that are not as they should be, as they should be, with their notes; `samples` last."""
    rows = find_rows(context, unit, items)
    if not rows.any():
        return
    rows |= _same_key(context, unit, rows)
    for name in sorted(tables, key=lambda name: name == "samples"):
        file = context.table(name, unit)
        if not context.store.exists(file):
            continue
        old = context.store.read_parquet(file)
        note = context.store.footer(file)[1]
        if name in ("answers", "captions", "regions"):
            left = old.filter(pa.array(~items.find("uid", old["uid"])))
            if len(left) < len(old):
                yield name, left, note
            continue
        mask = pa.array(rows)
        new = _clear_aligned(name, old, rows)
        new_note = _clear_note(note, old.filter(mask)) if name == "samples" else note
        # Compared where they may differ alone: a NaN elsewhere is not equal to itself.
        if not new.filter(mask).equals(old.filter(mask)) or new_note != note:
            yield name, new, new_note


def _same_key(context: RunContext, unit: Unit, rows: Mask) -> Mask:
    """Rows that could not be read, of a key that one of these has in the same file: what was wrong names it."""
    table = context.read("samples", unit, ["shard", "key", "status"])
    failed = np.asarray(pc.not_equal(table["status"], schema.OK).to_numpy())
    if not failed.any():
        return failed
    pairs = list(zip(table["shard"].to_pylist(), table["key"].to_pylist(), strict=True))
    wanted = {pairs[i] for i in np.flatnonzero(rows) if pairs[i][1] is not None}
    return np.asarray(failed & np.fromiter((pair in wanted for pair in pairs), bool, len(pairs)))


def _clear_aligned(name: str, table: pa.Table, rows: Mask) -> pa.Table:
    """A row-aligned table with these rows cleared."""
    stays = _STAYS if name == "samples" else {"unit", "row", "uid"}
    for place, field in enumerate(table.schema):
        if field.name not in stays:
            column = table.column(place).combine_chunks()
            blank = _VERDICT[field.name](column) if name == "decisions" else _blank(field.type)
            table = table.set_column(place, field, _put(column, rows, blank))
    return table


def _put(column: pa.Array, rows: Mask, blanks: pa.Array) -> pa.Array:
    """The column with `blanks`, one value or one a row, in these rows."""
    places = np.arange(len(column))
    places[rows] = len(column) + (places[rows] if len(blanks) == len(column) and len(column) > 1 else 0)
    return pa.concat_arrays([column, blanks]).take(pa.array(places))


def _blank(kind: pa.DataType) -> pa.Array:
    """What a cleared row has in a column, as one that could not be read."""
    if pa.types.is_fixed_size_list(kind):
        return no_embeddings(kind.list_size, 1).cast(kind)
    blank: list[Any] = [[]] if pa.types.is_list(kind) else [None]
    return pa.array(blank, kind)


# Columns of `decisions`: rows that could not be read stay what they are.
_VERDICT: dict[str, Callable[[Any], pa.Array]] = {
    "kept": lambda _: pa.array([False]),
    "rule": lambda rule: pc.if_else(
        pc.fill_null(pc.equal(rule, schema.FAILED), False), schema.FAILED, schema.FORGOTTEN
    ),
    "duplicate_of": lambda _: pa.nulls(1, pa.string()),
    "probability": lambda _: pa.array([0.0]),
    "draw": lambda _: pa.nulls(1, pa.float64()),
}


def _clear_note(note: str | None, rows: pa.Table) -> str | None:
    """The note of `samples`, without details of damage that name one of these rows: a tar's do, where it ends within."""
    about = json.loads(note) if note else {}
    keys: dict[str, list[str]] = {}
    for shard, key in zip(rows["shard"].to_pylist(), rows["key"].to_pylist(), strict=True):
        if key:
            keys.setdefault(shard, []).append(f"{key}.")
    changed = False
    for failure in about.get("failures", ()):
        if any(key in (failure[2] or "") for key in keys.get(failure[0], ())):
            failure[2], changed = _DETAIL, True
    return json.dumps(about, ensure_ascii=False, sort_keys=True) if changed else note
