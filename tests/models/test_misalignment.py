"""Misaligned words, compared with the definition: every attention map of the text transformer, and its gradient."""

import copy
import math
import random

import numpy as np
import pytest

from curate.base.errors import RecipeError
from curate.models.misalignment import TEMPLATE, WordScores, word_scores

pytestmark = pytest.mark.thorough

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")

from open_clip.model import convert_weights_to_lp  # noqa: E402

F = torch.nn.functional
EOS = 49407
TOKENIZER = open_clip.SimpleTokenizer()


# Captions and the tokenizer's pieces; PUNCTUATION has the pieces that are punctuation.
CAPTIONS = {
    "a red circle on blue stripes": ["a", "red", "circle", "on", "blue", "stripes"], "": [], "  \t\n": [],
    "... !? – |": ["...", "!?", "–", "|"], "🐶👍🏽": ["🐶👍🏽"], "Äpfel &amp; 日本語": ["äpfel", "&", "日本語"],
    "Photosynthesizing Quillbox, no. 12!": ["photosynthesizing", "quillbox", ",", "no", ".", "1", "2", "!"],
    "the man's dog 🐶 © naïve": ["the", "man", "'s", "dog", "🐶", "©", "naïve"], "red <end_of_text> circle": ["red"],
    "red <start_of_text>circle": ["red", "<start_of_text>", "circle"], "red circle " * 60: ["red", "circle"] * 36,
    "red " * 71 + "antidisestablishmentarianism dog": ["red"] * 71, "red " * 72: ["red"] * 72, "circle": ["circle"],
}  # fmt: skip
PUNCTUATION = {"...", "!?", "–", "|", ",", ".", "!", "&", "<start_of_text>"}


def build(custom=False, quick_gelu=False, seed=0, **text):
    """A small model with random weights, biases and norms, large enough that scores are far above rounding."""
    torch.manual_seed(seed)
    text_cfg = {"width": 48, "heads": 4, "layers": 5} | text
    vision_cfg = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    model = kind(32, vision_cfg, text_cfg, quick_gelu=quick_gelu).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "logit" not in name:
                value.add_(torch.randn_like(value) * (0.3 if value.ndim == 1 else 0.15))
    return model


def images_for(count, seed=1):
    return F.normalize(torch.randn(count, 32, generator=torch.Generator().manual_seed(seed)), dim=-1)


def definition(model, image, ids, eos):
    """R[EOS, 1:EOS] and the cosine: one text, float64, all positions, all maps."""
    text = getattr(model, "text", model)
    embedded = text.token_embedding.weight.detach()[ids].double()
    value = {name: parameter.detach().double() for name, parameter in text.named_parameters() if "token" not in name}
    gelu = any(isinstance(module, open_clip.transformer.QuickGELU) for module in text.modules())
    end = ids.tolist().index(eos)
    x = embedded + value["positional_embedding"]
    n, width = x.shape
    blocks, heads = len(text.transformer.resblocks), text.transformer.resblocks[0].attn.num_heads
    future = torch.triu(torch.ones(n, n, dtype=torch.bool), 1)

    def norm(name, x):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        return x * value[name + ".weight"] + value[name + ".bias"]

    maps = []
    for number in range(blocks):
        block = f"transformer.resblocks.{number}."
        h = norm(block + "ln_1", x)
        qkv = h @ value[block + "attn.in_proj_weight"].T + value[block + "attn.in_proj_bias"]
        q, k, v = (part.reshape(n, heads, -1).permute(1, 0, 2) for part in qkv.split(width, dim=-1))
        logits = q @ k.transpose(1, 2) / math.sqrt(width / heads)
        attention = torch.softmax(logits.masked_fill(future, -math.inf), dim=-1)
        if number >= blocks - 3:
            if not attention.requires_grad:
                attention.requires_grad_()
            maps.append(attention)
        h = (attention @ v).permute(1, 0, 2).reshape(n, width)
        h = h @ value[block + "attn.out_proj.weight"].T + value[block + "attn.out_proj.bias"]
        x = x + h * value.get(block + "ls_1.gamma", 1)
        h = norm(block + "ln_2", x) @ value[block + "mlp.c_fc.weight"].T + value[block + "mlp.c_fc.bias"]
        h = h * torch.sigmoid(1.702 * h) if gelu else 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))
        h = h @ value[block + "mlp.c_proj.weight"].T + value[block + "mlp.c_proj.bias"]
        x = x + h * value.get(block + "ls_2.gamma", 1)
    out = norm("ln_final", x)[end]
    if "text_projection" in value:
        out = out @ value["text_projection"]
    elif "text_projection.weight" in value:
        out = out @ value["text_projection.weight"].T + value["text_projection.bias"]
    cosine = (out / out.norm()) @ (image.double() / image.double().norm())
    relevance = torch.zeros(n, n, dtype=torch.float64)
    for attention, gradient in zip(maps, torch.autograd.grad(cosine, maps), strict=True):
        relevance += (gradient * attention).mean(0).detach()
    return (relevance / len(maps))[end, 1:end].numpy(), cosine.item()


