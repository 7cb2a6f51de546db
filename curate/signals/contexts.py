"""Tag one factor of an image, such as its background, with prompts (PerceptionCLIP): see `embedding_scores`."""

from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field, model_validator

from curate.base.numeric.arrays import F32
from curate.base.numeric.vectors import normalized
from curate.recipe.section import Column
from curate.signals.formulas.embedding_scores import tag_contexts
from curate.signals.on_embeddings import EmbeddingSection, embedding_kind, encoder_of, tag_values
from curate.signals.signal import BuildContext, Embeddings

_PROMPTS = {"indoors": "a photo taken indoors", "outdoors": "a photo taken outdoors"}


class Context(EmbeddingSection):
    """Tags each image by one factor, such as its background. A prompt describes each tag (PerceptionCLIP).

    Each image gets the most likely tag. If you set `classes`, curate inserts each class into each prompt, and adds up a
    tag's probabilities over all classes.
    """

    example: ClassVar[Any] = {"setting": {"values": _PROMPTS}}
    gives = (
        Column("scores", "NAME", "string", "The most likely tag."),
        Column("scores", "NAME_probability", "float32", "Probability of this tag, 0 to 1."),
    )

    values: dict[str, str] = Field(examples=[_PROMPTS], min_length=2)
    """Two or more tags, each with its prompt. If you set `classes`, each prompt must contain `{}`."""
    classes: tuple[str, ...] = Field((), examples=[["dog", "cat"]])
    """Classes that replace `{}` in the prompts."""
    temperature: float = Field(0.01, examples=[0.02], gt=0)
    """curate divides cosines by this number before the softmax. CLIP was trained with 0.01."""

    @model_validator(mode="after")
    def _prompts_fit(self) -> "Context":
        for tag, prompt in self.values.items():
            if ("{}" in prompt) != bool(self.classes):
                needs = "contains {}, but no classes are given"
                needs = "must contain {}, which a class replaces" if self.classes else needs
                raise ValueError(f"values.{tag}: {prompt!r} {needs}")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        return super().settings | {"values": list(self.values.items())}

    def load(self, name: str, built: BuildContext) -> F32:
        """Return the embeddings of the prompts, by class (or one without a class): [y, z, d]."""
        texts = [p.replace("{}", word) for word in self.classes or ("",) for p in self.values.values()]
        encoded = encoder_of(self, built).encode_texts(texts).embeddings
        return encoded.reshape(-1, len(self.values), encoded.shape[1])

    def compute(self, embeddings: Embeddings, loaded: F32) -> Sequence[pa.Array]:
        tags = tag_contexts(normalized(embeddings.images), loaded, self.temperature)
        return tag_values(tags, list(self.values))


KIND = embedding_kind("contexts", Context)
