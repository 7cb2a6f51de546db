"""The interface that every kind of signal implements: its section of a recipe, its identity, and how it is measured.

A signal adds columns to `scores`. Its class says what it takes its values from:

    Signal                name, columns, key, load
    ├── ImageSignal       images, while a part of the input is read: each is observed once, right after it was decoded,
    │   │                 in one of several threads, and what was observed is added in order
    │   └── ModelSignal   images too, by a model that gives embeddings
    ├── TextSignal        captions
    ├── EmbeddingSignal   embeddings, those of a ModelSignal or precomputed ones, without images or the model
    └── PrecomputedSignal embeddings that the pool supplies; it has no column in `scores`

`nsfw`, `text_area` and most of packages observe each image once: see `image_signal`. The folder's README has examples.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from curate.base import ids
from curate.base.errors import RunError
from curate.base.numeric.arrays import F32
from curate.recipe.measure import Form
from curate.recipe.section import Section

if TYPE_CHECKING:
    from curate.models.encoder import Encoder

Column: TypeAlias = "pa.ChunkedArray | pa.Array"


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of consecutive rows of a unit by one model, as table `embeddings` holds them."""

    rows: npt.NDArray[np.int64]  # [n], which of these rows, from 0, have some: those that could be read
    images: F32  # [n, dimension], of unit length up to the rounding of float16; zero where a row has none
    texts: F32  # [n, dimension], likewise
    captions: pa.Array  # string [n]

    def side(self, side: Literal["image", "text"]) -> F32:
        return self.images if side == "image" else self.texts


@dataclass(frozen=True)
class SignalOutput:
    """What an image signal gives for one part: its columns, one value a row; a model gives embeddings too."""

    columns: tuple[pa.Array, ...]
    embeddings: tuple[pa.Array, pa.Array] | None = None


class Collector(Protocol):
    """An image signal at work on one part."""

    def observe(self, image: Image.Image) -> Any:
        """Return what is needed of an image, as it was decoded; called in several threads at once.

        Raises ValueError, TypeError, OSError or MemoryError where the image cannot be used; its row is null.
        """

    def add(self, row: int, observation: Any) -> None:
        """Take a row's observation; rows come in ascending order, those that could not be read do not come."""

    def finish(self) -> SignalOutput:
        """Return the columns, null in rows that did not come."""


@dataclass(frozen=True)
class Signal:
    """What all signals have."""

    name: str  # unique among the recipe's signals
    columns: tuple[pa.Field, ...]  # what it adds to `scores`
    key: str  # digest of all that its values depend on but the samples
    # Loads what all parts share, once per process, so that what is wrong with it is reported before the run
    load: Callable[[], Any] | None = field(default=None, kw_only=True)
    # That it comes from, with its version, filled in by the registry; None: curate's own
    package: str | None = field(default=None, kw_only=True)

    @property
    def label(self) -> str:
        return f"signal {self.name!r}" + (f" of package {self.package}" if self.package else "")

    def by_name(self, columns: Sequence[Column], rows: int, fields: Iterable[pa.Field] = ()) -> dict[str, Column]:
        """Return what the signal gave, of the types of `fields`, by default its columns, by their names.

        Raises RunError, which names it, where they are another number of columns or rows.
        """
        schema = pa.schema(fields or self.columns)
        if [len(column) for column in columns] != [rows] * len(schema):
            lengths = ", ".join(f"{len(column):,}" for column in columns) or "none"
            accepted = f"{', '.join(schema.names)}, of {rows:,} each"
            raise RunError(f"{self.label}: gave columns of these numbers of rows: {lengths}; accepted: {accepted}")
        return {field.name: column.cast(field.type) for field, column in zip(schema, columns, strict=True)}


@dataclass(frozen=True, kw_only=True)
class ImageSignal(Signal):
    """A signal of images."""

    # From a part's captions (string, null where the row could not be read) to what observes its images
    start: Callable[[pa.Array], Collector]


@dataclass(frozen=True, kw_only=True)
class ModelSignal(ImageSignal):
    """A signal of images by a model, which gives embeddings too."""

    dimension: int  # of the embeddings
    # Returns the model, loaded once per process: on the run's device, or, where its argument is true, on the best one
    encoder: "Callable[[bool], Encoder]"


