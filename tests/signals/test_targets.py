"""NormSim and VAS with target images: a file of embeddings, tars, a folder or a covariance give the same, and hostile files a reason."""

import weakref
from typing import Any

import numpy as np
import pytest
import torch

from curate.base.errors import RecipeError
from curate.models.tensor_files import array_digest
from curate.recipe.recipe import parse_recipe
from curate.signals import on_embeddings
from curate.signals.normsim import NormSim
from curate.signals.signal import IdentifyContext
from curate.store.store import RunStore
from pipelines.prepare import prepare
from tests import kit
from tests.kit.clips import write_model
from tests.relate.pools import make_embeddings, recipe_of, write_pool

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
    named = {
        "files": {"targets": str(tmp_path / "targets/*/*.jpg")},
        "folder": {"targets": str(tmp_path / "targets")},
        "tars": {"targets": targets},
        "two": {"targets": targets, "norm": "2"},
    }
    run = kit.run_local(
        kit.recipe_of(path, measure={"clip": clip, "normsim": named, "vas": {"vas": {"targets": targets}}}),
        tmp_path / "run",
    )
    scores = run.table("scores")
    assert scores["folder"].to_pylist() == scores["files"].to_pylist() == scores["tars"].to_pylist()
    ok = np.array([status == "ok" for status in run.table("samples")["status"].to_pylist()])
    assert np.abs(scores["two"].to_numpy()[ok] - np.sqrt(5 * scores["vas"].to_numpy()[ok])).max() < 1e-5
    assert (scores["tars"].to_numpy()[ok] > 0.999).sum() >= 4  # the targets themselves


@pytest.fixture
def path(tmp_path):
    return write_pool(tmp_path / "pool", 1, *make_embeddings(30, 8))


def measured(path, tmp_path, signals):
    run = kit.run_local(parse_recipe(recipe_of(path, {}, measure=signals)), tmp_path / "run")
    return {
        name: run.table("scores")[name].to_numpy()
        for name in ("near", "vas")
        if name in run.table("scores").column_names
    }


def test_embeddings_and_a_covariance(path, tmp_path):
    targets = np.random.default_rng(0).normal(size=(40, 8))
    np.save(tmp_path / "targets.npy", targets[:25].astype(np.float32))
    torch.save(targets[25:], tmp_path / "targets.pt")
    unit = targets / np.linalg.norm(targets, axis=1, keepdims=True)
    np.save(tmp_path / "sigma.npy", unit.T @ unit / 40)
    found = measured(
        path,
        tmp_path,
        {
            "normsim": {
                "near": {"of": "l14", "targets": [str(tmp_path / "targets.npy"), str(tmp_path / "targets.pt")]}
            },
            "vas": {"vas": {"of": "l14", "covariance": str(tmp_path / "sigma.npy")}},
        },
    )
    images = make_embeddings(30, 8)[0].astype(np.float64)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    assert np.abs(found["near"] - np.abs(images @ unit.T).max(axis=1)).max() < 1e-6
    assert np.abs(found["vas"] - ((images @ unit.T) ** 2).mean(axis=1)).max() < 1e-6


def test_files_of_targets_are_identified_one_by_one(tmp_path, monkeypatch):
    """Of several large ones, one at a time is in memory."""
    arrays = list[weakref.ref[Any]]()

    def digest(array):
        assert [other for other in arrays if other() is not None] == []
        arrays.append(weakref.ref(array))
        return array_digest(array)

    monkeypatch.setattr(on_embeddings, "array_digest", digest)
    for name in "abc":
        np.save(tmp_path / f"{name}.npy", np.ones((2, 8), np.float32))
    section = NormSim(of="l14", targets=f"{tmp_path}/{{a,b,c}}.npy")
    assert len(section.identify("near", IdentifyContext({"l14": {"dimension": 8}}, {}, True))) == len(arrays) == 3


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda file: None, "no file matches|no such file"),
        (
            lambda file: np.save(file, np.zeros((3, 7), np.float32)),
            r"is float32 \[3, 7\]; accepted: floating-point numbers \[n, 8\]",
        ),
        (lambda file: np.save(file, np.zeros((0, 8), np.float32)), r"is float32 \[0, 8\]"),
        (lambda file: np.save(file, np.full((2, 8), np.nan)), "holds NaN or infinity"),
        (lambda file: np.save(file, np.zeros((3, 8), np.int32)), "is int32"),
        (lambda file: np.save(file, np.array([{}], object), allow_pickle=True), "is no .npy file"),
        (lambda file: file.write_bytes(b"\x93NUMPY"), "is no .npy file"),
    ],
)
def test_what_is_refused(make, wanted, path, tmp_path):
    make(tmp_path / "targets.npy")
    signals = {"normsim": {"near": {"of": "l14", "targets": str(tmp_path / "targets.npy")}}}
    with pytest.raises(RecipeError, match=wanted) as error:
        prepare(parse_recipe(recipe_of(path, {}, measure=signals)), str(tmp_path / "run"))
    assert "measure.normsim.near.targets" in str(error.value)
    assert not RunStore(str(tmp_path / "run")).exists("run.json")


@pytest.mark.parametrize(
    ("sigma", "wanted"),
    [
        (np.full((8, 8), np.inf), "holds NaN or infinity"),
        (np.eye(7), r"is float64 \[7, 7\]; accepted: floating-point numbers \[8, 8\]"),
        (np.eye(8, dtype=np.int64), r"is int64 \[8, 8\]"),
    ],
)
def test_covariances_that_are_refused(sigma, wanted, path, tmp_path):
    np.save(tmp_path / "sigma.npy", sigma)
    signals = {"vas": {"vas": {"of": "l14", "covariance": str(tmp_path / "sigma.npy")}}}
    with pytest.raises(RecipeError, match=f"measure.vas.vas.covariance: .*{wanted}"):
        prepare(parse_recipe(recipe_of(path, {}, measure=signals)), str(tmp_path / "run"))


@pytest.mark.parametrize("key", ["normsim", "vas"])
def test_a_folder_without_images_is_refused(key, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/readme.md").write_text("none yet")
    signals = {"clip": {"model": write_model(tmp_path / "clip"), "embeddings": True}}
    signals[key] = {"near": {"targets": str(tmp_path / "empty")}}
    tars = kit.write_tars(tmp_path / "tars", kit.make_samples(12), 1)
    with pytest.raises(RecipeError, match=rf"measure.{key}.near.targets: .*/empty: a folder without files in \.jpg, "):
        prepare(kit.recipe_of(tars, measure=signals), str(tmp_path / "run"))


def test_images_need_a_model(path, tmp_path):
    signals = {"normsim": {"near": {"of": "l14", "targets": "photos/*.jpg"}}}
    with pytest.raises(RecipeError, match="images cannot be encoded by 'l14', precomputed"):
        prepare(parse_recipe(recipe_of(path, {}, measure=signals)), str(tmp_path / "run"))


def test_one_of_two():
    for both in ({}, {"targets": "a.npy", "covariance": "b.npy"}):
        with pytest.raises(RecipeError, match="give either targets or covariance"):
            parse_recipe(recipe_of("a.parquet", {}, measure={"vas": {"v": {"of": "l14", **both}}}))
