"""CLIP scores of mirrored images (Kim et al., "The Devil is in the Details", arXiv 2309.15954)."""

from typing import Any, ClassVar

from PIL import ImageOps

from curate.recipe.measure import OnEmbeddings
from curate.recipe.section import Column
from curate.signals.clip import look_kind


class Mirrored(OnEmbeddings):
    """CLIP scores of images that are mirrored left to right (arXiv 2309.15954). The model encodes each image again.

    If a caption is written in its image, the mirrored image gets a lower score, because its text is mirrored too. The
    paper filters by the mean of both scores: `derive: {looks: (clip_score + mirror_score) / 2}`.
    """

    example: ClassVar[Any] = {"mirror_score": {"of": "clip"}}
    gives = (Column("scores", "NAME", "float32", "Cosine of the embeddings of mirrored image and caption."),)


KIND = look_kind("mirrored", Mirrored, ImageOps.mirror, lambda: None)
