"""The section `measure` of a recipe: which signals to measure, and how. See `curate.recipe.recipe`.

Each kind of signal has its own section, which is in the kind's file in `curate.signals` or in another package. This
module combines the sections. They are plain data. Checks that need files or models happen later, when a run identifies
its signals.
"""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import yaml
from pydantic import Field, model_validator

from curate.base.registry import Registry
from curate.recipe.section import Column, ColumnName, KindsSection, Section, find_twice, one_or_several

SIGNALS = Registry[Any]("signal", ".signals.registry:KINDS", "curate.signals", ".signals.signal:SignalKind")
"""The kinds of signals, `curate.signals.signal.SignalKind`."""

_HINTS = {
    "phash": "; to get phash, add measure: {image: {phash: true}}",
    "min_side": "; curate computes min_side from columns width and height: least(width, height)",
    "aspect": "; curate computes aspect from columns width and height: greatest(width, height) / least(width, height)",
}
Form = Literal["one", "listed", "named"]
"""How a recipe names the signals of a kind: one section, a list of sections with names, or a mapping by name."""


class Image(Section):
    """How to decode and measure images.

    `jpeg_side` trades accuracy for speed. If it is twice the side of the model's input, JPEGs of 600 x 450 pixels
    decode 2.3 times faster, and CLIP scores change by at most 0.006. If it equals the side of the input, they decode
    3.6 times faster, and scores change by at most 0.036. (Measured with `python -m tests.bench.bench_image`.)
    """

    example: ClassVar[Any] = {"phash": True}
    gives = (
        Column("samples", "width", "int32", "Width in pixels, after EXIF rotation."),
        Column("samples", "height", "int32", "Height in pixels, after EXIF rotation."),
        Column("samples", "bytes", "int64", "Size of the image file in bytes."),
        Column("samples", "format", "string", "Image format, detected from the bytes: jpeg, png, webp, and so on."),
        Column("samples", "sha256", "string", "sha256 of the image file: 64 hex digits."),
        Column("samples", "original_sha256", "string", "sha256 of the image as first downloaded, if the input has it."),
        Column("samples", "phash", "uint64", "Perceptual hash; null unless `phash: true`."),
    )

    decode: bool = Field(True, examples=[False], strict=True)
    """Decode the pixels. `false` reads only headers, which is faster, but does not find damaged pixels."""
    phash: bool = Field(False, examples=[True], strict=True)
    """Compute a perceptual hash of 64 bits, for deduplication."""
    jpeg_side: int | None = Field(None, examples=[448], ge=32, le=65_535, strict=True)
    """Decode a JPEG at 1/2, 1/4, or 1/8 of its size if both sides still have at least this many pixels. null: decode at
    full size, as open_clip does."""
    max_pixels: int = Field(89_478_485, examples=[40_000_000], gt=0, strict=True)
    """Maximum number of pixels. Larger images, and images with a side over 1,048,576 pixels, fail without being
    decoded."""


def measured_by(column: str) -> str:
    """Return the end of a message that says which section or columns give a missing column; empty if none is known."""
    for key, kind in SIGNALS.kinds().items():
        gives, example = kind.section.gives, kind.section.example
        if column.lower() in {part.name.replace("NAME", name) for part in gives for name in example or ("NAME",)}:
            measure = yaml.safe_dump({"measure": {key: example}}, default_flow_style=True, width=1000, sort_keys=False)
            return f"; to get {column}, add {measure.strip()[1:-1]}"
    return _HINTS.get(column.lower(), "")


def column_prefix(model: str) -> str:
    """Return the prefix of a model's columns in `embeddings`. It is empty for the model named clip."""
    return "" if model == "clip" else f"{model}_"


class Embedder(Section):
    """Base of models and precomputed embeddings, to which other sections refer in `of`."""

    encodes: ClassVar[bool] = True  # whether it is a model, which can encode prompts, exemplars, and captions
    name: ColumnName = Field("clip", examples=["large"])
    """Name of the model. Its columns begin with this name (see below), and other sections refer to it in `of`."""

    @property
    def prefix(self) -> str:
        """The prefix of its columns in `embeddings`, and in `scores` except for a model's score."""
        return column_prefix(self.name)

    @property
    def scores_words(self) -> bool:
        """Whether the recipe measures words that do not match the image: `words: true` of a model."""
        return bool(getattr(self, "words", False))