@dataclass(frozen=True, kw_only=True)
class TextSignal(Signal):
    """A signal of captions."""

    # From captions (string, null where the row could not be read) to the columns' values
    compute: Callable[[pa.Array], Sequence[pa.Array]]
    sample_columns: tuple[str, ...] = ()  # of table `samples` that it fills; `compute` gives their values first


@dataclass(frozen=True, kw_only=True)
class EmbeddingSignal(Signal):
    """A signal of embeddings."""

    compute: Callable[[Embeddings], Sequence[pa.Array]]  # to the columns' values in the order of their rows
    of: str  # whose embeddings these are, by name


@dataclass(frozen=True, kw_only=True)
class PrecomputedSignal(Signal):
    """Embeddings that the pool supplies."""

    supplied: tuple[str, str]  # the names of the columns or arrays of the image's and the text's embeddings
    dimension: int  # of the embeddings


# The signals that give embeddings.
Embedder = ModelSignal | PrecomputedSignal


def filled_columns(signals: Iterable[Signal]) -> list[str]:
    """Return the columns of table `samples` that signals fill."""
    return [column for signal in signals if isinstance(signal, TextSignal) for column in signal.sample_columns]


@dataclass(frozen=True)
class IdentifyContext:
    """What identifying a signal may go by."""

    identities: Mapping[str, Any]  # of the signals before, by name
    supplied: Mapping[str, int]  # the dimensions of the embeddings that the pool supplies, by name
    is_local: bool  # whether signals are measured on this machine


@dataclass(frozen=True)
class BuildContext:
    """What building a signal may go by: the identities of all signals, and the signals before, both by name."""

    identities: Mapping[str, Any]
    signals: Mapping[str, Signal]


@dataclass(frozen=True)
class SignalKind:
    """One kind of signal."""

    key: str  # in a recipe's section `measure`, unique among kinds
    section: type[Section]  # what a recipe says of one signal of this kind
    # From a signal's name and section to what its values depend on beyond the recipe (package, model, digests of
    # files), as plain JSON data; None: nothing. Called once, where the run is started. Raises RecipeError
    identify: Callable[[str, Any, IdentifyContext], Any]
    # From a signal's name and section to the signals that it gives; called in every process, so it loads nothing
    build: Callable[[str, Any, BuildContext], Iterable[Signal]]
    form: Form = "one"  # how a recipe asks for signals of this kind


class ImageObserver(Protocol):
    """What observes each image once, for `image_signal`; without state that threads could not share."""

    columns: pa.Schema

    def observe(self, image: Any) -> Any:
        """Return what the image tells; see `Collector.observe`."""

    def finish(self, observed: Sequence[Any], captions: Sequence[str | None]) -> Sequence[pa.Array]:
        """Return a part's columns, of what `observe` gave for each row, None where it could not be read or used."""


def image_signal(
    name: str, observer: ImageObserver, identity: Any, load: Callable[[], Any] | None = None
) -> ImageSignal:
    """Return the signal of an observer, by its name as `build` gets it; `identity` is what its values depend on."""
    key = ids.digest([name, 1, identity])
    return ImageSignal(name, tuple(observer.columns), key, start=lambda captions: _Part(observer, captions), load=load)


def observer_kind(key: str, section: type[Section], observer: ImageObserver, identify: Callable[[], Any]) -> SignalKind:
    """Return the kind of the one signal of an observer; `identify` returns what its values depend on."""

    def build(name: str, options: Section, built: BuildContext) -> list[ImageSignal]:
        return [image_signal(name, observer, built.identities[name])]

    return SignalKind(key, section, lambda *_: identify(), build)


class _Part:
    def __init__(self, observer: ImageObserver, captions: pa.Array) -> None:
        self._observer, self._captions = observer, captions
        self._observed: list[Any] = [None] * len(captions)
        self.observe = observer.observe

    def add(self, row: int, observation: Any) -> None:
        self._observed[row] = observation

    def finish(self) -> SignalOutput:
        return SignalOutput(tuple(self._observer.finish(self._observed, self._captions.to_pylist())))
