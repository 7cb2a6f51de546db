"""Which rows of a unit a set of items names, directly or by a link, and the names that those rows have themselves.

In: units' tables, and items. Out: masks (bool[rows]) and names; of a request all names that are linked to it. A row is
linked to another by an equal uid, URL or image, by having lost to it as a duplicate, or by an attachment (a file
besides its image and texts) that is the other's image.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import schema
from curate.base.numeric.arrays import Mask
from curate.pool.plan import Unit
from curate.pool.reread import UnitRereader
from curate.publish.audit import PublishSettings
from curate.publish.forget.shards import find_holders
from curate.publish.uids import pair_bytes, read_uids
from curate.store.forgotten import forgotten_mask
from curate.store.items import KINDS, NOTHING, WIDTHS, Hashes, Items, column_hashes, hex_of, unite
from curate.store.store import RunStore
from curate.store.tables import UnitTables

_NAMES = [(kind, kind) for kind in KINDS]  # columns of `samples` that link rows, each after its kind
_LOOKUPS = [*_NAMES, ("sha256", "original_sha256")]  # where items are looked up: an image may be stored as another
_MEMBER_COLUMNS = ["suffix", "offset", "size"]


def find_rows(tables: UnitTables, items: Items) -> Mask:
    """Return the rows that have one of these uids, URLs or images, as they are stored or as they were downloaded."""
    columns = [(kind, name) for kind, name in _LOOKUPS if len(items[kind])]
    samples = tables.read("samples", ["row", *(name for _, name in columns)])
    rows = np.zeros(len(samples), bool)
    for kind, name in columns:
        rows |= items.find(kind, samples[name])
    return rows


def _find_duplicates(tables: UnitTables, items: Items) -> Mask:
    """Return the rows that lost to one of these uids when duplicates were dropped."""
    decisions = tables.read("decisions", ["rule", "duplicate_of"])
    lost = pc.fill_null(pc.equal(decisions["rule"], schema.DUPLICATE), False)
    return items.find("uid", pc.if_else(lost, decisions["duplicate_of"], pa.scalar(None, pa.string())))


def find_attached(reader: UnitRereader, items: Items) -> Mask:
    """Return the rows that have one of the images as an attachment, which is read from the pool."""
    tables = reader.tables
    has_one = np.zeros(tables.rows(), bool)
    if len(items.sha256) and tables.exists("members"):
        files = _attachments(tables.read("members", _MEMBER_COLUMNS), tables.read("samples", ["offset"]))
        rows, first = np.unique(files["row"].to_numpy(), return_index=True)
        starts = pa.array([*first.tolist(), len(files)], pa.int32())
        lists = [pa.ListArray.from_arrays(starts, files[name].combine_chunks()) for name in _MEMBER_COLUMNS]
        samples = pa.table({"row": rows.astype(np.int64), "format": pa.nulls(len(rows), pa.string())})
        attached = reader.samples(samples, pa.table(lists, names=_MEMBER_COLUMNS))
        for row, sample in zip(rows, attached, strict=True):
            has_one[row] = any(items.has_image(hashlib.sha256(data).digest()) for _, data in sample.members)
    return has_one


def names_of(tables: UnitTables, rows: Mask, columns: Sequence[tuple[str, str]]) -> dict[str, Hashes]:
    """Return by kind, as often as rows have them, the values of `columns` of `samples`, each after its kind."""
    names = {kind: np.zeros(0, f"S{WIDTHS[kind]}") for kind in KINDS}
    if not rows.any():
        return names
    samples = tables.read("samples", [name for _, name in columns]).filter(pa.array(rows))
    for kind, name in columns:
        values, is_present = column_hashes(samples[name], kind)
        names[kind] = np.concatenate([names[kind], values[is_present]])
    return names


def readable_names(tables: UnitTables, rows: Mask) -> Items:
    """Return the uids, URLs and images of those of the rows that could be read.

    The others link nothing: that two images of 0 bytes are equal means nothing. Neither does what a json says of the
    image as it was downloaded: one that says the same of all would link them.
    """
    if rows.any():
        rows = rows & pc.equal(tables.read("samples", ["status"])["status"], schema.OK).to_numpy(zero_copy_only=False)
    return Items.of({kind: [values.tobytes()] for kind, values in names_of(tables, rows, _NAMES).items()})


def _uids_with_attachments(tables: UnitTables, sizes: set[int] | None) -> pa.Array:
    """Return the uids of kept rows that have an attachment of one of these sizes in bytes; None: of any size."""
    if not tables.exists("members"):
        return pa.array([], pa.string())
    kept = tables.read("decisions", ["kept"])["kept"]
    members = tables.read("members", _MEMBER_COLUMNS).filter(kept)
    samples = tables.read("samples", ["uid", "offset"]).filter(kept).combine_chunks()
    files = _attachments(members, samples)
    if sizes is not None:
        files = files.filter(pc.is_in(files["size"], pa.array(sorted(sizes), pa.int64())))
    return samples["uid"].combine_chunks().take(files["row"].combine_chunks()).unique()


def _image_sizes(tables: UnitTables, items: Items) -> tuple[Items, set[int]]:
    """Return which of the images the unit's rows have, and the sizes of those in bytes."""
    samples = tables.read("samples", ["sha256", "bytes"])
    samples = samples.filter(pa.array(items.find("sha256", samples["sha256"])))
    values, _ = column_hashes(samples["sha256"], "sha256")
    return Items.of({"sha256": [values.tobytes()]}), set(samples["bytes"].to_pylist())


