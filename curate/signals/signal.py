"""The interface of every kind of signal: its section of a recipe, its identity, and its measurement.

A signal adds columns to `scores`. Its class determines its input:

    Signal                name, columns, key, load
    ├── ImageSignal       images, while a part of the input is read: a thread observes each image once, right after
    │   │                 decoding it, and the observations are added in order
    │   └── ModelSignal   images too, with a model that returns embeddings
    ├── TextSignal        captions
    ├── EmbeddingSignal   embeddings from a ModelSignal or the pool; it needs neither images nor the model
    └── PrecomputedSignal embeddings that the pool supplies; it has no column in `scores`

To write a signal that observes each image once, as `nsfw` and `text_area` do, use `image_signal`. The folder's README
has examples.
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
    """Embeddings of consecutive rows of a unit by one model, from table `embeddings`."""

    rows: npt.NDArray[np.int64]  # [n], indexes of the rows that have embeddings: those that could be read
    images: F32  # [n, dimension], of unit length up to the rounding of float16; zero if a row has none
    texts: F32  # [n, dimension], likewise
    captions: pa.Array  # string [n]

    def side(self, side: Literal["image", "text"]) -> F32:
        return self.images if side == "image" else self.texts


@dataclass(frozen=True)
class SignalOutput:
    """The result of an image signal for one part: its columns, one value per row; and embeddings, if it is a model."""

    columns: tuple[pa.Array, ...]
    embeddings: tuple[pa.Array, pa.Array] | None = None


class Collector(Protocol):
    """Collects an image signal's values for one part."""

    def observe(self, image: Image.Image) -> Any:
        """Return an observation of a decoded image; called in several threads at once.

        Raises ValueError, TypeError, OSError, or MemoryError if the image cannot be used; its row is null.
        """

    def add(self, row: int, observation: Any) -> None:
        """Add a row's observation; called in ascending order, without the rows that could not be read."""

    def finish(self) -> SignalOutput:
        """Return the columns; rows that were not added are null."""


@dataclass(frozen=True)
class Signal:
    """Base of all signals."""

    name: str  # unique among the recipe's signals
    columns: tuple[pa.Field, ...]  # what it adds to `scores`
    key: str  # digest of everything that determines its values except the samples
    # Loads what all parts share, once per process. It is also called before the run, to report errors early
    load: Callable[[], Any] | None = field(default=None, kw_only=True)
    # The package that the signal comes from, with its version; the registry sets it. None: curate itself
    package: str | None = field(default=None, kw_only=True)

    @property
    def label(self) -> str:
        return f"signal {self.name!r}" + (f" of package {self.package}" if self.package else "")

    def by_name(self, columns: Sequence[Column], rows: int, fields: Iterable[pa.Field] = ()) -> dict[str, Column]:
        """Return the signal's values by name, cast to `fields` (by default its columns).

        Raises RunError, which names the signal, if the number of columns or rows is wrong.
        """
        schema = pa.schema(fields or self.columns)
        if [len(column) for column in columns] != [rows] * len(schema):
            lengths = ", ".join(f"{len(column):,}" for column in columns) or "none"
            accepted = f"{', '.join(schema.names)} with {rows:,} rows each"
            raise RunError(f"{self.label}: its columns have these numbers of rows: {lengths}; accepted: {accepted}")
        return {field.name: column.cast(field.type) for field, column in zip(schema, columns, strict=True)}


@dataclass(frozen=True, kw_only=True)
class ImageSignal(Signal):
    """A signal that is computed from images."""

    # Takes a part's captions (string, null if the row could not be read), and returns a collector for its images
    start: Callable[[pa.Array], Collector]


@dataclass(frozen=True, kw_only=True)
class ModelSignal(ImageSignal):
    """A signal that a model computes from images; the model also returns embeddings."""

    dimension: int  # of the embeddings
    # Returns the model, loaded once per process: on the run's device, or, if its argument is true, on the best one
    encoder: "Callable[[bool], Encoder]"


@dataclass(frozen=True, kw_only=True)
class TextSignal(Signal):
    """A signal that is computed from captions."""

    # Takes captions (string, null if the row could not be read), and returns the columns' values
    compute: Callable[[pa.Array], Sequence[pa.Array]]
    # columns of table `samples` that it fills; `compute` returns their values first
    sample_columns: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EmbeddingSignal(Signal):
    """A signal that is computed from embeddings."""

    compute: Callable[[Embeddings], Sequence[pa.Array]]  # returns the columns' values, in the order of the rows
    of: str  # name of the signal that made these embeddings


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
    """What `SignalKind.identify` gets besides a signal's name and section."""

    identities: Mapping[str, Any]  # of the earlier signals, by name
    supplied: Mapping[str, int]  # the dimensions of the embeddings that the pool supplies, by name
    is_local: bool  # whether signals are measured on this machine


@dataclass(frozen=True)
class BuildContext:
    """What `SignalKind.build` gets besides a name and section: all signals' identities and the earlier signals."""

    identities: Mapping[str, Any]
    signals: Mapping[str, Signal]


@dataclass(frozen=True)
class SignalKind:
    """One kind of signal."""

    key: str  # its key in a recipe's section `measure`, unique among kinds
    section: type[Section]  # a recipe's section for one signal of this kind
    # Takes a signal's name and section. Returns what its values depend on besides the recipe (package, model, digests
    # of files), as plain JSON data, or None if that is nothing. Called once, where the run starts. Raises RecipeError
    identify: Callable[[str, Any, IdentifyContext], Any]
    # Takes a signal's name and section, and returns its signals. Called in every process, so it must load nothing
    build: Callable[[str, Any, BuildContext], Iterable[Signal]]
    form: Form = "one"  # how a recipe asks for signals of this kind


class ImageObserver(Protocol):
    """Observes each image once, for `image_signal`. Threads share it, so it must be thread-safe."""

    columns: pa.Schema

    def observe(self, image: Any) -> Any:
        """Return an observation of the image; see `Collector.observe`."""

    def finish(self, observed: Sequence[Any], captions: Sequence[str | None]) -> Sequence[pa.Array]:
        """Return a part's columns from the results of `observe`, with None for rows that could not be read or used."""


def image_signal(
    name: str, observer: ImageObserver, identity: Any, load: Callable[[], Any] | None = None
) -> ImageSignal:
    """Return an observer's signal. `name` is from `build`; `identity` is everything that determines its values."""
    key = ids.digest([name, 1, identity])
    return ImageSignal(name, tuple(observer.columns), key, start=lambda captions: _Part(observer, captions), load=load)


def observer_kind(key: str, section: type[Section], observer: ImageObserver, identify: Callable[[], Any]) -> SignalKind:
    """Return a kind with one signal, an observer's. `identify` returns everything that determines its values."""

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
