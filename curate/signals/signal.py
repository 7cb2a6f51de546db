"""The interface that every kind of signal implements: its section of a recipe, its identity, and how it is measured.

A signal adds columns to `scores`. Its class says what it takes its values from:

    Signal                name, columns, key, load
    ├── ImageSignal       images, while a part of the input is read: each is observed once, right after it was decoded,
    │   │                 in one of several threads, and what was observed is added in order
    │   └── ModelSignal   images too, by a model that gives embeddings
    ├── TextSignal        captions
    ├── EmbeddingSignal   embeddings, those of a ModelSignal or precomputed ones, without images or the model
    └── PrecomputedSignal embeddings that the pool supplies; it has no column in `scores`

The folder's README has whole ones, of images and of captions, each with a file of weights.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from curate.base.numeric.arrays import F32
from curate.recipe.measure import Form
from curate.recipe.section import Section

if TYPE_CHECKING:
    from curate.models.encoder import Encoder


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of consecutive rows of a unit by one model, as table `embeddings` holds them.

    Attributes:
        rows: int64 [n], which of these rows, from 0, have some: those that could be read.
        images: float32 [n, dimension], of unit length up to the rounding of float16; zero where a row has none.
        texts: float32 [n, dimension], likewise.
        captions: string [n].
    """

    rows: npt.NDArray[np.int64]
    images: F32
    texts: F32
    captions: pa.Array

    def side(self, side: Literal["image", "text"]) -> F32:
        """Return the image's embeddings, or the text's."""
        return self.images if side == "image" else self.texts


@dataclass(frozen=True)
class SignalOutput:
    """What an image signal gives for one part: its columns, one value a row; a model gives embeddings too.

    `errors` (string, null where there was none) are for signals of other packages, and filled in by
    `curate.signals.foreign`.
    """

    columns: tuple[pa.Array, ...]
    embeddings: tuple[pa.Array, pa.Array] | None = None
    errors: pa.Array | None = None


class Collector(Protocol):
    """An image signal at work on one part."""

    def observe(self, image: Image.Image) -> Any:
        """Return what is needed of an image, as it was decoded; called in several threads at once.

        Raises:
            ValueError, OSError, MemoryError: the image cannot be used; its row is null.
        """

    def add(self, row: int, observation: Any) -> None:
        """Take a row's observation; rows come in ascending order, those that could not be read do not come."""

    def finish(self) -> SignalOutput:
        """Return the columns, null in rows that did not come."""


@dataclass(frozen=True)
class Signal:
    """What all signals have.

    Attributes:
        name: unique among the recipe's signals.
        columns: what it adds to `scores`.
        key: digest of all that its values depend on but the samples.
        load: loads what all parts share, once per process, so that what is wrong with it is reported before the run.
        package: that it comes from, with its version, filled in by `curate.signals.foreign`, by which its outputs have
            `errors`; None for curate's own.
    """

    name: str
    columns: tuple[pa.Field, ...]
    key: str
    load: Callable[[], Any] | None = field(default=None, kw_only=True)
    package: str | None = field(default=None, kw_only=True)

    @property
    def label(self) -> str:
        """What messages call it."""
        return label(self.name, self.package)


@dataclass(frozen=True, kw_only=True)
class ImageSignal(Signal):
    """A signal of images.

    Attributes:
        start: from a part's captions (string, null where the row could not be read) to what observes its images.
    """

    start: Callable[[pa.Array], Collector]


@dataclass(frozen=True, kw_only=True)
class ModelSignal(ImageSignal):
    """A signal of images by a model, which gives embeddings too.

    Attributes:
        dimension: of the embeddings.
        encoder: returns the model, loaded once per process, on the device of the run, or, where its argument is true,
            on the best one of this machine.
    """

    dimension: int
    encoder: "Callable[[bool], Encoder]"


@dataclass(frozen=True, kw_only=True)
class TextSignal(Signal):
    """A signal of captions.

    Attributes:
        compute: from captions (string, null where the row could not be read) to the columns' values.
        sample_columns: those of table `samples` that it fills; `compute` gives their values first.
    """

    compute: Callable[[pa.Array], Sequence[pa.Array]]
    sample_columns: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EmbeddingSignal(Signal):
    """A signal of embeddings.

    Attributes:
        compute: from embeddings to the columns' values in the order of their rows.
        of: whose embeddings these are, by name.
    """

    compute: Callable[[Embeddings], Sequence[pa.Array]]
    of: str


@dataclass(frozen=True, kw_only=True)
class PrecomputedSignal(Signal):
    """Embeddings that the pool supplies.

    Attributes:
        supplied: the names of the columns or arrays of the image's and the text's embeddings.
        dimension: of the embeddings.
    """

    supplied: tuple[str, str]
    dimension: int


Embedder = ModelSignal | PrecomputedSignal
"""The signals that give embeddings."""


def filled_columns(signals: Iterable[Signal]) -> list[str]:
    """Return the columns of table `samples` that signals fill."""
    return [column for signal in signals if isinstance(signal, TextSignal) for column in signal.sample_columns]


def label(name: str, package: str | None) -> str:
    """Return what messages call a signal, of a package or curate's own."""
    return f"signal {name!r}" if package is None else f"signal {name!r} of package {package}"


@dataclass(frozen=True)
class Known:
    """What identifying a signal may go by.

    Attributes:
        identities: of the signals before, by name.
        supplied: the dimensions of the embeddings that the pool supplies, by name.
        is_local: whether signals are measured on this machine.
    """

    identities: Mapping[str, Any]
    supplied: Mapping[str, int]
    is_local: bool


@dataclass(frozen=True)
class Built:
    """What building a signal may go by: the identities of all signals, and the signals before, both by name."""

    identities: Mapping[str, Any]
    signals: Mapping[str, Signal]


@dataclass(frozen=True)
class SignalKind:
    """One kind of signal.

    Attributes:
        key: its key in a recipe's section `measure`, unique among kinds.
        section: what a recipe says of one signal of this kind.
        identify: from a signal's name and section to what its values depend on beyond the recipe (package, model,
            digests of files), as plain JSON data; None where there is nothing. Called once, where the run is started.
            Raises RecipeError.
        build: from a signal's name and section to the signals that it gives; called in every process, so it loads
            nothing.
        form: how a recipe asks for signals of this kind.
    """

    key: str
    section: type[Section]
    identify: Callable[[str, Any, Known], Any]
    build: Callable[[str, Any, Built], Iterable[Signal]]
    form: Form = "one"
