"""CLIP scores of mirrored images (Kim et al., "The Devil is in the Details", arXiv 2309.15954)."""

from typing import Any, ClassVar

from PIL import ImageOps

from curate.recipe.measure import OnEmbeddings
from curate.recipe.section import Column
from curate.signals.clip import look_kind


class Mirrored(OnEmbeddings):
    """Computes the CLIP score of each image, mirrored left to right (arXiv 2309.15954). The model runs once more.

    If an image shows its caption as text, the mirrored image gets a lower score, because the text is mirrored too. The
    paper filters by the mean of both scores: `derive: {looks: (clip_score + mirror_score) / 2}`.
    """

    example: ClassVar[Any] = {"mirror_score": {"of": "clip"}}
    gives = (Column("scores", "NAME", "float32", "Cosine of the embeddings of the mirrored image and the caption."),)


KIND = look_kind("mirrored", Mirrored, ImageOps.mirror, lambda: None)
