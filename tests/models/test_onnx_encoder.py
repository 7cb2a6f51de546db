"""CLIP as ONNX graphs against open_clip with the same weights, and what is said of folders that are wrong."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from curate.base import process
from curate.base.errors import RecipeError, RunError
from curate.models import onnx_encoder, weights
from curate.models.clip_model import identify, load_encoder
from curate.models.identity import OpenClip
from curate.models.onnx_encoder import OnnxEncoder, open_encoder
from curate.models.onnx_folder import Pixels, Tokenizer
from curate.recipe.recipe import load_recipe, parse_recipe
from curate.signals.clip import Clip, _key
from tests import kit
from tests.kit.clips import export_onnx, tokenizer, write_model
from tests.models.test_encoder import TEXTS, picture

pytestmark = pytest.mark.slow

MODES = ("RGB", "L", "P", "RGBA", "CMYK", "1", "LA", "YCbCr", "I;16")
SIZES = [(90, 70), (70, 91), (64, 64), (64, 67), (67, 64), (200, 63), (3, 200), (71, 64), (1000, 801), (65, 68)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """One model, as open_clip's and as graphs."""
    folder = tmp_path_factory.mktemp("models")
    name = write_model(folder / "m")
    return name, export_onnx(name, folder / "graphs")


def pictures():
    return [picture(i, mode, size) for i, mode in enumerate(MODES) if mode != "I;16" for size in SIZES[i : i + 3]]


def agree(name, graphs, **options):
    """Embeddings, pixels and tokens are open_clip's."""
    one, two = load_encoder(Clip(model=name)), load_encoder(Clip(model=graphs, **options))
    views = [two.view(image) for image in pictures()]
    assert all(np.array_equal(view, one.view(image)) for view, image in zip(views, pictures(), strict=True))
    assert np.abs(one.encode_images(views) - two.encode_images(views)).max() < 1e-6
    a, b = one.encode_texts(TEXTS), two.encode_texts(TEXTS)
    assert np.abs(a.embeddings - b.embeddings).max() < 1e-6
    assert a.tokens.tolist() == b.tokens.tolist() and a.truncated.tolist() == b.truncated.tolist()
    assert isinstance(two, OnnxEncoder)
    return two


def test_embeddings_equal_open_clips(models):
    assert agree(*models, batch=5)._is_cut


@pytest.mark.slow
def test_one_graph_of_both_sides(models, tmp_path):
    agree(models[0], export_onnx(models[0], tmp_path / "joint", joint=True))
    agree(models[0], f"onnx:{move_up(tmp_path / 'joint')}")


@pytest.mark.slow
def test_texts_of_a_fixed_length(models, tmp_path):
    assert not agree(models[0], export_onnx(models[0], tmp_path / "fixed", length=77))._is_cut


