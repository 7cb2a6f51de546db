"""Measures the samples of one tar: captions, images, URLs and own uids, read once by the header index.

A caption comes from the sample's `.txt`, else from its json's `caption_key`. Only samples whose parts are all there and
whose caption can be used have their image read.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curate import schema
from curate.measure.images import image_columns, measure_images
from curate.pool.byte_sources import ByteSource, open_source
from curate.pool.image import ImageOptions
from curate.pool.part import Measured
from curate.pool.plan import Part
from curate.pool.tar_index import TarIndex, index_tar
from curate.pool.tar_samples import TarSamples, group_members
from curate.pool.text import check_captions
from curate.recipe.recipe import Source
from curate.signals.signal import Signal

_CAPTION_BYTES = 1 << 16  # more than the longest caption that is accepted
_JSON_BYTES = 1 << 24
_JSON_DEPTH = 100


@dataclass
class _Texts:
    """What .txt and .json say, row by row."""

    captions: list[bytes | None]
    urls: list[str | None]
    uids: list[str | None]


def measure_tar(part: Part, source: Source, options: ImageOptions, signals: Sequence[Signal]) -> Measured:
    """All samples of the tar, as far as it can be read. Raises OSError where reading fails."""
    with open_source(part.path, source.storage) as opened:
        index = index_tar(opened)
        samples = group_members(index)
        status, errors = list(samples.status), list(samples.errors)
        texts = _read_texts(opened, index, samples, source.caption_key, (status, errors))
        captions = check_captions(pa.array(texts.captions, pa.binary()))
        for row, (found, error) in enumerate(zip(captions.status.to_pylist(), captions.error.to_pylist(), strict=True)):
            if status[row] == schema.OK and found != schema.OK:
                status[row], errors[row] = found, error
        images = _images(opened, index, samples, status)
        facts, gauged = measure_images(images, captions.caption, options, signals)
    for row, fact in enumerate(facts):
        if fact is not None and fact.status != schema.OK:
            status[row], errors[row] = fact.status, fact.error
    image = np.array(samples.image, np.int64)
    columns = {
        "key": pa.array(samples.keys, pa.string()),
        "url": pa.array(texts.urls, pa.string()),
        "own_uid": pa.array(texts.uids, pa.string()),
        "caption": captions.caption,
        "words": captions.words,
        "characters": captions.characters,
        **image_columns(facts),
        "bytes": pa.array(_at(index.sizes, image), mask=image < 0),
        "offset": pa.array(_at(index.offsets, image), mask=image < 0),
        "status": pa.array(status, pa.string()),
        "error": pa.array(errors, pa.string()),
    }
    return Measured(columns, members=samples.member_columns(index), failure=index.damage, gauged=gauged)


def _images(
    source: ByteSource, index: TarIndex, samples: TarSamples, status: list[str]
) -> Iterator[bytes | memoryview | None]:
    for found, member in zip(status, samples.image, strict=True):
        yield source.read(int(index.offsets[member]), int(index.sizes[member])) if found == schema.OK else None


def _read_texts(
    source: ByteSource,
    index: TarIndex,
    samples: TarSamples,
    caption_key: str,
    faults: tuple[list[str], list[str | None]],
) -> _Texts:
    status, errors = faults
    texts = _Texts([None] * len(samples), [None] * len(samples), [None] * len(samples))
    offsets, sizes, complete = index.offsets.tolist(), index.sizes.tolist(), index.complete.tolist()
    for row, (txt, meta) in enumerate(zip(samples.txt, samples.json, strict=True)):
        if txt >= 0 and complete[txt]:
            raw = bytes(source.read(offsets[txt], min(sizes[txt], _CAPTION_BYTES)))
            # A longer one is refused for its length, not for a character cut in two.
            texts.captions[row] = raw if sizes[txt] <= _CAPTION_BYTES else raw.decode(errors="ignore").encode()
        if meta >= 0 and complete[meta]:
            fields, fault = read_json(bytes(source.read(offsets[meta], min(sizes[meta], _JSON_BYTES))))
            if fault and status[row] == schema.OK:
                status[row], errors[row] = "invalid_json", fault
            texts.urls[row] = _text(fields.get("url"))
            texts.uids[row] = _text(fields.get("uid"))
            if txt < 0:
                caption = fields.get(caption_key)
                # Lone surrogates, which JSON can spell, are not UTF-8: found as such with all other captions.
                texts.captions[row] = caption.encode(errors="surrogatepass") if isinstance(caption, str) else None
    return texts


def read_json(raw: bytes) -> tuple[dict[str, Any], str | None]:
    """The fields of a sample's json, or what is wrong with it."""
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError) as error:
        return {}, " ".join(str(error).split())[:200]
    if not isinstance(fields, dict):
        return {}, f"a JSON {type(fields).__name__}, not an object"
    # Where Python's parser gives up depends on the stack that it is called from; this does not.
    return ({}, f"nested more than {_JSON_DEPTH} deep") if _deeper(fields, _JSON_DEPTH) else (fields, None)


def _deeper(value: Any, depth: int) -> bool:
    """Whether `value` nests more than `depth` deep."""
    level = [value]
    for _ in range(depth):
        inner = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
        level = [child for child in inner if isinstance(child, (dict, list))]
        if not level:
            return False
    return True


def _text(value: Any) -> str | None:
    return value.encode(errors="replace").decode() if isinstance(value, str) and value else None


def _at(values: Any, places: Any) -> Any:
    """values[places], 0 where a place is negative."""
    return np.where(places < 0, 0, values[np.maximum(places, 0)]) if len(values) else np.zeros(len(places), np.int64)
