"""What a request to forget concerns: all names that are linked to those requested, and the rows that have them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import schema
from curate.forget.rows import find_duplicates, find_rows, image_sizes, names_of, readable_names, uids_with_attachments
from curate.forget.shards import find_holders
from curate.pool.plan import Unit
from curate.publish.settings import PublishSettings
from curate.publish.uids import read_uids
from curate.store.forgotten import forgotten_mask
from curate.store.items import KINDS, NOTHING, Hashes, Items, hex_of
from curate.store.store import RunStore
from curate.store.tables import UnitTables


@dataclass(frozen=True)
class Survey:
    """The rows of a pool that items name and that are not forgotten yet.

    Attributes:
        names: kind → the names of these rows, one for each row.
        units: the units that hold some of them.
        requested: how many have a requested name.
        linked: how many are linked to those.
        failed: how many of both could not be read.
        kept: how many of both were published.
        representatives: published uids, not forgotten, to which a requested row lost as a duplicate.
    """

    names: dict[str, Hashes] = field(compare=False)
    units: tuple[Unit, ...]
    requested: int = 0
    linked: int = 0
    failed: int = 0
    kept: int = 0
    representatives: tuple[str, ...] = ()


def link_items(settings: PublishSettings, units: Sequence[Unit], requested: Items) -> Items:
    """Return the requested items and all names of rows that are linked to them.

    A row is linked by an equal uid, URL or image, by having lost to one as a duplicate (it would be kept in a later run
    instead), and a published sample by an attachment that is one of the images.
    """
    all_tables = [settings.tables(unit) for unit in units]
    items = _follow_rows(all_tables, requested)
    while len(items.sha256):
        found, sizes = [items.sha256[:0]], set()
        for tables in all_tables:
            images, lengths = image_sizes(tables, items)
            found.append(images)
            sizes |= lengths
        all_sizes_known = len(np.unique(np.concatenate(found))) == len(items.sha256)
        uids = [uids_with_attachments(tables, sizes if all_sizes_known else None) for tables in all_tables]
        candidates = Items.of({"uid": (bytes.fromhex(uid) for part in uids for uid in part.to_pylist())}) - items
        holders = find_holders(settings.store, items, candidates) if len(candidates) else NOTHING
        if not len(holders):
            break
        items = _follow_rows(all_tables, items | holders)
    return items


def _follow_rows(all_tables: Sequence[UnitTables], items: Items) -> Items:
    """Return the items and the names of rows that are linked to them in tables, step by step until there are no more."""
    known = fresh = items
    while len(fresh):
        found = NOTHING
        for tables in all_tables:
            found |= readable_names(tables, find_rows(tables, fresh) | find_duplicates(tables, fresh)) - known
        known, fresh = known | found, found
    return known


def survey(settings: PublishSettings, units: Sequence[Unit], requested: Items, items: Items) -> Survey:
    """Return which rows the items name; `items` are those requested and all that are linked to them."""
    names: dict[str, list[Hashes]] = {kind: [items[kind][:0]] for kind in KINDS}
    holding, representatives = [], set()
    totals = dict.fromkeys(("requested", "linked", "failed", "kept"), 0)
    for unit in units if len(items) else ():
        tables = settings.tables(unit)
        rows = find_rows(tables, items)
        if not rows.any():
            continue
        rows &= ~forgotten_mask(tables.read("samples", ["status", "characters"]))
        if not rows.any():
            continue
        holding.append(unit)
        for kind, values in names_of(tables, rows).items():
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
    stay = Items.of({"uid": [read_uids(store).tobytes()]}) - items
    named = Items.of({"uid": map(bytes.fromhex, uids)})
    return tuple(hex_of(named.uid[stay.holds("uid", named.uid)]))
