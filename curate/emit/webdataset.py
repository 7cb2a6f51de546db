"""Writes webdataset tars as shards, each with a Parquet file that has img2dataset's columns.

Members are copied unchanged, by offset. Every sample has `KEY.txt` and `KEY.json`. The json is the original json, byte
for byte, with the uid and the recipe's columns and captions added. Names are unique across all shards.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import lru_cache, partial, reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids
from curate.base.numeric.arrays import U64, concat_small
from curate.base.process import groups
from curate.captions.mix import EmittedTexts
from curate.emit.columns import SIDECAR, read_kept_samples
from curate.emit.layout import Shard, Slice
from curate.emit.output_format import JSON_DTYPE, OutputFormat
from curate.emit.settings import EmitSettings
from curate.pool.formats.input_format import InputSample
from curate.read.field_types import field_values, find_dtype, merge_dtypes
from curate.read.json_fields import json_bytes, put_fields
from curate.read.tar_samples import split_name
from curate.store.store import RunStore
from curate.store.tables import UnitTables
from curate.tar.byte_sources import open_source
from curate.tar.index import index_tar
from curate.tar.writer import TarWriter, safe_key, safe_suffix

_COLUMNS = ["row", "uid", "source", "shard", "key", "url", "caption", "width", "height", "format", "sha256"]
_COLUMNS += ["original_sha256"]
_ORIGINAL = pa.schema([SIDECAR.field(name) for name in ("original_width", "original_height", "exif")])
_TEXTS = ("txt", "json")
_JSON = (str, int, float, bool, list, type(None))  # JSON types
_BATCH_BYTES = 1 << 22  # bytes written together
# Name, caption, sha256, synthetic texts, additions to the json, original files
_Sample = tuple[str, str, str, EmittedTexts, dict[str, bytes], InputSample]


class WebdatasetOutput(OutputFormat):
    """Tars for webdataset and `datasets`."""

    key = "webdataset"
    suffix = "tar"
    media_type = "application/x-tar"
    file_set = ("tars", "webdataset shards: an image, .txt and .json per sample")
    has_members = True
    item_columns = (("url", "url"), ("sha256", "sha256"), ("sha256", "original_sha256"))
    tags = ("webdataset",)
    loader_columns = {"__key__": "string", "__url__": "string"}  # noqa: RUF012 (of a constant)

    def accepts(self, has_images: bool) -> bool:
        return has_images

    def write(self, settings: EmitSettings, shard: Shard, repeated: U64, stats: dict[str, Any]) -> pa.Table:
        """Write the tar, and return its sidecar; `stats` receives the type of all jsons."""
        dtypes: list[Any] = []
        with settings.store.create(f"{shard.stem}.tar") as file, TarWriter(file) as writer:
            table = concat_small(_write_slice(settings, part, repeated, writer, dtypes) for part in shard.slices)
        stats[JSON_DTYPE] = reduce(merge_dtypes, dtypes, "null")
        return table

    def card_lines(self, shards: int) -> list[str]:
        names = f"{{00000..{shards - 1:05d}}}" if shards > 1 else "00000"
        return [
            f"- Training: `shards/{names}.tar` are webdataset shards (image, `.txt` and `.json` per sample). "
            f"open_clip: `--dataset-type webdataset --train-data 'shards/{names}.tar'`; it reads their rows from "
            "`shards/sizes.json`, without `--train-num-samples`. Its loader needs at least a shard for each worker on "
            "each GPU.",
            "- Sidecars: `shards/*.parquet`, with img2dataset's columns, other columns of the source, and what was "
            "measured and decided.",
        ]

    def name_hashes(self, tables: UnitTables) -> U64:
        """Return the hashes of each kept row's key, if it is safe, and of its uid."""
        pairs = zip(*read_kept_samples(tables, ["key", "uid"]).to_pydict().values(), strict=True)
        names = (name for key, uid in pairs for name in ({key, uid} if key is not None and safe_key(key) else {uid}))
        return np.fromiter(map(ids.hash64, names), np.uint64)

    def remove(self, store: RunStore, stem: str, removed: pa.Table) -> list[str]:
        """Copy the tar without the samples of these rows, by offset."""
        name, keys = f"{stem}.tar", set(removed["key"].to_pylist())
        with store.create(name) as file, TarWriter(file) as writer:
            for member, key, _, read in _members(store, stem):
                if key not in keys:
                    writer.add(member, read())
        return [name]

    def names(self, store: RunStore, stem: str) -> set[str]:
        """Return the names of the samples; each has a .txt."""
        return {key for _, key, suffix, _ in _members(store, stem) if suffix == "txt"}

    def members(self, store: RunStore, stem: str, names: Set[str] | None = None) -> Iterator[tuple[str, bytes]]:
        for member, key, suffix, read in _members(store, stem):
            if suffix not in _TEXTS and (names is None or key in names):
                yield member, bytes(read())


