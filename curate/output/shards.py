"""Emits the kept rows as shards: webdataset tars with img2dataset's sidecars, or Parquet where the pool has no images.

Shard k holds the kept rows of ranks [k·N, (k+1)·N), in the order of units and rows. Members are copied as they came, by
offset; `KEY.txt` and `KEY.json` (the original fields, plus uid and captions) are there for every sample. A sample's name
is its key where that is safe and no other kept sample has it, else its uid: names are unique over all shards, and
nothing that a stranger wrote becomes a path.
"""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate import ids
from curate.captions.mix import Written, written_texts
from curate.output.tar_writer import TarWriter, safe_key, safe_suffix
from curate.pool.formats.input_format import InputSample
from curate.pool.plan import Unit
from curate.pool.reader import UnitReader
from curate.recipe.captions import Captions
from curate.run.context import RunContext
from curate.store.tables import UnitTables

U64 = npt.NDArray[np.uint64]

SIDECAR = pa.schema(
    [
        ("url", pa.string()),
        ("key", pa.string()),
        ("caption", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("exif", pa.string()),
        ("sha256", pa.string()),
        ("uid", pa.string()),
        ("source", pa.string()),
    ]
)
_COLUMNS = ["row", "uid", "source", "shard", "key", "url", "caption", "width", "height", "format", "sha256"]
_encode_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_first = itemgetter(0)


@dataclass(frozen=True)
class Slice:
    """`count` kept rows of a unit, from the `first` one on."""

    unit: Unit
    first: int
    count: int


@dataclass(frozen=True)
class Shard:
    """An output shard and the rows that it holds."""

    index: int
    slices: tuple[Slice, ...]

    @property
    def rows(self) -> int:
        """How many rows it holds."""
        return sum(part.count for part in self.slices)

    @property
    def stem(self) -> str:
        """The name of its files, without suffix."""
        return f"shards/{self.index:05d}"


class Sample(NamedTuple):
    """A sample to write: its members but .txt and .json, and what those two hold."""

    members: list[tuple[str, bytes | memoryview]]
    text: bytes | memoryview
    fields: dict[str, Any]


def lay_out(kept: Iterable[tuple[Unit, int]], rows_per_shard: int) -> list[Shard]:
    """The output shards, from the number of kept rows of each unit: all full but the last."""
    shards: list[Shard] = []
    slices: list[Slice] = []
    room = rows_per_shard
    for unit, rows in sorted(kept, key=lambda pair: pair[0].index):
        first = 0
        while first < rows:
            count = min(room, rows - first)
            slices.append(Slice(unit, first, count))
            first, room = first + count, room - count
            if room == 0:
                shards.append(Shard(len(shards), tuple(slices)))
                slices, room = [], rows_per_shard
    return [*shards, Shard(len(shards), tuple(slices))] if slices else shards


def name_hashes(context: RunContext, unit: Unit) -> U64:
    """xxh3-64 of the names that kept rows may get (uint64): of each row its key where that is safe, and its uid.

    A hash that repeats over all units is of a key that other kept rows have too, as key or as uid.
    """
    kept = context.read("decisions", unit, ["kept"])["kept"]
    rows = context.read("samples", unit, ["key", "uid"]).filter(kept)
    pairs = zip(rows["key"].to_pylist(), rows["uid"].to_pylist(), strict=True)
    names = (name for key, uid in pairs for name in {key, uid} if name == uid or _may_be_name(key))
    return np.fromiter(map(ids.hash64, names), np.uint64)


def emit_shard(context: RunContext, shard: Shard, repeated: U64) -> Shard:
    """Writes the shard and what stands beside it, unless it stands.

    Args:
        context: the run.
        shard: which rows.
        repeated: ascending hashes of keys that several kept rows have.
    """
    started = time.time()
    decided = [context.decided(part.unit) for part in shard.slices]
    key = ids.digest([context.shards_key, shard.index, decided, *_texts_of(context, shard)])
    sidecar = f"{shard.stem}.parquet"
    beside = [f"{shard.stem}_stats.json", *([f"{shard.stem}.tar"] if context.pool.images else [])]
    if context.store.is_current(sidecar, key) and all(context.store.exists(name) for name in beside):
        return shard
    if context.pool.images:
        table = _write_tar(context, shard, repeated)
    else:
        table = pa.concat_tables(_parquet_rows(context, part) for part in shard.slices)
    stats = {
        "count": shard.rows,
        "successes": shard.rows,
        "failed_to_download": 0,
        "failed_to_resize": 0,
        "duration": time.time() - started,
        "start_time": started,
        "end_time": time.time(),
        "status_dict": {"success": shard.rows},
    }
    context.store.write_json(f"{shard.stem}_stats.json", stats)
    context.store.write_parquet(sidecar, table, key)  # the last one: it stands for all
    return shard


def _texts_of(context: RunContext, shard: Shard) -> list[Any]:
    """What names the texts that the shard's units have: asking again for what failed changes them."""
    tables = [name for name in ("captions", "regions") if name in context.tables]
    return [context.note(name, part.unit)["content"] for part in shard.slices for name in tables]


def _captioning(context: RunContext, part: Any) -> tuple[Captions | None, int, UnitTables]:
    """Return what `written_texts` needs to know of a unit."""
    return context.recipe.captions, context.recipe.seed, context.unit_tables(part.unit)


def _write_tar(context: RunContext, shard: Shard, repeated: U64) -> pa.Table:
    """Writes the tar; returns the table beside it."""
    sidecars = []
    with context.store.create(f"{shard.stem}.tar") as file, TarWriter(file) as writer:
        for part in shard.slices:
            rows = _kept(context, part, _COLUMNS)
            uids, captions = rows["uid"].to_pylist(), rows["caption"].to_pylist()
            names = _names(rows["key"].to_pylist(), uids, repeated)
            written = written_texts(*_captioning(context, part), uids, captions)
            facts = []
            for name, uid, texts, sample in zip(names, uids, written, _samples(context, part, rows), strict=True):
                for suffix, data in _files(uid, texts, sample):
                    writer.add(f"{name}.{suffix}", data)
                facts.append(_original_facts(sample.fields))
            chosen = [texts.chosen or caption for texts, caption in zip(written, captions, strict=True)]
            rows = rows.set_column(_COLUMNS.index("caption"), "caption", pa.array(chosen, pa.string()))
            sidecars.append(_sidecar(rows, names, facts))
    return pa.concat_tables(sidecars)


def _may_be_name(key: str | None) -> bool:
    return key is not None and safe_key(key)


def _names(keys: list[str | None], uids: list[str], repeated: U64) -> list[str]:
    """The name of each sample: its key, or its uid where the key is not safe or not its alone."""
    wishes = [key if key is not None and safe_key(key) else uid for key, uid in zip(keys, uids, strict=True)]
    taken = np.isin(np.fromiter(map(ids.hash64, wishes), np.uint64, len(wishes)), repeated)
    return [uid if is_taken else wish for wish, uid, is_taken in zip(wishes, uids, taken.tolist(), strict=True)]


def _files(uid: str, texts: Written, sample: Sample) -> list[tuple[str, bytes | memoryview]]:
    """Suffix and content of all files of a sample, sorted by suffix."""
    fields = {**sample.fields, "uid": uid, "captions": texts.fields, **texts.regions}
    text = sample.text if texts.chosen is None else texts.chosen.encode()
    members = sample.members
    if texts.synthetic is not None:  # which takes the place of a file of that name
        members = [member for member in members if member[0] != "syn.json"]
        members.append(("syn.json", _json_bytes({"syn_text": texts.synthetic})))
    return sorted([*members, ("txt", text), ("json", _json_bytes(fields))], key=_first)


def _json_bytes(fields: dict[str, Any]) -> bytes:
    """The fields as UTF-8; what JSON cannot say (NaN, infinities, which Python reads all the same) is null."""
    try:
        return _encode_json(fields).encode()
    except ValueError:  # one of those, or a lone surrogate: JSON can spell it, UTF-8 cannot
        return json.dumps(json.loads(json.dumps(fields), parse_constant=lambda _: None)).encode()


def _original_facts(fields: dict[str, Any]) -> tuple[int | None, int | None, str | None]:
    """Width, height and EXIF of the image before it came into the pool, where the json tells them."""
    sizes = [fields.get(f"original_{side}", fields.get(side)) for side in ("width", "height")]
    width, height = (size if type(size) is int and 0 <= size < 2**31 else None for size in sizes)
    exif = fields.get("exif")
    return width, height, exif if isinstance(exif, str) else None


def _sidecar(rows: pa.Table, names: list[str], facts: list[tuple[int | None, int | None, str | None]]) -> pa.Table:
    """img2dataset's columns of a slice."""
    width, height, exif = zip(*facts, strict=True)
    made = {
        "key": pa.array(names, pa.string()),
        "status": pa.repeat("success", len(rows)),
        "error_message": pa.nulls(len(rows), pa.string()),
        "original_width": pc.coalesce(pa.array(width, pa.int32()), rows["width"]),
        "original_height": pc.coalesce(pa.array(height, pa.int32()), rows["height"]),
        "exif": pa.array([_encodable(text) for text in exif], pa.string()),
    }
    return pa.table([made[name] if name in made else rows[name] for name in SIDECAR.names], schema=SIDECAR)


def _encodable(text: str | None) -> str | None:
    return text and text.encode(errors="replace").decode()


def _kept(context: RunContext, part: Slice, columns: list[str]) -> pa.Table:
    """Columns of `samples` for the slice's rows."""
    kept = context.read("decisions", part.unit, ["kept"])["kept"]
    return context.read("samples", part.unit, columns).filter(kept).slice(part.first, part.count)


def _samples(context: RunContext, part: Slice, rows: pa.Table) -> Iterator[Sample]:
    reader = UnitReader(part.unit, context.source(part.unit), context.unit_tables(part.unit))
    samples = reader.samples(rows["row"].to_numpy())
    for sample, caption in zip(samples, rows["caption"].to_pylist(), strict=True):
        yield _safe_sample(sample, caption)


def _safe_sample(sample: InputSample, caption: str) -> Sample:
    """The sample with suffixes that may stand in a path."""
    taken = {suffix for suffix, _ in sample.members}
    members = [(_safe_suffix(suffix, taken), data) for suffix, data in sample.members]
    return Sample(members, sample.text or caption.encode(), sample.fields)


def _safe_suffix(suffix: str, taken: set[str]) -> str:
    """The suffix, or its hash where it may not stand in a path, longer where another member has that name."""
    if _is_safe(suffix):
        return suffix
    name = f"unsafe-{ids.hash64(suffix):016x}"
    while name in taken:
        name += "x"
    taken.add(name)
    return name


_is_safe = lru_cache(256)(safe_suffix)


def _parquet_rows(context: RunContext, part: Slice) -> pa.Table:
    """The slice's rows of an imageless pool: the uid, and all columns of the inputs.

    `uid` is the ledger's, whatever an input has in a column of that name: its own uids, where they are some. It comes
    first, so that it is what SQL, which knows no case, finds under that name.
    """
    output = context.pool.output
    assert output is not None
    kept = _kept(context, part, ["row", "uid", "caption"])
    written = None
    if context.recipe.captions:
        written = written_texts(*_captioning(context, part), kept["uid"].to_pylist(), kept["caption"].to_pylist())
    tables = []
    first = 0
    reader = UnitReader(part.unit, context.source(part.unit), context.unit_tables(part.unit))
    for columns in reader.rows(kept["row"].to_numpy(), output):
        uids = kept["uid"].slice(first, len(columns))
        made = pa.table([uids, *columns.columns], names=["uid", *columns.column_names])
        if written is not None:
            made = _with_texts(made, written[first : first + len(columns)])
        tables.append(made)
        first += len(columns)
    return pa.concat_tables(tables)


def _with_texts(table: pa.Table, written: list[Written]) -> pa.Table:
    """Rows without images with the texts that were written: `curated_caption`, and `captions` as the json of tars has it."""
    chosen = [texts.chosen or texts.fields["original"] for texts in written]
    fields = [_json_bytes(texts.fields).decode() for texts in written]
    table = table.append_column("curated_caption", pa.array(chosen, pa.string()))
    return table.append_column("captions", pa.array(fields, pa.string()))
