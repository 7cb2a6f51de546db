"""Find images that fit any text (CLIPMasterPrints): see `curate.signals.formulas.embedding_scores`."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.base.errors import RecipeError
from curate.base.numeric.arrays import F32
from curate.base.numeric.vectors import embedding_matrix, normalized
from curate.recipe.measure import column_prefix
from curate.recipe.section import Column, UserPath
from curate.signals.formulas.embedding_scores import fooling_score, mean_shift
from curate.signals.on_embeddings import EmbeddingSection, embedding_kind, encoder_of
from curate.signals.signal import BuildContext, Embeddings, IdentifyContext
from curate.store.facts import read_facts
from curate.store.store import RunStore


class Fooling(EmbeddingSection):
    """Finds images that fit any text (CLIPMasterPrints): images whose cosines with unrelated prompts are all large.

    With `shift`, curate first moves the embeddings of images and prompts toward each other: by a quarter of the
    difference between the mean image embedding and the mean text embedding of the run that `shift` names. After
    this shift, an image that fits almost any text fits the prompts much less.
    """

    example: ClassVar[Any] = {"prompts": ["a dog", "a plate of food", "a city at night"]}
    gives = (Column("scores", "fooling", "float32", "Smallest cosine of image and prompt. Large values are suspect."),)

    files = ("shift",)

    prompts: tuple[str, ...] = Field(examples=[["a dog", "a plate of food", "a city at night"]], min_length=2)
    """Two or more texts that have nothing in common. The paper uses 25 to 100."""
    shift: UserPath | None = Field(None, examples=["run1"])
    """A finished run that kept embeddings of this model. curate uses their means to shift embeddings (see below). null:
    do not shift."""

    def identify(self, name: str, context: IdentifyContext) -> Any:
        """Return the identity of the embeddings of run `shift`, if any. Raises RecipeError if it has none."""
        if self.shift is None:
            return None
        model, store = context.identities[self.of], RunStore(self.shift)
        where = f"measure.fooling.shift: {self.shift}"
        if not store.exists("_SUCCESS"):
            raise RecipeError(f"{where} is not a finished run; accepted: the folder of one with embeddings: true")
        run = read_facts(store)
        models = [other for other in run.models.values() if isinstance(other, dict) and "weights" in other]
        digests = [other["weights"]["sha256"] for other in models]
        if "embeddings" not in run.keys or model["weights"]["sha256"] not in digests:
            raise RecipeError(f"{where} has no embeddings of {model['model']} with the weights that this recipe uses")
        return run.keys["embeddings"]

    def load(self, name: str, built: BuildContext) -> tuple[F32, F32 | None]:
        prompts = encoder_of(self, built).encode_texts(self.prompts).embeddings
        return prompts, None if self.shift is None else run_shift(self.shift, column_prefix(self.of))

    def compute(self, embeddings: Embeddings, loaded: tuple[F32, F32 | None]) -> Sequence[pa.Array]:
        return [pa.array(fooling_score(normalized(embeddings.images), *loaded))]


def run_shift(run: str, prefix: str) -> F32:
    """Return the mean shift g over a finished run's embeddings by one model. Its columns begin with `prefix`."""
    store = RunStore(run)
    sums: list[Any] = [0.0, 0.0]
    count = 0
    for path in store.files("tables/embeddings"):
        for side, column in enumerate(store.read_parquet(path, [f"{prefix}image", f"{prefix}text"]).columns):
            rows = embedding_matrix(column).astype(np.float64)
            sums[side] = sums[side] + rows.sum(axis=0)
        count += int(rows.any(axis=1).sum())
    images, texts = ((total / count)[None].astype(np.float32) for total in sums)
    return mean_shift(images, texts)


KIND = embedding_kind("fooling", Fooling, form="one")
