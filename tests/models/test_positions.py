"""Stretched positions, compared with Long-CLIP's interpolation written out; short captions must not change."""

import copy

import pytest

from curate.base.errors import RecipeError
from curate.models.positions import stretch, text_tower

pytestmark = pytest.mark.thorough

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")

TOKENIZER = open_clip.SimpleTokenizer()
VISION = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}


def build(custom=False, **text):
    torch.manual_seed(0)
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    model = kind(32, VISION, {"width": 32, "heads": 4, "layers": 2} | text).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "logit" not in name:
                value.add_(torch.randn_like(value) * 0.2)
    return model


def encode(model, tokenizer, caption):
    with torch.no_grad():
        return model.encode_text(tokenizer([caption]), normalize=True)[0]


def long_clip(old):
    """Stretch 77 rows to 248: keep twenty, and insert three rows after each of the others."""
    new = [old[i] for i in range(20)]
    for i in range(20, 76):
        new += [old[i], 0.75 * old[i] + 0.25 * old[i + 1], 0.5 * old[i] + 0.5 * old[i + 1]]
        new += [0.25 * old[i] + 0.75 * old[i + 1]]
    step = old[76] - old[75]
    return torch.stack([*new, old[76], old[76] + 0.25 * step, old[76] + 0.5 * step, old[76] + 0.75 * step])


@pytest.mark.parametrize("custom", [False, True])
def test_long_clips_rows(custom):
    model = build(custom)
    before = copy.deepcopy(text_tower(model).holder.positional_embedding)
    stretch(model, TOKENIZER)
    after = text_tower(model).holder.positional_embedding
    assert after.shape == (248, 32)
    torch.testing.assert_close(after, long_clip(before), rtol=0, atol=1e-6)


@pytest.mark.parametrize("context_length", [78, 100, 134, 248, 500])
def test_other_lengths_are_linear_between_the_learnt_rows(context_length):
    """Rows on a straight line remain on it, evenly spaced; a new row at an old row's position equals that row."""
    model = build()
    slope = torch.linspace(-1, 1, 32)
    line = torch.arange(77)[:, None] * slope
    model.positional_embedding.data = line.clone()
    stretch(model, TOKENIZER, context_length)
    places = torch.cat([torch.arange(20), 20 + torch.arange(context_length - 20) * 57 / (context_length - 20)])
    torch.testing.assert_close(model.positional_embedding, places[:, None] * slope, rtol=0, atol=1e-4)
    assert model.positional_embedding.shape[0] == model.context_length == context_length
    if context_length == 134:
        assert model.positional_embedding[20::2].equal(line[20:])


@pytest.mark.parametrize(
    "kind", [{}, {"custom": True}, {"pool_type": "eos", "eos_id": 49407}, {"custom": True, "qk_norm": True}], ids=str
)
def test_captions_of_twenty_tokens_keep_their_embeddings(kind):
    model = build(**kind)
    captions = ["", "a red circle on blue stripes", "dog " * 17 + "cat", "🐶 naïve 1920x1080"]  # of at most 20 tokens
    before = [encode(model, TOKENIZER, caption) for caption in captions]
    longer = stretch(model, TOKENIZER)
    for caption, embedding in zip(captions, before, strict=True):
        torch.testing.assert_close(encode(model, longer, caption), embedding, rtol=0, atol=1e-6)


@pytest.mark.parametrize("custom", [False, True])
def test_the_tower_agrees_with_itself(custom):
    model = build(custom)
    holder = text_tower(model).holder
    longer = stretch(model, TOKENIZER, 120)
    assert {part.context_length for part in (longer, model, holder, text_tower(model))} == {120}
    assert TOKENIZER.context_length == 77  # another model may use the given one
    assert holder.attn_mask.equal(torch.full((120, 120), -torch.inf).triu(1))
    assert not any("attn_mask" in name for name in model.state_dict())
    if custom:
        assert holder.num_pos == 120 and holder.build_causal_mask().equal(holder.attn_mask)
    causal = [encode(model, longer, "dog " * 50), encode(model, longer, "dog " * 50 + "<end_of_text> a cat")]
    torch.testing.assert_close(causal[0], causal[1], rtol=0, atol=1e-6)  # nothing behind the end is seen


def test_precision_is_kept():
    model = build().to(torch.bfloat16)
    before = model.positional_embedding.float()
    stretch(model, TOKENIZER)
    assert model.positional_embedding.dtype == model.attn_mask.dtype == torch.bfloat16
    assert model.positional_embedding.equal(long_clip(before).to(torch.bfloat16))


def test_wrong_use_is_refused():
    with pytest.raises(RecipeError, match="cannot extend context length 21; accepted: 22 or more"):
        stretch(build(context_length=21), TOKENIZER)
    for custom, text in ((True, {"no_causal_mask": True}), (True, {"embed_cls": True}), (False, {"pool_type": "last"})):
        with pytest.raises(RecipeError, match=r"do not work with a text tower .*; accepted: open_clip's CLIP"):
            stretch(build(custom, **text), TOKENIZER)
