"""Finds the rows in a unit that items match, and rows that are linked to them.

In: units' tables, and items. Out: masks (bool[rows]), and names: uids, URLs and images. Two rows are linked in any of
three cases: They have the same uid, URL or image. One was dropped as a duplicate of the other. The image of one is an
attachment of the other (a file besides its image and texts).
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import schema, stages
from curate.base.numeric.arrays import I64, Mask, whole
from curate.emit.output_format import OutputFormat
from curate.pool.plan import Unit
from curate.pool.reread import UnitRereader
from curate.publish.audit import PublishSettings
from curate.publish.uids import pair_bytes, read_uids
from curate.read.tar_samples import split_name
from curate.store.forgotten import forgotten_mask
from curate.store.items import KINDS, NOTHING, WIDTHS, Hashes, Items, column_hashes, hex_of, unite
from curate.store.layout import SIZES_FILE, stem_of
from curate.store.store import RunStore
from curate.store.tables import UnitTables

_NAMES = [(kind, kind) for kind in KINDS]  # columns of `samples` that link rows, as pairs (kind, column)
_LOOKUPS = [*_NAMES, ("sha256", "original_sha256")]  # where to look for items: images may be encoded again
_MEMBER_COLUMNS = ["suffix", "offset", "size"]


def find_rows(tables: UnitTables, items: Items) -> Mask:
    """Return the rows that have one of these uids, URLs or images (as stored or as downloaded)."""
    columns = [(kind, name) for kind, name in _LOOKUPS if len(items[kind])]
    samples = tables.read("samples", ["row", *(name for _, name in columns)])
    rows = np.zeros(len(samples), bool)
    for kind, name in columns:
        rows |= items.find(kind, samples[name])
    return rows


def find_attached(reader: UnitRereader, items: Items) -> Mask:
    """Return the rows that have one of the images as an attachment. This reads attachments from the pool."""
    tables = reader.tables
    has_one = np.zeros(tables.rows(), bool)
    if len(items.sha256) and tables.exists("members"):
        files = _attachments(tables.read("members", _MEMBER_COLUMNS), tables.read("samples", ["offset"]))
        rows, first = np.unique(files["row"].to_numpy(), return_index=True)
        starts = pa.array([*first.tolist(), len(files)], pa.int32())
        lists = [pa.ListArray.from_arrays(starts, whole(files[name])) for name in _MEMBER_COLUMNS]
        samples = pa.table({"row": pa.array(rows, pa.int64()), "format": pa.nulls(len(rows), pa.string())})
        for row, sample in zip(rows, reader.samples(samples, pa.table(lists, names=_MEMBER_COLUMNS)), strict=True):
            has_one[row] = any(items.has_image(hashlib.sha256(data).digest()) for _, data in sample.members)
    return has_one


def names_of(tables: UnitTables, rows: Mask, columns: Sequence[tuple[str, str]]) -> dict[str, Hashes]:
    """Return the rows' values in `columns` of `samples`, pairs (kind, column), by kind. Values may repeat."""
    names = {kind: np.zeros(0, f"S{WIDTHS[kind]}") for kind in KINDS}
    if not rows.any():
        return names
    samples = tables.read("samples", [name for _, name in columns]).filter(pa.array(rows))
    for kind, name in columns:
        values, is_present = column_hashes(samples[name], kind)
        names[kind] = np.concatenate([names[kind], values[is_present]])
    return names


def readable_names(tables: UnitTables, rows: Mask) -> Items:
    """Return the uids, URLs and images of these rows, except rows that could not be read."""
    # Unreadable rows are not linked: two images of 0 bytes are equal by chance. The digest of a download, in the json,
    # is not used either: if all rows had the same one, it would link all of them.
    if rows.any():
        rows = rows & pc.equal(tables.read("samples", ["status"])["status"], pa.scalar(schema.OK)).to_numpy()
    return Items.of({kind: [values.tobytes()] for kind, values in names_of(tables, rows, _NAMES).items()})