@pytest.mark.slow
def test_transformers_own_clip(tmp_path):
    """As OpenAI's on the hub: its end token is 2 by the configuration, and the usual context is not told. Its texts have a mask."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    side = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = {"text_config": side | {"eos_token_id": 2}, "vision_config": side | {"image_size": 64, "patch_size": 16}}
    model = CLIPModel(CLIPConfig(**config, projection_dim=32)).eval()
    model.config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    del saved["text_config"]["max_position_embeddings"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    processor = CLIPImageProcessor(size={"shortest_edge": 64}, crop_size=64)
    processor.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer()))

    class Side(torch.nn.Module):
        def __init__(self, tower):
            super().__init__()
            self.model, self.tower = model, tower

        def forward(self, **given):
            return getattr(self.model, f"get_{self.tower}_features")(**given).pooler_output

    ids = torch.tensor([[49406, 320, 49407], [49406, 5, 49407]])
    any_size = torch.export.Dim.DYNAMIC
    texts = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for tower, given, axes, output, file in (
        ("image", {"pixel_values": torch.zeros(2, 3, 64, 64)}, {0: any_size}, "image_embeds", "vision_model.onnx"),
        ("text", texts, {0: any_size, 1: any_size}, "text_embeds", "text_model.onnx"),
    ):
        torch.onnx.export(
            Side(tower), kwargs=given, f=tmp_path / file, input_names=list(given), output_names=[output], dynamo=True,
            dynamic_shapes={"given": dict.fromkeys(given, axes)}, external_data=False, verbose=False,
        )  # fmt: skip
    encoder, ours = load_encoder(Clip(model=f"onnx:{tmp_path}")), Tokenizer((tmp_path / "tokenizer.json").read_bytes())
    for text in ("a red dog", "", "a photo of " + "a very long caption " * 40):
        row = ours.encode(text)
        row = row if len(row) <= 77 else [*row[:76], row[-1]]
        padded = torch.tensor([row + [49407] * (77 - len(row))])  # as transformers pads
        expected = Side("text")(input_ids=padded, attention_mask=(torch.arange(77) < len(row))[None].long())
        assert np.abs(encoder.encode_texts([text]).embeddings - unit(expected)).max() < 1e-6
    images = [
        picture(i, "RGB", (68 + 2 * i, 64)) for i in range(4)
    ]  # of an odd number of rows less, it crops otherwise
    expected = Side("image")(pixel_values=processor(images=images, return_tensors="pt")["pixel_values"])
    assert np.abs(encoder.encode_images([encoder.view(image) for image in images]) - unit(expected)).max() < 1e-6


def unit(features):
    return (features / features.norm(dim=-1, keepdim=True)).detach().numpy()


def move_up(folder):
    for path in (folder / "onnx").iterdir():
        path.rename(folder / path.name)
    return folder


@pytest.mark.slow
def test_scores_of_a_run_equal_open_clips(models, tmp_path):
    """Relative to the recipe's folder; with the signals on its embeddings."""
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(40), 2)
    (tmp_path / "graphs").symlink_to(models[1].removeprefix("onnx:"))
    contexts = {"place": {"values": {"in": "a photo indoors", "out": "a photo outdoors"}}}

    def scores(model, out):
        source = {"name": "x", "format": "webdataset", "path": path}
        recipe = {"input": source, "measure": {"clip": {"model": model}, "contexts": contexts}, "max_failed": 0.1}
        (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
        return kit.run_local(load_recipe(str(tmp_path / "recipe.yaml")), tmp_path / out)

    one, two = scores(models[0], "one"), scores("onnx:graphs", "two")
    assert two.run["models"]["clip"]["weights"]["file"] == "vision_model.onnx, text_model.onnx"
    a, b = one.table("scores"), two.table("scores")
    assert a.drop_columns(["clip_score", "place_probability"]) == b.drop_columns(["clip_score", "place_probability"])
    for column in ("clip_score", "place_probability"):
        assert np.allclose(*(t[column].to_numpy(zero_copy_only=False) for t in (a, b)), atol=1e-5, equal_nan=True)


# ---------------------------------------------------------------- texts
STRANGE = [
    "AT&amp;T &amp;amp; co", "schÃ¶n", "ΟΔΟΣ Σ", "İstanbul", "e&#769;tude", "ﬁne", "\u201cquoted\u201d", "a\u00a0b\u2003c\n\td",
    "it's I'LL we've", "<|endoftext|> <|startoftext|>", "1234½Ⅷ", "日本語のテキスト", "👩‍👩‍👧", "...!!!???", "\x00\x1fa", "x" * 3000,
]  # fmt: skip


def test_tokens_are_open_clips():
    import open_clip

    ours, simple = Tokenizer(json.dumps(tokenizer()).encode()), open_clip.SimpleTokenizer()
    for text in [*STRANGE, *TEXTS]:
        assert ours.encode(text) == [simple.sot_token_id, *simple.encode(text), simple.eot_token_id], text


def test_a_caption_cannot_end_itself():
    ours = Tokenizer(json.dumps(tokenizer()).encode())
    assert ours.encode("a <|endoftext|> b").count(ours.end) == 1


# ---------------------------------------------------------------- preprocessing
SQUARE = {"height": 64, "width": 64}
USUAL = {"size": {"shortest_edge": 64}, "crop_size": SQUARE, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_are_open_clips(mode, interpolation):
    """Bit by bit, before and after they are normalised."""
    from open_clip.transform import image_transform

    squash = {"size": SQUARE, "do_center_crop": False} if mode == "squash" else {}
    ours = Pixels.of(USUAL | squash | {"resample": 2 if interpolation == "bilinear" else 3}, "here")
    theirs = image_transform(64, False, mean=(0.5,) * 3, std=(0.25,) * 3, resize_mode=mode, interpolation=interpolation)
    for number, mode in enumerate(MODES):
        for size in SIZES:
            image = picture(number, "L" if mode == "I;16" else mode, size)
            image = Image.fromarray(np.asarray(image, np.uint16) * 257) if mode == "I;16" else image
            assert np.array_equal(ours.normalise([ours.view(image)])[0], theirs(image).numpy()), (mode, size)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": {"longest_edge": 64}}, "'height'"),
        ({"size": {"shortest_edge": 64, "longest_edge": 128}}, "'height'"),
        ({"size": {"shortest_edge": 0}}, "a size of 0"),
        ({"do_pad": True}, "do_pad false"),
        ({"do_resize": False}, "do_resize must be true"),
        ({"do_center_crop": False}, "images of any shape"),
        ({"crop_size": 65}, "larger than size"),
        ({"resample": 9}, "9 is not a valid Resampling"),
        ({"image_std": [1.0, 0.0, 1.0]}, "none of 0"),
        ({"image_mean": None}, "NoneType"),
        ({"image_mean": [10**400] * 3}, "int too large"),
    ],
)
def test_preprocessing_that_is_refused(change, said):
    with pytest.raises(RecipeError) as caught:
        Pixels.of(USUAL | change, "here")
    assert str(caught.value).startswith("here: preprocessor_config.json: ") and said in str(caught.value)
    assert "accepted: transformers' CLIPImageProcessor" in str(caught.value)


