"""CLIP scores: how well each caption fits its image, by an open_clip model, and the embeddings.

In: images as they were decoded, and captions. Out, one value a row: `clip_score` float32, the cosine of image and text
embedding; `tokens` int32, how many the model's tokenizer makes of the caption, its begin and end tokens included;
`truncated` bool, whether they were more than the model reads. Null where the row could not be read.

Images are encoded batch by batch while the threads decode the next ones, texts of a part at its end, sorted by length.
Source: Hessel et al., CLIPScore, 2021, whose score is 2.5·max(clip_score, 0): column `clipscore` of view `measured`.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from curate import ids
from curate.models.encoder import Encoder, load_encoder
from curate.numeric.vectors import embedding_column, spread
from curate.recipe.measure import Clip
from curate.signals.signal import F32, Embeddings, Signal, SignalOutput


def signal(options: Clip, identity: dict[str, Any]) -> Signal:
    """The signal of one model, resolved; `identity` is `curate.models.identity.identify` of it."""
    columns = (
        pa.field(f"{options.name}_score", pa.float32()),
        pa.field(f"{options.prefix}tokens", pa.int32()),
        pa.field(f"{options.prefix}truncated", pa.bool_()),
    )
    lasting = {name: value for name, value in identity.items() if name != "device"}
    return Signal(
        name=options.name,
        columns=columns,
        key=ids.digest(["clip", 1, lasting]),
        start=lambda captions: ClipGauge(options, captions),
        ready=lambda: load_encoder(options),
        dimension=identity["dimension"],
    )


def resolved(options: Clip, identity: dict[str, Any]) -> Clip:
    """The options with the device and the precision that `auto` stood for, the same on every worker."""
    return options.model_copy(update={name: identity[name] for name in ("device", "precision")})


def words_signal(options: Clip, key: str) -> Signal:
    """The words that do not fit the image (CLIP4DM), from the embeddings of the model whose signal has this key.

    Columns: `misaligned_words` list of strings, `f_clipscore` float32; see `curate.models.misalignment`.
    """

    def compute(given: Embeddings) -> Sequence[pa.Array]:
        found = load_encoder(options).score_words(given.images, given.captions.to_pylist())
        words = pa.array([scores.misaligned_words for scores in found], pa.list_(pa.string()))
        return words, pa.array([scores.f_clipscore for scores in found], pa.float32())

    columns = (
        pa.field(f"{options.prefix}misaligned_words", pa.list_(pa.string())),
        pa.field(f"{options.prefix}f_clipscore", pa.float32()),
    )
    key = ids.digest(["words", 1, key])
    return Signal(f"{options.name}.words", columns, key, compute=compute, of=options.name)


class ClipGauge:
    """Scores the pairs of one part."""

    def __init__(self, options: Clip, captions: pa.Array) -> None:
        self._options, self._captions = options, captions
        self._rows: list[int] = []
        self._waiting: list[npt.NDArray[Any]] = []
        self._made: list[Any] = []

    @cached_property
    def _encoder(self) -> Encoder:
        return load_encoder(self._options)

    def look(self, image: Image.Image) -> npt.NDArray[Any]:
        """The image as the model takes it."""
        return self._encoder.view(image)

    def put(self, row: int, view: npt.NDArray[Any]) -> None:
        """Encodes a batch when there is one."""
        self._rows.append(row)
        self._waiting.append(view)
        if len(self._waiting) >= self._encoder.batch:
            self._flush()

    def finish(self) -> SignalOutput:
        """Encodes the texts of the rows that came, and scores."""
        self._flush()
        n, rows = len(self._captions), np.array(self._rows, np.int64)
        if not len(rows):
            return SignalOutput(tuple(pa.nulls(n, kind) for kind in (pa.float32(), pa.int32(), pa.bool_())))
        images: F32 = np.concatenate([made.cpu().numpy() for made in self._made])
        texts = self._encoder.encode_texts(self._captions.take(pa.array(rows)).to_pylist())
        scores = np.einsum("ij,ij->i", images, texts.embeddings, dtype=np.float64).astype(np.float32)
        missing = np.ones(n, bool)
        missing[rows] = False
        values = (scores, texts.tokens, texts.truncated)
        columns = [pa.array(spread(value, rows, n), mask=missing) for value in values]
        columns[0] = pa.array(spread(scores, rows, n), mask=missing | np.isnan(spread(scores, rows, n)))
        return SignalOutput(
            tuple(columns), (embedding_column(images, rows, n), embedding_column(texts.embeddings, rows, n))
        )

    def _flush(self) -> None:
        if self._waiting:
            self._made.append(self._encoder.encode_images(self._waiting))
            self._waiting = []