def _uids_with_attachments(tables: UnitTables, sizes: pa.Array | None) -> Hashes:
    """Return the uids of kept rows that have an attachment with one of these sizes in bytes, or any size (None)."""
    if not tables.exists("members"):
        return NOTHING.uid
    kept = tables.read("decisions", ["kept"])["kept"]
    samples = tables.read("samples", ["uid", "offset"]).filter(kept)
    files = _attachments(tables.read("members", _MEMBER_COLUMNS).filter(kept), samples)
    if sizes is not None:
        files = files.filter(pc.is_in(files["size"], sizes))
    return column_hashes(samples["uid"].take(files["row"]), "uid")[0]


def _image_sizes(tables: UnitTables, items: Items) -> tuple[Hashes, pa.Array]:
    """Return which images among the items the unit's rows have, and their sizes in bytes."""
    samples = tables.read("samples", ["sha256", "bytes"])
    samples = samples.filter(pa.array(items.find("sha256", samples["sha256"])))
    return column_hashes(samples["sha256"], "sha256")[0], whole(samples["bytes"])


def _attachments(members: pa.Table, samples: pa.Table) -> pa.Table:
    """Return the rows' files other than image and texts: row, suffix, offset, size."""
    lists = [whole(members[name]) for name in _MEMBER_COLUMNS]
    files = pa.table([pc.list_parent_indices(lists[0]), *map(pc.list_flatten, lists)], names=["row", *_MEMBER_COLUMNS])
    is_image = files["offset"].to_numpy() == samples["offset"].take(files["row"]).to_numpy()  # false for nulls
    is_text = pc.is_in(files["suffix"], pa.array(["txt", "json"])).to_numpy()
    return files.filter(pa.array(~(is_image | is_text)))


def _lost_rows(decisions: pa.Table) -> tuple[Mask, Hashes]:
    """Return which rows were dropped as duplicates, and, for each of them, the uid of its representative."""
    lost = np.array(pc.is_in(decisions["rule"], pa.array([stages.DUPLICATE])))
    return lost, column_hashes(decisions["duplicate_of"].filter(pa.array(lost)), "uid")[0]


@dataclass(frozen=True)
class Survey:
    """The rows of a pool that items match, without rows that are already forgotten."""

    counts: dict[str, I64] = field(compare=False)  # by kind, the number of rows that each item matches
    units: tuple[Unit, ...]  # units that have such rows
    requested: int = 0  # rows that the request names
    linked: int = 0  # rows that are linked to rows in the request
    failed: int = 0  # how many of both could not be read
    kept: int = 0  # how many of both were published
    representatives: tuple[str, ...] = ()  # uids of published rows that have a duplicate in the request


def link_items(settings: PublishSettings, units: Sequence[Unit], requested: Items) -> Items:
    """Return the requested items and all names of linked rows. Attachments link only published samples."""
    all_tables = [settings.tables(unit) for unit in units]
    items = _follow_rows(all_tables, requested)
    while len(items.sha256):
        images = [_image_sizes(tables, items) for tables in all_tables]
        all_known = len(_items_of("sha256", (hashes for hashes, _ in images))) == len(items.sha256)
        sizes = pa.concat_arrays([of_images for _, of_images in images]) if all_known else None
        candidates = _items_of("uid", (_uids_with_attachments(tables, sizes) for tables in all_tables)) - items
        holders = find_holders(settings.store, settings.output, items, candidates) if len(candidates) else NOTHING
        if not len(holders):
            break
        items = _follow_rows(all_tables, items | holders)
    return items


def _items_of(kind: str, values: Iterable[Hashes]) -> Items:
    return Items.of({kind: [hashes.tobytes() for hashes in values]})


def _follow_rows(all_tables: Sequence[UnitTables], items: Items) -> Items:
    """Return the items, and the names of rows that tables link to them. This repeats until there are no new names."""
    followed = fresh = items
    while len(fresh):
        linked = []
        for tables in all_tables:
            lost, uids = _lost_rows(tables.read("decisions", ["rule", "duplicate_of"]))
            lost[lost] = fresh.holds("uid", uids)
            linked.append(readable_names(tables, find_rows(tables, fresh) | lost))
        fresh = unite(linked) - followed
        followed |= fresh
    return followed


