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
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate import ids
from curate.job import Job
from curate.measure.parquet import image_bytes, read_rows
from curate.measure.tar import read_json
from curate.plan import Unit
from curate.shards.sources import ByteSource, open_source
from curate.shards.tar_writer import TarWriter, safe_key, safe_suffix

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


@dataclass(frozen=True)
class Sample:
    """A sample to write: its row of `samples`, its members but .txt and .json, and what those two hold."""

    row: dict[str, Any]
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


def name_hashes(job: Job, unit: Unit) -> U64:
    """xxh3-64 of the keys that kept rows would like as their names (uint64)."""
    kept = job.read("decisions", unit, ["kept"])["kept"]
    keys = job.read("samples", unit, ["key"])["key"].filter(kept).to_pylist()
    return np.array([ids.hash64(key) for key in keys if key is not None and safe_key(key)], np.uint64)


def emit_shard(job: Job, shard: Shard, repeated: U64) -> Shard:
    """Writes the shard and what stands beside it, unless it stands.

    Args:
        job: the run.
        shard: which rows.
        repeated: ascending hashes of keys that several kept rows have.
    """
    started = time.time()
    key = ids.digest([job.shards_key, shard.index])
    sidecar = f"{shard.stem}.parquet"
    beside = [f"{shard.stem}_stats.json", *([f"{shard.stem}.tar"] if job.pool.images else [])]
    if job.folder.stands(sidecar, key) and all(job.folder.exists(name) for name in beside):
        return shard
    if job.pool.images:
        rows = _write_tar(job, shard, repeated)
        table = pa.Table.from_pylist(rows, schema=SIDECAR)
    else:
        table = pa.concat_tables(_parquet_rows(job, part) for part in shard.slices)
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
    job.folder.write_json(f"{shard.stem}_stats.json", stats)
    job.folder.write_parquet(sidecar, table, key)  # the last one: it stands for all
    return shard


def _write_tar(job: Job, shard: Shard, repeated: U64) -> list[dict[str, Any]]:
    sidecar = []
    with job.folder.create(f"{shard.stem}.tar") as file, TarWriter(file) as writer:
        for part in shard.slices:
            for sample in _samples(job, part):
                name = _name(sample.row, repeated)
                for suffix, data in _files(sample):
                    writer.add(f"{name}.{suffix}", data)
                sidecar.append(_sidecar_row(name, sample))
    return sidecar


def _name(row: dict[str, Any], repeated: U64) -> str:
    key = row["key"]
    if key is None or not safe_key(key):
        return str(row["uid"])
    wish = np.uint64(ids.hash64(key))
    place = int(np.searchsorted(repeated, wish))
    return str(row["uid"] if place < len(repeated) and repeated[place] == wish else key)


def _files(sample: Sample) -> list[tuple[str, bytes | memoryview]]:
    """Suffix and content of all files of a sample, sorted by suffix."""
    fields = {**sample.fields, "uid": sample.row["uid"], "captions": {"original": sample.row["caption"]}}
    return sorted([*sample.members, ("txt", sample.text), ("json", _json_bytes(fields))], key=lambda file: file[0])


def _json_bytes(fields: dict[str, Any]) -> bytes:
    try:
        return json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate in a field: JSON can spell it, UTF-8 cannot
        return json.dumps(fields).encode()


def _sidecar_row(name: str, sample: Sample) -> dict[str, Any]:
    row, fields = sample.row, sample.fields
    original = [fields.get(f"original_{side}", fields.get(side)) for side in ("width", "height")]
    plain = [size if isinstance(size, int) and 0 <= size < 2**31 else None for size in original]
    exif = fields.get("exif")
    return {
        **row,
        "key": name,
        "status": "success",
        "error_message": None,
        "original_width": plain[0] if plain[0] is not None else row["width"],
        "original_height": plain[1] if plain[1] is not None else row["height"],
        "exif": exif if isinstance(exif, str) else None,
    }