def _attachments(members: pa.Table, samples: pa.Table) -> pa.Table:
    """Return the files that rows have besides their image and texts: row, suffix, offset, size."""
    members = members.combine_chunks()
    row = pc.list_parent_indices(members["suffix"]).combine_chunks()
    suffix, offset, size = (pc.list_flatten(members[name]).combine_chunks() for name in _MEMBER_COLUMNS)
    is_image = pc.fill_null(pc.equal(offset, samples["offset"].combine_chunks().take(row)), False)
    is_attachment = pc.invert(pc.or_(is_image, pc.is_in(suffix, pa.array(["txt", "json"]))))
    return pa.table({"row": row, "suffix": suffix, "offset": offset, "size": size}).filter(is_attachment)


@dataclass(frozen=True)
class Survey:
    """The rows of a pool that items name and that are not forgotten yet."""

    names: dict[str, Hashes] = field(compare=False)  # of `names_of`
    units: tuple[Unit, ...]  # that hold some of the rows
    requested: int = 0  # how many have a requested name
    linked: int = 0  # how many are linked to those
    failed: int = 0  # how many of both could not be read
    kept: int = 0  # how many of both were published
    representatives: tuple[str, ...] = ()  # published uids, to stay, to which a requested row lost as a duplicate


def link_items(settings: PublishSettings, units: Sequence[Unit], requested: Items) -> Items:
    """Return the requested items and all names of rows that are linked to them.

    A row is linked by an equal uid, URL or image, by having lost to one as a duplicate (it would be kept in a later run
    instead), and a published sample by an attachment that is one of the images.
    """
    all_tables = [settings.tables(unit) for unit in units]
    items = _follow_rows(all_tables, requested)
    while len(items.sha256):
        images = [_image_sizes(tables, items) for tables in all_tables]
        all_known = len(unite(names for names, _ in images)) == len(items.sha256)
        sizes = set().union(*(lengths for _, lengths in images)) if all_known else None
        uids = [_uids_with_attachments(tables, sizes) for tables in all_tables]
        candidates = Items.of({"uid": (bytes.fromhex(uid) for part in uids for uid in part.to_pylist())}) - items
        holders = find_holders(settings.store, settings.output, items, candidates) if len(candidates) else NOTHING
        if not len(holders):
            break
        items = _follow_rows(all_tables, items | holders)
    return items


def _follow_rows(all_tables: Sequence[UnitTables], items: Items) -> Items:
    """Return the items and the names of rows that are linked to them in tables, step by step until all are there."""
    known = fresh = items
    while len(fresh):
        rows = ((tables, find_rows(tables, fresh) | _find_duplicates(tables, fresh)) for tables in all_tables)
        fresh = unite(readable_names(tables, named) for tables, named in rows) - known
        known |= fresh
    return known


def survey(settings: PublishSettings, units: Sequence[Unit], requested: Items, items: Items) -> Survey:
    """Return which rows the items name; `items` are those requested and all that are linked to them."""
    names: dict[str, list[Hashes]] = {kind: [items[kind][:0]] for kind in KINDS}
    holding, representatives = [], set()
    totals = dict.fromkeys(("requested", "linked", "failed", "kept"), 0)
    for unit in units if len(items) else ():
        tables = settings.tables(unit)
        rows = find_rows(tables, items)
        if rows.any():
            rows &= ~forgotten_mask(tables.read("samples", ["status", "characters"]))
        if not rows.any():
            continue
        holding.append(unit)
        for kind, values in names_of(tables, rows, _LOOKUPS).items():
            names[kind].append(values)
        named = rows & find_rows(tables, requested)
        decisions = tables.read("decisions", ["kept", "rule", "duplicate_of"])
        lost = pc.fill_null(pc.equal(decisions["rule"], schema.DUPLICATE), False)
        representatives |= set(decisions["duplicate_of"].filter(pc.and_(lost, pa.array(named))).to_pylist())
        failed = pc.fill_null(pc.equal(decisions["rule"], schema.FAILED), False).to_numpy()
        masks = {"requested": named, "linked": ~named, "failed": failed, "kept": decisions["kept"].to_numpy()}
        for name, mask in masks.items():
            totals[name] += int((rows & mask).sum())
    return Survey(
        names={kind: np.concatenate(parts) for kind, parts in names.items()},
        units=tuple(holding),
        representatives=_published(settings.store, representatives, items) if representatives else (),
        **totals,
    )


def _published(store: RunStore, uids: set[str], items: Items) -> tuple[str, ...]:
    """Return which of the uids are published and not among the items, sorted."""
    stay = Items.of({"uid": [pair_bytes(read_uids(store)).tobytes()]}) - items
    named = Items.of({"uid": map(bytes.fromhex, uids)})
    return tuple(hex_of(named.uid[stay.holds("uid", named.uid)]))