def survey(settings: PublishSettings, units: Sequence[Unit], requested: Items, items: Items) -> Survey:
    """Return the rows that items match. `items` are the requested items and all items that are linked to them."""
    counts = {kind: np.zeros(len(items[kind]), np.int64) for kind in KINDS}
    representatives: list[Hashes] = []
    holding = []
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
            counts[kind] += items.count(kind, values)
        named = rows & find_rows(tables, requested)
        decisions = tables.read("decisions", ["kept", "rule", "duplicate_of"])
        lost, uids = _lost_rows(decisions)
        representatives.append(uids[named[lost]])
        failed = pc.is_in(decisions["rule"], pa.array([stages.FAILED])).to_numpy()
        masks = {"requested": named, "linked": ~named, "failed": failed, "kept": decisions["kept"].to_numpy()}
        for name, mask in masks.items():
            totals[name] += int((rows & mask).sum())
    stay = _items_of("uid", representatives) - items
    if len(stay):
        published = _items_of("uid", [pair_bytes(read_uids(settings.store))])
        stay = _items_of("uid", [stay.uid[published.holds("uid", stay.uid)]])
    return Survey(counts=counts, units=tuple(holding), representatives=tuple(hex_of(stay.uid)), **totals)


def find_shards(folder: RunStore, items: Items) -> list[str]:
    """Return the names in sizes.json of the shards that have samples with these uids."""
    return [
        name
        for name in folder.read_json(SIZES_FILE)
        if items.find("uid", folder.read_parquet(f"{stem_of(name)}.parquet", ["uid"])["uid"]).any()
    ]


def rewrite_shard(folder: RunStore, kind: OutputFormat, name: str, items: Items) -> list[str]:
    """Rewrite a shard, given by its name in sizes.json, without the samples with these uids.

    Return the rewritten files.
    """
    stem = stem_of(name)
    sidecar, stats = f"{stem}.parquet", f"{stem}_stats.json"
    key, note, _ = folder.footer(sidecar)
    rows = folder.read_parquet(sidecar)
    removed = pa.array(items.find("uid", rows["uid"]))
    remaining = rows.filter(pc.invert(removed))
    written = kind.remove(folder, stem, rows.filter(removed))
    about = folder.read_json(stats)
    counts = {"count": len(remaining), "successes": len(remaining), "status_dict": {"success": len(remaining)}}
    folder.write_json(stats, {field: counts.get(field, value) for field, value in about.items()})
    folder.write_parquet(sidecar, remaining, key, note)
    return [*written, stats, sidecar]


def count_shards(folder: RunStore) -> None:
    """Write sizes.json from the numbers of rows in the sidecars, if it has changed."""
    sizes = folder.read_json(SIZES_FILE)
    counted = {name: folder.footer(f"{stem_of(name)}.parquet")[2] for name in sizes}
    if counted != sizes:
        folder.write_json(SIZES_FILE, counted)


def find_holders(folder: RunStore, kind: OutputFormat, items: Items, candidates: Items) -> Items:
    """Return which uids in `candidates` belong to samples that have one of the images as a file."""
    holders = []
    for name in find_shards(folder, candidates):
        rows = folder.read_parquet(f"{stem_of(name)}.parquet", ["uid", "key"])
        rows = rows.filter(pa.array(candidates.find("uid", rows["uid"])))
        columns = rows.to_pydict()
        uids = dict(zip(columns["key"], columns["uid"], strict=True))
        for member, digest in digest_members(folder, kind, name, uids.keys()):
            if items.has_image(digest):
                holders.append(bytes.fromhex(uids[split_name(member)[0]]))
    return Items.of({"uid": holders})


def digest_members(
    folder: RunStore, kind: OutputFormat, name: str, keys: Set[str] | None = None
) -> Iterator[tuple[str, bytes]]:
    """Yield name and sha256 of each member of a shard, except texts, for samples with these keys, or for all (None)."""
    yield from ((member, hashlib.sha256(data).digest()) for member, data in kind.members(folder, stem_of(name), keys))
