"""Signals on embeddings in whole runs: equal to their functions on the run's own embeddings, and cheap to change."""

import shutil
import tarfile

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from curate.base.errors import RecipeError
from curate.models.clip_model import load_encoder
from curate.models.open_clip_encoder import OpenClipEncoder
from curate.recipe.recipe import load_recipe
from curate.signals.clip import Clip
from curate.signals.formulas.embedding_scores import (
    fit_classifier,
    fooling_score,
    quality_axis,
    quality_score,
    tag_contexts,
)
from curate.signals.on_embeddings import encode_exemplars
from pipelines.driver import preflight
from pipelines.prepare import prepare
from tests import kit
from tests.kit.clips import write_model

PROMPTS = ["a dog", "a car", "the sea"]
SETTINGS = {"indoors": "a photo taken indoors", "outdoors": "a photo taken outdoors"}
GROUNDS = {"grass": "a {} on grass", "snow": "a {} in snow"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "m")


def write_head(path, seed):
    weight = np.random.default_rng(seed).standard_normal((1, 32)).astype(np.float32)
    save_file({"weight": weight, "bias": np.ones(1, np.float32)}, path)


@pytest.fixture
def world(tmp_path):
    """Tars, exemplars and a head."""
    kit.write_tars(tmp_path / "tars", kit.make_samples(16), 2)
    (tmp_path / "examples").mkdir()
    for name, color in (("warm", (200, 80, 40)), ("cold", (40, 80, 200))):
        for i in range(3):
            noise = np.random.default_rng(i).integers(0, 50, (70, 60, 3))
            Image.fromarray((noise + color).astype(np.uint8)).save(tmp_path / f"examples/{name}{i}.png")
    write_head(tmp_path / "head.safetensors", 0)
    return tmp_path


def exemplars(world):
    return f"{world}/examples/warm*.png", f"{world}/examples/cold*.png"


def measure_of(world, model, **more):
    warm, cold = exemplars(world)
    return {
        "clip": {"model": model, "embeddings": True},
        "heads": {"aesthetic": {"path": f"{world}/head.safetensors"}},
        "fooling": {"prompts": PROMPTS},
        "contexts": {"setting": {"values": SETTINGS}, "ground": {"values": GROUNDS, "classes": ["dog", "cat"]}},
        "classes": {"kind": {"examples": {"warm": warm, "cold": cold}}},
        "axes": {"warmth": {"good": warm, "bad": [cold]}},
        **more,
    }


def recipe(world, model, **more):
    return kit.recipe_of(f"{world}/tars/*.tar", measure=measure_of(world, model, **more))


def test_columns_equal_their_functions(world, model):
    done = kit.run_local(recipe(world, model), world / "out")
    scores, kept = done.table("scores"), done.table("embeddings")
    assert scores.schema.names[6:] == [
        "aesthetic", "setting", "setting_probability", "ground", "ground_probability", "kind", "kind_probability",
        "warmth", "fooling",
    ]  # fmt: skip
    ok = np.array(done.table("samples")["status"]) == "ok"
    assert all((scores[name].is_valid().to_numpy() == ok).all() for name in scores.schema.names[3:])
    images = np.array(kept["image"].to_pylist(), np.float32)[ok]
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    encoder = load_encoder(Clip(model=model))
    prompts = encoder.encode_texts(PROMPTS).embeddings
    settings = encoder.encode_texts(list(SETTINGS.values())).embeddings
    prompts_of = {name: [prompt.format(name) for prompt in GROUNDS.values()] for name in ("dog", "cat")}
    grounds = np.stack([encoder.encode_texts(texts).embeddings for texts in prompts_of.values()])
    warm, cold = (encode_exemplars("x", encoder, path)[0] for path in exemplars(world))
    kinds = fit_classifier(np.concatenate([warm, cold]), np.array([0, 0, 0, 1, 1, 1]), 2).classify(images)

    def close(name, expected):
        assert np.allclose(scores[name].filter(pa.array(ok)).to_numpy(), expected, atol=1e-5), name

    close("fooling", fooling_score(images, prompts))
    close("warmth", quality_score(images, quality_axis(warm, cold)))
    for name, tags, names in (
        ("setting", tag_contexts(images, settings[None]), list(SETTINGS)),
        ("ground", tag_contexts(images, grounds), list(GROUNDS)),
        ("kind", kinds, ["warm", "cold"]),
    ):
        close(f"{name}_probability", tags.probability)
        assert scores[name].filter(pa.array(ok)).to_pylist() == [names[i] for i in tags.best]
    head = load_file(world / "head.safetensors")
    close("aesthetic", (images @ head["weight"].T)[:, 0] + head["bias"][0])


