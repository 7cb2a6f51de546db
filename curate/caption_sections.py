"""The section `captions` of a recipe: which texts are written for kept samples, by what, how they are judged and put out.

See `curate.recipe`. Sections are plain data; engines are looked at by `curate.captions.engines`, templates by `prompts`.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from curate.measure_sections import ColumnName, Section

MOST_PER_ROW = 64
EngineName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$")]
RewriteStyle = Literal["chat_a", "chat_b", "human", "coco"]
Gate = Literal[
    "empty", "echo_prompt", "echo", "preamble", "length", "language", "numbers", "names", "entries", "repetition",
    "clip_score", "f_clipscore", "unsafe",
]  # fmt: skip
SECTIONS = {"recaption": "recaption", "fused": "fuse", "rewrite": "rewrite", "translation": "translate"}
"""The section of each value of column `kind`, in the order in which they are made: a fused text needs a recaption."""


class Price(Section):
    """What an engine costs, in any currency: per million tokens, or per hour that it works."""

    input: float = Field(0.0, ge=0)
    output: float = Field(0.0, ge=0)
    hour: float = Field(0.0, ge=0)


class OpenAI(Section):
    """An endpoint that speaks OpenAI's protocol, such as `vllm serve` or a hosted one.

    `key` is the name of an environment variable; `extra` is added to each request's body.
    """

    base_url: str = Field(pattern=r"^https?://")
    model: str = Field(min_length=1)
    key: str | None = None
    concurrency: int = Field(16, ge=1, le=4096, strict=True)
    timeout: float = Field(60.0, gt=0)
    attempts: int = Field(6, ge=1, le=100, strict=True)
    extra: dict[str, Any] = Field({})


class Vllm(Section):
    """A model in this process, by vLLM. `options` are further arguments of `vllm.LLM`."""

    model: str = Field(min_length=1)
    options: dict[str, Any] = Field({})


class Guided(Section):
    """A captioner of Hugging Face's transformers in this process, steered by classifier-free guidance of scale `gamma`.

    It is given an image and no words: for `recaption` of style plain. `gamma` 1 is plain greedy decoding.
    """

    model: str = Field(min_length=1)
    gamma: float = Field(2.0, ge=0, le=10)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    batch: int = Field(16, ge=1, le=4096, strict=True)


class Recorded(Section):
    """Answers of an earlier run, or any Parquet files of table `answers`; what they do not hold is an error."""

    path: str = Field(min_length=1)
    model: str = Field(min_length=1)


class EngineSpec(Section):
    """One engine: one of the four."""

    openai: OpenAI | None = None
    vllm: Vllm | None = None
    guided: Guided | None = None
    recorded: Recorded | None = None
    price: Price = Price()

    @property
    def batch(self) -> int:
        """Requests at a time, where a kind does not say."""
        return 4096 if self.vllm else 256

    @model_validator(mode="after")
    def _one_of_four(self) -> "EngineSpec":
        if sum(spec is not None for spec in (self.openai, self.vllm, self.guided, self.recorded)) != 1:
            raise ValueError("give one of openai, vllm, guided and recorded")
        return self


class Kind(Section):
    """Base of what is written: `engine` names one of `engines`; `per_row` how many texts a sample gets of each style.

    `per_row` may be a SQL expression over a kept row's columns, its `probability`, `entries` (how many entries it holds) and
    `rarest` (the least count of these among the survivors), so that more is spent on the tail.
    """

    engine: EngineName
    per_row: int | str = 1
    template: str | None = None  # a file of one's own, instead of the package's
    temperature: float | None = Field(None, ge=0, le=2)  # None: the kind's own
    max_tokens: int | None = Field(None, ge=1, le=4096, strict=True)
    # Requests at a time, which is what a crash may lose; None: by the engine, 4096 of vLLM, else 256.
    batch: int | None = Field(None, ge=1, le=1_000_000, strict=True)

    @field_validator("per_row")
    @classmethod
    def _some(cls, value: int | str) -> int | str:
        if isinstance(value, int) and not 1 <= value <= MOST_PER_ROW:
            raise ValueError(f"accepted: 1 to {MOST_PER_ROW}, or a SQL expression")
        return value

    @property
    @abstractmethod
    def default_template(self) -> str:
        """The package's template that `template` stands in for."""


