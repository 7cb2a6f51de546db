"""s-CLIPLoss: the CLIP score of a pair minus a term for how well its image and caption match others in the pool.

Source: Wang et al., "CLIPLoss and Norm-Based Data Selection Methods for Multimodal Contrastive Learning" (arXiv
2405.19547), which uses random batches inside one file. Here a batch is a fixed sample of the pool plus the row itself:
s_i = cos(f_i, g_i) − τ/2·(log Σ_j exp(cos(f_i, g_j)/τ) + log Σ_j exp(cos(f_j, g_i)/τ)), the mean over batches.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from curate.base.numeric.arrays import F16, F64, U64
from curate.base.numeric.spherical import padded
from curate.base.numeric.vectors import normalized
from curate.models.products import products_with
from curate.recipe.relate import OnKept
from curate.recipe.section import Column
from curate.relate.clusters import Chosen, join, rows_of, smallest_hashes
from curate.relate.relation import Asking, EmbeddedRows, Model, Reading, Relation
from curate.run.units import Answer


class NegClipSection(OnKept):
    """s-CLIPLoss: the CLIP score, reduced if the image or the caption also fits other rows (arXiv 2405.19547).

    s-CLIPLoss penalizes captions that fit many images, and images that fit many captions. curate compares each row with
    itself and with a set of reference rows. The reference rows are those with the smallest hashes of seed and uid. Each
    reference row needs about 8 KB of memory.
    """

    example: ClassVar[Any] = {"s_clip": {"temperature": 0.01}}
    gives = (Column("related", "NAME", "float32", "s-CLIPLoss; null if the image or the caption has no embedding."),)

    references: int = Field(8192, examples=[32768], ge=1, le=1 << 17, strict=True)
    """Number of reference rows. curate compares each row with all of them."""
    batches: int = Field(1, examples=[5], ge=1, le=100, strict=True)
    """How many sets of reference rows to use. The score is the mean over these sets."""
    temperature: float = Field(0.01, examples=[0.07], gt=0, le=1, strict=True)
    """The temperature τ that the model was trained with: 0.01 for OpenAI's CLIP, 0.07 for DFN's public model."""


class NegClip(Relation):
    """Computes s-CLIPLoss."""

    key, section, sides, version = "negclip", NegClipSection, ("image", "text"), 2

    def begin(self, asking: Asking, section: NegClipSection) -> list[tuple[int, Answer[U64]]]:
        seeds = [asking.reading.seed_of(["references", batch]) for batch in range(section.batches)]
        return [
            (seed, smallest_hashes(asking, f"references {i}", seed, section.references)) for i, seed in enumerate(seeds)
        ]

    def fit(self, asking: Asking, section: NegClipSection) -> Answer[Model]:
        batches = [rows_of(asking, f"references {i}", *begun) for i, begun in enumerate(asking.begun)]
        return asking.get("save", _save, [seed for seed, _ in asking.begun], *batches)

    def apply(
        self, model: Mapping[str, npt.NDArray[Any]], section: NegClipSection, rows: EmbeddedRows
    ) -> Sequence[pa.Array]:
        scores, (images, texts) = np.zeros(len(rows.rows)), rows.sides
        for batch, seed in enumerate(model["seeds"].tolist()):
            hashes, sides = model[f"hashes{batch}"], model[f"sides{batch}"]
            scores += s_clip_loss(images, texts, rows.hashes(seed), hashes, sides, section.temperature)
        return [pa.array((scores / section.batches).astype(np.float32))]


def _save(reading: Reading, seeds: list[int], *batches: Sequence[Chosen]) -> Model | None:
    if not any(batches):
        return None  # no row has embeddings
    arrays: dict[str, npt.NDArray[Any]] = {"seeds": np.array(seeds, np.int64)}
    for batch, parts in enumerate(batches):
        arrays[f"hashes{batch}"], arrays[f"sides{batch}"] = join(parts)
    return reading.save(**arrays)


def s_clip_loss(images: F16, texts: F16, hashes: U64, references: U64, sides: F16, temperature: float) -> F64:
    """Return the scores of rows against the embeddings `sides` [r, 2, dimension] of reference rows (float64[n]).

    The `hashes` of the rows and the `references` (ascending) show which rows are themselves reference rows.
    """
    their_images, their_texts = (products_with(normalized(sides[:, i]).T, 1 / temperature) for i in (0, 1))
    scores = np.empty(len(images))
    index = np.searchsorted(references, hashes)
    index[references[np.minimum(index, len(references) - 1)] != hashes] = -1
    n = len(references)
    for (part, image_block), (_, text_block) in zip(padded(images, n), padded(texts, n), strict=True):
        some_images, some_texts = normalized(image_block), normalized(text_block)
        cosines = np.einsum("nd,nd->n", some_images.astype(np.float64), some_texts.astype(np.float64))
        itself = np.full(len(some_images), -1)
        itself[: part.stop - part.start] = index[part]
        sums = np.zeros(len(some_images))
        for block, others in ((some_images, their_texts), (some_texts, their_images)):
            sums += others.log_sums(block, cosines / temperature, itself)
        scores[part] = (cosines - temperature / 2 * sums)[: part.stop - part.start]
    return scores
