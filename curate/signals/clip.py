"""Compute CLIP scores (how well each caption fits its image) and embeddings, with an open_clip model.

It encodes images in batches while threads decode the next ones. At the end of a part, it encodes the part's texts,
sorted by length. Source: Hessel et al., CLIPScore, 2021. The paper's score is 2.5·max(clip_score, 0), which the view
`measured` has as column `clipscore`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image
from pydantic import Field

from curate.base import ids, schema
from curate.base.numeric.arrays import F32
from curate.base.numeric.vectors import embedding_column, spread
from curate.models.clip_model import identify, load_encoder
from curate.models.encoder import Encoded, Encoder
from curate.models.identity import OpenClip
from curate.recipe.measure import OnEmbeddings
from curate.recipe.section import Column
from curate.signals import signal as signals
from curate.signals.on_embeddings import encoder_of
from curate.signals.signal import BuildContext, ImageSignal, ModelSignal, Signal, SignalKind, SignalOutput

_VECTOR = "fixed_size_list<float16>"
_KEPT = "Only if `embeddings: true`. All zeros if the sample is unreadable."

# From a decoded image to the image that the model receives instead.
Look = Callable[[Image.Image], Image.Image]


class Clip(OpenClip):
    """Scores how well captions fit their images, with an open_clip model. Other signals can use its embeddings.

    If you use several models, give each a name. A model with the name `X` adds the columns `X_score`, `X_tokens`, and
    `X_truncated`, and in the table `embeddings` the columns `X_image` and `X_text`. Scores differ from those of
    open_clip's own code by at most 1e-5.

    - **Weights** come from open_clip's hub. Without a network, use `local-dir:FOLDER`, `onnx:FOLDER`, or a file of
      weights; or set `HF_HUB_OFFLINE=1`, which uses the hub's local cache.
    - **ONNX**: `onnx:FOLDER` is a folder that optimum or transformers.js exported. It has `config.json`,
      `preprocessor_config.json`, and `tokenizer.json`. It or its subfolder `onnx/` has either `model.onnx`, or
      `vision_model.onnx` and `text_model.onnx`. Such a model runs without torch, and on GPUs with onnxruntime-gpu. You
      cannot set `pretrained`, `words`, or `context_length`.
    - **Precision**: on a CPU, bf16 is 2.9 times faster than fp32 (ViT-B/32). In the demo's pool, bf16 changes scores by
      at most 0.007. 98.3% of the rows with the best 30% of scores are the same.
    - **More signals**: with `embeddings: true`, you can add a head, context, or axis later without running the model
      again.
    """

    example: ClassVar[Any] = {"model": "ViT-L-14", "pretrained": "openai", "embeddings": True}
    gives = (
        Column("scores", "clip_score", "float32", "Cosine of the embeddings of image and caption."),
        Column("scores", "tokens", "int32", "Number of tokens in the caption, including start and end tokens."),
        Column("scores", "truncated", "bool", "Whether the caption is longer than the model's context."),
        Column("scores", "misaligned_words", "list<string>", "The caption's misaligned words. Only if `words: true`."),
        Column("scores", "f_clipscore", "float32", "F-CLIPScore. The best value is 0. Only if `words: true`."),
        Column("embeddings", "image", _VECTOR, f"Embedding of the image. {_KEPT}"),
        Column("embeddings", "text", _VECTOR, f"Embedding of the caption. {_KEPT}"),
    )

    embeddings: bool = Field(False, examples=[True], strict=True)
    """Keep the embeddings in the table `embeddings`. `relate`, deduplication by embedding, and some gates need them."""
    words: bool = Field(False, examples=[True], strict=True)
    """Find words that do not match the image (CLIP4DM), for the columns `misaligned_words` and `f_clipscore`."""


def _key(identity: dict[str, Any]) -> str:
    """Return the cache key of a model's scores. It omits the device and the name of a user's file of weights."""
    fields = {field: value for field, value in identity.items() if field != "device"}
    if identity["pretrained"] == "file":
        fields["weights"] = {"sha256": identity["weights"]["sha256"]}
    return ids.digest(["clip", 1, fields])


def _build(name: str, options: Clip, built: BuildContext) -> Iterator[Signal]:
    identity = built.identities[name]
    # Replace `auto` by the device and precision that were chosen at the start, so that all workers use the same.
    resolved = options.model_copy(update={field: identity[field] for field in ("device", "precision")})

    def encoder(is_anywhere: bool = False) -> Encoder:
        return load_encoder(options.model_copy(update={"device": "auto"}) if is_anywhere else resolved, identity)

    prefix = options.prefix
    types: Any = {f"{name}_score": pa.float32(), f"{prefix}tokens": pa.int32(), f"{prefix}truncated": pa.bool_()}
    columns, start, dimension = tuple(pa.schema(types)), partial(ClipScorer, encoder), identity["dimension"]
    score = ModelSignal(name, columns, _key(identity), start=start, load=encoder, dimension=dimension, encoder=encoder)
    yield score
    if options.words:
        yield _words_signal(options, score)


def _words_signal(options: Clip, score: ModelSignal) -> signals.EmbeddingSignal:
    """Return the signal that finds the words of a caption that do not fit its image, and its F-CLIPScore.

    It reuses the image embeddings from `score`, and encodes the captions again with the same model: a word's score is
    how much the model's attention to it changes the cosine (`curate.models.misalignment`).
    """

    def compute(embeddings: signals.Embeddings) -> Sequence[pa.Array]:
        captions: list[Any] = embeddings.captions.to_pylist()  # no nulls: rows with embeddings have a caption
        per_row = score.encoder(False).score_words(embeddings.images, captions)
        words = pa.array([scores.misaligned_words for scores in per_row], pa.list_(pa.string()))
        return words, pa.array([scores.f_clipscore for scores in per_row], pa.float32())

    fields = {f"{options.prefix}misaligned_words": pa.list_(pa.string()), f"{options.prefix}f_clipscore": pa.float32()}
    columns, key = tuple(pa.schema(fields)), ids.digest(["words", 1, score.key])
    return signals.EmbeddingSignal(f"{score.name}.words", columns, key, compute=compute, of=score.name)


class ClipScorer:
    """Scores the pairs of one part."""

    def __init__(self, encoder: Callable[[], Encoder], captions: pa.Array, look: Look = lambda image: image) -> None:
        self._load, self._captions, self._look = encoder, captions, look
        self._rows: list[int] = []
        self._waiting: list[npt.NDArray[Any]] = []
        self._encoded: list[Encoded] = []

    @cached_property
    def _encoder(self) -> Encoder:
        return self._load()

    def observe(self, image: Image.Image) -> npt.NDArray[Any]:
        return self._encoder.view(self._look(image))

    def add(self, row: int, observation: npt.NDArray[Any]) -> None:
        self._rows.append(row)
        self._waiting.append(observation)
        if len(self._waiting) >= self._encoder.batch:
            self._flush()

    def finish(self) -> SignalOutput:
        self._flush()
        n, rows = len(self._captions), np.array(self._rows, np.int64)
        if not len(rows):
            return SignalOutput(tuple(pa.nulls(n, kind) for kind in (pa.float32(), pa.int32(), pa.bool_())))
        images: F32 = np.concatenate([wait() for wait in self._encoded])
        captions = [caption for caption in self._captions.take(rows).to_pylist() if caption is not None]  # none is
        texts = self._encoder.encode_texts(captions)
        scores = np.einsum("ij,ij->i", images, texts.embeddings, dtype=np.float64).astype(np.float32)
        missing = np.ones(n, bool)
        missing[rows] = False
        values = (scores, texts.tokens, texts.truncated)
        columns = tuple(pa.array(spread(v, rows, n), mask=missing, from_pandas=True) for v in values)  # NaN is null
        return SignalOutput(columns, (embedding_column(images, rows, n), embedding_column(texts.embeddings, rows, n)))

    def _flush(self) -> None:
        if self._waiting:
            self._encoded.append(self._encoder.start_images(self._waiting))
            self._waiting = []


class _LookScorer(ClipScorer):
    def finish(self) -> SignalOutput:
        return SignalOutput(super().finish().columns[:1])


def look_kind(key: str, section: type[OnEmbeddings], look: Look, identify: Callable[[], Any]) -> SignalKind:
    """Return a kind of signal that scores each image after `look` has changed it, such as mirrored it.

    `identify` returns everything that affects the change.
    """

    def build(name: str, options: OnEmbeddings, built: BuildContext) -> Iterator[Signal]:
        encoder = partial(encoder_of, options, built)
        start = partial(_LookScorer, encoder, look=look)
        digest = ids.digest([key, 1, built.signals[options.of].key, built.identities.get(name)])
        yield ImageSignal(name, schema.named_fields(section.gives, name), digest, start=start, load=encoder)

    return SignalKind(key, section, lambda *_: identify(), build, "named")


KIND = SignalKind("clip", Clip, lambda name, options, context: identify(options, context.is_local), _build, "listed")
