"""Classify images with a classifier fitted to a few labeled images, without training: see `embedding_scores`."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from curate.base.errors import naming
from curate.base.numeric.arrays import F32
from curate.base.numeric.vectors import normalized
from curate.recipe.section import Column, UserPaths
from curate.signals import on_embeddings
from curate.signals.formulas.embedding_scores import Classifier, fit_classifier
from curate.signals.signal import BuildContext, Embeddings, IdentifyContext

_EXAMPLES = {"photo": "examples/photo/*.jpg", "logo": "examples/logo/*.png"}


class Classes(on_embeddings.EmbeddingSection):
    """Assigns images to classes, based on a few example images of each class, without training a model (GDA).

    Each image gets the most likely class. curate fits the classifier to the embeddings of the examples.
    """

    example: ClassVar[Any] = {"kind": {"examples": _EXAMPLES}}
    gives = (
        Column("scores", "NAME", "string", "The most likely class."),
        Column("scores", "NAME_probability", "float32", "Probability of this class, 0 to 1."),
    )

    examples: dict[str, UserPaths] = Field(examples=[_EXAMPLES], min_length=2)
    """Two or more classes, each with example images: image files, folders, or tars of images."""
    prompts: dict[str, str] = Field({}, examples=[{"photo": "a photo", "logo": "a logo"}])
    """One text for each class. An image's score for a class is then 100 times its cosine with the class's text, plus
    `alpha` times the classifier's score."""
    alpha: float = Field(1.0, examples=[0.5], ge=0)
    """Weight of the classifier's scores; see `prompts`."""

    @model_validator(mode="after")
    def _prompts_fit(self) -> "Classes":
        if self.prompts and set(self.prompts) != set(self.examples):
            raise ValueError("prompts: give one for each class of examples, or none")
        return self

    def identify(self, name: str, context: IdentifyContext) -> dict[str, list[str]]:
        where = f"measure.classes.{name}.examples"
        return {key: on_embeddings.exemplar_digests(f"{where}.{key}", paths) for key, paths in self.examples.items()}

    @property
    def settings(self) -> dict[str, Any]:
        return super().settings | {"examples": list(self.examples)}

    def load(self, name: str, built: BuildContext) -> tuple[Classifier, F32 | None]:
        where, encoder = f"measure.classes.{name}.examples", on_embeddings.encoder_of(self, built)
        images, identity = [], {}
        for key, paths in self.examples.items():
            rows, identity[key] = on_embeddings.encode_exemplars(f"{where}.{key}", encoder, paths)
            images.append(rows)
        on_embeddings.check_unchanged(name, identity, built.identities[name])
        labels = np.repeat(np.arange(len(images)), [len(rows) for rows in images])
        with naming(where):
            fitted = fit_classifier(np.concatenate(images), labels, len(images))
        prompts = [self.prompts[key] for key in self.examples] if self.prompts else []
        return fitted, encoder.encode_texts(prompts).embeddings if prompts else None

    def compute(self, embeddings: Embeddings, loaded: tuple[Classifier, F32 | None]) -> Sequence[pa.Array]:
        classifier, prompts = loaded
        tags = classifier.classify(normalized(embeddings.images), prompts, self.alpha)
        return on_embeddings.tag_values(tags, list(self.examples))


KIND = on_embeddings.embedding_kind("classes", Classes)
