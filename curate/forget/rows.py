"""Which rows of a unit a set of items names, directly or by a link, and the names that those rows have themselves.

In: a unit's tables, and items. Out: masks (bool[rows]) and names. A row is linked to another by an equal uid, URL or image,
by having lost to it as a duplicate, or by an attachment, a file besides its image and texts, that is the other's image.
"""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import schema
from curate.numeric.arrays import Mask
from curate.pool.byte_sources import open_source
from curate.store.items import KINDS, WIDTHS, Hashes, Items, column_hashes
from curate.store.tables import UnitTables

_MEMBER_COLUMNS = ["suffix", "offset", "size"]


def find_rows(tables: UnitTables, items: Items) -> Mask:
    """Return the rows that have one of these uids, URLs or images."""
    kinds = [kind for kind in KINDS if len(items[kind])]
    samples = tables.read("samples", ["row", *kinds])
    found = np.zeros(len(samples), bool)
    for kind in kinds:
        found |= items.find(kind, samples[kind])
    return found


def find_duplicates(tables: UnitTables, items: Items) -> Mask:
    """Return the rows that lost to one of these uids when duplicates were dropped."""
    decisions = tables.read("decisions", ["rule", "duplicate_of"])
    lost = pc.fill_null(pc.equal(decisions["rule"], schema.DUPLICATE), False)
    return items.find("uid", pc.if_else(lost, decisions["duplicate_of"], pa.scalar(None, pa.string())))


def find_attached(tables: UnitTables, items: Items, storage: dict[str, Any]) -> Mask:
    """Return the rows that have one of the images as an attachment, which is read from the pool.

    Args:
        tables: the unit's.
        items: of which only images count.
        storage: the fsspec options of the unit's source.
    """
    if not len(items.sha256) or not tables.exists("members"):
        return np.zeros(tables.rows(), bool)
    samples = tables.read("samples", ["shard", "offset"]).combine_chunks()
    found = np.zeros(len(samples), bool)
    files = _attachments(tables.read("members", _MEMBER_COLUMNS), samples)
    shards = samples["shard"].combine_chunks().take(files["row"].combine_chunks())
    for shard in shards.unique().to_pylist():
        of_shard = files.filter(pc.equal(shards, shard)).to_pydict()
        opened = open_source(shard, storage)
        for row, offset, size in zip(*of_shard.values(), strict=True):
            found[row] |= items.has_image(hashlib.sha256(opened.read(offset, size)).digest())
    return found


def names_of(tables: UnitTables, rows: Mask) -> dict[str, Hashes]:
    """Return the uids, URLs and images of some rows, in their order."""
    if not rows.any():
        return {kind: np.zeros(0, f"S{WIDTHS[kind]}") for kind in KINDS}
    samples = tables.read("samples", list(KINDS)).filter(pa.array(rows))
    found = {}
    for kind in KINDS:
        values, is_present = column_hashes(samples[kind], kind)
        found[kind] = values[is_present]
    return found


def readable_names(tables: UnitTables, rows: Mask) -> Items:
    """Return the uids, URLs and images of those of the rows that could be read.

    The others link nothing: that two images of 0 bytes are equal means nothing.
    """
    if rows.any():
        rows = rows & pc.equal(tables.read("samples", ["status"])["status"], schema.OK).to_numpy(zero_copy_only=False)
    return Items.of({kind: [values.tobytes()] for kind, values in names_of(tables, rows).items()})


def uids_with_attachments(tables: UnitTables, sizes: set[int] | None) -> pa.Array:
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


def image_sizes(tables: UnitTables, items: Items) -> tuple[Hashes, set[int]]:
    """Return which of the images the unit's rows have, and the sizes of those in bytes."""
    samples = tables.read("samples", ["sha256", "bytes"])
    rows = items.find("sha256", samples["sha256"])
    values = column_hashes(samples["sha256"], "sha256")[0][rows]
    return values, set(samples["bytes"].filter(pa.array(rows)).to_pylist())


def _attachments(members: pa.Table, samples: pa.Table) -> pa.Table:
    """Return the files that rows have besides their image and texts: row, offset, size."""
    members = members.combine_chunks()
    row = pc.list_parent_indices(members["suffix"]).combine_chunks()
    suffix, offset, size = (pc.list_flatten(members[name]).combine_chunks() for name in _MEMBER_COLUMNS)
    is_image = pc.fill_null(pc.equal(offset, samples["offset"].combine_chunks().take(row)), False)
    is_attachment = pc.invert(pc.or_(is_image, pc.is_in(suffix, pa.array(["txt", "json"]))))
    return pa.table({"row": row, "offset": offset, "size": size}).filter(is_attachment)
