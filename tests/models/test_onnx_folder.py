"""Folders of handwritten CLIP graphs: encoding, identity, refusals. `test_onnx_encoder` compares exports with open_clip."""

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from curate.base.errors import RecipeError, RunError
from curate.models import weights
from curate.models.clip_model import identify, load_encoder
from curate.models.onnx_folder import Pixels, Tokenizer
from curate.signals.clip import Clip, _key
from tests import kit

USUAL = {
    "size": {"shortest_edge": 8}, "crop_size": {"height": 8, "width": 8}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3,
}  # fmt: skip
SPECIAL = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
POST = {"type": "RobertaProcessing", "cls": ["<begin>", 0], "sep": ["<end>", 1]}
TOKENIZER = {
    "version": "1.0", "pre_tokenizer": {"type": "Whitespace"},
    "added_tokens": [{"id": i, "content": name, **SPECIAL} for i, name in enumerate(("<begin>", "<end>"))],
    "post_processor": {**POST, "trim_offsets": False, "add_prefix_space": False},
    "model": {"type": "WordLevel", "unk_token": "<end>", "vocab": {"<begin>": 0, "<end>": 1, "a": 2, "dog": 3}},
}  # fmt: skip


@pytest.fixture
def graphs(tmp_path):
    """A folder of graphs that compute an image's embedding from its mean color, and a text's from its mean token."""
    folder = tmp_path / "graphs"
    (folder / "onnx").mkdir(parents=True)
    mean = helper.make_node("ReduceMean", ["pixel_values"], ["color"], axes=[2, 3], keepdims=0)
    write_graph(folder, "vision", [mean], "color", 3, ("pixel_values", onnx.TensorProto.FLOAT, ["n", 3, 8, 8]))
    cast = helper.make_node("Cast", ["input_ids"], ["floats"], to=onnx.TensorProto.FLOAT)
    mean = helper.make_node("ReduceMean", ["floats"], ["token"], axes=[1], keepdims=1)
    write_graph(folder, "text", [cast, mean], "token", 1, ("input_ids", onnx.TensorProto.INT64, ["n", "m"]))
    (folder / "config.json").write_text('{"model_type": "clip", "projection_dim": 4}')
    (folder / "preprocessor_config.json").write_text(json.dumps(USUAL))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    return folder


def write_graph(folder, side, nodes, last, width, source):
    output = {"vision": "image_embeds", "text": "text_embeds"}[side]
    matrix = numpy_helper.from_array(np.arange(1, 4 * width + 1, dtype=np.float32).reshape(width, 4), "matrix")
    nodes = [*nodes, helper.make_node("MatMul", [last, "matrix"], [output])]
    result = helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(nodes, side, [helper.make_tensor_value_info(*source)], [result], [matrix])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / f"onnx/{side}_model.onnx")


def clip(graphs, **options):
    return Clip(model=f"onnx:{graphs}", **options)


def write_apart(graphs, location="weights"):
    """Move the weights of the text graph into a file of their own."""
    path = graphs / "onnx/text_model.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=location, size_threshold=1)


def test_images_and_texts_are_encoded(graphs):
    for is_apart in (False, True):
        if is_apart:
            write_apart(graphs)
        encoder = load_encoder(clip(graphs, batch=20 + is_apart))
        views = [encoder.view(Image.new("RGB", (9, 12), color)) for color in ((255, 0, 0), (0, 0, 255))]
        images, texts = encoder.encode_images(views), encoder.encode_texts(["a dog", "", "a " * 100])
        assert images.shape == (2, 4) and np.allclose(np.linalg.norm(images, axis=1), 1) and not np.allclose(*images)
        assert texts.embeddings.shape == (3, 4)
        assert texts.tokens.tolist() == [4, 2, 102] and texts.truncated.tolist() == [False, False, True]
    assert Tokenizer(json.dumps(TOKENIZER).encode()).encode("a dog") == [0, 2, 3, 1]


