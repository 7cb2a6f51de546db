"""webdataset tars, read by a header index. A part is a tar, a row a sample, and members have byte offsets.

Samples that img2dataset lists beside a tar but did not download follow its samples, as failed rows.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from operator import not_
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.base import schema
from curate.base.errors import CurateError, reraised
from curate.base.numeric.arrays import Mask, whole
from curate.pool.formats import input_format as interface
from curate.pool.formats.input_format import Batches, InputPart, InputSample, PartRows, PlannedSource
from curate.pool.formats.missing import read_missing, sidecar
from curate.read.columns import stated_sha256
from curate.read.errors import InputError
from curate.read.field_types import KINDS, TYPES, FieldCounter, FieldCounts, JsonType, as_type
from curate.read.json_fields import read_json
from curate.read.listing import fingerprints_beside, list_source
from curate.read.tar_samples import TarSamples, group_members
from curate.recipe.source import Source
from curate.tar.byte_sources import ByteSource, open_copy, open_source
from curate.tar.index import TarIndex, index_tar

_CAPTION_BYTES = 1 << 16  # longer than the longest accepted caption
_JSON_BYTES = 1 << 24
_TEXT_BYTES = 1 << 29  # of a tar's captions and fields together
_LOOKED, _BEGIN = 100, 1 << 23  # how many samples, and bytes of a tar, are read for messages
_MEMBERS = 6  # members per sample, if only the first ones are read
_SIZES = ("width", "height", "original_width", "original_height")


class WebdatasetSource(Source):
    """webdataset tars, as img2dataset writes them: images, with captions in `.txt` or `.json`.

    - A sample's key is its path in the tar, up to the first dot of the file name.
    - The Parquet file beside a tar may list samples that img2dataset did not download. These fail as `missing_sample`
      and count toward `max_missing`.
    """

    example: ClassVar[Any] = {"name": "cc12m", "format": "webdataset", "path": "cc12m/{00000..01242}.tar"}
    neutral_fields = frozenset({"columns"})

    caption_key: str = Field("caption", examples=["alt_text"])
    """JSON field with the caption. curate uses it for samples that have no `.txt` file."""
    columns: dict[str, JsonType] = Field(
        {}, exclude_if=not_, examples=[{"similarity": "float", "original_width": "int"}]
    )
    """JSON fields that rules can use, each with its type. A value of another type becomes null."""


class WebdatasetInput(interface.InputFormat):
    """Tars of samples: members with one name and several suffixes."""

    key = "webdataset"
    section = WebdatasetSource
    has_members = True
    suffixes = (".tar",)
    opens_files = False

    def plan(self, source: WebdatasetSource, embeddings: interface.Embeddings, content: bool) -> PlannedSource:
        files = list_source(source, content)
        sidecars = [sidecar(file.path) for file in files]
        with reraised(source.error, "the files beside its tars cannot be listed", OSError):
            fingerprints = fingerprints_beside(filter(None, sidecars), source.storage, content)
        parts: list[InputPart] = []
        for file, beside in zip(files, sidecars, strict=True):
            part = InputPart(file.path, file.size, file.fingerprint, fault=file.fault)
            parts.append(replace(part, listing_fingerprint=fingerprints.get(beside, "")))
        declared = pa.schema([(name, TYPES[kind]) for name, kind in source.columns.items()])
        columns = interface.FileColumns(has_images=True, schema=declared, scores=tuple(declared.names))
        return PlannedSource(tuple(parts), (columns,))

    def read(self, source: WebdatasetSource, part: InputPart, scores: pa.Schema, output: pa.Schema | None) -> Batches:
        opened = open_copy(part.path, source.storage)
        index = index_tar(opened, part.limit and _MEMBERS * (part.limit + 1))
        samples = group_members(index)
        texts, errors, declared, fields = _read_texts(opened, index, samples, source)
        image = pa.array([None if member < 0 else member for member in samples.image], pa.int64())
        columns = texts | {"key": pa.array(samples.keys, pa.string())}
        columns |= {"bytes": pa.array(index.sizes).take(image), "offset": pa.array(index.offsets).take(image)}

        def images(wanted: Mask) -> Iterator[bytes | memoryview | None]:
            offsets, sizes = index.offsets.tolist(), index.sizes.tolist()
            for is_wanted, member in zip(wanted.tolist(), samples.image, strict=True):
                yield opened.read(offsets[member], sizes[member]) if is_wanted else None

        yield interface.Batch(columns, errors, images, declared, samples.member_columns(index), fields=fields)
        damage = [InputError(*index.damage)] if index.damage else []
        if part.listing_fingerprint:
            try:
                yield from _missing_batches(source, part, samples.keys)
            except InputError as error:
                damage.append(error)
        if damage:
            raise InputError(damage[0].reason, "; ".join(error.detail for error in damage))

    def missing_column(self, source: WebdatasetSource, name: str) -> str:
        """Return the keys to declare, from the first samples of the first tar."""
        for fields in _first_fields(source):
            value = fields.get(name)
            if kind := KINDS.get(type(value)):
                declared = ", ".join(f"{name}: {kind}" for name, kind in {**source.columns, name: kind}.items())
                return f"its .json files have this field; to use it, write columns: {{{declared}}}"
            if value is not None:
                return f"its .json files have a {type(value).__name__} under that name; accepted: {', '.join(TYPES)}"
        return ""

    def resized(self, source: WebdatasetSource, path: str) -> str:
        """Return a message if some of the first images are not of the size that their json states; else ""."""
        stated: Iterator[list[Any]] = ([fields.get(name) for name in _SIZES] for fields in _first_fields(source, path))
        sizes = [size for size in stated if all(type(side) is int for side in size)]
        if not (other := [size for size in sizes if sorted(size[:2]) != sorted(size[2:])]):
            return ""
        example = "for example from {2} x {3} to {0} x {1}".format(*other[0])
        return f"{len(other)} of its first {len(sizes)} images were resized, {example}"

    def reread(self, source: WebdatasetSource, part: InputPart, rows: PartRows) -> Iterator[InputSample]:
        assert rows.members is not None
        opened = open_source(part.path, source.storage)
        located = list(_locations(rows.members))
        opened.expect((offset, size) for members in located for _, offset, size in members)
        for members in located:
            files: list[tuple[str, bytes | memoryview]] = []
            sample = InputSample(files)
            for suffix, offset, size in members:
                if len(data := opened.read(offset, size)) != size:
                    raise OSError(f"{part.path}: ends before byte {offset + size}")
                if suffix == "txt":
                    sample = sample._replace(text=data)
                elif suffix == "json":
                    fields, error = read_json(data)
                    sample = sample._replace(fields=fields, json=b"" if error else data)
                else:
                    files.append((suffix, data))
            yield sample

    def reread_images(self, source: WebdatasetSource, part: InputPart, rows: PartRows) -> Iterator[bytes | None]:
        offsets, sizes = (rows.samples[name].to_pylist() for name in ("offset", "bytes"))
        spans = [(o, s) if o is not None and s is not None else None for o, s in zip(offsets, sizes, strict=True)]
        opened = open_source(part.path, source.storage)
        opened.expect(filter(None, spans))
        for span in spans:
            data = bytes(opened.read(*span)) if span else b""
            yield data if span and len(data) == span[1] else None


def _missing_batches(source: WebdatasetSource, part: InputPart, keys: list[str]) -> Iterator[interface.Batch]:
    """Yield the samples that are listed beside a tar but not in it, if any."""
    missing = read_missing(part.path, source.storage, keys, source.caption_key)
    if part.limit and len(keys) > part.limit:  # those before the last row to measure
        missing = missing.filter(pc.less(missing["key"], pa.scalar(keys[part.limit])))
    if len(missing):
        columns = {name: missing[name].combine_chunks() for name in missing.column_names}
        errors = columns.pop("status"), columns.pop("error")
        suffixes, numbers = (pa.array([[]] * len(missing), pa.list_(kind)) for kind in (pa.string(), pa.int64()))
        yield interface.Batch(columns, errors, lambda rows: (None for _ in rows), members=(suffixes, numbers, numbers))


def _read_texts(
    opened: ByteSource, index: TarIndex, samples: TarSamples, source: WebdatasetSource
) -> tuple[dict[str, pa.Array], tuple[pa.Array, pa.Array], dict[str, pa.ChunkedArray], FieldCounts]:
    """Return columns caption, url, uid, and original_sha256, each row's status and error, `source.columns`, and the
    number of values per field.
    """
    captions: list[bytes | None] = [None] * len(samples)
    texts: dict[str, list[str | None]] = {name: [None] * len(samples) for name in ("url", "uid", "original_sha256")}
    declared: dict[str, list[Any]] = {name: [None] * len(samples) for name in source.columns}
    counter = FieldCounter()
    status, errors, held = list(samples.status), list(samples.errors), 0
    offsets, sizes, complete = index.offsets.tolist(), index.sizes.tolist(), index.complete.tolist()
    for row, (txt, meta) in enumerate(zip(samples.txt, samples.json, strict=True)):
        if txt >= 0 and complete[txt]:
            raw = bytes(opened.read(offsets[txt], min(sizes[txt], _CAPTION_BYTES)))
            # A longer caption must be refused for its length, so do not cut it within a character
            captions[row] = raw if sizes[txt] <= _CAPTION_BYTES else raw.decode(errors="ignore").encode()
        if meta >= 0 and complete[meta]:
            fields, error = read_json(opened.read(offsets[meta], min(sizes[meta], _JSON_BYTES)))
            if error and status[row] == schema.OK:
                status[row], errors[row] = "invalid_json", error
            for name in ("url", "uid"):
                texts[name][row] = as_type("text", fields.get(name)) or None
            counter.add(fields)
            texts["original_sha256"][row] = stated_sha256(fields.get("original_sha256"), fields.get("sha256"))
            for name, values in declared.items():
                values[row] = as_type(source.columns[name], fields.get(name))
            if txt < 0 and isinstance(caption := fields.get(source.caption_key), str):
                # JSON can contain lone surrogates, which are not UTF-8; they are found with all other captions.
                captions[row] = caption[:_CAPTION_BYTES].encode(errors="surrogatepass")
        values = [captions[row], *(values[row] for values in (*texts.values(), *declared.values()))]
        held += sum(len(value) for value in values if isinstance(value, str | bytes))
        if held > _TEXT_BYTES:
            detail = f"its captions and fields have more than {_TEXT_BYTES:,} bytes; accepted: at most that"
            raise InputError("unreadable", detail)
    columns: dict[str, pa.Array] = {"caption": pa.array(captions, pa.binary())}
    columns |= {name: pa.array(values, pa.string()) for name, values in texts.items()}
    typed = {name: pa.array(values, TYPES[source.columns[name]]) for name, values in declared.items()}
    scores = {name: pa.chunked_array([values]) for name, values in typed.items()}
    return columns, (pa.array(status, pa.string()), pa.array(errors, pa.string())), scores, counter.counts


def _first_fields(source: WebdatasetSource, path: str = "") -> Iterator[dict[str, Any]]:
    """Yield the fields in the first .json files of a tar, by default the source's first; nothing if unreadable."""
    with suppress(OSError, InputError, CurateError):
        opened = open_source(path or list_source(source, False)[0].path, source.storage)
        opened.size = min(opened.size, _BEGIN)  # reading the headers after this may take minutes
        index = index_tar(opened, _MEMBERS * _LOOKED)
        spans = list(zip(index.offsets.tolist(), index.sizes.tolist(), strict=True))
        first = [spans[member] for member in group_members(index).json if member >= 0][:_LOOKED]
        opened.expect(first)
        for offset, size in first:
            yield read_json(bytes(opened.read(offset, min(size, _JSON_BYTES))))[0]


def _locations(members: pa.Table) -> Iterator[list[tuple[str, int, int]]]:
    columns = [whole(members[name]) for name in ("suffix", "offset", "size")]
    flat = zip(*(pc.list_flatten(column).to_pylist() for column in columns), strict=True)
    for count in pc.list_value_length(columns[0]).to_pylist():
        yield list(islice(flat, count))
