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
    """A rule that keeps the rows with the largest values in a column. It also keeps rows that tie with the last one.

    If you set `top`, the key `over` decides how many rows the rule keeps:

    - `reached`: n counts the rows that reach the rule and have a value. The rule keeps the best ⌊top·n⌋ + 1 of them, as
      DataComp does.
    - `pool`: N counts all rows of the pool. The rule keeps a row if it is among the best ⌊top·N⌋ + 1 of the whole pool,
      even if earlier rules dropped some of these.
    - `budget`: N counts all rows of the pool. The rule keeps the best ⌊top·N⌋ of the rows that reach it. The recipe
      `s-cliploss-normsim` uses `budget`.
    """

    gives = (
        Column("decisions", "kept", "bool", "Whether the row is kept."),
        Column("decisions", "rule", "string", "The first rule or step that drops the row; null if it is kept."),
    )

    top: float | None = Field(None, exclude_if=is_none, examples=[0.3], gt=0, le=1, strict=True)
    """Fraction of rows to keep. Set either `top` or `rows`."""
    rows: int | None = Field(None, exclude_if=is_none, examples=[1000], ge=1, lt=2**63, strict=True)
    """Number of rows to keep. Set either `top` or `rows`."""
    of: AnyColumn = Field(examples=["clip_score"])
    """Column of numbers that ranks the rows. Larger is better."""
    over: Literal["reached", "pool", "budget"] = Field("reached", exclude_if="reached".__eq__, examples=["pool"])
    """Which rows `top` is a fraction of; see below."""
    by: AnyColumn | None = Field(None, exclude_if=is_none, examples=["language"])
    """Apply the rule separately to each group of rows that have the same value in this column. Rows with NULL are a
    group, too. At most 1,000 groups. null: all rows are one group."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.top is None) == (self.rows is None):
            raise ValueError("give either top (a fraction) or rows")
        return self


DEDUP = "dedup"
"""The rule that is no expression, but the place of deduplication among the rules."""

Rule = Annotated[Annotated[Expression, TEXT] | Annotated[Top, MAPPING], BY_FORM]


class Near(OneKind):
    """A pass that finds near-duplicates. Set one of these keys.

    curate compares all rows that reach deduplication, and joins near pairs into groups. If A is near B and B is near C,
    all three are in one group, even if A and C differ by more than the limit. Before you choose a limit, look at
    pairs: `curate sql RUN near_duplicates --images`.
    """

    registry = NEARNESS

    @classmethod
    def kind_field(cls, kind: Any) -> tuple[Any, Any]:
        return kind.section | None, Field(None, exclude_if=is_none, **kind.section.about())


class Against(Near):
    """Drops rows that are near an evaluation image, as `contaminated`, before deduplication (decontamination).

    Set `images`, and either `phash` or `embedding`.
    """

    images: fields.UserPaths = Field(examples=["imagenet-val/*.tar"])
    """Evaluation images: image files, folders, or webdataset tars."""

    @classmethod
    def kinds(cls) -> tuple[Any, ...]:
        return tuple(kind for kind in super().kinds() if kind.compares_images)


Pass = Annotated[Annotated[str, KindOf(KEYS), TEXT] | Annotated[Near, BuiltFrom(Near.full), MAPPING], BY_FORM]


class Dedup(Section):
    """Drops duplicates in one or several passes. curate keeps one row of each group of duplicates.

    The passes run in the order of `by`:

    - `uid`, `sha256`, and `phash` find rows with equal values. `phash` needs `measure: {image: {phash: true}}`.
    - A [section](#dedupby) finds near-duplicates.
    - The pass `uid` always runs. If you do not list it, it runs first.

    Of several rows with the same uid, curate keeps the one with the smallest hash of image (or URL) and caption, unless
    `prefer` chooses another. The run reports each group with more than 5% of the rows. It also reports the largest
    group of near-duplicates, if that group has at least 10 rows and at least 0.1% of all rows.
    """

    gives = (
        Column("decisions", "duplicate_of", "string", "For a duplicate: uid of the row that curate kept instead."),
        Column("decisions", "duplicate_cosine", "float32", "Largest cosine with a row of its group (1 if ≥ 0.9999)."),
    )

    by: tuple[Pass, ...] = Field(("uid",), examples=[["uid", "sha256", {"phash": {"distance": 4}}]])
    """The passes, in the order in which they run."""
    prefer: AnyColumn | None = Field(None, examples=["clip_score"])
    """Column of numbers. curate keeps the row with the largest value in each group. null: keep the row with the
    smallest uid."""
    against: Annotated[Against, BuiltFrom(Against.full)] | None = Field(
        None, examples=[{"images": "imagenet-val/*.tar", "phash": {"distance": 4}}]
    )
    """Evaluation images that must not be among the kept rows. null: no decontamination."""

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
        """Check that the recipe measures everything that the passes compare. Raises ValueError."""
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
    """Balanced sampling (MetaCLIP): downsamples each entry with more than t rows. Set `t`, `rows`, or `tail_share`.

    curate draws separately for each entry of a row, and keeps the row if one draw succeeds. A draw for an entry with
    `count` rows succeeds with the probability p = t / max(count, t). So the row is kept with the probability π = 1 −
    ∏(1 − p). A draw succeeds if u < p. The number u, from 0 to 1, is a hash of uid, entry, and seed. So a larger t
    keeps the same rows and more. To estimate the pool before balancing, give each kept row the weight 1/π. To compare
    values of t, use `curate whatif RUN --set balance.t=…`.

    - `tail_share` inverts MetaCLIP 2's function `t_to_p`. MetaCLIP 2's own inverse, `p_to_t`, also counts entries with
      exactly t rows, and often gives another t.
    - `of: COLUMN` downsamples the frequent values of a column instead of entries. Rows without a value are dropped.
    - `scheme: per_language` gives each language its own t (MetaCLIP 2). The tail of a language is its entries with
      fewer than t rows. curate chooses each t so that the tail has the same share of matches as in the reference
      language, which `language` names. The key `t` sets the t of the reference language. To set t for other languages
      yourself, write a mapping.
    - `one_per` treats rows with the same URL or image as captions of one image. All of them count toward entries. Only
      the one with the smallest hash of uid and seed can be kept. curate drops the others as `other_text`, and divides π
      by the number of captions.
    """

    gives = (
        Column("decisions", "probability", "float64", "Probability π that the row is kept; 1 if nothing is drawn."),
        Column("decisions", "draw", "float64", "Smallest u/p of the row's entries. If below 1, the row is kept."),
    )

    t: Threshold | None = Field(None, examples=[20000, {"en": 170000, "de": 20000}])
    """MetaCLIP's t: curate downsamples entries with more than t rows. With `scheme: per_language`, `t` may also be a
    mapping of languages to values of t."""
    rows: int | None = Field(None, examples=[1000000], lt=2**31, ge=1, strict=True)
    """Target number of rows. curate uses the largest t that keeps at most this many rows on average. If t = 1 keeps
    more, the run stops with an error."""
    tail_share: float | None = Field(None, exclude_if=is_none, examples=[0.06], gt=0, lt=1, strict=True)
    """Target share of all matches that belong to entries with fewer than t rows (MetaCLIP 2). curate uses the t that
    comes nearest."""
    of: AnyColumn | None = Field(None, exclude_if=is_none, examples=["cluster"])
    """Column to balance instead of entries, such as clusters or tags. null: balance entries, which needs `match`."""
    counts: fields.UserPath | None = Field(None, exclude_if=is_none, examples=["run1"])
    """A finished run with the same entries. curate uses its counts of rows per entry. null: this run's counts."""
    scheme: Annotated[str, KindOf(SCHEMES)] = Field("metaclip", exclude_if="metaclip".__eq__, examples=["per_language"])
    """`metaclip`: one t for all entries. `per_language`: one t for each language."""
    language: str = Field("en", exclude_if="en".__eq__, examples=["de"])
    """Reference language, for `scheme: per_language`. In every other language, the tail gets the same share of matches
    as in this language."""
    one_per: Literal["url", "image"] | None = Field(None, exclude_if=is_none, examples=["url"])
    """Keep at most one caption for each URL, or for each image (same sha256). null: treat each row separately."""

    @field_validator("language", mode="before")
    @classmethod
    def _norwegian(cls, language: Any) -> Any:
        return "no" if language is False else language  # YAML 1.1 reads `no` as false

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if sum(value is not None for value in (self.t, self.rows, self.tail_share)) != 1:
            raise ValueError("give exactly one of t, rows, and tail_share")
        if self.of is not None and self.counts is not None:
            raise ValueError("`counts` are for metadata entries, but `of` replaces entries by a column; leave one out")
        by_language = self.scheme == "per_language"
        if by_language and self.of is not None:
            raise ValueError("`per_language` needs metadata entries, but `of` replaces them by a column; leave one out")
        if isinstance(self.t, dict) and not (by_language and self.language in self.t):
            accepted = f"one number; with scheme: per_language, also numbers by language, with one for {self.language}"
            raise fault("t", f"found numbers for {', '.join(self.t)}; accepted: {accepted}")
        if self.language != "en" and not by_language:
            raise fault("language", "is only used with scheme: per_language; leave it out")
        return self

    @property
    def image_column(self) -> str | None:
        """The column that is equal in all captions of an image; None without `one_per`."""
        return "sha256" if self.one_per == "image" else self.one_per


class Sample(KindsSection):
    """Draws a fixed number of rows, instead of `balance`. Set `rows`, or `rows` and `weights`, or one section below.

    `rows` alone draws at random, and all rows are equally likely. With `weights`, curate draws without replacement, as
    numpy's `choice` does with `p`. It never draws a row whose weight is null, NaN, infinite, or not above 0. With the
    same seed, a smaller sample is part of a larger one.
    """

    registry = FORMS

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    rows: int | None = Field(None, exclude_if=is_none, examples=[100000], ge=1, lt=2**63, strict=True)
    """Number of rows to draw. If fewer are left, all are kept."""
    weights: Expression | None = Field(None, exclude_if=is_none, examples=["exp(clip_score / 0.05)"])
    """Expression for the weight of each row. null: all rows have the same weight."""

    @classmethod
    def kind_field(cls, kind: Any) -> tuple[Any, Any]:
        return kind.section | None, Field(None, exclude_if=is_none, **kind.section.about())

    @classmethod
    def forms(cls) -> dict[str, tuple[str, ...]]:
        """Return the sets of keys that a section may have, each by the key that no other set has."""
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
