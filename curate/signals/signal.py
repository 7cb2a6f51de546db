"""What a signal is: the shape that every file of this folder which adds columns to `scores` has. See `signals`.

There are four kinds. Signals of images (`start`): while a part is read, a gauge looks at each image once, right after it
was decoded, in one of several threads, and is then fed what it took from it, in order. Signals of captions (`read`).
Signals of embeddings (`compute`): from those that a model of `measure.clip` gave, or the pool brings, without images or
the model. And what the pool brings itself (`bring`), embeddings too, which have no column in `scores`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of a unit by one model, as table `embeddings` holds them.

    Attributes:
        rows: int64 [n], the rows that have some: those that could be read.
        images: float32 [n, dimension], of unit length up to the rounding of float16; zero where a row has none.
        texts: float32 [n, dimension], likewise.
        captions: string [n].
    """

    rows: npt.NDArray[np.int64]
    images: F32
    texts: F32
    captions: pa.Array


@dataclass(frozen=True)
class SignalOutput:
    """What a gauge found in one part: its signal's columns, one value a row; a model gives embeddings too."""

    columns: tuple[pa.Array, ...]
    embeddings: tuple[pa.Array, pa.Array] | None = None


class Gauge(Protocol):
    """An image signal at work on one part."""

    def look(self, image: Image.Image) -> Any:
        """What is needed of the image, taken in one of several threads; the image is as it was decoded."""

    def put(self, row: int, view: Any) -> None:
        """Takes a row's view; rows come in ascending order, those that could not be read do not come."""

    def finish(self) -> SignalOutput:
        """The columns, null in rows that did not come."""


@dataclass(frozen=True)
class Signal:
    """One signal; one of `start`, `read`, `compute` and `bring` is there.

    Attributes:
        name: unique among the recipe's signals.
        columns: what it adds to `scores`.
        key: digest of what its values depend on.
        start: from a part's captions (string) to a gauge.
        read: from captions (string, null where the row could not be read) to the columns' values.
        compute: from embeddings to the columns' values in the order of their rows.
        of: whose embeddings `compute` needs, by name.
        bring: the columns or arrays of the image's and the text's embeddings.
        ready: makes what all parts share, once per process, as measuring would; so what is wrong with it is told before.
        dimension: of the embeddings that it gives; None for other signals.
    """

    name: str
    columns: tuple[pa.Field, ...]
    key: str
    start: Callable[[pa.Array], Gauge] | None = None
    read: Callable[[pa.Array], Sequence[pa.Array]] | None = None
    compute: Callable[[Embeddings], Sequence[pa.Array]] | None = None
    bring: tuple[str, str] | None = None
    ready: Callable[[], Any] | None = None
    of: str | None = None
    dimension: int | None = None
