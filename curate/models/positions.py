"""Find the causal text tower of an open_clip model, and stretch its positions for longer captions (Long-CLIP).

A stretched model reads captions beyond its context (usually 77 tokens). But it never saw the positions between the
learned ones: without weights tuned for them, the end of a caption counts less. Captions of up to 20 tokens keep their
embeddings; those of longer ones change.

Source: Zhang et al., Long-CLIP: Unlocking the Long-Text Capability of CLIP, 2024 (knowledge-preserved stretching).
"""

import copy
from dataclasses import dataclass
from typing import Any

from curate.base.errors import RecipeError

Tensor = Any  # torch.Tensor, and Module below: torch is imported by the functions that use it
Module = Any

KEPT = 20  # positions that stay unchanged: according to Long-CLIP, those that CLIP trained well

ACCEPTED = "open_clip's CLIP, or CustomTextCLIP with a TextTransformer, if the text tower is causal and has "
ACCEPTED += "pool_type argmax or eos"


@dataclass(frozen=True)
class TextTower:
    """A causal text transformer, from `text_tower`."""

    # The model itself (CLIP) or its `.text` (CustomTextCLIP): has token_embedding, positional_embedding
    # [context, width], attn_mask [context, context], transformer, ln_final, text_projection (or None).
    holder: Module
    pool_type: str
    eos_id: int

    @property
    def context_length(self) -> int:
        return int(self.holder.positional_embedding.shape[0])

    def embed(self, ids: Tensor) -> Tensor:
        """Return the blocks' input for ids int64 [n, length]: [n, length, width]."""
        kind = self.holder.transformer.get_cast_dtype()
        return self.holder.token_embedding(ids).to(kind) + self.holder.positional_embedding[: ids.shape[1]].to(kind)

    def ends(self, ids: Tensor) -> Tensor:
        """Return the position of each text's end, which gives its embedding: ids int64 [n, length] → int64 [n]."""
        if self.pool_type == "argmax":  # the end of text is the highest id of OpenAI's vocabulary
            return ids.argmax(dim=-1)
        return (ids == self.eos_id).int().argmax(dim=-1)


def project(projection: Module, x: Tensor) -> Tensor:
    """Return the embeddings of vectors x [n, width], with a tower's `text_projection`: a matrix, a layer or None."""
    if projection is None:
        return x
    return projection(x) if callable(projection) else x @ projection


def text_tower(model: Module) -> TextTower:
    """Return the text tower of an open_clip model, if it is causal and pools at the end of the text.

    In such a tower, the embedding does not depend on tokens after the text's end. Raises RecipeError for other towers.
    """
    from open_clip.model import CLIP
    from open_clip.transformer import TextTransformer

    text = getattr(model, "text", None)
    if isinstance(model, CLIP):
        tower = TextTower(model, model.text_pool_type, model.text_eos_id)
    elif isinstance(text, TextTransformer):
        tower = TextTower(text, text.pool_type, text.eos_id)
    else:
        raise _other(type(model).__name__ + (f" with a text tower of class {type(text).__name__}" if text else ""))
    if tower.holder.attn_mask is None or getattr(text, "cls_emb", None) is not None:  # like SigLIP and CoCa
        raise _other("a text tower that is not causal, or has a class token after the text")
    if tower.pool_type not in ("argmax", "eos"):
        raise _other(f"a text tower with pool_type {tower.pool_type}")
    return tower


def _other(kind: str) -> RecipeError:
    return RecipeError(f"measure.clip: words and context_length do not work with {kind}; accepted: {ACCEPTED}")


def stretch(model: Module, tokenizer: Any, context_length: int = 248) -> Any:
    """Change a model in place to read captions of up to `context_length` tokens, and return a tokenizer for it.

    With c positions before and C after, f = (C - 20) / (c - 20): rows 0 to 19 stay as they are, and row 20 + m becomes
    (1 - w)·p[20 + i] + w·p[21 + i], where i = ⌊m / f⌋ and w = m / f - i. The last few need an
    old row c, which extrapolates the last two: p[c] = 2·p[c - 1] - p[c - 2]. From 77 to 248, f is 4: Long-CLIP's own
    interpolation.

    Raises RecipeError if the text tower is of another kind, or its context is too short.
    """
    import torch

    tower = text_tower(model)
    holder, before = tower.holder, tower.context_length
    if before < KEPT + 2:
        raise RecipeError(f"measure.clip: cannot extend context length {before}; accepted: {KEPT + 2} or more")
    old = holder.positional_embedding
    with torch.no_grad():
        learnt = old[KEPT:].float()
        rows = torch.cat([learnt, 2 * learnt[-1:] - learnt[-2:-1]])
        position = torch.arange(context_length - KEPT, dtype=torch.float64) * (len(learnt) / (context_length - KEPT))
        lower = position.long()
        weight = (position - lower).float()[:, None].to(old.device)
        new = torch.cat([old[:KEPT], torch.lerp(rows[lower], rows[lower + 1], weight).to(old.dtype)])
        holder.positional_embedding = torch.nn.Parameter(new, old.requires_grad)
        mask = torch.full((context_length, context_length), -torch.inf, device=old.device).triu_(1)
        holder.attn_mask = mask.to(holder.attn_mask.dtype)
    for owner in {model, holder}:
        owner.context_length = context_length
    if holder is not model:
        holder.num_pos = context_length
    longer = copy.copy(tokenizer)
    longer.context_length = context_length
    return longer