# ---------------------------------------------------------------- the folder
@pytest.fixture
def graphs(models, tmp_path):
    """A folder of one's own."""
    return Path(shutil.copytree(models[1].removeprefix("onnx:"), tmp_path / "own"))


def test_identity(models, graphs):
    found, moved = identify(Clip(model=models[1])), identify(Clip(model=f"onnx:{move_up(graphs)}"))
    assert found == moved and _key(found) == _key(moved)
    assert (found["model"], found["dimension"], found["context_length"], found["precision"]) == ("onnx", 32, 77, "fp32")
    assert set(found["weights"]["files"]) == {"vision_model.onnx", "text_model.onnx"} and found["device"] == "cpu"
    assert {"onnxruntime", "tokenizers", "ftfy", "pillow", "numpy"} == set(found["versions"])
    for name in ("config.json", "tokenizer.json", "preprocessor_config.json"):
        path = graphs / name
        old = path.read_text()
        path.write_text(old.replace("0.26862954", "0.25").replace("49408", "49409") + "\n")
        assert _key(identify(Clip(model=f"onnx:{graphs}"))) != _key(found), name
        path.write_text(old)


def test_weights_beside_a_graph(models, graphs):
    """Are hashed, whatever they are named, and are those that the graph names."""
    path = graphs / "onnx/text_model.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="text_model.onnx_data", size_threshold=100)
    (graphs / "onnx/other.onnx_data").write_bytes(b"of another graph")
    agree(models[0], f"onnx:{graphs}")
    options = Clip(model=f"onnx:{graphs}", batch=7)
    known = identify(options)
    assert set(known["weights"]["files"]) == {"vision_model.onnx", "text_model.onnx", "text_model.onnx_data"}
    with open(graphs / "onnx/text_model.onnx_data", "r+b") as file:
        file.write(b"changed")
    with pytest.raises(RunError, match=r"text_model.onnx_data has sha256 .*… on .*; accepted: the same files"):
        load_encoder(options, known)
    (graphs / "onnx/text_model.onnx_data").unlink()
    with pytest.raises(RecipeError, match="No such file"):
        identify(options)


