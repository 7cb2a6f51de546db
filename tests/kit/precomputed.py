"""Text pools with embeddings in an .npz beside each Parquet file, as DataComp publishes them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.kit import recipe_of

DIMENSION = 8
OPTIONS = {"name": "l14", "image": "l14_img", "text": "l14_txt"}


def vectors(n, seed):
    """Random float16 vectors of unit length."""
    drawn = np.random.default_rng(seed).standard_normal((n, DIMENSION))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float16)


def write_file(folder, number, rows=60, save=np.savez):
    """Write a Parquet file of several row groups and its .npz; return the image embeddings."""
    folder.mkdir(exist_ok=True)
    columns = {"uid": "{:032x}", "url": f"https://x/{number}/{{}}", "text": f"caption {number} {{}}"}
    table = pa.table({name: [form.format(number * 1000 + i) for i in range(rows)] for name, form in columns.items()})
    pq.write_table(table, folder / f"{number}.parquet", row_group_size=25)
    images = vectors(rows, number)
    save(folder / f"{number}.npz", l14_img=images, l14_txt=vectors(rows, 100 + number))
    return images


def recipe(folder, **sections):
    """A recipe over the files of a folder, with their embeddings."""
    measure = {"embeddings": OPTIONS, **sections.pop("measure", {})}
    return recipe_of(f"{folder}/*.parquet", "parquet", measure=measure, **sections)
