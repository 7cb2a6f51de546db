"""Proof that what was forgotten is absent: from tables, sidecars and uids.npy, and from the images in the shards.

In: a published run with a record. Out: faults, none where nothing is left. Tables are held against what clearing them would
leave; every member of every tar that is no text is hashed; sidecars and shards of Parquet are searched for uids, URLs and
images.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from curate import schema
from curate.forget.rows import leftovers
from curate.forget.shards import image_hashes
from curate.pool.formats.registry import find_format
from curate.publish.uids import read_uids
from curate.run.context import RunContext
from curate.run.opened import open_ledger
from curate.store.facts import read_facts
from curate.store.forgotten import Record
from curate.store.items import Items
from curate.store.layout import FORGOTTEN_FILE, RUN_FILE, SIZES_FILE
from curate.store.store import RunStore


def check_absence(folder: RunStore) -> tuple[list[str], list[str]]:
    """What was checked, and what is wrong; both empty where nothing was ever forgotten."""
    facts = read_facts(folder)
    record, named = Record.read(folder), facts.forgotten
    if not len(record) and not named:
        rows = facts.counts.get(schema.FORGOTTEN, 0)
        return [], [f"{FORGOTTEN_FILE}: is missing, and {rows:,} rows are forgotten"] if rows else []
    faults = []
    if record.broken():
        faults.append(f"{FORGOTTEN_FILE}: its seals do not add up: it was changed")
    if named != record.facts:
        faults.append(f"{FORGOTTEN_FILE}: is not the one that {RUN_FILE} names")
    faults += _faults(folder, record.items)
    return [f"{len(record):,} forgotten items are absent from tables, shards and uids.npy"], faults


def _faults(folder: RunStore, items: Items) -> Iterator[str]:
    context, units = open_ledger(folder)
    for unit in units:
        for name in leftovers(context, unit, items, context.tables):
            yield f"{context.table(name, unit)}: holds what was forgotten"
    if items.holds("uid", read_uids(folder)).any():
        yield "uids.npy: holds what was forgotten"
    for name in folder.read_json(SIZES_FILE):
        sidecar = f"shards/{name.partition('.')[0]}.parquet"
        if _in_sidecar(context, folder.read_parquet(sidecar), items):
            yield f"{sidecar}: holds what was forgotten"
        if name.endswith(".tar") and len(items.sha256):
            for member, digest in image_hashes(folder, f"shards/{name}"):
                if items.has_image(digest):
                    yield f"shards/{name}: {member!r} is an image that was forgotten"


def _in_sidecar(context: RunContext, table: pa.Table, items: Items) -> bool:
    """Whether rows beside or in a shard have one of the uids, URLs or images."""
    columns: dict[str, Any] = {"uid": table["uid"]}
    if context.pool.images:
        columns |= {"url": table["url"], "sha256": table["sha256"]}
    else:
        for source in context.recipe.input:
            if url := find_format(source).url_column(source, table.schema):
                columns["url"] = table[url].cast(pa.string())
    return any(items.find(kind, column).any() for kind, column in columns.items())