def test_a_tokenizer_that_is_another_on_a_worker(graphs):
    options = Clip(model=f"onnx:{graphs}", batch=9)
    known = identify(options)
    (graphs / "tokenizer.json").write_text((graphs / "tokenizer.json").read_text() + " ")
    with pytest.raises(RunError, match=r"tokenizer\.json has sha256"):
        load_encoder(options, known)


def without(graphs, name):
    (graphs / name).unlink()


def config(graphs, **changes):
    path = graphs / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rename(graphs, old, new):
    path = graphs / "onnx/vision_model.onnx"
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.name = value.name.replace(old, new)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [name.replace(old, new) if name == old else name for name in names]
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda g: without(g, "config.json"), r"config\.json cannot be read .*; accepted: a folder with config\.json"),
        (lambda g: without(g, "tokenizer.json"), r"tokenizer\.json cannot be read"),
        (lambda g: without(g, "onnx/text_model.onnx"), r"no graphs; accepted: .* or one model\.onnx"),
        (lambda g: config(g, model_type="siglip"), "model_type 'siglip': .* 'clip'"),
        (lambda g: config(g, projection_dim="32"), "projection_dim '32'"),
        (
            lambda g: config(g, text_config={"max_position_embeddings": 1}),
            "text_config.max_position_embeddings 1: .*greater than or equal to 2",
        ),
        (
            lambda g: config(g, projection_dim=31),
            r"image_embeds has the shape \[1, 32\]; accepted: \[1, 31\], by the batch and config.json's projection_dim",
        ),
        (lambda g: config(g, text_config=[1]), r"text_config \[1\]: "),
        (lambda g: (g / "config.json").write_text("["), r"config\.json is not a JSON object"),
        (lambda g: (g / "tokenizer.json").write_text("{}"), "cannot be loaded: .*Tokenizer"),
        (lambda g: (g / "onnx/text_model.onnx").write_bytes(b"no graph"), "cannot be loaded"),
        (lambda g: (g / "onnx/text_model.onnx").write_bytes(b""), "empty file"),
        (lambda g: rename(g, "pixel_values", "image"), "inputs image, input_ids; accepted: pixel_values"),
        (lambda g: rename(g, "image_embeds", "pooled"), "outputs pooled, text_embeds; accepted: image_embeds and"),
    ],
)
def test_folders_that_are_refused(graphs, harm, said):
    harm(graphs)
    with pytest.raises((RecipeError, RunError), match=said) as caught:
        load_encoder(Clip(model=f"onnx:{graphs}"))
    assert str(caught.value).startswith("measure.clip 'clip'")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (
            {"precision": "bf16"},
            r"precision: 'bf16' is given, and onnx:FOLDER is computed as its graphs are; accepted: auto, fp32",
        ),
        ({"pretrained": "openai"}, "has weights of its own"),
        ({"context_length": 248}, "positions cannot be stretched"),
        ({"words": True}, "do not tell their attention"),
        ({"device": "mps"}, "accepted: auto, cpu, cuda, cuda:N"),
    ],
)
def test_options_that_are_refused(option, said):
    recipe = {"input": {"name": "x", "format": "webdataset", "path": "x.tar"}}
    with pytest.raises(RecipeError, match=f"measure.clip.*{said}"):
        parse_recipe(recipe | {"measure": {"clip": {"model": "onnx:x", **option}}})


# ---------------------------------------------------------------- devices
def test_a_device_that_is_not_there(models):
    options = Clip(model=models[1], device="cuda")
    with pytest.raises(RecipeError, match=r"device cuda is requested.* no CUDA device .*onnxruntime-gpu"):
        identify(options)
    assert identify(options, is_local=False)["device"] == "cuda"


