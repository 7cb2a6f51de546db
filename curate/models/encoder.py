"""The interface of a loaded CLIP model: it turns images and texts into L2-normalized embeddings.

Texts are sorted by length and padded only to the longest of their batch, which does not affect a causal text tower that
pools at the end token. Batches and devices change embeddings only by rounding.
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

_TOKENS_AT_ONCE = 1024  # texts per call of the tokenizer

Side = Literal["images", "texts"]
Encoded = Callable[[], F32]  # waits for embeddings [n, dimension], which a GPU may still be computing


class Texts(NamedTuple):
    """Encoded texts: embeddings float32 [n, dimension], tokens int32 [n] before truncation, truncated bool [n]."""

    embeddings: F32
    tokens: npt.NDArray[np.int32]
    truncated: npt.NDArray[np.bool_]


class Tokens(NamedTuple):
    """Tokenized texts."""

    ids: I64  # [n, context]: truncated and padded
    counts: I64  # [n]: number of tokens before truncation, including begin and end


def pad(lists: Sequence[Sequence[int]], context: int) -> Tokens:
    """Return lists of token ids, padded with zeros to `context`. Longer lists are truncated, but keep their last id."""
    ids = np.zeros((len(lists), context), np.int64)
    for row, tokens in zip(ids, lists, strict=True):
        kept = tokens if len(tokens) <= context else [*tokens[: context - 1], tokens[-1]]
        row[: len(kept)] = kept
    counts = np.array([len(tokens) for tokens in lists], np.int64)
    return Tokens(ids, counts)


@dataclass
class Encoder(ABC):
    """A loaded model, which threads share. While its device is busy, it is also loaded on others of the same kind."""

    dimension: int  # of the embeddings
    # Turns a PIL image of any mode into the input of `encode_images`: uint8 [height, width, 3], or float32
    # [3, height, width] if the model's own transform cannot be postponed to the device.
    view: Callable[[Image.Image], npt.NDArray[Any]]
    batch: int  # images or texts per forward pass; halved if memory runs out
    _is_cut: bool  # the model accepts texts of any length up to the context

    @abstractmethod
    def _tokenize(self, texts: list[str]) -> Tokens: ...

    @abstractmethod
    def _start(self, side: Side, items: Any) -> Encoded:
        """Encode views, or token ids [n, length], at most a batch, on a free device."""

    def start_images(self, views: Sequence[npt.NDArray[Any]]) -> Encoded:
        """Start to encode views on a free device, and return a function that waits for their embeddings."""
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
        """Return how well each word of each caption fits its image, given the images' embeddings [n, dimension]."""
        raise NotImplementedError("only open_clip's models score words, and sections check that")

    def _in_halves(self, encode: Callable[[Any], Any], items: Any) -> list[Any]:
        """Process the items in one batch; if memory runs out, process halves, and halve all later batches."""
        try:
            return [encode(items)]
        except Exception as error:  # torch's or onnxruntime's
            if not is_memory(error) or len(items) < 2:
                raise
        free_memory()
        half = len(items) // 2
        self.batch = max(1, min(self.batch, half))
        return [*self._in_halves(encode, items[:half]), *self._in_halves(encode, items[half:])]
