"""Decontamination: finds rows of the pool that are near images of an evaluation set (DataComp).

In: image files and webdataset tars. Out: table `tmp/evaluation.parquet`, one row per readable image: name (its file, or
tar and key), phash uint64, image (float16 [dimension], by the model in the recipe). Rows are compared unit by unit;
every worker reads the whole table, so it should be small compared with the pool (1 KB per image).
"""

from collections.abc import Iterator, Sequence
from itertools import compress
from operator import not_
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from curate.base import ids, schema
from curate.base.errors import RecipeError
from curate.base.numeric.arrays import I64
from curate.base.numeric.vectors import embedding_column
from curate.base.process import groups, process_cache
from curate.decide.dedup.passes.dedup_pass import ImageNearness
from curate.pool.exemplars import picture_files, read_pictures
from curate.read.image import measure_image
from curate.read.phash import hash_small
from curate.recipe.deciding import NEARNESS, Against
from curate.recipe.measure import Image as ImageOptions
from curate.recipe.recipe import Recipe
from curate.signals.registry import load_encoder_of
from curate.signals.signal import Signal
from curate.store.layout import EVALUATION_FACTS_FILE, EVALUATION_FILE
from curate.store.store import RunStore

_IMAGES = "dedup.against.images"


def evaluation_key(against: Against) -> str:
    """Return the digest of the evaluation set: its files, with sizes and etags or mtimes. Raises RecipeError."""
    return ids.digest([[file.path, file.size, file.fingerprint] for file in picture_files(_IMAGES, against.images)])


def write_evaluation(store: RunStore, recipe: Recipe, signals: Sequence[Signal]) -> None:
    """Measure the evaluation set into the run folder. Raises RecipeError if too much of it cannot be read."""
    against = recipe.dedup.against
    assert against is not None
    nearness: ImageNearness = NEARNESS.find(against.kind).build(against.section, recipe.measure, None)
    model = nearness.encoder
    encoder = load_encoder_of(signals, model, is_anywhere=True) if model else None  # units may run anywhere
    options, observers = ImageOptions(phash=encoder is None), [encoder.view] if encoder else []
    names, hashes, unread = [], [], []

    def read() -> Iterator[Any]:
        for name, data in read_pictures(picture_files(_IMAGES, against.images)):
            fact = measure_image(data, options, observers)
            if fact.status != schema.OK or (encoder and fact.observed[0] is None):
                unread.append(f"{name}: {fact.error or fact.status}")
                continue
            names.append(name)
            hashes.append(int(hash_small([fact.small])[0]) if fact.small else None)
            yield fact.observed[0] if encoder else None

    batches = groups(read(), lambda _: 1, encoder.batch if encoder else 1)
    encoded: list[Any] = [encoder.encode_images(views) if encoder else None for views in batches]
    total = len(names) + len(unread)
    if encoder and names:
        vectors = np.concatenate(encoded)
        is_finite = np.isfinite(vectors).all(axis=1).tolist()
        unread += [f"{name}: its embedding contains NaN or infinity" for name in compress(names, map(not_, is_finite))]
        names, hashes, vectors = list(compress(names, is_finite)), [None] * sum(is_finite), vectors[is_finite]
    if not names or len(unread) / total > recipe.max_failed:
        error = f"{len(unread):,} of {total:,} images of the evaluation set cannot be read"
        example = unread[0] if unread else f"no image in {against.images}"
        raise RecipeError(f"{_IMAGES}: {error}, but max_failed is {recipe.max_failed}: {example}")
    facts = {"images": len(names), "unread": len(unread), "such_as": (*unread, None)[0]}
    store.write_json(EVALUATION_FACTS_FILE, facts)
    columns: dict[str, pa.Array] = {"name": pa.array(names, pa.string()), "phash": pa.array(hashes, pa.uint64())}
    if encoder:
        columns["image"] = embedding_column(vectors, np.arange(len(names)), len(names))
    batch = pa.record_batch(columns)
    digest = xxhash.xxh3_128_hexdigest(batch.serialize())
    store.write_parquet(EVALUATION_FILE, pa.Table.from_batches([batch]), digest)


def find_contaminated(store: RunStore, nearness: ImageNearness, values: Any) -> tuple[I64, pa.Array]:
    """Return which rows with these values are near an evaluation image (ascending), and the name of the nearest."""
    content = store.footer(EVALUATION_FILE)[0]  # a digest, because the same images may be encoded by another model
    table = process_cache(f"evaluation {content}", lambda: store.read_parquet(EVALUATION_FILE), replaces="evaluation ")
    images = nearness.nearest(values, table)
    rows = np.flatnonzero(images >= 0)
    return rows, table["name"].combine_chunks().take(pa.array(images[rows], pa.int64()))
