"""The sections of a recipe that decide which samples to keep: top rules, deduplication, balance, and sample."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from curate.base.registry import Registry
from curate.recipe import section as fields
from curate.recipe.measure import Measure
from curate.recipe.section import (
    BY_FORM,
    INTEGER,
    MAPPING,
    TEXT,
    AnyColumn,
    BuiltFrom,
    Column,
    Expression,
    KindOf,
    KindsSection,
    OneKind,
    Section,
    fault,
    is_none,
)

_PASSES = ".decide.dedup.passes"
KEYS = Registry[Any]("deduplication key", f"{_PASSES}.registry:KEYS", "curate.passes", f"{_PASSES}.dedup_pass:KeyPass")
NEARNESS = Registry[Any](
    "kind of nearness", f"{_PASSES}.registry:NEARNESS", "curate.passes", f"{_PASSES}.dedup_pass:NearnessKind"
)
SELECTIONS = Registry[Any](
    "selection", ".decide.draw.registry:KINDS", "curate.selections", ".decide.draw.selection:Selection"
)
FORMS = Registry[Any]("form of sample", ".decide.draw.registry:FORMS")
SCHEMES = Registry[Any]("balancing scheme", ".decide.draw.schemes:KINDS")


class Top(Section):
    """A rule that keeps the best rows by a column: a fraction or a number of them, and ties.

    - `reached`: n counts the rows that reach the rule and have a value. The rule keeps ⌊top·n⌋ + 1 rows and ties, as
      DataComp does.
    - `pool`: n counts all rows of the pool, even those without a value.
    - `budget`: the rule keeps ⌊top·N⌋ of the rows that reach it, where N counts all rows of the pool (s-CLIPLoss ∩
      NormSim).
    """

    gives = (
        Column("decisions", "kept", "bool", "Whether the row is kept."),
        Column("decisions", "rule", "string", "The first rule or step that drops it; null if kept."),
    )

    top: float | None = Field(None, exclude_if=is_none, examples=[0.3], gt=0, le=1, strict=True)
    """Fraction of rows to keep. Give `top` or `rows`."""
    rows: int | None = Field(None, exclude_if=is_none, examples=[1000], ge=1, lt=2**63, strict=True)
    """Number of rows to keep. Give `top` or `rows`."""
    of: AnyColumn = Field(examples=["clip_score"])
    """Numeric column that ranks the rows; larger is better."""
    over: Literal["reached", "pool", "budget"] = Field("reached", exclude_if="reached".__eq__, examples=["pool"])
    """Rows that the fraction refers to; see below."""
    by: AnyColumn | None = Field(None, exclude_if=is_none, examples=["language"])
    """Cut separately for each value of this column; NULL is a value; at most 1,000. null: one group."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.top is None) == (self.rows is None):
            raise ValueError("give either top (a fraction) or rows")
        return self


DEDUP = "dedup"
"""The rule that is no expression, but the place of deduplication among the rules."""

Rule = Annotated[Annotated[Expression, TEXT] | Annotated[Top, MAPPING], BY_FORM]


class Near(OneKind):
    """A near-duplicate pass: one of these keys. Groups are connected components of near pairs.

    Pairs are searched among all rows that reach deduplication. `curate sql RUN near_duplicates --images` shows them:
    look at them before you choose a limit. Groups chain, so members may differ by more than it.
    """

    registry = NEARNESS

    @classmethod
    def kind_field(cls, kind: Any) -> tuple[Any, Any]:
        return kind.section | None, Field(None, exclude_if=is_none, **kind.section.about())


class Against(Near):
    """Decontamination: drops rows near an evaluation image as `contaminated`, before deduplication.

    Give `images`, and `phash` or `embedding`.
    """

    images: fields.UserPaths = Field(examples=["imagenet-val/*.tar"])
    """Evaluation images: files, folders, or webdataset tars."""

    @classmethod
    def kinds(cls) -> tuple[Any, ...]:
        return tuple(kind for kind in super().kinds() if kind.compares_images)


Pass = Annotated[Annotated[str, KindOf(KEYS), TEXT] | Annotated[Near, BuiltFrom(Near.full), MAPPING], BY_FORM]