def _members(store: RunStore, stem: str) -> Iterator[tuple[str, str, str, Callable[[], memoryview]]]:
    """Yield each member of a tar: its name, the sample's key, the suffix, and a function that reads it."""
    source = open_source(f"{store.url}/{stem}.tar", store.storage)
    index = index_tar(source)
    for name, offset, size in zip(index.names, index.offsets.tolist(), index.sizes.tolist(), strict=True):
        yield name, *split_name(name), partial(source.read, offset, size)


def _write_slice(settings: EmitSettings, part: Slice, repeated: U64, writer: TarWriter, dtypes: list[Any]) -> pa.Table:
    """Add a slice's samples to the tar, and the types of their jsons to `dtypes`; return their sidecar rows."""
    with settings.open_tables(part.unit) as tables:
        rows = settings.kept_rows(part, tables, _COLUMNS)
        keys, uids, captions, digests = rows.select(["key", "uid", "caption", "sha256"]).to_pydict().values()
        names, written = _names(keys, uids, repeated), settings.texts_to_emit(tables, uids, captions)
        put = _json_fields(settings.kept_values(part, tables, settings.emitted.json), uids, written)
        read = settings.reader(part.unit, tables).samples(rows)
        samples = zip(names, captions, digests, written, put, read, strict=True)
        facts: list[pa.Table] = []
        for batch in groups(samples, lambda sample: sum([len(data) for _, data in sample[-1].members]), _BATCH_BYTES):
            _write_samples(batch, writer)
            dtypes.append(find_dtype([sample.fields | _read(fields) for *_, fields, sample in batch]))
            facts.append(_original_facts([sample.fields for *_, sample in batch], settings.fields))
        values = settings.kept_values(part, tables, settings.emitted.parquet)
    chosen = [texts.chosen or caption for texts, caption in zip(written, captions, strict=True)]
    rows = rows.set_column(_COLUMNS.index("caption"), "caption", pa.array(chosen, pa.string()))
    of_source = pa.concat_tables(facts)
    columns = [*_sidecar(rows, names, of_source).columns, *of_source.select(settings.fields.names).columns]
    return pa.table([*columns, *values.columns], schema=pa.schema([*SIDECAR, *settings.fields, *values.schema]))


def _json_fields(values: pa.Table, uids: list[str], texts: list[EmittedTexts]) -> list[dict[str, bytes]]:
    columns: dict[str, list[bytes]] = {}
    for name, column in zip(values.column_names, values.columns, strict=True):
        is_short = pa.types.is_float32(column.type)  # otherwise 0.3 becomes 0.30000001192092896
        items = (column.cast(pa.string()).cast(pa.float64()) if is_short else column).to_pylist()
        columns[name] = [json_bytes(item if isinstance(item, _JSON) else str(item)) for item in items]
    columns["uid"] = [b'"%b"' % uid.encode() for uid in uids]
    fields = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for of_sample, written in zip(fields, texts, strict=True):
        if written.fields:
            captions = {"captions": written.fields, **written.regions}
            of_sample |= {name: json_bytes(value) for name, value in captions.items()}
    return fields


