"""Find the words of a caption that do not fit its image, from the text transformer's attention (CLIP4DM).

The method measures how the cosine changes with the last three layers' attention maps, but only uses the row of the end
token (EOS). Because attention is causal, only the EOS depends on that row. So all other tokens run through the model's
own blocks without gradients, in its precision, and only the EOS runs here, with its attention row materialized, in
float32. The model is never changed; several threads can use it at the same time.

Source: Nam et al., Extract Free Dense Misalignment from CLIP (CLIP4DM), 2025.
"""

import copy
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from curate.base.errors import RecipeError
from curate.base.numeric.arrays import F32
from curate.models.positions import Module, Tensor, TextTower, project, text_tower

TEMPLATE = "A photo depicts "
LAYERS = 3  # last layers that are used; a smaller transformer uses all of its layers
THRESHOLD = -5e-5  # words with a lower score are misaligned

_SYMBOLS = frozenset(string.punctuation)  # also $+<=>^`|~, which Unicode calls symbols


@dataclass(frozen=True, eq=False)
class WordScores:
    """A caption's words as the tokenizer splits them (OpenAI's: lower case, single digits), in order."""

    words: tuple[str, ...]  # without the template's words, punctuation, and words beyond the context
    scores: F32  # of each word: the mean of its tokens' scores
    cosine: float  # of the image and the text with the template, -1 to 1

    @property
    def misaligned_words(self) -> list[str]:
        """The words with a score below -5e-5, in the caption's order, with repetitions."""
        return [word for word, low in zip(self.words, self.scores < THRESHOLD, strict=True) if low]

    @property
    def f_clipscore(self) -> float:
        """(sum of the misaligned words' scores) · (1 - CLIPScore / 2.5): at most 0; closer to 0 is better."""
        clipscore = 2.5 * min(max(self.cosine, 0.0), 1.0)
        return float(self.scores[self.scores < THRESHOLD].sum(dtype=np.float64)) * (1 - clipscore / 2.5)


def word_scores(
    model: Module, tokenizer: Any, images: Tensor, captions: Sequence[str], batch: int = 64
) -> list[WordScores]:
    """Return the scores of each word of each caption against the caption's image, in the captions' order.

    The tokenizer truncates a caption that is longer than the model's context: words beyond it, even partly, get no
    score. A caption without words (empty, punctuation) only gets the cosine. `images` are the model's embeddings,
    floating [n, d], on any device; `batch` is the number of captions per step. Raises RecipeError if the text tower is
    not causal or has unusual blocks, or if the tokenizer cannot separate words.
    """
    import torch
    from open_clip.transformer import ResidualAttentionBlock

    tower = text_tower(model)
    holder = tower.holder
    for block in holder.transformer.resblocks:
        if not isinstance(block, ResidualAttentionBlock) or not block.attn.batch_first:
            kinds = f"found: {type(block).__name__}; accepted: open_clip's ResidualAttentionBlock (block_type default)"
            raise RecipeError(f"measure.clip: curate cannot score words with this model's attention blocks; {kinds}")
    if not captions:
        return []
    ids, words = _tokenize(tokenizer, [TEMPLATE + caption for caption in captions])
    ends = tower.ends(ids)
    modules = *holder.transformer.resblocks[-LAYERS:], holder.ln_final, holder.text_projection
    with torch.inference_mode(False):  # callers may be in it; float32 copies that record no gradients
        tail = [m if m is None else copy.deepcopy(m).requires_grad_(False).float() for m in modules]
    scored: dict[int, WordScores] = {}
    for rows in torch.split(torch.argsort(ends, stable=True), batch):
        cosines, relevance = _relevance(tower, tail, images[rows.to(images.device)], ids[rows], ends[rows])
        for row, cosine, scores in zip(rows.tolist(), cosines.tolist(), relevance.cpu().numpy(), strict=True):
            inside = [(word, part) for word, part in words[row] if part.stop <= ends[row]]
            means = np.array([scores[part].mean() for _, part in inside], np.float32)
            scored[row] = WordScores(tuple(word for word, _ in inside), means, cosine)
    return [scored[row] for row in range(len(captions))]