class Dedup(Section):
    """Deduplication in passes, in the listed order. One row of each group of duplicates stays.

    - A pass compares `uid`, `sha256`, or `phash` for equality (`phash` needs `measure.image.phash`), or finds
      near-duplicates. `uid` always runs, first unless listed elsewhere.
    - Of rows with the same uid, the one with the smallest hash of image (or URL) and caption stays.
    - The run lists groups with over 5 % of the rows, and the largest near-duplicate group if it has 10 rows and 0.1 %.
    """

    gives = (
        Column("decisions", "duplicate_of", "string", "uid of the row that stays instead."),
        Column("decisions", "duplicate_cosine", "float32", "Largest cosine, by embedding; 1 from 0.9999 on."),
    )

    by: tuple[Pass, ...] = Field(("uid",), examples=[["uid", "sha256", {"phash": {"distance": 4}}]])
    """The passes, in order."""
    prefer: AnyColumn | None = Field(None, examples=["clip_score"])
    """Numeric column: the row with the largest value stays. null: the smallest uid."""
    against: Annotated[Against, BuiltFrom(Against.full)] | None = Field(
        None, examples=[{"images": "imagenet-val/*.tar", "phash": {"distance": 4}}]
    )
    """Evaluation images to keep out of the result. null: none."""

    @field_validator("by")
    @classmethod
    def _uid_always(cls, by: tuple[Pass, ...]) -> tuple[Pass, ...]:
        listed = tuple(dict.fromkeys(by))
        return listed if "uid" in listed else ("uid", *listed)

    @property
    def packages(self) -> list[str]:
        """Other packages with passes, and their versions."""
        passes = (NEARNESS.package(by.kind) if isinstance(by, Near) else KEYS.package(by) for by in self.by)
        return [package for package in passes if package]

    @property
    def near(self) -> dict[int, Near]:
        """The near-duplicate passes, by position."""
        return {index: by for index, by in enumerate(self.by) if isinstance(by, Near)}

    def check_measured(self, measure: Measure) -> None:
        """Check that everything the passes compare is measured. Raises ValueError."""
        for by in self.by:
            if isinstance(by, str):
                KEYS.find(by).check(measure)
            else:
                NEARNESS.find(by.kind).check(by.section, measure)
        if self.against:
            NEARNESS.find(self.against.kind).check_against(self.against.section, measure)


_T = Annotated[int, Field(lt=2**63, ge=1, strict=True)]
Threshold = Annotated[Annotated[_T, INTEGER] | Annotated[dict[str, _T], Field(min_length=1), MAPPING], BY_FORM]