# ---------------------------------------------------------------- identity
def test_identity(graphs, tmp_path):
    known, moved = identify(clip(graphs)), shutil.copytree(graphs, tmp_path / "moved")
    for path in (moved / "onnx").iterdir():
        path.rename(moved / path.name)
    assert identify(clip(moved)) == known
    assert Clip.model_validate({"model": "onnx:x"}, context=lambda path: f"/base/{path}").model == "onnx:/base/x"
    assert (known["model"], known["dimension"], known["context_length"], known["precision"]) == ("onnx", 4, 77, "fp32")
    assert set(known["weights"]["files"]) == {"vision_model.onnx", "text_model.onnx"} and known["device"] == "cpu"
    assert {"onnxruntime", "tokenizers", "ftfy", "pillow", "numpy"} == set(known["versions"])
    changes = {"config.json": ("}", ', "vision_config": {}}'), "tokenizer.json": ("dog", "cat")}
    for name, (old, new) in (changes | {"preprocessor_config.json": ("0.25", "0.5")}).items():
        text = (graphs / name).read_text()
        (graphs / name).write_text(text.replace(old, new))
        assert _key(identify(clip(graphs))) != _key(known), name
        (graphs / name).write_text(text)


@pytest.mark.parametrize("name", ["tokenizer.json", "onnx/vision_model.onnx", "onnx/weights"])
def test_other_files_than_identified_are_not_loaded(graphs, name):
    """A worker may have a different copy of the folder than the machine that started the run."""
    write_apart(graphs)
    (graphs / "onnx/other_weights").write_bytes(b"of another graph")
    known = identify(clip(graphs, batch=9))
    assert set(known["weights"]["files"]) == {"vision_model.onnx", "text_model.onnx", "weights"}
    (graphs / name).write_bytes((graphs / name).read_bytes() + b" ")
    with pytest.raises(RunError, match=rf"{name.rpartition('/')[2]} has sha256 .*… on .*; accepted: the same files"):
        load_encoder(clip(graphs, batch=9), known)


def test_weights_elsewhere_are_refused(graphs):
    write_apart(graphs, "data")
    path, entry = graphs / "onnx/text_model.onnx", b"\n\x08location\x12"
    content = path.read_bytes()
    assert entry + b"\x04data" in content
    for location in ("../secret", "/etc/passwd", "a/b"):
        path.write_bytes(content.replace(entry + b"\x04data", entry + bytes([len(location)]) + location.encode()))
        with pytest.raises(RecipeError, match=r"names weights in .*; accepted: a file in its folder"):
            identify(clip(graphs))


# ---------------------------------------------------------------- refused
def remove(name, _, graphs):
    (graphs / name).unlink()


def write(name, content, graphs):
    (graphs / name).write_bytes(content)


def config(name, value, graphs):
    path = graphs / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))


def rename(old, new, graphs):
    path = graphs / "onnx/vision_model.onnx"
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.name = value.name.replace(old, new)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    onnx.save(model, path)


HARMS = [
    (remove, "config.json", None, r"config\.json cannot be read: .*; accepted: a folder with config\.json"),
    (remove, "tokenizer.json", None, r"tokenizer\.json cannot be read"),
    (remove, "onnx/text_model.onnx", None, r"no graphs; accepted: .* or only model\.onnx"),
    (config, "model_type", "siglip", "model_type: .* 'clip', not 'siglip'"), (config, "projection_dim", "4", "projection_dim: .*, not '4'"),
    (config, "text_config", {"max_position_embeddings": 1}, "text_config.max_position_embeddings: .*, not 1"),
    (config, "text_config", [1], r"text_config: .*, not \[1\]"),
    (config, "projection_dim", 3, r"image_embeds has the shape \[1, 4\]; accepted: \[1, 3\]"),
    (write, "config.json", b"[", r"config\.json is not a JSON object"), (write, "onnx/text_model.onnx", b"", "empty file"),
    (write, "tokenizer.json", b"{}", "cannot be loaded: .*Tokenizer"),
    (write, "onnx/text_model.onnx", b"no graph", "cannot be loaded"),
    (rename, "pixel_values", "image", "inputs image, input_ids; accepted: pixel_values"),
    (rename, "image_embeds", "pooled", "outputs pooled, text_embeds; accepted: image_embeds and"),
]  # fmt: skip


