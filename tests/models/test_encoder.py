"""The encoder against open_clip's own loop; identities; missing models and devices."""

import pickle
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from curate.base.errors import RecipeError, RunError
from curate.models.clip_model import identify, load_encoder
from curate.models.hugging_face import each_device
from curate.models.open_clip_encoder import _Net
from curate.signals.clip import Clip, _key
from tests.kit.clips import TEXT, VISION, write_model
from tests.models.inputs import TEXTS, picture

KINDS = {
    "CLIP": {},
    "CLIP, quick_gelu": {"quick_gelu": True},
    "custom text": {"custom_text": True},
    "custom text, eos": {"custom_text": True, "text_cfg": {"pool_type": "eos", "eos_id": 49407}},
    "no causal mask": {"custom_text": True, "text_cfg": {"no_causal_mask": True, "pool_type": "last"}},
    "class token": {"custom_text": True, "text_cfg": {"embed_cls": True}},
    "convolutions": {"vision_cfg": {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64, "patch_size": None}},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "clip")


def plain(name, images, texts):
    """open_clip's README, one image and one text at a time."""
    import open_clip
    import torch

    net, _, transform = open_clip.create_model_and_transforms(name)
    tokenizer = open_clip.get_tokenizer(name)
    net.eval()
    with torch.no_grad():
        image = [net.encode_image(transform(image).unsqueeze(0), normalize=True)[0].numpy() for image in images]
        text = [net.encode_text(tokenizer([text]), normalize=True)[0].numpy() for text in texts]
    return np.array(image), np.array(text)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_equal_those_of_a_plain_loop(kind, tmp_path):
    name = write_model(tmp_path / "m", **KINDS[kind])
    images = [picture(i, mode) for i, mode in enumerate(("RGB", "L", "P", "RGBA", "CMYK", "1", "LA", "YCbCr"))]
    encoder = load_encoder(Clip(model=name, batch=3))
    expected = plain(name, images, TEXTS)
    found = encoder.encode_images([encoder.view(image) for image in images])
    assert np.abs(found - expected[0]).max() < 1e-6
    assert encoder.view(images[0]).dtype == np.uint8 and encoder.view(images[0]).shape == (64, 64, 3)
    texts = encoder.encode_texts(TEXTS)
    assert np.abs(texts.embeddings - expected[1]).max() < 1e-6
    assert encoder._is_cut != (kind in ("no causal mask", "class token"))
    assert (texts.tokens > 77).tolist() == texts.truncated.tolist() == [text == TEXTS[3] for text in TEXTS]


def test_a_stretched_context(model):
    """Short captions keep their embeddings, and a long one is no longer cut."""
    plain, longer = load_encoder(Clip(model=model)), load_encoder(Clip(model=model, context_length=248))
    a, b = plain.encode_texts(TEXTS), longer.encode_texts(TEXTS)
    assert a.tokens.tolist() == b.tokens.tolist() and a.truncated[3] and not b.truncated.any()
    short = a.tokens <= 20
    assert np.abs(a.embeddings - b.embeddings)[short].max() < 1e-6 < np.abs(a.embeddings - b.embeddings)[~short].max()
    assert identify(Clip(model=model, context_length=248)) == identify(Clip(model=model)) | {"context_length": 248}
    with pytest.raises(RecipeError, match="context_length 77 must be above the model's own 77"):
        identify(Clip(model=model, context_length=77))


def test_a_model_is_loaded_once(model):
    assert load_encoder(Clip(model=model)) is load_encoder(Clip(model=model, name="other", embeddings=True))
    full, half = load_encoder(Clip(model=model)), load_encoder(Clip(model=model, precision="bf16"))
    a, b = (encoder.encode_images([encoder.view(picture(i)) for i in range(4)]) for encoder in (full, half))
    assert 0 < np.abs(a - b).max() < 0.05
    assert np.abs(full.encode_texts(TEXTS).embeddings - half.encode_texts(TEXTS).embeddings).max() < 0.05


def test_devices_that_are_meant(monkeypatch):
    """`cuda` means every GPU that the process sees, by number if there are several."""
    for count, expected in ((0, ["cuda"]), (1, ["cuda"]), (3, ["cuda:0", "cuda:1", "cuda:2"])):
        monkeypatch.setattr("torch.cuda.device_count", partial(int, count))
        assert each_device("cuda") == expected
        assert [each_device(name) for name in ("cpu", "mps", "cuda:1")] == [["cpu"], ["mps"], ["cuda:1"]]


def test_out_of_memory_halves_the_batch(tmp_path, monkeypatch):
    import torch

    name = write_model(tmp_path / "m")
    encoder = load_encoder(Clip(model=name, batch=8))
    views = [encoder.view(picture(i)) for i in range(8)]
    expected, texts = encoder.encode_images(views), encoder.encode_texts(TEXTS)
    sizes = []

    def limited(whole):
        def encode(self, items):
            sizes.append(len(items))
            if len(items) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return whole(self, items)

        return encode

    monkeypatch.setattr(_Net, "encode_images", limited(_Net.encode_images))
    monkeypatch.setattr(_Net, "encode_ids", limited(_Net.encode_ids))
    assert np.allclose(encoder.encode_images(views), expected, atol=1e-6)
    assert sizes == [8, 4, 2, 2, 4, 2, 2] and encoder.batch == 2
    assert np.allclose(encoder.encode_texts(TEXTS).embeddings, texts.embeddings, atol=1e-6)
    with pytest.raises(RuntimeError, match="input size"):  # no lack of memory
        encoder.encode_images([np.zeros((8, 8, 3), np.uint8)] * 2)
    assert encoder.batch == 2


