"""The section `captions` of a recipe: which captions to write for kept samples, and with which models and gates."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Discriminator, Field, field_validator, model_validator

from curate.base.registry import Registry
from curate.recipe import section as fields
from curate.recipe.gates import Gates
from curate.recipe.section import (
    BuiltFrom,
    Column,
    Expression,
    KindsSection,
    ModelPath,
    Name,
    OneKind,
    Requested,
    Section,
    fault,
)

MAX_PER_ROW = 64
ENGINES = Registry[Any]("caption engine", ".llm.registry:ENGINES", "curate.caption_engines", ".llm.engine:EngineKind")
"""The kinds of engines, `curate.llm.engine.EngineKind`."""
_KINDS = ".captions.kinds"
CAPTION_KINDS = Registry[Any](
    "kind of captions", f"{_KINDS}.registry:KINDS", "curate.caption_kinds", f"{_KINDS}.kind:CaptionKind", by_class=True
)
"""The kinds of captions, subclasses of `curate.captions.kinds.kind.CaptionKind`, in the order of their work."""


class Price(Section):
    """Price of an engine, in any currency. `curate plan` and `curate sql RUN caption_work` use it to show costs."""

    input: float = Field(0.0, examples=[0.1], ge=0)
    """Price of a million tokens of prompts."""
    output: float = Field(0.0, examples=[0.4], ge=0)
    """Price of a million tokens of answers."""
    hour: float = Field(0.0, examples=[2.5], ge=0)
    """Price of each hour in which the engine works."""

    def cost(self, tokens_in: float, tokens_out: float, seconds: float = 0.0) -> float:
        return (tokens_in * self.input + tokens_out * self.output) / 1e6 + seconds / 3600 * self.hour


class EngineSpec(OneKind):
    """A language model. Set one engine, such as `openai`, and optionally `price`. Other sections use its name in
    `engine`."""

    registry = ENGINES

    price: Price = Field(Price(), examples=[{"input": 0.1, "output": 0.4}])
    """What the engine costs."""


def _check_number(value: int) -> int:
    if not 1 <= value <= MAX_PER_ROW:
        raise ValueError(f"accepted: 1 to {MAX_PER_ROW}, or a SQL expression")
    return value


_Number = Annotated[int, AfterValidator(_check_number), fields.INTEGER]
_PerRow = Annotated[_Number | Annotated[Expression, fields.TEXT], fields.BY_FORM]


class CaptionSection(Section):
    """The sections `recaption`, `fuse`, `rewrite`, and `translate` all have these keys."""

    key: ClassVar[str]  # the section's key in a recipe
    kind: ClassVar[str]  # the value in column `kind`, and the JSON field's name
    is_list: ClassVar[bool] = True  # whether a list of sections is accepted, each with its own engine and styles
    styles_key: ClassVar[str] = "styles"  # the key with the values for column `style`
    needs_images: ClassVar[bool] = False  # whether the pool must have images
    replaces: ClassVar[bool] = True  # whether its texts can replace the original in `.txt` and appear in syn.json

    engine: Name = Field(examples=["vlm"])
    """Which engine writes the captions: a name in `captions.engines`."""
    per_row: _PerRow = Field(1, examples=["CASE WHEN rarest < 100 THEN 4 ELSE 1 END"])
    """Number of captions for each sample and style, 1 to 64. Or a SQL expression that computes a number from 0 to 64
    for each sample. NULL counts as 0."""
    template: fields.UserPath | None = Field(None, examples=["my_prompt.txt"])
    """File with your own prompt. null: curate's own prompt."""
    temperature: float | None = Field(None, examples=[0.7], ge=0, le=2)
    """Sampling temperature. 0 means greedy decoding. null: the default of this kind of caption."""
    max_tokens: int | None = Field(None, examples=[120], ge=1, le=4096, strict=True)
    """Maximum number of tokens in a caption. null: the default of this kind of caption."""
    batch: int | None = Field(None, examples=[512], ge=1, le=1_000_000, strict=True)
    """Requests per batch. A crash loses the answers of the current batch. null: 1024 with vLLM, otherwise 256."""

    @property
    def all_styles(self) -> tuple[str, ...]:
        """The values that its captions have in the column `style`."""
        styles = getattr(self, self.styles_key)
        return styles if isinstance(styles, tuple) else (styles,)

    @property
    def needs_words(self) -> bool:
        """Whether its requests contain text. If not, they contain only an image."""
        return True

    def examples_digest(self) -> str | None:
        """Return a digest of the user's few-shot examples; None if there are none. Raises RecipeError."""
        return None

    @property
    def source(self) -> tuple[type["CaptionSection"], str] | None:
        """The kind and style of other captions that its requests include, such as recaptions to fuse; or None."""
        return None