def _kept(job: Job, part: Slice, table: str, columns: list[str]) -> pa.Table:
    kept = job.read("decisions", part.unit, ["kept"])["kept"]
    return job.read(table, part.unit, columns).filter(kept).slice(part.first, part.count)


def _samples(job: Job, part: Slice) -> Iterator[Sample]:
    source = job.source(part.unit)
    rows = _kept(job, part, "samples", _COLUMNS).to_pylist()
    if source.format != "webdataset":
        yield from _parquet_samples(job, part, rows)
        return
    members = _kept(job, part, "members", ["suffix", "offset", "size"])
    places = zip(*(members[name].to_pylist() for name in ("suffix", "offset", "size")), strict=True)
    pairs = zip(rows, places, strict=True)
    for shard, group in groupby(pairs, key=lambda pair: pair[0]["shard"]):
        with open_source(shard, source.storage) as opened:
            for row, place in group:
                yield _tar_sample(opened, row, list(zip(*place, strict=True)))


def _tar_sample(source: ByteSource, row: dict[str, Any], places: list[tuple[str, int, int]]) -> Sample:
    members: list[tuple[str, bytes | memoryview]] = []
    text: bytes | memoryview = row["caption"].encode()
    fields: dict[str, Any] = {}
    for suffix, offset, size in places:
        data = source.read(offset, size)
        if len(data) != size:
            raise OSError(f"{row['shard']}: ends before byte {offset + size}; it changed since it was measured")
        if suffix == "txt":
            text = data
        elif suffix == "json":
            fields, _ = read_json(bytes(data))
        else:
            members.append((suffix if safe_suffix(suffix) else f"{ids.hash64(suffix):016x}", data))
    return Sample(row, members, text, fields)


def _input_rows(job: Job, part: Slice) -> Iterator[tuple[pa.Table, Any]]:
    """The slice's rows with all columns of the input, file by file, and which columns hold what."""
    wanted = np.array(_kept(job, part, "samples", ["row"])["row"].to_pylist(), np.int64)
    first = 0
    for piece, rows in zip(part.unit.parts, job.note("samples", part.unit)["rows"], strict=True):
        here = wanted[(wanted >= first) & (wanted < first + rows)] - first
        first += rows
        if len(here):
            table, found = read_rows(piece, job.source(part.unit), everything=True)
            yield table.take(pa.array(here)), found


def _parquet_samples(job: Job, part: Slice, rows: list[dict[str, Any]]) -> Iterator[Sample]:
    """Samples of Parquet with an image column: the other columns become fields of the json."""
    remaining = iter(rows)
    for table, found in _input_rows(job, part):
        others = [f.name for f in table.schema if f.name != found.image and not pa.types.is_binary(f.type)]
        fields = table.select(others).to_pylist()
        for data, values in zip(image_bytes(table[found.image]), fields, strict=True):
            row = next(remaining)
            suffix = "jpg" if row["format"] == "jpeg" else row["format"]
            yield Sample(row, [(suffix, data or b"")], row["caption"].encode(), _plain_json(values))


def _plain_json(values: dict[str, Any]) -> dict[str, Any]:
    """Column values as JSON: what JSON has no word for (dates, decimals, bytes) is written as text."""
    return dict(json.loads(json.dumps(values, default=str)))


def _parquet_rows(job: Job, part: Slice) -> pa.Table:
    """The slice's rows of an imageless pool: all columns of the inputs, and the uid where they have no such column."""
    assert job.pool.output is not None
    uids = _kept(job, part, "samples", ["uid"])["uid"].combine_chunks()
    tables = []
    first = 0
    for table, _ in _input_rows(job, part):
        here = uids.slice(first, len(table))
        first += len(table)
        columns = {
            field.name: table[field.name]
            if field.name in table.schema.names
            else here
            if field.name == "uid"
            else pa.nulls(len(table), field.type)
            for field in job.pool.output
        }
        tables.append(pa.table(columns).cast(job.pool.output))
    return pa.concat_tables(tables)