class PrecomputedEmbeddings(Embedder):
    """Uses precomputed embeddings of a Parquet pool, instead of a model.

    The embeddings are in columns with lists of numbers, or in arrays of the .npz file beside each Parquet file. Signals
    that encode prompts or images still need a model in `measure.clip`.
    """

    example: ClassVar[Any] = {"name": "l14", "image": "l14_img", "text": "l14_txt", "keep": True}
    gives = (
        Column("embeddings", "NAME_image", "fixed_size_list<float16>", "Image embedding. Only if `keep: true`."),
        Column("embeddings", "NAME_text", "fixed_size_list<float16>", "Caption embedding. Only if `keep: true`."),
    )

    encodes: ClassVar[bool] = False
    name: ColumnName = Field(examples=["l14"])
    """Name of the embeddings. Other sections refer to it in `of`."""
    image: str = Field(examples=["l14_img"], min_length=1)
    """Name of the column or array with image embeddings."""
    text: str = Field(examples=["l14_txt"], min_length=1)
    """Name of the column or array with caption embeddings."""
    keep: bool = Field(False, examples=[True], strict=True)
    """Keep the embeddings in the table `embeddings`. `relate` and deduplication by embedding need them."""


class OnEmbeddings(Section):
    """Base of signals on embeddings: `of` names a model in `measure.clip`, or an entry in `measure.embeddings`."""

    needs_encoder: ClassVar[bool] = True  # whether it encodes prompts or exemplars, and so needs a model
    of: ColumnName = Field("clip", examples=["l14"])
    """Name of a model in `measure.clip`. `heads`, `clusters`, `normsim`, and `vas` also accept a name in
    `measure.embeddings`."""


class Measure(KindsSection):
    """Signals to measure, such as languages and scores. Each signal adds columns that rules and SQL can use.

    curate measures a signal once, even if you change the rules later. Other packages can add signals.
    """

    registry = SIGNALS
    example: ClassVar[Any] = {"language": {}, "image": {"phash": True}}

    image: Image = Field(Image(), **Image.about())

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    @classmethod
    def kind_field(cls, kind: Any) -> tuple[Any, Any]:
        """Return the type and default of a kind's field. They depend on the form in which recipes write the kind."""
        section = kind.section
        if kind.form == "named":
            return dict[ColumnName, section], Field({}, **section.about())  # type: ignore[valid-type]
        if kind.form == "listed":
            listed = Annotated[tuple[section, ...], one_or_several(section)]  # type: ignore[valid-type]
            return listed, Field((), **section.about())
        return section | None, Field(None, **section.about())

    @property
    def embedders(self) -> list[Embedder]:
        """All models and precomputed embeddings, models first."""
        return [signal.section for signal in self.requested if isinstance(signal.section, Embedder)]

    @property
    def kept(self) -> list[Embedder]:
        """Those whose embeddings the run keeps: models with `embeddings: true`, precomputed ones with `keep: true`."""
        return [each for each in self.embedders if getattr(each, "embeddings", False) or getattr(each, "keep", False)]

    @property
    def supplied(self) -> list[PrecomputedEmbeddings]:
        """The precomputed embeddings, which the pool supplies."""
        return [embedder for embedder in self.embedders if isinstance(embedder, PrecomputedEmbeddings)]

    @model_validator(mode="after")
    def _names_differ(self) -> "Measure":
        if twice := find_twice(embedder.name for embedder in self.embedders):
            raise ValueError(f"two models are named {twice!r}; give each a name of its own")
        forms = {key: kind.form for key, kind in SIGNALS.kinds().items()}
        names = [signal.name for signal in self.requested if forms[signal.kind] != "one"]
        if twice := find_twice([*names, *(key for key, form in forms.items() if form == "one")]):
            raise ValueError(f"two signals are named {twice!r}; give each a name of its own")
        return self

    @model_validator(mode="after")
    def _have_embeddings(self) -> "Measure":
        embedders = {embedder.name: embedder for embedder in self.embedders}
        for _, name, section in self.requested:
            if not isinstance(section, OnEmbeddings):
                continue
            if section.of not in embedders:
                model = f"measure.clip and measure.embeddings have no model {section.of!r}"
                raise ValueError(f"{name}: {model}; available: {', '.join(embedders) or 'none; add measure.clip'}")
            if section.needs_encoder and not embedders[section.of].encodes:
                sections = {key: kind.section for key, kind in SIGNALS.kinds().items()}
                scores = {key: scored for key, scored in sections.items() if issubclass(scored, OnEmbeddings)}
                accepted = ", ".join(key for key, scored in scores.items() if not scored.needs_encoder)
                needed = f"needs a model that encodes prompts or exemplars, but {section.of!r} is precomputed"
                raise ValueError(f"{name}: {needed}; accepted on its embeddings: {accepted}")
        return self