def _check_unique(values: tuple[str, ...]) -> tuple[str, ...]:
    if twice := fields.find_twice(values):
        raise ValueError(f"{twice!r} is listed twice; for several captions of one style use per_row")
    return values


Unique = AfterValidator(_check_unique)
"""Marks a list of styles or languages, each listed once."""


class Regions(Section):
    """Finds a box in the image for each noun phrase of an English caption (CLOC), with a detector from transformers.

    Needs `pip install '.[regions]'`. The field `regions` of each sample's json has the boxes: x0, y0, x1, and y1, in
    pixels after EXIF rotation.
    """

    gives = (Column("regions", "regions", "list<struct<bbox, phrase, score>>", "The boxes, each with its phrase."),)

    model: ModelPath = Field(examples=["google/owlv2-base-patch16-ensemble"])
    """Open-vocabulary detector: a name on the Hugging Face Hub, or a folder."""
    threshold: float = Field(0.1, examples=[0.2], ge=0, lt=1)
    """Minimum score of a box. Boxes with a lower score are dropped."""
    queries: int = Field(20, examples=[10], ge=1, le=100, strict=True)
    """Maximum number of phrases per caption. If a caption has more, curate chooses phrases at random."""
    device: Literal["auto", "cpu", "cuda"] = Field("auto", examples=["cuda"])
    """Where the detector runs. `auto`: a GPU if there is one, otherwise the CPU."""
    precision: Literal["fp32", "fp16", "bf16"] = Field("fp32", examples=["fp16"])
    """Precision of the weights."""
    batch: int = Field(8, examples=[32], ge=1, le=1024, strict=True)
    """Images per batch."""


class CaptionOutput(Section):
    """Which captions the shards contain, and where.

    Each sample's json has a field `captions: {original, rewrite: {style: text}, recaption: [texts], fused, translation:
    {language: text}}`. If the input has a field with this name, curate replaces it. If a style has several texts, the
    second one is `human_2`, the third one `human_3`, and so on. If no synthetic caption passed the gates, `syn.json`
    has only the original.
    """

    mix: dict[str, float] = Field({}, examples=[{"fused": 0.3, "rewrite": 0.2}])
    """For each kind (`rewrite`, `recaption`, or `fused`), the share of samples that get such a caption in their
    `.txt`."""
    syn_json: bool = Field(False, examples=[True], strict=True)
    """Also write a file `syn.json` for each sample, as DataCompDR does."""

    @field_validator("mix")
    @classmethod
    def _shares(cls, value: dict[str, float]) -> dict[str, float]:
        accepted = [kind.kind for kind in CAPTION_KINDS.kinds().values() if kind.replaces]
        for name in value:
            if name not in accepted:
                raise ValueError(f"{name!r} cannot replace the original; accepted: {', '.join(accepted)}")
        if any(not 0 <= share <= 1 for share in value.values()) or sum(value.values()) > 1:
            raise ValueError("shares must be from 0 to 1, with a sum of at most 1; other samples keep the original")
        return value


