"""The section `measure` of a recipe: which signals are measured, and by what. See `curate.recipe.recipe`.

A kind of signal brings its own section, in its own file of `curate.signals` or from another package; here they are put
together to one. Sections are plain data: what depends on files and models is checked when signals are identified.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from curate.recipe.section import ColumnName, KindsSection, OneOrSeveral, Section, find_twice
from curate.registry import Registry

SIGNALS: Registry[Any] = Registry("signal", "curate.signals.registry:KINDS", "curate.signals")
"""The kinds of signals, `curate.signals.signal.SignalKind`."""

Form = Literal["one", "listed", "named"]
"""How a recipe asks for signals of a kind: one section; one or a list of sections that say their names; a mapping by name."""


class Image(Section):
    """How images are measured. `decode: false` reads headers only: faster, but a damaged body is not noticed.

    `jpeg_side` lets JPEGs be decoded at a half, a quarter or an eighth of their size where no side falls below it: faster,
    and image signals see slightly other pixels.
    """

    decode: bool = Field(True, strict=True)
    phash: bool = Field(False, strict=True)
    jpeg_side: int | None = Field(None, ge=32, le=65_535, strict=True)
    max_pixels: int = Field(89_478_485, gt=0, strict=True)


def column_prefix(model: str) -> str:
    """Return what the columns of a model in `embeddings` begin with: nothing for the one named clip."""
    return "" if model == "clip" else f"{model}_"


class Embedder(Section):
    """Base of what gives embeddings of images and texts: `of` of other sections names it."""

    encodes: ClassVar[bool] = True  # whether it is a model, which can encode prompts, exemplars and captions too
    name: ColumnName = "clip"

    @property
    def prefix(self) -> str:
        """What its columns in `embeddings` begin with, and those of a model in `scores` but its score."""
        return column_prefix(self.name)

    @property
    def keeps_embeddings(self) -> bool:
        """Whether they are kept, as table `embeddings`."""
        return False

    @property
    def scores_words(self) -> bool:
        """Whether words that do not fit an image are measured."""
        return False


class PrecomputedEmbeddings(Embedder):
    """Embeddings that a Parquet pool supplies: columns of lists of numbers, or arrays of the .npz beside each file.

    `image` and `text` are names of columns or arrays, such as DataComp's l14_img and l14_txt. They are kept in table
    `embeddings` where `keep` is true, as deduplication by them needs.
    """

    encodes: ClassVar[bool] = False
    name: ColumnName
    image: str = Field(min_length=1)
    text: str = Field(min_length=1)
    keep: bool = Field(False, strict=True)

    @property
    def keeps_embeddings(self) -> bool:
        """Whether they are kept, as table `embeddings`."""
        return self.keep


class OnEmbeddings(Section):
    """Base of signals on embeddings: `of` names a model of `measure.clip`, or what `measure.embeddings` supplies."""

    needs_encoder: ClassVar[bool] = True  # whether prompts or exemplars are encoded too, so that a model is needed
    of: ColumnName = "clip"


class Requested(NamedTuple):
    """A signal that a recipe asks for: the key of its kind, its name, unique among signals, and its section."""

    kind: str
    name: str
    section: Any


class Measure(KindsSection):
    """The signals to measure: a field for each kind."""

    registry = SIGNALS

    image: Image = Image()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    @classmethod
    def kind_field(cls, kind: Any) -> tuple[Any, Any]:
        """Return the type and the default of a kind's field, by the form in which a recipe asks for it."""
        section = kind.section
        if kind.form == "named":
            return dict[ColumnName, section], Field(default_factory=dict)  # type: ignore[valid-type]
        if kind.form == "listed":
            return Annotated[tuple[section, ...], OneOrSeveral(or_none=True)], ()  # type: ignore[valid-type]
        return section | None, None

    @property
    def requested(self) -> list[Requested]:
        """The signals, in the order of their kinds."""
        return [found for key in SIGNALS.kinds() for found in _requested(key, getattr(self, key))]

    @property
    def embedders(self) -> list[Embedder]:
        """All that gives embeddings, models first."""
        return [found.section for found in self.requested if isinstance(found.section, Embedder)]

    @property
    def kept(self) -> list[Embedder]:
        """Those whose embeddings are kept as a table."""
        return [one for one in self.embedders if one.keeps_embeddings]

    @property
    def supplied(self) -> list[PrecomputedEmbeddings]:
        """Those whose embeddings the pool supplies."""
        return [one for one in self.embedders if isinstance(one, PrecomputedEmbeddings)]

    @model_validator(mode="after")
    def _names_differ(self) -> "Measure":
        if twice := find_twice(one.name for one in self.embedders):
            raise ValueError(f"two models are named {twice!r}; give each a name of its own")
        forms = {key: kind.form for key, kind in SIGNALS.kinds().items()}
        own = [found.name for found in self.requested if forms[found.kind] != "one"]
        if twice := find_twice([*own, *(key for key, form in forms.items() if form == "one")]):
            raise ValueError(f"two signals are named {twice!r}; give each a name of its own")
        return self

    @model_validator(mode="after")
    def _have_embeddings(self) -> "Measure":
        embedders = {one.name: one for one in self.embedders}
        for _, name, section in self.requested:
            if not isinstance(section, OnEmbeddings):
                continue
            if section.of not in embedders:
                there = ", ".join(embedders) or "none: give measure.clip"
                what = "no model of measure.clip, or of measure.embeddings, is named"
                raise ValueError(f"{name}: {what} {section.of!r}; there: {there}")
            if section.needs_encoder and not embedders[section.of].encodes:
                accepted = [k for k, kind in SIGNALS.kinds().items() if _takes_any_embeddings(kind.section)]
                raise ValueError(
                    f"{name}: needs a model to encode prompts or exemplars with, and {section.of!r} is precomputed; accepted "
                    f"on its embeddings: {', '.join(accepted)}"
                )
        return self


def _requested(key: str, value: Any) -> Iterator[Requested]:
    """Yield the signals that a field asks for."""
    if isinstance(value, dict):
        yield from (Requested(key, name, section) for name, section in value.items())
    elif isinstance(value, tuple):
        yield from (Requested(key, section.name, section) for section in value)
    elif value is not None:
        yield Requested(key, key, value)


def _takes_any_embeddings(section: type[Section]) -> bool:
    return issubclass(section, OnEmbeddings) and not section.needs_encoder
