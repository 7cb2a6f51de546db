"""Small local files travel in the run's folder: copies are read as the files themselves, and no key knows of it.

Of local files that are missing, all are named at once.
"""

import os
import shutil

import fsspec
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from curate.base.errors import RecipeError
from curate.captions.engines import identify_engines
from curate.recipe.recipe import parse_recipe
from curate.run import inputs
from curate.run.inputs import copy_inputs, naming_all_missing, place_inputs
from curate.signals.registry import find_signals, identify_models
from curate.store.store import RunStore

SUPPLIED = {"clip": 4}


@pytest.fixture
def store():
    """A folder of a store, so that whoever opens a local path finds nothing there."""
    yield RunStore("memory://inputs/run")
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def recipe(tmp_path):
    """Files of several kinds, in two folders; some by pattern, and a folder."""
    (tmp_path / "a/run/tables/answers").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    save_file({"weight": torch.ones(1, 4), "bias": torch.zeros(1)}, tmp_path / "a/head.safetensors")
    np.save(tmp_path / "a/centroids.npy", np.eye(4, dtype=np.float32))
    for number in range(3):
        np.save(tmp_path / f"b/selected{number}.npy", np.array([number]))
    (tmp_path / "b/plain.txt").write_text("".join(f"source {i} => target {i}\n" for i in range(4)))
    rewrite = {"engine": "llm", "examples": {"plain": str(tmp_path / "b/plain.txt")}}
    clusters = {"of": "clip", "centroids": str(tmp_path / "a/centroids.npy")}
    return parse_recipe(
        {
            "input": {"name": "pool", "format": "parquet", "path": str(tmp_path / "pool.parquet")},
            "measure": {
                "language": {},
                "embeddings": {"name": "clip", "image": "image", "text": "text"},
                "heads": {"good": {"of": "clip", "path": str(tmp_path / "a/head.safetensors")}},
                "clusters": {"topic": {**clusters, "selected": str(tmp_path / "b/selected{0..1}.npy")}},
            },
            "captions": {
                "engines": {"llm": {"recorded": {"path": str(tmp_path / "a/run"), "model": "m"}}},
                "rewrite": rewrite,
            },
        }
    )


def test_copies_are_read_as_the_files_themselves(recipe, store, tmp_path):
    models = identify_models(recipe.measure, SUPPLIED)
    assert recipe.captions
    engines = identify_engines(recipe.captions)
    placed, files = place_inputs(recipe, store, "inputs")
    copy_inputs(files, store)
    names = sorted(path.rpartition("/")[2] for path in files.values())
    assert names == ["centroids.npy", "head.safetensors", "plain.txt", "selected0.npy", "selected1.npy"]
    assert sorted(files) == store.files("inputs")
    shutil.rmtree(tmp_path / "b")
    (tmp_path / "a/head.safetensors").unlink()

    assert identify_models(placed.measure, SUPPLIED) == models
    signals = find_signals(placed.measure, models)
    for signal in signals:
        if signal.load:
            signal.load()
    assert [s.key for s in signals] == [s.key for s in find_signals(recipe.measure, models)]
    assert placed.captions and identify_engines(placed.captions) == engines
    assert placed.captions.cache_key_fields(engines) == recipe.captions.cache_key_fields(engines)
    assert placed.captions.engines == recipe.captions.engines  # a folder does not travel
    assert placed.model_copy(update={"measure": recipe.measure, "captions": recipe.captions}) == recipe


def test_urls_missing_files_and_weights_stay(recipe, store, tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"some")
    measure = {
        "clip": {"model": "ViT-B-32", "pretrained": str(tmp_path / "weights.pt")},
        "heads": {
            "one": {"of": "clip", "path": "s3://bucket/head.pth"},
            "two": {"of": "clip", "path": f"file://{tmp_path}/a/head.safetensors"},
            "three": {"of": "clip", "path": str(tmp_path / "none.pth")},
        },
    }
    recipe = parse_recipe({"input": {"name": "pool", "format": "webdataset", "path": "a.tar"}, "measure": measure})
    assert place_inputs(recipe, store, "inputs") == (recipe, {})


def test_too_much_is_refused(recipe, store, tmp_path, monkeypatch):
    os.truncate(tmp_path / "b/plain.txt", 64_000_000)
    message = r"need 5 local files of 64.0 MB in all; the largest, .*/plain.txt, has 64.0 MB; accepted: at most 64.0 MB; .* URL"
    with pytest.raises(RecipeError, match=message):
        place_inputs(recipe, store, "inputs")
    monkeypatch.setattr(inputs, "MAX_BYTES", 65_000_000)
    place_inputs(recipe, store, "inputs")


def test_all_missing_files_are_named(tmp_path):
    (tmp_path / "there.txt").write_text("u\n")
    clip = {"name": "clip", "model": f"onnx:{tmp_path}/graphs"}
    recipe = parse_recipe(
        {
            "input": [
                {"name": "tars", "format": "webdataset", "path": [f"{tmp_path}/{{00..11}}.tar", "s3://bucket/a.tar"]},
                {
                    "name": "lists",
                    "format": "urls",
                    "path": f"{tmp_path}/*.parquet",
                    "network": {"contact": "me@example.org"},
                    "store": f"{tmp_path}/store",
                },
            ],
            "measure": {"clip": clip, "clusters": {"topic": {"of": "clip", "centroids": f"{tmp_path}/c.npy"}}},
            "match": {"metadata": f"{tmp_path}/entries.txt"},
            "blocklist": [f"{tmp_path}/there.txt", f"{tmp_path}/gone.txt"],
            "captions": {
                "engines": {"llm": {"openai": {"base_url": "http://localhost:1/v1", "model": "m"}}},
                "rewrite": {"engine": "llm", "template": f"{tmp_path}/t.txt"},
            },
        }
    )
    first = f"metadata {tmp_path}/entries.txt: no such file; accepted: …"
    with pytest.raises(RecipeError) as raised, naming_all_missing(recipe):
        raise RecipeError(first)
    assert str(raised.value).splitlines() == [
        f"{first}; `curate metadata build` makes one (see curate/match/README.md)",
        f"input.0.path.0: {tmp_path}/00.tar and 11 more: no such file (0 of the 12 named exist)",
        f"input.1.path: {tmp_path}/*.parquet: no file matches {tmp_path}/*.parquet",
        f"measure.clip.0.model: {tmp_path}/graphs: no such file",
        f"measure.clusters.topic.centroids: {tmp_path}/c.npy: no such file; "
        "`curate run` with relate.clusters makes models/NAME.npy",
        f"captions.rewrite.template: {tmp_path}/t.txt: no such file",
        f"blocklist.1: {tmp_path}/gone.txt: no such file",
    ]