def changes_of(world):
    """Column → the sections that change it."""
    warm, cold = exemplars(world)
    return {
        "aesthetic": {"heads": {"aesthetic": {"path": f"{world}/head.safetensors", "output": "sigmoid"}}},
        "fooling": {"fooling": {"prompts": ["a cat", "a bike"]}}, "warmth": {"axes": {"warmth": {"bad": warm, "good": cold}}},
        "kind": {"classes": {"kind": {"examples": {"cold": warm, "warm": cold}}}},
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("embeddings", [True, False])
def test_a_changed_signal_alone_is_computed_again(embeddings, world, model, monkeypatch):
    """Where embeddings are kept, without the encoder."""
    clip = {"model": model, "embeddings": embeddings}
    old = kit.run_local(recipe(world, model, clip=clip), world / "old")
    batches, whole = [], OpenClipEncoder.start_images
    counting = lambda self, views: batches.append(len(views)) or whole(self, views)  # noqa: E731
    monkeypatch.setattr(OpenClipEncoder, "start_images", counting)
    for column, change in changes_of(world).items():
        asked = recipe(world, model, clip=clip, **change)
        batches.clear()
        new = kit.run_local(asked, world / f"new {column}", reuse=old.folder).table("scores")
        assert (sum(batches) <= (6 if column in ("warmth", "kind") else 0)) == embeddings
        assert new == kit.run_local(asked, world / f"fresh {column}").table("scores")
        assert new[column] != old.table("scores")[column]


def test_words_that_do_not_fit(world, model):
    asked = recipe(world, model, clip={"model": model, "words": True})
    scores = kit.run_local(asked, world / "out").table("scores")
    found = list(zip(*(scores[n].to_pylist() for n in ("misaligned_words", "f_clipscore")), strict=True))
    assert any(words for words, _ in found if words is not None)
    assert all((words is None) == (f is None) for words, f in found)
    assert all((f == 0) == (not words) and f <= 0 for words, f in found if f is not None)


def test_paths_are_relative_to_the_recipe(world, model):
    text = """
input: [{name: pool, format: webdataset, path: "tars/*.tar"}]
max_failed: 1.0
measure:
  clip: {model: "local-dir:model"}
  heads: {aesthetic: {path: head.safetensors}}
  axes: {warmth: {good: "examples/warm*.png", bad: ["examples/cold0.png", "examples/cold1.png"]}}
"""
    (world / "recipe.yaml").write_text(text)
    (world / "model").symlink_to(model.removeprefix("local-dir:"))
    done = kit.run_local(load_recipe(str(world / "recipe.yaml")), world / "out")
    assert {"aesthetic", "warmth"} <= set(done.table("scores").schema.names)


HEAD, WARM, COLD = "examples/head.safetensors", "examples/warm*.png", "examples/cold*.png"
REFUSED = [
    ("heads", {"a": {"path": "examples/nowhere.pth"}}, ["nowhere.pth"]),
    ("heads", {"a": {"path": "examples/wide.safetensors"}}, ["measure.heads.a", "48 dimensions", "have 32"]),
    ("heads", {"a": {"path": HEAD, "of": "other"}}, ["measure.clip and measure.embeddings have no model 'other'; available: clip"]),
    ("axes", {"a": {"good": "examples/none*.png", "bad": COLD}}, ["measure.axes.a.good", "no file"]),
    ("contexts", {"a": {"values": {"x": "a {}", "y": "b"}, "classes": ["dog"]}}, ["values.y", "must contain {}"]),
    ("contexts", {"a": {"values": {"x": "a {}", "y": "b"}}}, ["values.x", "no classes are given"]),
    ("classes", {"a": {"examples": {"x": WARM}}}, ["examples"]),
    ("heads", {"clip_score": {"path": HEAD}}, ["a column clip_score, and signal 'clip' also has a column with this name"]),
    ("heads", {"caption": {"path": HEAD}}, ["signal 'caption' has a column caption, and every run also has"]),
    ("heads", {"kept": {"path": HEAD}}, ["signal 'kept' has a column kept, and every run also has"]),
    ("heads", {"clip": {"path": HEAD}}, ["two signals are named 'clip'"]),
    ("heads", {"language": {"path": HEAD}}, ["two signals are named 'language'"]),
    ("axes", {"language": {"good": WARM, "bad": COLD}}, ["two signals are named 'language'"]),
    # Found when the exemplars are encoded
    ("axes", {"q": {"good": WARM, "bad": WARM}}, ["measure.axes.q:", "same mean"]),
    ("classes", {"k": {"examples": {"a": "examples/warm0*", "b": "examples/cold0*"}}}, ["k.examples:", "do not differ"]),
    ("classes", {"k": {"examples": {"a": "examples/none.tar", "b": COLD}}}, ["k.examples.a:", "no image in"]),
    ("classes", {"k": {"examples": {"a": "examples/bad.png", "b": COLD}}}, ["k.examples.a: ", "bad.png cannot be read as"]),
]  # fmt: skip


def below(folder, value):
    """The value with its paths below a folder."""
    if isinstance(value, dict):
        return {key: below(folder, inner) for key, inner in value.items()}
    return f"{folder}/{value}" if isinstance(value, str) and value.startswith("examples/") else value


def test_what_is_refused_before_the_run_writes(world, model):
    wide = {"weight": np.zeros((1, 48), np.float32), "bias": np.zeros(1, np.float32)}
    save_file(wide, world / "examples/wide.safetensors")
    (world / "examples/bad.png").write_bytes(b"no image")
    shutil.copy(world / "head.safetensors", world / "examples")
    with tarfile.open(world / "examples/none.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("a.txt"))
    for section, options, words in REFUSED:
        measure = {"clip": {"model": model}, "language": {}, section: below(world, options)}
        with pytest.raises(RecipeError) as caught:
            preflight(prepare(kit.recipe_of(f"{world}/tars/*.tar", measure=measure), str(world / "out")))
        assert all(word in str(caught.value) for word in words), caught.value
    assert not (world / "out").exists()


def test_exemplars_may_lie_in_tars(world, model):
    encoder = load_encoder(Clip(model=model))
    images = [path.read_bytes() for path in sorted((world / "examples").glob("warm*"))]
    kit.write_tar(world / "x.tar", [kit.Sample(f"{i}", data, "c", None, suffix="png") for i, data in enumerate(images)])
    encoded, digests = encode_exemplars("x", encoder, (f"{world}/x.tar", f"{world}/examples/cold0.png"))
    expected, same = encode_exemplars("x", encoder, (f"{world}/examples/warm*.png", f"{world}/examples/cold0.png"))
    assert np.allclose(encoded, expected, atol=1e-6) and digests == same


def test_fooling_after_a_shift(world, model):
    """By the means of a finished run's embeddings; a run without them, or of another model, is refused."""
    first = kit.run_local(recipe(world, model), world / "first")
    shifted = {"prompts": PROMPTS, "shift": str(first.folder)}
    second = kit.run_local(recipe(world, model, fooling=shifted), world / "second", reuse=first.folder)
    kept = first.table("embeddings")
    images, texts = (np.array(kept[side].to_pylist(), np.float32) for side in ("image", "text"))
    ok = images.any(axis=1)
    g = 0.25 * (images[ok].mean(axis=0) - texts[ok].mean(axis=0))
    prompts = load_encoder(Clip(model=model)).encode_texts(PROMPTS).embeddings + g
    moved = images[ok] / np.linalg.norm(images[ok], axis=1, keepdims=True) - g
    cosines = (moved @ prompts.T) / np.linalg.norm(moved, axis=1)[:, None] / np.linalg.norm(prompts, axis=1)
    found = second.table("scores")["fooling"].filter(pa.array(ok)).to_numpy()
    assert np.allclose(found, cosines.min(axis=1), atol=1e-4)
    assert second.table("scores")["fooling"] != first.table("scores")["fooling"]
    (first.folder / "_SUCCESS").unlink()
    with pytest.raises(RecipeError, match="is not a finished run"):
        prepare(recipe(world, model, fooling=shifted), str(world / "third"))
    other = kit.run_local(recipe(world, write_model(world / "other", 1)), world / "fourth")
    with pytest.raises(RecipeError, match="has no embeddings of local-dir with the weights"):
        prepare(recipe(world, model, fooling=shifted | {"shift": str(other.folder)}), str(world / "third"))


@pytest.mark.thorough
def test_files_that_were_replaced_between_two_runs_of_a_process(tmp_path, world):
    """Under the same paths: model, head, centroids and exemplars are those that are there now, not those loaded before."""

    def write(folder, seed):
        """Write all files; return the model's name."""
        shutil.rmtree(folder, ignore_errors=True)
        model = write_model(folder / "model", seed)
        write_head(folder / "head.safetensors", seed)
        np.save(folder / "centroids.npy", np.random.default_rng(seed).normal(size=(8, 32)).astype(np.float32))
        for i in range(4):
            noise = np.random.default_rng(10 * seed + i).integers(0, 255, (40, 40, 3)).astype(np.uint8)
            Image.fromarray(noise).save(folder / f"{i}.png")
        return model

    def run(folder, model, out):
        measure = {
            "clip": {"model": model},
            "heads": {"pretty": {"path": f"{folder}/head.safetensors"}},
            "clusters": {"cluster": {"centroids": f"{folder}/centroids.npy"}},
            "axes": {"axis": {"good": f"{folder}/[01].png", "bad": f"{folder}/[23].png"}},
        }
        asked = kit.recipe_of(f"{world}/tars/*.tar", measure=measure)
        return kit.run_local(asked, tmp_path / out).table("scores", ["clip_score", "pretty", "cluster", "axis"])

    files = tmp_path / "files"
    first = run(files, write(files, 0), "first")
    second = run(files, write(files, 1), "second")
    fresh = run(tmp_path / "other", write(tmp_path / "other", 1), "fresh")
    assert second.equals(fresh)
    assert all(first[name] != second[name] for name in first.schema.names)
