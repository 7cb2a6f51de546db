"""NormSim and VAS with target images: a file of embeddings, tars, a folder or a covariance give the same, and hostile files a reason."""

import numpy as np
import pytest
import torch

from curate.base.errors import RecipeError
from curate.recipe.recipe import parse_recipe
from pipelines.prepare import prepare
from tests import kit
from tests.kit.clips import write_model
from tests.kit.embedded import make_embeddings, recipe_of, write_pool

pytestmark = pytest.mark.thorough


def test_images_in_a_folder_in_tars_and_their_embeddings(tmp_path):
    clip = {"model": write_model(tmp_path / "clip"), "embeddings": True}
    samples = kit.make_samples(12)
    path = kit.write_tars(tmp_path / "tars", samples, 2)
    for place, sample in enumerate(samples[:5]):
        (tmp_path / f"targets/class{place // 3}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"targets/class{place // 3}/{sample.key}.jpg").write_bytes(sample.image)
    (tmp_path / "targets/labels.txt").write_text("a list that no image is")
    (tmp_path / "targets/._hidden.jpg").write_text("what macOS leaves")
    targets = kit.write_tars(tmp_path / "more", samples[:5], 1)
    files = {"files": f"{tmp_path}/targets/*/*.jpg", "folder": str(tmp_path / "targets"), "tars": targets}
    named = {name: {"targets": path} for name, path in files.items()} | {"two": {"targets": targets, "norm": "2"}}
    signals = {"clip": clip, "normsim": named, "vas": {"vas": {"targets": targets}}}
    run = kit.run_local(kit.recipe_of(path, measure=signals), tmp_path / "run")
    scores = run.table("scores")
    assert scores["folder"].to_pylist() == scores["files"].to_pylist() == scores["tars"].to_pylist()
    ok = np.array([status == "ok" for status in run.table("samples")["status"].to_pylist()])
    assert np.abs(scores["two"].to_numpy()[ok] - np.sqrt(5 * scores["vas"].to_numpy()[ok])).max() < 1e-5
    assert (scores["tars"].to_numpy()[ok] > 0.999).sum() >= 4  # the targets themselves


@pytest.fixture
def path(tmp_path):
    return write_pool(tmp_path / "pool", 1, *make_embeddings(30, 8))


def test_embeddings_and_a_covariance(path, tmp_path):
    targets = np.random.default_rng(0).normal(size=(40, 8))
    np.save(tmp_path / "targets.npy", targets[:25].astype(np.float32))
    torch.save(targets[25:], tmp_path / "targets.pt")
    unit = targets / np.linalg.norm(targets, axis=1, keepdims=True)
    np.save(tmp_path / "sigma.npy", unit.T @ unit / 40)
    files = [str(tmp_path / "targets.npy"), str(tmp_path / "targets.pt")]
    covariance = {"of": "l14", "covariance": str(tmp_path / "sigma.npy")}
    signals = {"normsim": {"near": {"of": "l14", "targets": files}}, "vas": {"vas": covariance}}
    found = kit.run_local(parse_recipe(recipe_of(path, {}, measure=signals)), tmp_path / "run").table("scores")
    images = make_embeddings(30, 8)[0].astype(np.float64)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    assert np.abs(found["near"].to_numpy() - np.abs(images @ unit.T).max(axis=1)).max() < 1e-6
    assert np.abs(found["vas"].to_numpy() - ((images @ unit.T) ** 2).mean(axis=1)).max() < 1e-6


ZEROS = np.zeros((3, 8), np.float32)
REFUSED = [
    ("normsim", None, "no file matches|no such file"), ("normsim", ZEROS[:0], r"is float32 \[0, 8\]"),
    ("normsim", ZEROS[:, :7], r"is float32 \[3, 7\]; accepted: floating-point numbers \[n, 8\]"),
    ("normsim", ZEROS + np.nan, "contains NaN or infinity"), ("normsim", ZEROS.astype(np.int32), "is int32"),
    ("normsim", np.array([{}], object), "is not a .npy file"), ("normsim", b"\x93NUMPY", "is not a .npy file"),
    ("vas", np.full((8, 8), np.inf), "contains NaN or infinity"), ("vas", np.eye(8, dtype=np.int64), r"is int64 \[8, 8\]"),
    ("vas", np.eye(7), r"is float64 \[7, 7\]; accepted: floating-point numbers \[8, 8\]"),
]  # fmt: skip


def test_other_arrays_are_refused(path, tmp_path):
    for number, (section, content, message) in enumerate(REFUSED):
        file, key = tmp_path / f"{number}.npy", "targets" if section == "normsim" else "covariance"
        if isinstance(content, bytes):
            file.write_bytes(content)
        elif content is not None:
            np.save(file, content)
        measure = {section: {"near": {"of": "l14", key: str(file)}}}
        with pytest.raises(RecipeError, match=f"measure.{section}.near.{key}: .*({message})"):
            prepare(parse_recipe(recipe_of(path, {}, measure=measure)), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("key", ["normsim", "vas"])
def test_a_folder_without_images_is_refused(key, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/readme.md").write_text("none yet")
    signals = {"clip": {"model": write_model(tmp_path / "clip"), "embeddings": True}}
    signals[key] = {"near": {"targets": str(tmp_path / "empty")}}
    tars = kit.write_tars(tmp_path / "tars", kit.make_samples(12), 1)
    with pytest.raises(RecipeError, match=rf"measure.{key}.near.targets: .*/empty: no \.jpg, "):
        prepare(kit.recipe_of(tars, measure=signals), str(tmp_path / "run"))


def test_images_need_a_model(path, tmp_path):
    signals = {"normsim": {"near": {"of": "l14", "targets": "photos/*.jpg"}}}
    with pytest.raises(RecipeError, match="'l14' is precomputed and cannot encode images"):
        prepare(parse_recipe(recipe_of(path, {}, measure=signals)), str(tmp_path / "run"))


def test_one_of_two():
    for both in ({}, {"targets": "a.npy", "covariance": "b.npy"}):
        with pytest.raises(RecipeError, match="give either targets or covariance"):
            parse_recipe(recipe_of("a.parquet", {}, measure={"vas": {"v": {"of": "l14", **both}}}))
