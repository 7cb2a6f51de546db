"""Which evaluation set rows are compared with, in a process that works on several runs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curate.decide.decontamination import find_contaminated, write_evaluation
from curate.decide.dedup.passes.phash import PhashNearness
from curate.recipe.recipe import parse_recipe
from curate.store.layout import EVALUATION_FILE
from curate.store.store import RunStore
from tests.laws.pools import encode


@pytest.mark.parametrize("same_folder", [True, False])
def test_each_run_has_its_own_evaluation_set(tmp_path: Path, same_folder: bool) -> None:
    """Also where the folder is the same, or its images are and only what was measured of them differs."""
    near, hashes = PhashNearness(1, None), np.array([0b111, 0b1000_0000], np.uint64)
    for number, name in enumerate(["first", "second", "first"]):
        store = RunStore(str(tmp_path / ("run" if same_folder else name)))
        table = pa.table({"name": [name], "phash": pa.array([[7, 128][number % 2]], pa.uint64())})
        store.write_parquet(EVALUATION_FILE, table, f"content of {name}")
        rows, names = find_contaminated(store, near, hashes)
        assert (rows.tolist(), names.to_pylist()) == ([number % 2], [name])


def test_the_footer_names_the_content(tmp_path: Path) -> None:
    keys = []
    against = {"phash": {"distance": 2}, "images": f"{tmp_path}/x.jpg"}
    recipe = parse_recipe(
        {
            "input": {"name": "a", "format": "parquet", "path": "x"},
            "measure": {"image": {"phash": True}},
            "dedup": {"against": against},
        }
    )
    for number, seed in enumerate([1, 1, 2]):
        noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
        (tmp_path / "x.jpg").write_bytes(encode(Image.fromarray(noise).resize((64, 64))))
        store = RunStore(str(tmp_path / f"run{number}"))
        write_evaluation(store, recipe, ())
        keys.append((store.footer(EVALUATION_FILE)[0], store.read_parquet(EVALUATION_FILE)["phash"].to_pylist()))
    assert keys[0] == keys[1] and keys[0][0] != keys[2][0] and keys[0][1] != keys[2][1]
