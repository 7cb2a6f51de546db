"""Gates on measurements of texts and captions: metadata entries, and similarity to the image."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from curate.base.numeric.arrays import F64, Mask
from curate.captions.gates.gate import Candidates, Gate, Option, Scores


class KeptEntries(Gate):
    """Fails a text that keeps less than `option` of the weight of its caption's metadata entries.

    Passes if the entries have no weight. Matching is exact, so a plural or a synonym loses its entry. A text may lose
    one of many entries.
    """

    key = "entries"
    summary = "it keeps too few of the original's metadata entries; needs `match`"
    relations = frozenset({"rewritten"})
    needs = frozenset({"entries"})
    description = "Minimum share of the original's metadata entries that a caption must keep. Rare entries weigh more."
    option = Option("entries", float, Field(0.4, description=description, examples=[0.6], ge=0, le=1))

    def check(self, candidates: Candidates, option: float) -> Mask:
        entries = candidates.entries
        assert entries is not None
        originals, texts = entries.originals, entries.texts
        assert isinstance(originals, pa.ListArray) and isinstance(texts, pa.ListArray)
        rows, expected = originals.value_parent_indices().to_numpy(), originals.flatten().to_numpy()
        kept = texts.value_parent_indices().to_numpy() << 32 | texts.flatten().to_numpy()
        weights = entries.weights[expected]
        total = np.bincount(rows, weights, minlength=len(originals))
        retained = np.bincount(rows, weights * np.isin(rows << 32 | expected, kept), minlength=len(originals))
        return np.asarray(retained < option * total - 1e-9)


class ClipScore(Gate):
    """Fails a text whose CLIP score is more than its option below the caption's."""

    key = "clip_score"
    summary = "its CLIP score is too far below the original's; needs a model with `embeddings: true`"
    relations = frozenset({"rewritten", "seen"})
    needs = frozenset({"clip"})
    description = "How much lower a caption's CLIP score (a cosine) may be than the original's."
    option = Option("clip_score", float, Field(0.03, description=description, examples=[0.05], ge=0, le=2))

    def check(self, candidates: Candidates, option: float) -> Mask:
        [name] = self.needs
        return falls(getattr(candidates, name), option)


class FClipScore(ClipScore):
    """Fails a text whose F-CLIPScore is more than its option below the caption's."""

    key = "f_clipscore"
    summary = "its words fit the image worse than the original's; needs a model with `embeddings: true, words: true`"
    needs = frozenset({"f_clip"})
    description = "How much lower a caption's F-CLIPScore may be than the original's. The model needs `words: true`."
    option = Option("f_clipscore", float, Field(3e-4, description=description, examples=[0.001], ge=0))


def entry_weights(counts: npt.NDArray[np.integer], rows: int) -> F64:
    """Return entry weights, log(rows / count), from `counts` (integer [entries]) in `rows` rows; 0 counts as 1."""
    return np.maximum(0.0, np.log(max(rows, 1) / np.maximum(np.asarray(counts, np.float64), 1.0)))


def falls(scores: Scores, margin: float) -> Mask:
    """Return which texts score more than `margin` below their captions; false if either score is null or NaN."""
    columns = (column.cast(pa.float64()) for column in (scores.texts, scores.originals))
    texts, originals = (column.to_numpy(zero_copy_only=False) for column in columns)
    return np.asarray(texts < originals - margin)
