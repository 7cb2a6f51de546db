"""What second looks at an image by a CLIP model share: the image is changed, encoded, and scored with its caption."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from curate.base import ids
from curate.recipe.measure import OnEmbeddings
from curate.signals.clip import ClipScorer
from curate.signals.on_embeddings import encoder_of
from curate.signals.signal import Built, ImageSignal, Signal, SignalKind, SignalOutput

Look = Callable[[Image.Image], Image.Image]
"""From an image, as it was decoded, to what the model is to see in its place."""


class LookScorer(ClipScorer):
    """Scores the pairs of one part by a look at each image."""

    def __init__(self, look: Look, encoder: Callable[[], Any], captions: pa.Array) -> None:
        super().__init__(encoder, captions)
        self._look = look

    def observe(self, image: Image.Image) -> npt.NDArray[Any]:
        return super().observe(self._look(image))

    def finish(self) -> SignalOutput:
        return SignalOutput(super().finish().columns[:1])


def look_kind(
    key: str, section: type[OnEmbeddings], look: Look, identify: Callable[[], Any] | None = None
) -> SignalKind:
    """Return the kind of signals that score images by a look at them; `identify` says what the look depends on."""

    def build(name: str, options: OnEmbeddings, built: Built) -> Iterator[Signal]:
        encoder = partial(encoder_of, options, built)
        yield ImageSignal(
            name=name,
            columns=(pa.field(name, pa.float32()),),
            key=ids.digest([key, 1, built.signals[options.of].key, built.identities.get(name)]),
            start=lambda captions: LookScorer(look, encoder, captions),
            load=encoder,
        )

    return SignalKind(key, section, lambda *_: identify() if identify else None, build, "named")