# ---------------------------------------------------------------- identity
def test_identity_tells_weights_and_settings_apart(tmp_path):
    one, two = (identify(Clip(model=write_model(tmp_path / str(seed), seed))) for seed in (0, 1))
    assert one["weights"]["sha256"] != two["weights"]["sha256"]
    assert one | {"weights": None} == two | {"weights": None}
    assert one["dimension"] == 32 and one["precision"] == "fp32" and one["device"] == "cpu"
    assert {"torch", "pillow", "open_clip_torch", "torchvision"} == set(one["versions"])
    assert identify(Clip(model=f"local-dir:{tmp_path}/0", precision="bf16"))["precision"] == "bf16"


@pytest.mark.thorough
def test_weights_from_a_file(tmp_path, monkeypatch):
    import open_clip
    import torch

    config = {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", config)
    net = open_clip.create_model("tiny")
    torch.save(net.state_dict(), tmp_path / "w.pt")
    options = Clip(model="tiny", pretrained=str(tmp_path / "w.pt"))
    assert identify(options)["pretrained"] == "file" and identify(options)["dimension"] == 32
    other = Clip(model="tiny", pretrained=str(shutil.copy(tmp_path / "w.pt", tmp_path / "other.pt")))
    assert identify(other)["weights"]["file"] == "other.pt" and _key(identify(other)) == _key(identify(options))
    assert load_encoder(options).encode_texts(["a"]).embeddings.shape == (1, 32)


def test_weights_that_are_others_on_a_worker(tmp_path):
    """All scores of a run come from one model: a worker compares its files with the identity before it loads them."""
    options = Clip(model=write_model(tmp_path / "m", 7))  # which no other test has loaded
    known = identify(options)
    shutil.copy(Path(write_model(tmp_path / "other", 1)[10:]) / "open_clip_model.safetensors", tmp_path / "m")
    with pytest.raises(
        RunError, match=r"'clip': .*/m/open_clip_model.safetensors has sha256 .*… on .*; accepted: the same"
    ):
        load_encoder(options, known)
    shutil.rmtree(tmp_path / "m")
    with pytest.raises(RecipeError, match=r"not a folder with open_clip_config\.json"):
        load_encoder(options, known)


WEIGHTS = {"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}
OFFLINE = ["cannot be found or downloaded", "local-dir:", "onnx:", "HF_HUB_OFFLINE=1"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "ViT-B-23"}, ["no model 'ViT-B-23'", "similar names: ", "ViT-B-32"]),
        ({"model": "ViT-B-32"}, ["pretrained is missing", "laion2b_s34b_b79k"]),
        ({"model": "ViT-B-32", "pretrained": "laion"}, ["no pretrained 'laion'", "openai"]),
        ({"model": "local-dir:/nowhere"}, ["/nowhere: not a folder with open_clip_config.json"]),
        ({"model": "local-dir:/nowhere", "pretrained": "x"}, ["has its own weights"]),
        ({"model": "ViT-B-32", "pretrained": "openai", "device": "cuda:0"}, ["cuda:0", "no CUDA device", "accepted"]),
        (WEIGHTS, ["ViT-B-32 (laion2b_s34b_b79k)", *OFFLINE]),
        ({"model": "local-dir:graphs"}, ["it has ONNX graphs: write onnx:FOLDER"]),
        ({"model": "local-dir:empty"}, ["no weights"]),
    ],
)
def test_what_is_refused(options, words, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "graphs/onnx").mkdir(parents=True)
    (tmp_path / "graphs/onnx/vision_model.onnx").touch()
    write_model(tmp_path / "empty")
    (tmp_path / "empty/open_clip_model.safetensors").unlink()
    with pytest.raises(RecipeError) as caught:
        identify(Clip(**options))
    assert all(word in str(caught.value) for word in ["measure.clip 'clip'", *words])


def test_a_device_elsewhere(tmp_path):
    """A machine without a GPU can prepare a run for workers with one; the precision is the GPU's."""
    options = Clip(model=write_model(tmp_path / "m"), device="cuda")
    found = identify(options, is_local=False)
    assert (found["device"], found["precision"]) == ("cuda", "fp16")
    with pytest.raises(RecipeError, match="no CUDA device"):
        identify(options)


def test_a_model_of_the_hub_is_what_its_files_are(tmp_path, monkeypatch):
    from open_clip import pretrained

    def download(model_id, filename=None):
        assert model_id == "org/repo"
        return str(tmp_path / "m" / (filename or "open_clip_model.safetensors"))

    here = identify(Clip(model=write_model(tmp_path / "m")))
    monkeypatch.setattr(pretrained, "download_pretrained_from_hf", download)
    assert identify(Clip(model="hf-hub:org/repo")) == here | {"model": "hf-hub:org/repo"}


def test_weights_that_cannot_be_loaded(tmp_path):
    """A checkpoint that would run code is refused."""

    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    name = write_model(tmp_path / "m")
    (tmp_path / "m/open_clip_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(RunError, match="cannot be loaded"):
        load_encoder(Clip(model=name))
    (tmp_path / "w.pt").write_bytes(pickle.dumps(Evil(), 2))
    with pytest.raises(RunError):
        load_encoder(Clip(model="ViT-S-32-alt", pretrained=str(tmp_path / "w.pt")))
    assert not (tmp_path / "ran").exists()