def _relevance(text: TextTower, tail: list[Module], images: Tensor, ids: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosines float32 [n], and how they change with the EOS's attention to each token [n, longest]."""
    import torch
    from torch.nn import functional as F

    holder = text.holder
    *layers, norm, projection = tail
    device, longest = holder.positional_embedding.device, int(ends.max()) + 1
    # In a caller's inference mode or autocast, there would be no gradient, or not in float32.
    with torch.inference_mode(False), torch.autocast(device.type, enabled=False), torch.no_grad():
        images = F.normalize(images.to(device, torch.float32), dim=-1)
        ids, ends = ids[:, :longest].to(device), ends.to(device)
        x = text.embed(ids)
        mask = holder.attn_mask[:longest, :longest]
        blocks = list(holder.transformer.resblocks)
        for block in blocks[:-LAYERS]:
            x = block(x, attn_mask=mask)
        end = x[torch.arange(len(x), device=device), ends].float()
        maps = []
        for block, constant in zip(blocks[-LAYERS:], layers, strict=True):
            with torch.enable_grad():
                end, attention = _end_of_text(constant, x, end, ends)
            maps.append(attention)
            if block is not blocks[-1]:
                x = block(x, attn_mask=mask)
        with torch.enable_grad():
            cosines = (F.normalize(project(projection, norm(end)), dim=-1) * images).sum(-1)
            gradients = torch.autograd.grad(cosines.sum(), maps)
        relevance = sum((g * a.detach()).mean(dim=1) for g, a in zip(gradients, maps, strict=True)) / len(maps)
    return cosines.detach(), relevance


def _end_of_text(block: Module, x: Tensor, end: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Run one block for the EOS alone; return its output [n, width], and its attention [n, heads, length].

    x [n, length, width] are the block's input tokens, as constants; `end` replaces the EOS.
    """
    import torch
    from torch.nn import functional as F

    attn = block.attn
    weight, bias, width = attn.in_proj_weight, attn.in_proj_bias, end.shape[-1]
    split = partial(torch.unflatten, dim=-1, sizes=(attn.num_heads, -1))
    q, end_k, end_v = map(split, F.linear(block.ln_1(end), weight, bias).chunk(3, dim=-1))  # [n, heads, head]
    with torch.no_grad():
        keys_values = F.linear(block.ln_1(x.float()), weight[width:], bias[width:])
        k, v = (split(part).transpose(1, 2) for part in keys_values.chunk(2, dim=-1))  # [n, heads, length, head]
    positions = torch.arange(x.shape[1], device=x.device)
    at_end, behind = (positions == ends[:, None])[:, None], (positions > ends[:, None])[:, None]
    logits = torch.where(at_end, (q * end_k).sum(-1, keepdim=True), (k @ q[..., None]).squeeze(-1))
    attention = (logits * attn.head_dim**-0.5).masked_fill(behind, -torch.inf).softmax(-1)
    if not attention.requires_grad:  # the first of the layers: its input is constant
        attention.requires_grad_()
    mixed = (attention.masked_fill(at_end, 0)[:, :, None] @ v).squeeze(2)
    mixed = mixed + attention.masked_fill(~at_end, 0).sum(-1, keepdim=True) * end_v
    end = end + block.ls_1(attn.out_proj(mixed.flatten(1)))
    return end + block.ls_2(block.mlp(block.ln_2(end))), attention


Words = list[tuple[str, slice]]  # of one text, with the positions of their tokens


def _tokenize(tokenizer: Any, texts: list[str]) -> tuple[Tensor, list[Words]]:
    """Return token ids int64 [n, context], and the words of each caption, without the template's and punctuation."""
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    is_simple = isinstance(tokenizer, SimpleTokenizer) and tokenizer.reduction_fn is None
    is_hugging_face = isinstance(tokenizer, HFTokenizer) and not tokenizer.tokenizer_mode
    if not is_simple and not (is_hugging_face and tokenizer.tokenizer.is_fast):
        accepted = "SimpleTokenizer without reduction_mask, or HFTokenizer with a fast tokenizer and no tokenizer_mode"
        kinds = f"found: {type(tokenizer).__name__}; accepted: open_clip's {accepted}"
        raise RecipeError(f"measure.clip: curate cannot separate words with this model's tokenizer; {kinds}")
    ids = tokenizer(texts)
    words = [_simple_words(tokenizer, row) for row in ids.tolist()] if is_simple else _fast_words(tokenizer, texts)

    def is_punctuation(word: str) -> bool:
        return all(char in _SYMBOLS or unicodedata.category(char).startswith("P") for char in word)

    return ids, [[(word, part) for word, part in row if not is_punctuation(word)] for row in words]


def _simple_words(tokenizer: Any, row: list[int]) -> Words:
    """Return a text's words by the vocabulary: a word's last token ends in `</w>`; truncated words are left out."""
    words: Words = []
    start = 1 + len(tokenizer.encode(TEMPLATE))
    for index in range(start, len(row)):
        token = row[index]
        if token in tokenizer.all_special_ids:  # even if the caption contains them as text
            start = index + 1
        elif tokenizer.decoder[token].endswith("</w>"):
            words.append((tokenizer.decode(row[start : index + 1]).strip(), slice(start, index + 1)))
            start = index + 1
    return words


def _fast_words(tokenizer: Any, texts: list[str]) -> list[Words]:
    """Return the words of texts by a fast tokenizer's own word boundaries, after open_clip's cleaning."""
    template, *texts = (tokenizer.clean_fn(text) for text in (TEMPLATE, *texts))
    length = tokenizer.context_length
    encoded = tokenizer.tokenizer(texts, max_length=length, padding="max_length", truncation=True)
    words: list[Words] = []
    for text, encoding in zip(texts, encoded.encodings, strict=True):
        cut = next((word for part in encoding.overflowing for word in part.word_ids if word is not None), None)
        parts: dict[int, slice] = {}
        for index, word in enumerate(encoding.word_ids):
            if word is not None and word != cut:
                parts[word] = slice(parts[word].start if word in parts else index, index + 1)
        spans = [(encoding.word_to_chars(word), part) for word, part in parts.items()]
        words.append([(text[start:end].strip(), part) for (start, end), part in spans if start >= len(template)])
    return words
