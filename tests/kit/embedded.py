"""A Parquet pool with embeddings, in any number of files, and a recipe for it."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def make_embeddings(rows, dimension=32, seed=0):
    """Image and text embeddings of unit length (float16 [rows, dimension]): a few topics, texts near their images."""
    rng = np.random.default_rng(seed)
    topics = rng.normal(size=(7, dimension))
    images = topics[rng.integers(0, 7, rows)] + 0.6 * rng.normal(size=(rows, dimension))
    texts = images + 0.8 * rng.normal(size=(rows, dimension))
    return tuple((side / np.linalg.norm(side, axis=1, keepdims=True)).astype(np.float16) for side in (images, texts))  # type: ignore[return-value]


def write_pool(folder, files, images, texts, missing=()):
    """Write rows in order into so many files, rows of `missing` without a caption; the recipe's `input.path`."""
    folder.mkdir(parents=True)
    rows = len(images)
    captions = [None if i in missing else f"a caption of row {i}" for i in range(rows)]
    table = pa.table(
        {
            "TEXT": pa.array(captions, pa.string()),
            "URL": [f"http://a.org/{i}.jpg" for i in range(rows)],
            "l14_img": pa.array(list(images), pa.list_(pa.float16(), images.shape[1])),
            "l14_txt": pa.array(list(texts), pa.list_(pa.float16(), images.shape[1])),
        }
    )
    cuts = np.linspace(0, rows, files + 1).astype(int)
    for i, (start, stop) in enumerate(pairwise(cuts)):
        pq.write_table(table.slice(start, stop - start), folder / f"{i:05d}.parquet")
    return str(folder / "*.parquet")


def recipe_of(path, relate, **sections):
    """A recipe of such a pool."""
    columns = {"caption": "TEXT", "url": "URL"}
    embeddings = {"name": "l14", "image": "l14_img", "text": "l14_txt", "keep": True}
    return {
        "input": {"name": "pool", "format": "parquet", "path": path, "columns": columns},
        "measure": {"embeddings": embeddings} | sections.pop("measure", {}),
        "relate": relate,
    } | sections
