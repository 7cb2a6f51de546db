"""Which evaluation set rows are compared with, in a process that works on several runs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curate.base.errors import RecipeError
from curate.base.numeric.vectors import embedding_matrix
from curate.decide.decontamination import find_contaminated, write_evaluation
from curate.decide.dedup.passes.phash import PhashNearness
from curate.models.encoder import Encoder
from curate.signals.signal import ModelSignal
from curate.store.layout import EVALUATION_FILE
from curate.store.store import RunStore
from tests import kit


@pytest.mark.parametrize("same_folder", [True, False])
def test_each_run_has_its_own_evaluation_set(tmp_path, same_folder):
    """Also where the folder is the same, or its images are and only what was measured of them differs."""
    near, hashes = PhashNearness(1), np.array([0b111, 0b1000_0000], np.uint64)
    for number, name in enumerate(["first", "second", "first"]):
        store = RunStore(str(tmp_path / ("run" if same_folder else name)))
        table = pa.table({"name": [name], "phash": pa.array([[7, 128][number % 2]], pa.uint64())})
        store.write_parquet(EVALUATION_FILE, table, f"content of {name}")
        rows, names = find_contaminated(store, near, hashes)
        assert (rows.tolist(), names.to_pylist()) == ([number % 2], [name])


def test_the_footer_names_the_content(tmp_path):
    keys = []
    against = {"phash": {"distance": 2}, "images": f"{tmp_path}/x.jpg"}
    recipe = kit.recipe_of("x", "parquet", measure={"image": {"phash": True}}, dedup={"against": against})
    for number, seed in enumerate([1, 1, 2]):
        noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
        (tmp_path / "x.jpg").write_bytes(kit.encode(Image.fromarray(noise).resize((64, 64))))
        store = RunStore(str(tmp_path / f"run{number}"))
        write_evaluation(store, recipe, ())
        keys.append((store.footer(EVALUATION_FILE)[0], store.read_parquet(EVALUATION_FILE)["phash"].to_pylist()))
    assert keys[0] == keys[1] and keys[0][0] != keys[2][0] and keys[0][1] != keys[2][1]


class Brightness(Encoder):
    """Embeds images by the brightness of their corner; a black one gives NaN, and a white one infinity."""

    _tokenize = _start = NotImplemented

    def start_images(self, views):
        corners = np.array([view[0, 0, 0] for view in views], np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            embeddings = np.stack([corners / corners, 1 / (255 - corners)], axis=1)
        return lambda: embeddings


def test_images_whose_embedding_is_not_finite_are_unread(tmp_path):
    """One NaN would be near nothing, or near all; here each is counted, and too many end the run."""
    for name, gray in (("black", 0), ("dark", 40), ("light", 200), ("white", 255)):
        Image.new("RGB", (64, 64), (gray, gray, gray)).save(tmp_path / f"{name}.png")
    never = None  # what nobody calls here
    encoder = Brightness(2, np.asarray, 2, False)
    signal = ModelSignal("clip", (), "1", start=never, dimension=2, encoder=lambda is_anywhere: encoder)

    def write(**more):
        against = {"embedding": {"cosine": 0.9}, "images": f"{tmp_path}/*.png"}
        measure = {"clip": {"model": "ViT-B-32", "embeddings": True}}
        recipe = kit.recipe_of("x.tar", measure=measure, dedup={"against": against}, **more)
        write_evaluation(store := RunStore(str(tmp_path / "run")), recipe, [signal])
        return store

    with pytest.raises(
        RecipeError, match=r"2 of 4 images .*max_failed is 0\.05: \S+black\.png: .* contains NaN or infinity"
    ):
        write(max_failed=0.05)
    table = write(max_failed=0.5).read_parquet(EVALUATION_FILE)
    assert [Path(str(name)).name for name in table["name"].to_pylist()] == ["dark.png", "light.png"]
    assert np.isfinite(embedding_matrix(table["image"])).all()
