"""The interface of a CLIP model that is loaded, whatever runs it: images and texts to L2-normalised embeddings.

Texts are sorted by length and cut to the longest of their batch, which a causal text tower that pools at the end token
cannot notice. Batches and devices change embeddings by rounding only.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from curate.base.numeric.arrays import F32, I64
from curate.models.hugging_face import free_memory, is_memory
from curate.models.misalignment import WordScores

_TOKENS_AT_ONCE = 1024  # texts that are turned into tokens at a time

Side = Literal["images", "texts"]
Encoded = Callable[[], F32]  # waits for embeddings [n, dimension], which a GPU may still be at work on


class Texts(NamedTuple):
    """Encoded texts: embeddings float32 [n, dimension], tokens int32 [n] before truncation, truncated bool [n]."""

    embeddings: F32
    tokens: npt.NDArray[np.int32]
    truncated: npt.NDArray[np.bool_]


class Tokens(NamedTuple):
    """Texts as a model reads them."""

    ids: I64  # [n, context]: cut, and padded
    counts: I64  # [n]: how many they are before they are cut, those of the begin and the end included


def pad(lists: Sequence[Sequence[int]], context: int) -> Tokens:
    """Return lists of token ids cut to `context`, their last id kept as the end, and padded with zeros."""
    ids = np.zeros((len(lists), context), np.int64)
    for row, tokens in zip(ids, lists, strict=True):
        kept = tokens if len(tokens) <= context else [*tokens[: context - 1], tokens[-1]]
        row[: len(kept)] = kept
    counts = np.array([len(tokens) for tokens in lists], np.int64)
    return Tokens(ids, counts)


@dataclass
class Encoder(ABC):
    """A model, loaded on a device, and on further ones of its kind while it is in use there; shared by threads."""

    dimension: int  # of the embeddings
    # From a PIL image, of any mode, to what `encode_images` takes: uint8 [height, width, 3], or float32
    # [3, height, width] where the model's own transform has steps that pixels cannot wait for.
    view: Callable[[Image.Image], npt.NDArray[Any]]
    batch: int  # images or texts a forward pass; halved where memory runs out
    _is_cut: bool  # texts may be of any length, up to the context

    @abstractmethod
    def _tokenize(self, texts: list[str]) -> Tokens: ...

    @abstractmethod
    def _start(self, side: Side, items: Any) -> Encoded:
        """Encode views, or token ids [n, length], at most a batch, on a free device."""

    def start_images(self, views: Sequence[npt.NDArray[Any]]) -> Encoded:
        """Encode views on a free device, and return what waits for their embeddings."""
        return self._start("images", views)

    def encode_images(self, views: Sequence[npt.NDArray[Any]]) -> F32:
        return self.start_images(views)()

    def encode_texts(self, texts: Sequence[str]) -> Texts:
        """Return embeddings of texts, in order; see `Texts`."""
        embeddings = np.zeros((len(texts), self.dimension), np.float32)
        counts = np.zeros(len(texts), np.int32)
        truncated = np.zeros(len(texts), bool)
        for first in range(0, len(texts), _TOKENS_AT_ONCE):
            part = slice(first, first + _TOKENS_AT_ONCE)
            ids, counts[part] = self._tokenize(list(texts[part]))
            truncated[part] = counts[part] > ids.shape[1]
            lengths = np.minimum(counts[part], ids.shape[1]) if self._is_cut else np.full(len(ids), ids.shape[1])
            order = waiting = np.argsort(-lengths, kind="stable")
            encoded: list[Encoded] = []
            while len(waiting):
                rows, waiting = waiting[: self.batch], waiting[self.batch :]
                encoded.append(self._start("texts", ids[rows, : lengths[rows[0]]]))
            embeddings[first + order] = np.concatenate([wait() for wait in encoded])
        return Texts(embeddings, counts, truncated)

    def score_words(self, images: F32, captions: Sequence[str]) -> list[WordScores]:
        """Return how well each word of each caption fits its image, by the images' embeddings [n, dimension]."""
        raise NotImplementedError("of models of open_clip, as their sections check")

    def _in_halves(self, encode: Callable[[Any], Any], items: Any) -> list[Any]:
        """Return what is made of the items, at once; where memory runs out in halves, and half a batch from then on."""
        try:
            return [encode(items)]
        except Exception as error:  # torch's or onnxruntime's
            if not is_memory(error) or len(items) < 2:
                raise
        free_memory()
        half = len(items) // 2
        self.batch = max(1, min(self.batch, half))
        return [*self._in_halves(encode, items[:half]), *self._in_halves(encode, items[half:])]
