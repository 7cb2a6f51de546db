"""Proof that what was forgotten is absent: from tables, sidecars and uids.npy, and from the images in the shards.

In: a published run with a record. Out: faults, none where nothing is left. Tables are compared with what clearing them would
leave; every member of every tar that is no text is hashed; sidecars and Parquet shards are searched for uids, URLs and
images.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from curate import schema
from curate.forget.clear import find_leftovers
from curate.forget.shards import digest_members
from curate.output.output_format import find_output
from curate.pool.formats.registry import find_format
from curate.publish.settings import PublishSettings
from curate.publish.uids import read_uids
from curate.run.opened import open_context
from curate.store.facts import read_facts
from curate.store.forgotten import Record
from curate.store.items import Items
from curate.store.layout import FORGOTTEN_FILE, RUN_FILE, SIZES_FILE, UIDS_FILE
from curate.store.store import RunStore

_FAULT = "holds what was forgotten"


def check_absence(folder: RunStore) -> tuple[list[str], list[str]]:
    """Return what was checked, and what is wrong; both are empty where nothing was ever forgotten."""
    facts = read_facts(folder)
    record, named = Record.read(folder), facts.forgotten
    if not len(record) and not named:
        rows = facts.counts.get(schema.FORGOTTEN, 0)
        return [], [f"{FORGOTTEN_FILE}: is missing, and {rows:,} rows are forgotten"] if rows else []
    faults = []
    if not named or len(record) != named.items or not record.extends(named):
        faults.append(f"{FORGOTTEN_FILE}: differs from the one that {RUN_FILE} names")
    faults += _find_faults(folder, record.items)
    return [f"{len(record):,} forgotten items are absent from tables, shards and uids.npy"], faults


def _find_faults(folder: RunStore, items: Items) -> Iterator[str]:
    context, units = open_context(folder)
    settings = PublishSettings.of(context)
    for unit in units:
        for file in find_leftovers(settings.tables(unit), items, settings.table_names):
            yield f"{file}: {_FAULT}"
    if items.holds("uid", read_uids(folder)).any():
        yield f"{UIDS_FILE}: {_FAULT}"
    for name in folder.read_json(SIZES_FILE):
        sidecar = f"shards/{name.partition('.')[0]}.parquet"
        if _is_in_sidecar(settings, folder.read_parquet(sidecar), items):
            yield f"{sidecar}: {_FAULT}"
        if len(items.sha256):
            for member, digest in digest_members(folder, name):
                if items.has_image(digest):
                    yield f"shards/{name}: {member!r} is an image that was forgotten"


def _is_in_sidecar(settings: PublishSettings, table: pa.Table, items: Items) -> bool:
    """Return whether rows of a shard's Parquet file have one of the uids, URLs or images."""
    columns: dict[str, Any] = {"uid": table["uid"]}
    if names := find_output(settings.pool.images).item_columns:
        columns |= {name: table[name] for name in names}
    else:
        for source in settings.recipe.input:
            if url := find_format(source).url_column(source, table.schema):
                columns["url"] = table[url].cast(pa.string())
    return any(items.find(kind, column).any() for kind, column in columns.items())