@pytest.mark.parametrize(("harm", "name", "value", "message"), HARMS)
def test_folders_that_are_refused(graphs, harm, name, value, message):
    harm(name, value, graphs)
    with pytest.raises((RecipeError, RunError), match=rf"^measure\.clip 'clip'.*{message}"):
        load_encoder(clip(graphs))


def test_a_graph_with_one_row_for_any_batch_is_refused(graphs):
    """NumPy would give all images the embedding of the first."""
    path = graphs / "onnx/vision_model.onnx"
    model = onnx.load(path)
    model.graph.node[-1].output[:] = ["all"]
    first = helper.make_node("Constant", [], ["first"], value_ints=[0])
    model.graph.node.extend([first, helper.make_node("Gather", ["all", "first"], ["image_embeds"], axis=0)])
    onnx.save(model, path)
    encoder = load_encoder(clip(graphs))
    views = [encoder.view(Image.new("RGB", (8, 8), (shade, 0, 0))) for shade in (0, 100, 200)]
    encoder.encode_images(views[:1])
    with pytest.raises(RunError, match=r"image_embeds has the shape \[1, 4\]; accepted: \[3, 4\]"):
        encoder.encode_images(views)


PREPROCESSING = [
    ({"size": {"longest_edge": 64}}, "'height'"), ({"size": {"shortest_edge": 64, "longest_edge": 128}}, "'height'"),
    ({"size": {"shortest_edge": 0}}, "0 is not a number of pixels"), ({"do_pad": True}, "do_pad must be false"),
    ({"do_resize": False}, "do_resize must be true"), ({"do_center_crop": False}, "images of different shapes"),
    ({"crop_size": 9}, "larger than size"), ({"resample": 9}, "9 is not a valid Resampling"),
    ({"image_std": [1.0, 0.0, 1.0]}, "no std may be 0"), ({"image_mean": None}, "NoneType"),
    ({"image_mean": [10**400] * 3}, "int too large"),
]  # fmt: skip
OPTIONS = [
    ({"precision": "bf16"}, "precision: 'bf16' .*; accepted: auto, fp32"), ({"pretrained": "openai"}, "has its own weights"),
    ({"context_length": 248}, "positions cannot be stretched"), ({"words": True}, "attention"),
    ({"device": "mps"}, "accepted: auto, cpu, cuda, cuda:N"),
]  # fmt: skip


def test_preprocessing_and_options_that_are_refused():
    for change, message in PREPROCESSING:
        whole = f"^here: preprocessor_config.json: .*{message}.*accepted: transformers' CLIPImageProcessor"
        with pytest.raises(RecipeError, match=whole):
            Pixels.of(USUAL | change, "here")
    for option, message in OPTIONS:
        with pytest.raises(RecipeError, match=f"measure.clip.*{message}"):
            kit.recipe_of("x.tar", measure={"clip": {"model": "onnx:x", **option}})


def test_a_device_that_is_not_there(graphs):
    options = clip(graphs, device="cuda")
    with pytest.raises(RecipeError, match=r"the recipe sets device: cuda.* no CUDA device .*onnxruntime-gpu"):
        identify(options)
    assert identify(options, is_local=False)["device"] == "cuda"


def test_a_provider_that_cannot_be_used(graphs):
    """onnxruntime would fall back to the CPU without an error."""
    with pytest.warns(UserWarning, match="not in available"), pytest.raises(OSError, match="cannot use cuda:0"):
        weights.open_session(graphs / "onnx/vision_model.onnx", "cuda:0")