class Captions(KindsSection):
    """Synthetic captions for kept samples. Language models write them, and quality filters (gates) check them.

    `rewrite`, `recaption`, and `translate` may be lists of sections. Each section has its own engine, prompt, and
    styles or languages. curate caches all answers: if you change gates or `mix`, it sends no new requests. Captions
    never change which samples are kept.
    """

    registry = CAPTION_KINDS
    example: ClassVar[Any] = {
        "engines": {"vlm": {"openai": {"base_url": "http://localhost:8000/v1", "model": "my-vlm"}}},
        "recaption": {"engine": "vlm"},
    }
    gives = (
        Column("captions", "kind", "string", "`rewrite`, `recaption`, `fused` or `translation`."),
        Column("captions", "style", "string", "The caption's style; for a translation, its language."),
        Column("captions", "ordinal", "int32", "Number of the caption within its style, from 0."),
        Column("captions", "text", "string", "The caption."),
        Column("captions", "model", "string", "Model that wrote the caption."),
        Column("captions", "prompt", "string", "Digest of the request: prompt, image, model, and sampling settings."),
        Column("captions", "clip_score", "float32", "CLIP score of the caption, if a gate needs it."),
        Column("captions", "gate", "string", "`passed`, or the first gate that the caption failed."),
        Column("captions", "tokens", "int32", "Number of tokens in the model's answer."),
        Column("captions", "status", "string", "`ok`, or the reason why there is no caption."),
        Column("captions", "error", "string", "Error message."),
        Column("captions", "failed", "list<string>", "All gates that the caption failed."),
    )

    engines: dict[Name, Annotated[EngineSpec, BuiltFrom(EngineSpec.full)]] = Field(
        {}, examples=[{"vlm": {"openai": {"base_url": "http://localhost:8000/v1", "model": "my-vlm"}}}]
    )
    """Language models, by name."""
    regions: Regions | None = Field(None, examples=[{"model": "google/owlv2-base-patch16-ensemble"}])
    """Find a box for each noun phrase of the caption. null: find none."""
    gates: Annotated[Gates, BuiltFrom(Gates.full)] = Field(
        {}, examples=[{"words": [3, 60], "off": ["preamble"]}], validate_default=True
    )
    """Settings of the quality filters."""
    output: CaptionOutput = Field(CaptionOutput(), examples=[{"mix": {"recaption": 0.5}, "syn_json": True}])
    """Which captions the shards contain, and where."""

    @classmethod
    def kind_field(cls, kind: Any) -> tuple[Any, Any]:
        """Return the type and default of a kind's field. The type is a section; some kinds also accept a list."""
        return (_one_or_several(kind) if kind.is_list else kind) | None, Field(None, **kind.about())

    @model_validator(mode="after")
    def _fits_together(self) -> "Captions":
        if not self.requested and not self.regions:
            raise ValueError(f"requests no captions; accepted: {', '.join([*CAPTION_KINDS.kinds(), 'regions'])}")
        first: dict[tuple[str, str], str] = {}
        for task in self.requested:
            self._check_engine(task)
            self._check_source(task)
            for style in task.section.all_styles:  # a style identifies the section that wrote a text
                other = first.setdefault((task.section.kind, style), task.name)
                if other != task.name:
                    field = task.section.styles_key
                    accepted = f"{field} that no other section has"
                    text = f"{style!r} is also written by captions.{other}; accepted: {accepted}"
                    raise fault(f"{task.name}.{field}", text)
        for name in self.output.mix:
            if name not in {task.section.kind for task in self.requested}:
                raise fault("output.mix", f"no section of captions writes {name}")
        return self

    def _check_engine(self, task: Requested) -> None:
        name, key = task.section.engine, f"{task.name}.engine"
        if name not in self.engines:
            raise fault(key, f"no engine is named {name!r}; engines: {', '.join(self.engines) or 'none'}")
        if task.section.needs_words and not self.engines[name].section.takes_words:
            raise fault(key, f"{name!r} accepts no prompts, only images; accepted: recaption, styles [plain]")

    def _check_source(self, task: Requested) -> None:
        if task.section.source is None:
            return
        source, style = task.section.source
        styles = [s for other in self.requested if isinstance(other.section, source) for s in other.section.all_styles]
        if not styles:
            raise ValueError(f"{task.name} needs {source.key}, because it makes its captions from those")
        if style not in styles:
            raise fault(f"{task.name}.style", f"{style!r} is not among the styles of {source.key}")

    def cache_key_fields(self, engine_ids: Mapping[str, str]) -> dict[str, Any]:
        """Return the settings that the captions depend on, as plain data. `engine_ids` come from `captions.engines`."""
        plain: dict[str, Any] = self.model_dump(exclude={"engines"})
        for kind in CAPTION_KINDS.kinds():
            used = []
            for key, name, section in self.requested:
                if key == kind:
                    ids = {"engine": engine_ids[section.engine], "template": engine_ids[f"template of {name}"]}
                    if examples := engine_ids.get(f"examples of {name}"):
                        ids["examples"] = examples
                    used.append(section.model_dump(exclude={"batch", "examples"}) | ids)
            if used or CAPTION_KINDS.package(kind) is None:  # an unused package changes no key
                plain[kind] = used if len(used) > 1 else next(iter(used), None)
            else:
                plain.pop(kind, None)
        if plain["regions"]:
            plain["regions"]["model"] = engine_ids["regions"]
            del plain["regions"]["device"], plain["regions"]["batch"]
        return plain

    def engine_of(self, kind: str, style: str) -> str:
        """Return the name of the engine that writes captions of this kind and style."""
        written = (task.section for task in self.requested if task.section.kind == kind)
        return next(str(section.engine) for section in written if style in section.all_styles)


def _one_or_several(section: type[CaptionSection]) -> Any:
    several = Annotated[tuple[section, ...], Field(min_length=1), fields.LIST]  # type: ignore[valid-type]
    is_list = Discriminator(lambda value: (fields.LIST if isinstance(value, list | tuple) else fields.MAPPING).tag)
    return Annotated[Annotated[section, fields.MAPPING] | several, is_list]
