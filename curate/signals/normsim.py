"""How near an image is to the nearest of target images (NormSim): see `curate.signals.formulas.embedding_scores`."""

from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.models.products import products_with
from curate.recipe.section import Column
from curate.signals.formulas.embedding_scores import alignment, covariance, largest_cosine
from curate.signals.on_embeddings import Method, WithTargets, embedding_kind, identify_targets, load_targets
from curate.signals.signal import Built


class NormSim(WithTargets):
    """How near an image is to target images, those of ImageNet say, by name (NormSim, arXiv 2405.19547).

    With `norm: max` it is the largest |cosine| with any of them; with `norm: 2` the root of the sum of all squares, in
    the order of `vas`.
    """

    example: ClassVar[Any] = {"imagenet": {"targets": "imagenet.npy"}}
    gives = (Column("scores", "NAME", "float32", "The norm of its cosines with the targets."),)

    norm: Literal["max", "2"] = Field("max", examples=["2"])
    """`max`, as the paper recommends, or `2`."""


def _method(name: str, options: NormSim, built: Built) -> Method:
    def load() -> Any:
        targets = load_targets("normsim", name, options, built)
        return products_with(targets.T) if options.norm == "max" else covariance(targets) * len(targets)

    def compute(images: Any, loaded: Any) -> Any:
        return largest_cosine(images, loaded) if options.norm == "max" else np.sqrt(alignment(images, loaded))

    return Method(
        settings={"norm": options.norm},
        load=load,
        compute=lambda embeddings, loaded: [pa.array(compute(embeddings.images, loaded))],
    )


KIND = embedding_kind("normsim", NormSim, _method, partial(identify_targets, "normsim"))