def test_a_provider_that_cannot_be_used(models):
    """onnxruntime falls back to the CPU: a run that was to use a GPU does not."""
    graph = Path(models[1].removeprefix("onnx:")) / "onnx/vision_model.onnx"
    with pytest.warns(UserWarning, match="not in available"), pytest.raises(OSError, match="cannot use cuda:0"):
        weights.open_session(graph, "cuda:0")


def test_each_gpu_has_a_session(models, monkeypatch):
    """No GPU is needed: the CPU by two names."""
    opened = []
    whole = weights.open_session

    def opening(path, device):
        opened.append(device)
        return whole(path)

    monkeypatch.setattr(onnx_encoder, "open_session", opening)
    monkeypatch.setattr(onnx_encoder, "_count_gpus", lambda: 2)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(process, "_shared", process.Cache())
    encoder = load_encoder(OpenClip(model=models[1]))
    assert opened == ["cuda:0"] * 2 and encoder.batch == 256
    assert isinstance(encoder, OnnxEncoder)
    with encoder._use():  # as another unit's thread
        assert np.allclose(
            encoder.encode_texts(TEXTS).embeddings,
            load_encoder(Clip(model=models[0])).encode_texts(TEXTS).embeddings,
            atol=1e-6,
        )
    assert opened == ["cuda:0"] * 2 + ["cuda:1"] * 2


def test_a_batch_that_memory_does_not_hold_is_halved(models, monkeypatch):
    monkeypatch.setattr(process, "_shared", process.Cache())
    monkeypatch.setattr(onnx_encoder, "CORES", 1)
    encoder = load_encoder(Clip(model=models[1], batch=8))
    views = [encoder.view(picture(i)) for i in range(8)]
    expected, whole, sizes = encoder.encode_images(views), Pixels.normalise, []

    def limited(self, views):
        sizes.append(len(views))
        if len(views) > 2:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 1")
        return whole(self, views)

    monkeypatch.setattr(Pixels, "normalise", limited)
    assert np.allclose(encoder.encode_images(views), expected, atol=1e-6)
    assert sizes == [8, 4, 2, 2, 4, 2, 2] and encoder.batch == 2


def test_a_graph_of_one_row_for_any_batch(graphs):
    """NumPy would give all images the embedding of the first."""
    path = graphs / "onnx/vision_model.onnx"
    model, h = onnx.load(path), onnx.helper
    for node in model.graph.node:
        node.output[:] = ["before" if name == "image_embeds" else name for name in node.output]
    first = h.make_node("Constant", [], ["first"], value_ints=[0])
    model.graph.node.extend([first, h.make_node("Gather", ["before", "first"], ["image_embeds"], axis=0)])
    onnx.save(model, path)
    encoder = open_encoder(Clip(model=f"onnx:{graphs}"), "cpu")
    views = [encoder.view(Image.new("RGB", (8, 8), (shade, 0, 0))) for shade in (0, 100, 200)]
    encoder.encode_images(views[:1])
    message = r"^measure.clip 'clip': onnx:.*: image_embeds has the shape \[1, 32\]; accepted: \[3, 32\]"
    with pytest.raises(RunError, match=message):
        encoder.encode_images(views)


def test_a_tokenizer_of_words():
    """Which has no ending of words, as BPE has."""
    ours = tokenizer()
    words = {"type": "WordLevel", "vocab": ours["model"]["vocab"], "unk_token": "<|endoftext|>"}
    ours = Tokenizer(json.dumps(ours | {"model": words}).encode())
    assert len(ours.encode("a dog")) == 4


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/b"])
def test_weights_elsewhere(graphs, location):
    path = graphs / "onnx/text_model.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="data", size_threshold=100)
    content = path.read_bytes()
    for_entry = b"\n\x08location\x12"
    assert for_entry + b"\x04data" in content
    path.write_bytes(content.replace(for_entry + b"\x04data", for_entry + bytes([len(location)]) + location.encode()))
    with pytest.raises(RecipeError, match=r"names weights in .*; accepted: a file beside it"):
        identify(Clip(model=f"onnx:{graphs}"))
