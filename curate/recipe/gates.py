"""The section `captions.gates` of a recipe: which quality filters judge synthetic captions, and how strictly."""

from typing import Literal

from pydantic import Field

from curate.recipe.section import ColumnName, Section

Gate = Literal[
    "empty", "echo_prompt", "echo", "preamble", "length", "language", "numbers", "names", "entries", "repetition",
    "clip_score", "f_clipscore", "unsafe",
]  # fmt: skip


class Gates(Section):
    """How strict the quality filters (gates) of synthetic captions are; without the section, all that apply are on.

    A caption that fails a gate is in table `captions` with the reason, and not in the shards. Gates are heuristics: `preamble`, `unsafe`
    and `language` miss unforeseen cases and short texts. `python -m tests.bench.bench_gates` measures how often.

    - `empty`, `length`, `repetition`, `language`: no text; too few or many words; loops; another language.
    - `echo_prompt`, `echo`: a copy of the prompt or its examples; a copy of the original.
    - `preamble`: chatter before the caption.
    - `numbers`, `names`, `entries`: numbers, names or metadata entries of the original that are lost; `entries` needs `match`.
    - `clip_score`, `f_clipscore`: fits the image less than the original; needs a model with `embeddings: true`.
    - `unsafe`: instructions to a model, addresses or code that are not in the original.

    `entries`: a text may say the same with other entries, and each counts by its rarity. At 0.4, one in seven of the package's example pairs
    is refused, and half of the texts that lost their rarest entry. At 0.6, it is one in three, and two in three. Scale and noise of
    `clip_score` are the model's. Of ViT-H-14, a wrong word costs about 0.00035 of `f_clipscore`.
    """

    off: tuple[Gate, ...] = Field((), description="Gates to turn off.", examples=[["f_clipscore"]])
    words: tuple[int, int] = Field(
        (2, 100), description="Fewest and most words; 2 is LaCLIP's own bound.", examples=[[3, 60]]
    )
    names: float = Field(1.0, description="Share of the caption's names to keep, at least.", examples=[0.5], ge=0, le=1)
    entries: float = Field(
        0.4,
        description="Share of the caption's metadata entries to keep, at least, weighted by rarity.",
        examples=[0.6],
        ge=0,
        le=1,
    )
    clip_score: float = Field(
        0.03,
        description="Largest decrease of the CLIP score (a cosine) from the original's.",
        examples=[0.05],
        ge=0,
        le=2,
    )
    f_clipscore: float = Field(
        3e-4, description="Largest decrease of F-CLIPScore; needs `words: true` of the model.", examples=[0.001], ge=0
    )
    of: ColumnName = Field(
        "clip",
        description="The model in `measure.clip` that scores captions; needs `embeddings: true`.",
        examples=["large"],
    )