def _once_each(values: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{twice[0]!r} is listed twice; for several texts of one use per_row")
    return values


Each = AfterValidator(_once_each)


class Rewrite(Kind):
    """The caption written anew (LaCLIP): styles of in-context examples; `prompt` completion, or chat for chat models."""

    styles: Annotated[tuple[RewriteStyle, ...], Each] = Field(("chat_a", "chat_b", "human", "coco"), min_length=1)
    prompt: Literal["completion", "chat"] = "completion"

    @property
    def default_template(self) -> str:
        """By the kind of prompt."""
        return f"rewrite_{self.prompt}"


class Recaption(Kind):
    """A vision-language model's caption of the image; `alt_text: true` shows it the original caption too.

    Style plain is for captioners that are given an image and no words.
    """

    styles: Annotated[tuple[Literal["short", "long", "plain"], ...], Each] = Field(("short",), min_length=1)
    alt_text: bool = Field(False, strict=True)

    @property
    def default_template(self) -> str:
        """By whether the original is shown."""
        return "recaption_alt_text" if self.alt_text else "recaption"


class Fuse(Kind):
    """The original caption and a recaption as one sentence (VeCLIP, CapsFusion)."""

    style: Literal["short", "long", "plain"] = "short"  # of the recaption

    @property
    def default_template(self) -> str:
        """The one."""
        return "fuse"


class Translate(Kind):
    """The caption in other languages, by ISO 639-1 codes."""

    languages: Annotated[tuple[str, ...], Each] = Field(min_length=1)

    @property
    def default_template(self) -> str:
        """The one."""
        return "translate"


class Regions(Section):
    """Where the noun phrases of an English caption are in its image (CLOC), by an open-vocabulary detector of transformers.

    `threshold` is of the score; of more than `queries` phrases so many are drawn. Needs curate[regions].
    """

    model: str = Field(min_length=1)
    threshold: float = Field(0.1, ge=0, lt=1)
    queries: int = Field(20, ge=1, le=100, strict=True)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    batch: int = Field(8, ge=1, le=1024, strict=True)


class Gates(Section):
    """How strictly texts are judged; see `curate.captions.gates`. `off` names gates that are not asked."""

    off: tuple[Gate, ...] = ()
    words: tuple[int, int] = (2, 100)
    names: float = Field(1.0, ge=0, le=1)  # the share of the caption's names that must stay
    entries: float = Field(0.4, ge=0, le=1)  # and of its entries, each as heavy as it is rare
    clip_score: float = Field(0.03, ge=0, le=2)  # how much lower than the caption's it may be
    f_clipscore: float = Field(3e-4, ge=0)  # likewise; needs words: true of the model
    of: ColumnName = "clip"  # the model in measure.clip by which they are scored, where it has embeddings: true


class CaptionOutput(Section):
    """What the shards get: `.txt` is the original but for the shares in `mix`; `syn_json` adds DataCompDR's syn.json."""

    mix: dict[Literal["recaption", "fused", "rewrite"], float] = Field({})
    syn_json: bool = Field(False, strict=True)

    @field_validator("mix")
    @classmethod
    def _shares(cls, value: dict[str, float]) -> dict[str, float]:
        if any(not 0 <= share <= 1 for share in value.values()) or sum(value.values()) > 1:
            raise ValueError("shares are 0 to 1, and 1 together at most: the rest keeps the original")
        return value


class Captions(Section):
    """The texts that are written for kept samples."""

    engines: dict[EngineName, EngineSpec] = Field({})
    recaption: Recaption | None = None
    fuse: Fuse | None = None
    rewrite: Rewrite | None = None
    translate: Translate | None = None
    regions: Regions | None = None
    gates: Gates = Gates()
    output: CaptionOutput = CaptionOutput()

    @model_validator(mode="after")
    def _fits_together(self) -> "Captions":
        if not self.kinds and not self.regions:
            raise ValueError("nothing is asked for; accepted: recaption, fuse, rewrite, translate, regions")
        for name, kind in self.kinds.items():
            if kind.engine not in self.engines:
                there = ", ".join(self.engines) or "none"
                raise ValueError(f"{name}: no engine is named {kind.engine!r}; engines: {there}")
            plain = isinstance(kind, Recaption) and set(kind.styles) == {"plain"}
            if self.engines[kind.engine].guided and not plain:
                raise ValueError(
                    f"{name}: engine {kind.engine!r} is guided, and takes no words; accepted: recaption, styles [plain]"
                )
        if self.fuse and not self.recaption:
            raise ValueError("fuse needs recaption: it joins the caption with one")
        if self.fuse and self.recaption and self.fuse.style not in self.recaption.styles:
            raise ValueError(f"fuse: style {self.fuse.style!r} is not among those of recaption")
        for name in self.output.mix:
            if name not in self.kinds:
                raise ValueError(f"output.mix: nothing of kind {name} is asked for")
        return self

    def lasting(self, writers: Mapping[str, str]) -> dict[str, Any]:
        """What texts depend on, as plain data: engines and templates by what they are, without where they are.

        Args:
            writers: the model of each engine, and the version of each kind's template, see `curate.captions.engines`.
        """
        plain: dict[str, Any] = self.model_dump(exclude={"engines"})
        for name in SECTIONS.values():
            if plain[name]:
                plain[name] |= {"engine": writers[plain[name]["engine"]], "template": writers[f"template of {name}"]}
                del plain[name]["batch"]
        if plain["regions"]:
            plain["regions"]["model"] = writers["regions"]
            del plain["regions"]["device"], plain["regions"]["batch"]
        return plain

    @property
    def kinds(self) -> dict[str, Kind]:
        """What is asked for, by value of column `kind`, in the order in which it is made."""
        asked = {name: getattr(self, section) for name, section in SECTIONS.items()}
        return {name: kind for name, kind in asked.items() if kind is not None}


def resolve_captions(captions: Captions, absolute: Callable[[str], str]) -> Captions:
    """The section with the paths of templates, records and model folders as `absolute` makes them.

    A model is a folder where it begins with a dot; else it is a name on the hub, or a path as it is.
    """

    def folder(model: str) -> str:
        return absolute(model) if model.startswith(".") else model

    engines = {}
    for name, spec in captions.engines.items():
        changed: dict[str, Any] = {}
        for kind in ("vllm", "guided"):
            if (own := getattr(spec, kind)) is not None:
                changed[kind] = own.model_copy(update={"model": folder(own.model)})
        if spec.recorded:
            changed["recorded"] = spec.recorded.model_copy(update={"path": absolute(spec.recorded.path)})
        engines[name] = spec.model_copy(update=changed)
    kinds = {
        name: kind.model_copy(update={"template": absolute(kind.template)})
        for name in SECTIONS.values()
        if (kind := getattr(captions, name)) is not None and kind.template
    }
    regions = captions.regions and captions.regions.model_copy(update={"model": folder(captions.regions.model)})
    return captions.model_copy(update={"engines": engines, **kinds, "regions": regions})
