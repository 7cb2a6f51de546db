"""CLIP as ONNX graphs against open_clip with the same weights."""

import json

import numpy as np
import pytest
from PIL import Image

from curate.models.clip_model import load_encoder
from curate.models.onnx_encoder import OnnxEncoder
from curate.models.onnx_folder import Pixels, Tokenizer
from curate.signals.clip import Clip
from tests.kit.clips import export_onnx, tokenizer, write_model
from tests.models.inputs import TEXTS, picture

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


def test_one_graph_of_both_sides(models, tmp_path):
    agree(models[0], export_onnx(models[0], tmp_path / "joint", joint=True))
    agree(models[0], f"onnx:{move_up(tmp_path / 'joint')}")


def test_texts_of_a_fixed_length(models, tmp_path):
    assert not agree(models[0], export_onnx(models[0], tmp_path / "fixed", length=77))._is_cut


def test_transformers_own_clip(tmp_path):
    """Like OpenAI's on the hub: the configuration has end token 2 and no context length, and texts need a mask."""
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
    # If it must crop another number of rows, transformers rounds differently
    images = [picture(i, "RGB", (68 + 2 * i, 64)) for i in range(4)]
    expected = Side("image")(pixel_values=processor(images=images, return_tensors="pt")["pixel_values"])
    assert np.abs(encoder.encode_images([encoder.view(image) for image in images]) - unit(expected)).max() < 1e-6


def unit(features):
    return (features / features.norm(dim=-1, keepdim=True)).detach().numpy()


def move_up(folder):
    for path in (folder / "onnx").iterdir():
        path.rename(folder / path.name)
    return folder


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
    assert ours.encode("a <|endoftext|> b").count(ours.end) == 1  # a caption cannot end itself


# ---------------------------------------------------------------- preprocessing
SQUARE = {"height": 64, "width": 64}
USUAL = {"size": {"shortest_edge": 64}, "crop_size": SQUARE, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_are_open_clips(mode, interpolation):
    """The pixels are equal bit by bit after they are normalized."""
    from open_clip.transform import image_transform

    squash = {"size": SQUARE, "do_center_crop": False} if mode == "squash" else {}
    ours = Pixels.of(USUAL | squash | {"resample": 2 if interpolation == "bilinear" else 3}, "here")
    theirs = image_transform(64, False, mean=(0.5,) * 3, std=(0.25,) * 3, resize_mode=mode, interpolation=interpolation)
    for number, mode in enumerate(MODES):
        for size in SIZES:
            image = picture(number, "L" if mode == "I;16" else mode, size)
            image = Image.fromarray(np.asarray(image, np.uint16) * 257) if mode == "I;16" else image
            assert np.array_equal(ours.normalize([ours.view(image)])[0], theirs(image).numpy()), (mode, size)