class Balance(Section):
    """Balanced sampling: thins entries with more than t rows to about t (MetaCLIP). Give `t`, `rows`, or `tail_share`.

    A row is kept if the draw for any of its entries succeeds: p = t / max(count, t), so π = 1 − ∏(1 − p). Draws are
    hashes of uid, entry, and seed, so the kept set only grows with t. Weights 1/π estimate the pool before balancing.
    To compare values of t, use `curate whatif RUN --set balance.t=…`.

    - `tail_share` inverts MetaCLIP 2's `t_to_p`. MetaCLIP 2's own `p_to_t` also counts entries with exactly t rows and
      often gives another t.
    - `of: COLUMN` thins the values of a column instead of entries. Rows without a value are never drawn.
    - `scheme: per_language` gives each language its own t, so that its tail has the same share of matches as the tail
      of `language` (MetaCLIP 2). `t` applies to `language`; a mapping sets t for other languages too.
    - `one_per` treats rows with the same URL or image as captions of one image. All count, but only the one with the
      smallest hash of uid and seed may be drawn; the rest are dropped as `other_text`, and π is divided by their
      number.
    """

    gives = (
        Column("decisions", "probability", "float64", "Probability π of being kept; 1 without a selection."),
        Column("decisions", "draw", "float64", "Smallest u/p over the entries; kept if below 1."),
    )

    t: Threshold | None = Field(None, examples=[20000, {"en": 170000, "de": 20000}])
    """Rows that an entry may have before it is thinned: MetaCLIP's t. A mapping sets it by language, with
    `per_language`."""
    rows: int | None = Field(None, examples=[1000000], lt=2**31, ge=1, strict=True)
    """Target size: uses the largest t with at most this expected size. An error if t = 1 exceeds it."""
    tail_share: float | None = Field(None, exclude_if=is_none, examples=[0.06], gt=0, lt=1, strict=True)
    """Target share of matches in entries with fewer than t rows: uses the nearest t (MetaCLIP 2)."""
    of: AnyColumn | None = Field(None, exclude_if=is_none, examples=["cluster"])
    """Column whose values replace entries, such as clusters or tags. null: entries, which need `match`."""
    counts: fields.UserPath | None = Field(None, exclude_if=is_none, examples=["run1"])
    """A finished run with the same entries, whose counts are used. null: this run's counts."""
    scheme: Annotated[str, KindOf(SCHEMES)] = Field("metaclip", exclude_if="metaclip".__eq__, examples=["per_language"])
    """One t for all entries, or one for each language."""
    language: str = Field("en", exclude_if="en".__eq__, examples=["de"])
    """Reference language for `per_language`."""
    one_per: Literal["url", "image"] | None = Field(None, exclude_if=is_none, examples=["url"])
    """Draw at most one caption per URL, or per image sha256. null: each row separately."""

    @field_validator("language", mode="before")
    @classmethod
    def _norwegian(cls, language: Any) -> Any:
        return "no" if language is False else language  # YAML 1.1 reads `no` as false

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if sum(value is not None for value in (self.t, self.rows, self.tail_share)) != 1:
            raise ValueError("give either t, rows or tail_share")
        if self.of is not None and self.counts is not None:
            raise ValueError("`counts` are for metadata entries, but `of` replaces entries by a column; leave one out")
        by_language = self.scheme == "per_language"
        if by_language and self.of is not None:
            raise ValueError("`per_language` needs languages of entries, but `of` replaces entries; leave one out")
        if isinstance(self.t, dict) and not (by_language and self.language in self.t):
            accepted = f"a number, or with scheme: per_language numbers, one of {self.language} (balance.language)"
            raise fault("t", f"found numbers of {', '.join(self.t)}; accepted: {accepted}")
        if self.language != "en" and not by_language:
            raise fault("language", "is of scheme: per_language, and of no other; leave it out")
        return self

    @property
    def image_column(self) -> str | None:
        """The column that identifies an image's texts; None if each row is on its own."""
        return "sha256" if self.one_per == "image" else self.one_per


class Sample(KindsSection):
    """A sample with a fixed number of rows, instead of `balance`: random, by weights, quotas, or shares. Give one form.

    `rows` alone draws uniformly. With `weights`, rows are drawn without replacement, as numpy's `choice` with `p`;
    weights that are null, NaN, infinite, or not above 0 are never drawn. With the same seed, a smaller sample is part
    of a larger one.
    """

    registry = FORMS

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    rows: int | None = Field(None, exclude_if=is_none, examples=[100000], ge=1, lt=2**63, strict=True)
    """Number of rows, or all if fewer are left."""
    weights: Expression | None = Field(None, exclude_if=is_none, examples=["exp(clip_score / 0.05)"])
    """Weight of each row. null: equal weights."""

    @classmethod
    def kind_field(cls, kind: Any) -> tuple[Any, Any]:
        return kind.section | None, Field(None, exclude_if=is_none, **kind.section.about())

    @classmethod
    def forms(cls) -> dict[str, tuple[str, ...]]:
        """Return the keys in each form of a section, by the key that selects the form."""
        return {"rows": ("rows",), "weights": ("weights", "rows"), **{key: (key,) for key in FORMS.kinds()}}

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        keys = {name for name in type(self).model_fields if getattr(self, name) is not None}
        forms = self.forms().values()
        if not any(keys == set(form) for form in forms):
            accepted = " or ".join("{" + ", ".join(f"{key}: …" for key in form) + "}" for form in forms)
            raise ValueError(f"has {', '.join(sorted(keys)) or 'no key'}; accepted: {accepted}")
        return self

    @property
    def form(self) -> str:
        return next(form for form in reversed(self.forms()) if getattr(self, form) is not None)
