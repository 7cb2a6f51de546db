"""The section `captions` of a recipe: which texts are written for kept samples, by what, how they are judged and put out.

See `curate.recipe.recipe`. Sections are plain data; engines are looked at by `curate.captions.engines`, templates by `prompts`.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator, Discriminator, Field, SerializeAsAny, Tag, field_validator, model_validator
from pydantic_core import PydanticCustomError

from curate.recipe.engines import EngineSpec, engine_section
from curate.recipe.section import BuiltFrom, ColumnName, ModelPath, Name, Section, UserPath

MOST_PER_ROW = 64
RewriteStyle = Literal["chat_a", "chat_b", "human", "coco"]
Gate = Literal[
    "empty", "echo_prompt", "echo", "preamble", "length", "language", "numbers", "names", "entries", "repetition",
    "clip_score", "f_clipscore", "unsafe",
]  # fmt: skip
SECTIONS = {"recaption": "recaption", "fused": "fuse", "rewrite": "rewrite", "translation": "translate"}
"""The section of each value of column `kind`, in the order in which they are made: a fused text needs a recaption."""


class Kind(Section):
    """Base of what is written: `engine` names one of `engines`; `per_row` how many texts a sample gets of each style.

    `per_row` may be a SQL expression over a kept row's columns, its `probability`, `entries` (how many entries it holds) and
    `rarest` (the least count of these among the survivors), so that more is spent on the tail.
    """

    engine: Name
    per_row: int | str = 1
    template: UserPath | None = None  # a file of one's own, instead of the package's
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

    @property
    @abstractmethod
    def written(self) -> tuple[str, ...]:
        """The values of column `style` that it writes."""


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

    @property
    def written(self) -> tuple[str, ...]:
        """The styles."""
        return self.styles


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

    @property
    def written(self) -> tuple[str, ...]:
        """The styles."""
        return self.styles


class Fuse(Kind):
    """The original caption and a recaption as one sentence (VeCLIP, CapsFusion)."""

    style: Literal["short", "long", "plain"] = "short"  # of the recaption

    @property
    def default_template(self) -> str:
        """The one."""
        return "fuse"

    @property
    def written(self) -> tuple[str, ...]:
        """That of the recaption."""
        return (self.style,)


class Translate(Kind):
    """The caption in other languages, by ISO 639-1 codes."""

    languages: Annotated[tuple[str, ...], Each] = Field(min_length=1)

    @property
    def default_template(self) -> str:
        """The one."""
        return "translate"

    @property
    def written(self) -> tuple[str, ...]:
        """The languages."""
        return self.languages


ONE, SEVERAL = "one section", "several sections"
K = TypeVar("K", bound=Kind)
Sections = Annotated[
    Annotated[K, Tag(ONE)] | Annotated[tuple[K, ...], Field(min_length=1), Tag(SEVERAL)],
    Discriminator(lambda given: SEVERAL if isinstance(given, list | tuple) else ONE),
]
"""One section of a kind, or several: each with an engine and styles of its own."""


class Task(NamedTuple):
    """One section of a kind.

    Attributes:
        kind: as column `kind` has it.
        key: where the recipe has it, below `captions`: rewrite, or rewrite.1 of several.
        section: what it says.
    """

    kind: str
    key: str
    section: Kind


class Regions(Section):
    """Where the noun phrases of an English caption are in its image (CLOC), by an open-vocabulary detector of transformers.

    `threshold` is of the score; of more than `queries` phrases so many are drawn. Needs curate[regions].
    """

    model: ModelPath
    threshold: float = Field(0.1, ge=0, lt=1)
    queries: int = Field(20, ge=1, le=100, strict=True)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    batch: int = Field(8, ge=1, le=1024, strict=True)


class Gates(Section):
    """How strictly texts are judged; see `curate.captions.gates.gates`. `off` names gates that are not asked."""

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
    """The texts that are written for kept samples. A kind may have several sections, of other styles and by other engines."""

    engines: dict[Name, Annotated[SerializeAsAny[EngineSpec], BuiltFrom(engine_section)]] = Field({})
    recaption: Sections[Recaption] | None = None
    fuse: Fuse | None = None
    rewrite: Sections[Rewrite] | None = None
    translate: Sections[Translate] | None = None
    regions: Regions | None = None
    gates: Gates = Gates()
    output: CaptionOutput = CaptionOutput()

    @model_validator(mode="after")
    def _fits_together(self) -> "Captions":
        if not self.tasks and not self.regions:
            raise ValueError("nothing is asked for; accepted: recaption, fuse, rewrite, translate, regions")
        for task in self.tasks:
            self._has_its_engine(task)
        self._write_other_styles()
        if self.fuse:
            recaptions = [style for task in self.tasks if task.kind == "recaption" for style in task.section.written]
            if not recaptions:
                raise ValueError("fuse needs recaption: it joins the caption with one")
            if self.fuse.style not in recaptions:
                raise _fault("fuse.style", f"{self.fuse.style!r} is not among the styles of recaption")
        for name in self.output.mix:
            if name not in {task.kind for task in self.tasks}:
                raise _fault("output.mix", f"nothing of kind {name} is asked for")
        return self

    def _has_its_engine(self, task: Task) -> None:
        engine = task.section.engine
        if engine not in self.engines:
            raise _fault(
                f"{task.key}.engine", f"no engine is named {engine!r}; engines: {', '.join(self.engines) or 'none'}"
            )
        plain = isinstance(task.section, Recaption) and set(task.section.styles) == {"plain"}
        if not self.engines[engine].options.takes_words and not plain:
            what = f"{engine!r} is guided, and takes no words; accepted: recaption, styles [plain]"
            raise _fault(f"{task.key}.engine", what)

    def _write_other_styles(self) -> None:
        """Raises where two sections of a kind write the same: a style tells which of them wrote a text."""
        by: dict[tuple[str, str], str] = {}
        for task in self.tasks:
            for style in task.section.written:
                first = by.setdefault((task.kind, style), task.key)
                if first != task.key:
                    field = "languages" if isinstance(task.section, Translate) else "styles"
                    what = f"{style!r} is written by captions.{first} too; accepted: {field} that no other section has"
                    raise _fault(f"{task.key}.{field}", what)

    def lasting(self, engine_ids: Mapping[str, str]) -> dict[str, Any]:
        """What texts depend on, as plain data: engines and templates by what they are, without where they are.

        Args:
            writers: the model of each engine, and the version of each section's template, see `curate.captions.engines`.
        """
        plain: dict[str, Any] = self.model_dump(exclude={"engines"})
        for name, section in SECTIONS.items():
            own = [_lasting(task, engine_ids) for task in self.tasks if task.kind == name]
            plain[section] = own if len(own) > 1 else next(iter(own), None)
        if plain["regions"]:
            plain["regions"]["model"] = engine_ids["regions"]
            del plain["regions"]["device"], plain["regions"]["batch"]
        return plain

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What is asked for, section by section, in the order in which it is made."""
        found: list[Task] = []
        for kind, key in SECTIONS.items():
            given = getattr(self, key)
            if isinstance(given, tuple):
                found += [Task(kind, f"{key}.{place}", section) for place, section in enumerate(given)]
            elif given is not None:
                found.append(Task(kind, key, given))
        return tuple(found)

    def engine_of(self, kind: str, style: str) -> str:
        """The name of the engine that writes these texts."""
        return next(task.section.engine for task in self.tasks if task.kind == kind and style in task.section.written)


def _fault(key: str, what: str) -> PydanticCustomError:
    """An error that is told under a key of this section, as `curate.recipe` finds it."""
    return PydanticCustomError("fault", "{what}", {"what": what, "key": key})


def _lasting(task: Task, engine_ids: Mapping[str, str]) -> dict[str, Any]:
    plain: dict[str, Any] = task.section.model_dump(exclude={"batch"})
    return plain | {"engine": engine_ids[task.section.engine], "template": engine_ids[f"template of {task.key}"]}