def expected(model, image, caption):
    tokens, cosine = definition(model, image, TOKENIZER([TEMPLATE + caption])[0], EOS)
    words, scores, place = [], [], len(TOKENIZER.encode(TEMPLATE))
    for piece in CAPTIONS[caption]:
        count = len(TOKENIZER.encode(piece))
        if piece not in PUNCTUATION:
            words.append(piece)
            scores.append(tokens[place : place + count].mean())
        place += count
    return WordScores(tuple(words), np.array(scores, np.float32), cosine)


def same(one, other, atol=1e-6):
    assert one.words == other.words
    assert one.scores.dtype == np.float32 and one.scores.shape == (len(one.words),)
    np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=atol)
    assert one.cosine == pytest.approx(other.cosine, abs=atol)


KINDS = {
    "gelu": {}, "quick_gelu": {"quick_gelu": True}, "custom": {"custom": True},
    "custom quick_gelu": {"custom": True, "quick_gelu": True}, "eos": {"pool_type": "eos", "eos_id": EOS},
    "custom eos": {"custom": True, "pool_type": "eos", "eos_id": EOS, "proj_bias": True}, "two layers": {"layers": 2},
    "layer scale": {"ls_init_value": 0.5}, "no projection": {"custom": True, "proj_type": "none", "width": 32},
    "three layers": {"layers": 3},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_the_definition(kind):
    model, images = build(**KINDS[kind]), images_for(len(CAPTIONS))
    found = word_scores(model, TOKENIZER, images, list(CAPTIONS), batch=5)
    assert len(found) == len(CAPTIONS)
    for image, caption, scores in zip(images, CAPTIONS, found, strict=True):
        same(scores, expected(model, image, caption))
    everything = np.concatenate([scores.scores for scores in found])
    assert np.abs(everything).max() > 1e-3 and np.median(np.abs(everything)) > 1e-5  # far above the tolerance
    assert (everything < -5e-5).any() and (everything > 0).any()


def test_order_and_batches_do_not_matter():
    model, images, captions = build(), images_for(len(CAPTIONS)), list(CAPTIONS)
    reference = word_scores(model, TOKENIZER, images, captions)
    for batch in (1, 3):
        for one, other in zip(word_scores(model, TOKENIZER, images, captions, batch), reference, strict=True):
            same(one, other)
    order = random.Random(0).sample(range(len(captions)), len(captions))
    shuffled = word_scores(model, TOKENIZER, images[order], [captions[i] for i in order], 4)
    for i, scores in zip(order, shuffled, strict=True):
        same(scores, reference[i])
    assert word_scores(model, TOKENIZER, images[:0], []) == []


def state(model):
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    parameters = [(name, value.tolist(), value.requires_grad, value.grad) for name, value in model.named_parameters()]
    modules = [(module.training, [len(getattr(module, hook)) for hook in hooks]) for module in model.modules()]
    return parameters, [(name, value.tolist()) for name, value in model.named_buffers()], modules


@pytest.mark.parametrize("custom", [False, True])
def test_the_model_is_left_as_it_was_in_any_mode(custom):
    model, captions = build(custom), ["a red circle on blue stripes", "circle"]
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 2 == 0)
    before, images = state(model), images_for(2).requires_grad_()
    found = [word_scores(model, TOKENIZER, images, captions)]
    assert images.grad is None and torch.is_grad_enabled() and state(model) == before
    with torch.no_grad():
        found.append(word_scores(model, TOKENIZER, images, captions))
    with torch.inference_mode():
        found.append(word_scores(model, TOKENIZER, images * 1, captions))
        assert torch.is_inference_mode_enabled()
    with torch.autocast("cpu", torch.bfloat16):
        found.append(word_scores(model, TOKENIZER, images, captions))
    for run in found[1:]:
        for one, other in zip(run, found[0], strict=True):
            same(one, other, 1e-7)


