"""Decontamination: the images of an evaluation set, and which rows of the pool are near one of them (DataComp).

In: image files and webdataset tars. Out: table `tmp/evaluation.parquet`, one row an image that can be read: name (its
file, or tar and key), phash uint64, image (float16 [dimension], by the model that the recipe names). Rows are compared
where they lie: the table goes to every worker, so it should be small beside the pool (1 KB an image).
"""

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate import ids, schema
from curate.decide import cosine, hamming
from curate.errors import RecipeError
from curate.numeric.vectors import embedding_column, embedding_matrix
from curate.pool.exemplars import picture_files, read_pictures
from curate.pool.image import ImageOptions, measure_image
from curate.pool.listing import InputFile
from curate.recipe.rules import Against
from curate.run.context import RunContext
from curate.signals.registry import load_encoder_of
from curate.store.layout import EVALUATION_FACTS_FILE, EVALUATION_FILE

_loaded: dict[str, pa.Table] = {}
_lock = threading.Lock()


def list_evaluation(against: Against) -> list[InputFile]:
    """The files of the evaluation set. Raises RecipeError."""
    return picture_files("dedup.against.images", against.images)


def evaluation_key(against: Against) -> str:
    """The digest of the evaluation set: its files, with sizes and etags or mtimes."""
    return ids.digest([[file.path, file.size, file.fingerprint] for file in list_evaluation(against)])


def write_evaluation(context: RunContext) -> None:
    """Measures the evaluation set into the run folder. Raises RecipeError where too much of it cannot be read."""
    against = context.recipe.dedup.against
    assert against is not None
    model = against.embedding and against.embedding.of
    encoder = load_encoder_of(context.signals, model, is_anywhere=True) if model else None  # wherever units run
    options = ImageOptions(phash=against.phash is not None, looks=(encoder.view,) if encoder else ())
    names, hashes, made, unread = [], [], [], []
    views: list[Any] = []

    def flush() -> None:
        if encoder and views:
            made.append(encoder.encode_images(views).cpu().numpy())
            views.clear()

    for name, data in read_pictures(list_evaluation(against)):
        fact = measure_image(data, options)
        if fact.status != schema.OK or (encoder and fact.views[0] is None):
            unread.append(f"{name}: {fact.error or fact.status}")
            continue
        names.append(name)
        hashes.append(fact.phash)
        if encoder:
            views.append(fact.views[0])
            if len(views) >= encoder.batch:
                flush()
    flush()
    total = len(names) + len(unread)
    if not names or len(unread) / total > context.recipe.max_failed:
        raise RecipeError(
            f"dedup.against.images: {len(unread):,} of {total:,} images of the evaluation set cannot be read, and max_failed is "
            f"{context.recipe.max_failed}: {unread[0] if unread else f'no image in {against.images}'}"
        )
    facts = {"images": len(names), "unread": len(unread), "such_as": unread[0] if unread else None}
    context.store.write_json(EVALUATION_FACTS_FILE, facts)
    columns = {"name": pa.array(names, pa.string()), "phash": pa.array(hashes, pa.uint64())}
    if encoder:
        columns["image"] = embedding_column(np.concatenate(made), np.arange(len(names)), len(names))
    context.store.write_parquet(EVALUATION_FILE, pa.table(columns))


def find_contaminated(
    context: RunContext, hashes: npt.NDArray[np.uint64] | None, vectors: npt.NDArray[np.float16] | None
) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """The rows that are near an evaluation image, and the name of the nearest.

    Args:
        context: the run.
        hashes: uint64 [n], perceptual hashes of rows, where the recipe compares these.
        vectors: float16 [n, dimension], image embeddings of rows, where it compares those.
    """
    against = context.recipe.dedup.against
    assert against is not None
    table = _load(context)
    if against.phash:
        assert hashes is not None
        found = hamming.nearest(hashes, table["phash"].to_numpy().astype(np.uint64), against.phash.distance)
    else:
        assert against.embedding is not None and vectors is not None
        found = cosine.nearest(vectors, embedding_matrix(table["image"]), against.embedding.cosine)
    rows = np.flatnonzero(found >= 0)
    return rows, table["name"].combine_chunks().take(pa.array(found[rows]))


def _load(context: RunContext) -> pa.Table:
    """The run's evaluation set, once per process."""
    with _lock:
        if context.evaluation_key not in _loaded:
            _loaded.clear()
            _loaded[context.evaluation_key] = context.store.read_parquet(EVALUATION_FILE)
        return _loaded[context.evaluation_key]
