"""Writing shards again without some of their samples: inputs are not read, and what stays is byte for byte as it was.

In: a run folder's shards and items. Out: of each shard that holds some of them its file (of a tar, members copied by
offset, in order), its `_stats.json` and, last, its sidecar, which shows whether the shard is still to be rewritten. A
shard may end with fewer rows than it was laid out for, or none: then its files stay, empty: names are contiguous.
"""

import hashlib
from collections.abc import Iterator, Set

import pyarrow as pa
import pyarrow.compute as pc

from curate.emit.output_format import OutputFormat
from curate.read.tar_samples import split_name
from curate.store.items import Items
from curate.store.layout import SIZES_FILE, stem_of
from curate.store.store import RunStore


def find_shards(folder: RunStore, items: Items) -> list[str]:
    """Return the shards that hold samples of these uids, by their names in sizes.json."""
    return [
        name
        for name in folder.read_json(SIZES_FILE)
        if items.find("uid", folder.read_parquet(f"{stem_of(name)}.parquet", ["uid"])["uid"]).any()
    ]


def rewrite_shard(folder: RunStore, kind: OutputFormat, name: str, items: Items) -> list[str]:
    """Put the shard of this name in sizes.json into place without these uids. Returns the files that were rewritten."""
    stem = stem_of(name)
    sidecar, stats = f"{stem}.parquet", f"{stem}_stats.json"
    key, note, _ = folder.footer(sidecar)
    rows = folder.read_parquet(sidecar)
    removed = pa.array(items.find("uid", rows["uid"]))
    left = rows.filter(pc.invert(removed))
    written = kind.remove(folder, stem, rows.filter(removed))
    about = folder.read_json(stats)
    counts = {"count": len(left), "successes": len(left), "status_dict": {"success": len(left)}}
    folder.write_json(stats, {field: counts.get(field, value) for field, value in about.items()})
    folder.write_parquet(sidecar, left, key, note)
    return [*written, stats, sidecar]


def count_shards(folder: RunStore) -> None:
    """Write sizes.json by the rows of the sidecars, where it differs."""
    sizes = folder.read_json(SIZES_FILE)
    counted = {name: folder.footer(f"{stem_of(name)}.parquet")[2] for name in sizes}
    if counted != sizes:
        folder.write_json(SIZES_FILE, counted)


def find_holders(folder: RunStore, kind: OutputFormat, items: Items, candidates: Items) -> Items:
    """Return those uids among `candidates` whose samples have one of the images in any of their files."""
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
    """Yield the name and sha256 of each member of a shard but texts, of the samples of these keys; None: of all."""
    yield from ((member, hashlib.sha256(data).digest()) for member, data in kind.members(folder, stem_of(name), keys))