def _read(fields: Mapping[str, bytes]) -> dict[str, Any]:
    return {name: "" if value[:1] == b'"' else json.loads(value) for name, value in fields.items()}


def _write_samples(samples: list[_Sample], writer: TarWriter) -> None:
    """Add samples to the tar, with files sorted by suffix. If a sample has no .txt, its caption becomes the .txt."""
    for name, caption, stored, texts, fields, sample in samples:
        # If the json has another sha256 than the stored image's, that becomes `original_sha256`.
        stated = sample.fields.get("sha256", stored)
        if stated != stored and not (isinstance(stated, str) and stated.lower() == stored):
            fields["sha256"] = json_bytes(stored)
            if stated is not None and sample.fields.get("original_sha256") is None:
                fields["original_sha256"] = json_bytes(stated)
        files = [data for _, data in sample.members]
        files.append(sample.text or caption.encode() if texts.chosen is None else texts.chosen.encode())
        files.append(put_fields(sample.json, sample.fields, fields))
        if texts.synthetic is not None:
            files.append(json_bytes({"syn_text": texts.synthetic}))
        suffixes = tuple([suffix for suffix, _ in sample.members])
        for ending, index in _order_files(suffixes, texts.synthetic is not None):
            writer.add(name + ending, files[index])


def _names(keys: list[str | None], uids: list[str], repeated: U64) -> list[str]:
    names = [key if key is not None and safe_key(key) else uid for key, uid in zip(keys, uids, strict=True)]
    if not len(repeated):
        return names
    repeats = np.isin(np.fromiter(map(ids.hash64, names), np.uint64, len(names)), repeated).tolist()
    return [uid if is_repeat else name for name, uid, is_repeat in zip(names, uids, repeats, strict=True)]


def _original_facts(fields: Sequence[Mapping[str, Any]], columns: pa.Schema) -> pa.Table:
    """Return the original image's size and EXIF from each sample's json, and the json's fields named in `columns`."""
    arrays: list[pa.Array] = []
    for side in ("width", "height"):
        sizes = [of_sample.get(f"original_{side}", of_sample.get(side)) for of_sample in fields]
        pixels = [size if type(size) is int and 0 <= size < 2**31 else None for size in sizes]
        arrays.append(pa.array(pixels, pa.int32()))
    exif = [of_sample.get("exif") for of_sample in fields]
    texts = [text.encode(errors="replace").decode() if isinstance(text, str) else None for text in exif]
    arrays.append(pa.array(texts, pa.string()))
    return pa.table([*arrays, *field_values(fields, columns)], schema=pa.schema([*_ORIGINAL, *columns]))


def _sidecar(rows: pa.Table, names: list[str], original: pa.Table) -> pa.Table:
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        "key": pa.array(names, pa.string()),
        "status": pa.repeat("success", len(rows)),
        "error_message": pa.nulls(len(rows), pa.string()),
        "original_width": pc.coalesce(original["original_width"], rows["width"]),
        "original_height": pc.coalesce(original["original_height"], rows["height"]),
        "exif": original["exif"],
    }
    return pa.table([columns[name] if name in columns else rows[name] for name in SIDECAR.names], schema=SIDECAR)


@lru_cache(256)
def _order_files(suffixes: tuple[str, ...], has_synthetic: bool) -> list[tuple[str, int]]:
    """Return the sorted suffixes of a sample's files, with their indices; unsafe suffixes become hashes."""
    used, endings = set(suffixes), []
    for suffix in suffixes:
        ending = suffix if safe_suffix(suffix) else f"unsafe-{ids.hash64(suffix):016x}"
        while ending != suffix and ending in used:
            ending += "x"
        used.add(ending)
        endings.append(ending)
    files = list(zip([*endings, "txt", "json"], range(len(suffixes) + 2), strict=True))
    if has_synthetic:  # replaces a member with that name
        files = [file for file in files if file[0] != "syn.json"]
        files.append(("syn.json", len(suffixes) + 2))
    return [(f".{suffix}", index) for suffix, index in sorted(files)]