@pytest.mark.parametrize(
    ("dtype", "correlation", "close"), [(torch.bfloat16, 0.99, 0.03), (torch.float16, 0.9999, 0.005)]
)
@pytest.mark.parametrize("custom", [False, True])
def test_half_precision_models(dtype, correlation, close, custom):
    """Scores are float32, finite, and near those of the model in full precision."""
    captions = [caption for caption in CAPTIONS if CAPTIONS[caption]]
    model, images = build(custom), images_for(len(captions))
    plain = word_scores(model, TOKENIZER, images, captions)
    mixed = copy.deepcopy(model)
    convert_weights_to_lp(mixed, dtype)
    for module in mixed.modules():  # as open_clip builds them for half precision
        if isinstance(module, torch.nn.LayerNorm):
            module.__class__ = open_clip.transformer.LayerNormFp32
    for half in (mixed, copy.deepcopy(model).to(dtype)):
        found = word_scores(half, TOKENIZER, images.to(dtype), captions)
        assert [scores.words for scores in found] == [scores.words for scores in plain]
        one, other = (np.concatenate([scores.scores for scores in run]) for run in (found, plain))
        assert one.dtype == np.float32 and np.isfinite(one).all()
        assert np.corrcoef(one, other)[0, 1] > correlation
        assert max(abs(a.cosine - b.cosine) for a, b in zip(found, plain, strict=True)) < close


def test_misaligned_words_and_f_clipscore():
    scores = np.array([-4.44e-4, -4e-5, 1e-3, -6e-5, -4.44e-4], np.float32)
    found = WordScores(("coke", "cup", "of", "a", "coke"), scores, 0.2)
    assert found.misaligned_words == ["coke", "a", "coke"]
    assert found.f_clipscore == pytest.approx((-4.44e-4 - 6e-5 - 4.44e-4) * 0.8, rel=1e-5)
    assert WordScores(("a",), scores[3:4], -0.3).f_clipscore == pytest.approx(-6e-5, rel=1e-5)  # CLIPScore 0
    assert WordScores(("a",), scores[3:4], 1.0000001).f_clipscore == 0
    edge = WordScores(("a", "b"), np.array([-5e-5, np.nextafter(np.float32(-5e-5), -1, dtype=np.float32)]), 0.0)
    assert edge.misaligned_words == ["b"]
    empty = WordScores((), np.zeros(0, np.float32), 0.3)
    assert empty.misaligned_words == [] and empty.f_clipscore == 0


VOCABULARY = ["[PAD]", "[UNK]", "[BOS]", "[EOS]", "a", "photo", "depicts", "red", "circ", "##le", "##s", "on", ",", "!"]


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    """A folder with a tokenizer as on the hub: word pieces, and a context of 12."""
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    vocabulary = {word: i for i, word in enumerate(VOCABULARY)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer = tokenizers.normalizers.BertNormalizer()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    special = [("[BOS]", 2), ("[EOS]", 3)]
    inner.post_processor = tokenizers.processors.TemplateProcessing(single="[BOS] $A [EOS]", special_tokens=special)
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **names).save_pretrained(folder)
    return open_clip.tokenizer.HFTokenizer(folder, context_length=12)


def test_fast_tokenizers_give_their_words(fast):
    model = build(custom=True, pool_type="eos", eos_id=3, context_length=12, vocab_size=len(VOCABULARY))
    captions = {  # the context has room for 7 tokens, and "circles" is three
        "a Red circles, on zebra!": ("a", "Red", "circles", "on"), "red   circle": ("red", "circle"), "": (), ", !": (),
        "on on on on on red circles on": ("on",) * 5 + ("red",), "on on on on red circles on": ("on",) * 4 + ("red",),
        "on on on on circles": ("on",) * 4 + ("circles",),
    }  # fmt: skip
    found = word_scores(model, fast, images_for(len(captions)), list(captions))
    assert {caption: scores.words for caption, scores in zip(captions, found, strict=True)} == captions
    ids = torch.tensor([2, 4, 5, 6, 7, 8, 9, 3, 0, 0, 0, 0])  # [BOS] a photo depicts red circ ##le [EOS]
    tokens, cosine = definition(model, images_for(len(captions))[1], ids, eos=3)
    same(found[1], WordScores(("red", "circle"), np.array([tokens[3], tokens[4:6].mean()], np.float32), cosine))


OTHERS = {
    "a class token after the text": {"custom": True, "embed_cls": True}, "CustomResidualAttentionBlock": {"qk_norm": True},
    "not causal": {"custom": True, "no_causal_mask": True}, "pool_type last": {"custom": True, "pool_type": "last"},
    "pool_type first": {"pool_type": "first"},
}  # fmt: skip


def test_other_models_and_tokenizers_are_refused():
    def refused(model, tokenizer, message):
        with pytest.raises(RecipeError, match=f"{message}; accepted: open_clip's"):
            word_scores(model, tokenizer, images_for(1), ["a"])

    refused(build(), open_clip.SimpleTokenizer(reduction_mask="random"), "SimpleTokenizer")
    refused(build(), open_clip.tokenize, "function")
    for found, options in OTHERS.items():
        refused(build(**options), TOKENIZER, f".*{found}.*")
    model = build(custom=True)
    model.text = torch.nn.Linear(2, 2)
    refused(model, TOKENIZER, "CustomTextCLIP with a text tower of class Linear")
    refused(model.text, TOKENIZER, "Linear")
