"""The demo's CLIP: ONNX Runtime gives what open_clip does, and it tells right captions of unseen scenes from wrong ones."""

import io
import socket
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from open_clip import CLIP, SimpleTokenizer, create_model_and_transforms, get_tokenizer
from PIL import Image

from curate.demo.drawing import draw
from curate.demo.samples import caption, make_samples
from curate.demo.scenes import compose
from curate.demo.words import COLOURS
from curate.models.clip_model import load_encoder
from curate.signals.clip import Clip as CuratesClip
from tests.demo.graphs import FOLDER, export, restore
from tests.demo.train_clip import CAPTIONS, draw_scenes, train, write_model

pytestmark = pytest.mark.thorough

SCENES = 200  # a multiple of 100


class Clip(NamedTuple):
    model: Any
    transform: Any
    tokenizer: Any

    def images(self, pictures):
        with torch.inference_mode():
            return self.model.encode_image(torch.stack([self.transform(p) for p in pictures]), normalize=True).numpy()

    def texts(self, captions):
        with torch.inference_mode():
            return self.model.encode_text(self.tokenizer(captions), normalize=True).numpy()


class Unseen(NamedTuple):
    scenes: Any
    images: Any
    captions: Any
    cosines: Any


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The same weights in open_clip, without a connection."""

    def refuse(*_):
        raise AssertionError("a connection was tried")

    name = restore(tmp_path_factory.mktemp("clip"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        model, _, transform = create_model_and_transforms(name, require_pretrained=True)
        return Clip(model.eval(), transform, get_tokenizer(name))


@pytest.fixture(scope="module")
def unseen(clip):
    """Scenes of this test's own random numbers, each with its caption."""
    scenes, pictures, captions = [], [], []
    for row in range(SCENES):
        rng = np.random.default_rng([20, row])
        scenes.append(compose(rng, *rng.integers(220, 401, 2).tolist()))
        pictures.append(draw(scenes[-1], rng))
        captions.append(caption(scenes[-1], rng))
    images = clip.images(pictures)
    return Unseen(scenes, images, captions, (images * clip.texts(captions)).sum(axis=1))


def auc(low, high):
    """The probability that one of `low` lies below one of `high`."""
    return float((low[:, None] < high).mean())


def test_it_is_a_small_folder_with_a_plain_clip_and_openais_vocabulary(clip):
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    settings = {"config.json", "preprocessor_config.json", "tokenizer.json", "README.md"}
    assert set(sizes) == {"vision_model.onnx", "text_model.onnx", *settings} and sum(sizes.values()) <= 2_600_000
    assert type(clip.model) is CLIP and type(clip.tokenizer) is SimpleTokenizer
    assert clip.model.token_embedding.num_embeddings == clip.tokenizer.vocab_size == 49408
    assert all(bool(weight.isfinite().all()) for weight in clip.model.state_dict().values())


def test_onnx_runtime_gives_what_open_clip_does(clip):
    encoder = load_encoder(CuratesClip(model=f"onnx:{FOLDER}"))
    pool = [sample for sample in make_samples(50, seed=22) if sample.defect in ("", "wrong_caption")]
    pictures, texts = [Image.open(io.BytesIO(sample.image)) for sample in pool], [sample.text or "" for sample in pool]
    assert np.abs(encoder.encode_images([encoder.view(p) for p in pictures]) - clip.images(pictures)).max() < 1e-6
    assert np.abs(encoder.encode_texts(texts).embeddings - clip.texts(texts)).max() < 1e-6


def test_it_finds_the_right_caption_and_the_right_picture_among_a_hundred(clip, unseen):
    texts = clip.texts(unseen.captions)
    for queries, answers in ((unseen.images, texts), (texts, unseen.images)):
        ranks = []
        for rows in np.split(np.arange(SCENES), SCENES // 100):
            cosines = queries[rows] @ answers[rows].T
            ranks.extend((cosines > cosines.diagonal()[:, None]).sum(axis=1))
        assert np.mean(np.array(ranks) < 1) >= 0.9  # by chance 0.01
        assert np.mean(np.array(ranks) < 5) >= 0.97  # by chance 0.05


def test_wrong_captions_score_lower_and_one_wrong_colour_is_noticed(clip, unseen):
    captions, pairs = [], []
    for row, scene in enumerate(unseen.scenes):
        rng = np.random.default_rng([21, row])
        other = compose(rng, 300, 300)
        while other.concepts & scene.concepts:
            other = compose(rng, 300, 300)
        captions.append(caption(other, rng))
        item, others = scene.items[0], sorted(set(COLOURS) - scene.concepts)
        for colour in (item.colour, rng.choice(others)):
            pairs.append(f"a {colour} {item.shape} on a {scene.background_colour} background")
    assert auc((unseen.images * clip.texts(captions)).sum(axis=1), unseen.cosines) >= 0.98
    right, wrong = clip.texts(pairs).reshape(SCENES, 2, -1).swapaxes(0, 1)
    assert ((unseen.images * right).sum(axis=1) > (unseen.images * wrong).sum(axis=1)).mean() >= 0.9


@pytest.mark.slow
def test_the_script_draws_trains_and_writes_the_same_twice(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.demo.train_clip.BATCH", 16)
    scenes = draw_scenes(3, "a few", 24)
    assert scenes.pixels.shape == (24, 3, 64, 64) and scenes.pixels.dtype == np.uint8
    assert len(scenes.captions) == 24 and {len(texts) for texts in scenes.captions} == {CAPTIONS}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_model(*train(scenes, seed, steps=2), tmp_path / name)
    weights = {name: (tmp_path / name / "open_clip_model.safetensors").read_bytes() for name in "abc"}
    assert weights["a"] == weights["b"] != weights["c"]
    export(f"local-dir:{tmp_path / 'a'}", tmp_path / "graphs")
    for settings in FOLDER.iterdir():
        if settings.suffix != ".onnx":
            assert (tmp_path / "graphs" / settings.name).read_bytes() == settings.read_bytes(), settings.name
