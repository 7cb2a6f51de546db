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
    """A rule that keeps the best rows by a column: a fraction of them, or a number, and ties.

    `top: f` is DataComp's cut: ⌊f·n⌋ + 1 rows, and ties. With `over: reached`, n counts the rows that reach the rule
    and have a value. With `over: pool`, it counts all rows of the pool, also those without a value. With
    `over: budget`, ⌊f·N⌋ rows of those that reach the rule are kept, N being all rows of the pool (s-CLIPLoss ∩
    NormSim). With `by`, the cut is made in each group of rows with one value of that column; NULL is a group.
    """

    gives = (
        Column("decisions", "kept", "bool", "Whether the row is in the set."),
        Column("decisions", "rule", "string", "The first rule that it fails, or another step; null if kept."),
    )

    top: float | None = Field(None, exclude_if=is_none, examples=[0.3], gt=0, le=1, strict=True)
    """Fraction of the rows to keep, above 0 to 1. Give either `top` or `rows`."""
    rows: int | None = Field(None, exclude_if=is_none, examples=[1000], ge=1, lt=2**63, strict=True)
    """Number of rows to keep, and ties. Give either `top` or `rows`."""
    of: AnyColumn = Field(examples=["clip_score"])
    """The numeric column that ranks rows; larger is better."""
    over: Literal["reached", "pool", "budget"] = Field("reached", exclude_if="reached".__eq__, examples=["pool"])
    """What the fraction is of: rows that reach the rule, all of the pool (DataComp), or `budget`."""
    by: AnyColumn | None = Field(None, exclude_if=is_none, examples=["language"])
    """Cut each group of rows with one value of this column; at most 1,000 values. null: one group."""

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

    Pairs are searched among all rows that reach deduplication. `curate sql RUN near_duplicates` lists them.
    """

    registry = NEARNESS

    @classmethod
    def kind_field(cls, kind: Any) -> tuple[Any, Any]:
        return kind.section | None, Field(None, exclude_if=is_none, **kind.section.about())


class Against(Near):
    """Decontamination: rows near an image of an evaluation set are dropped as `contaminated`, before deduplication.

    Give `images`, and `phash` or `embedding`.
    """

    images: fields.UserPaths = Field(examples=["imagenet-val/*.tar"])
    """Images of the evaluation set: files, folders, or webdataset tars."""

    @classmethod
    def kinds(cls) -> tuple[Any, ...]:
        return tuple(kind for kind in super().kinds() if kind.compares_images)


Pass = Annotated[Annotated[str, KindOf(KEYS), TEXT] | Annotated[Near, BuiltFrom(Near.full), MAPPING], BY_FORM]


class Dedup(Section):
    """Deduplication in passes, in the order listed: of each group of duplicates one row stays.

    A pass is `uid`, `sha256` or `phash` (equal values; `phash` needs `measure.image.phash`), or a near-duplicate pass.
    `uid` is always among them, first unless it is listed elsewhere. A run names groups with over 5 % of the rows and,
    with near-duplicate passes, the largest group from 10 rows and 0.1 % on. Of rows with the same uid the one with the
    smallest hash of image (or URL) and caption stays, whatever their order; `prefer` chooses by a column instead.
    """

    gives = (
        Column("decisions", "duplicate_of", "string", "uid of the row that stays in its place."),
        Column("decisions", "duplicate_cosine", "float32", "By embedding: largest cosine, 1 from 0.9999 on."),
    )

    by: tuple[Pass, ...] = Field(("uid",), examples=[["uid", "sha256", {"phash": {"distance": 4}}]])
    """The passes: `uid`, `sha256`, `phash`, or a near-duplicate pass."""
    prefer: AnyColumn | None = Field(None, examples=["clip_score"])
    """Numeric column: the row with its largest value stays. null: the smallest uid."""
    against: Annotated[Against, BuiltFrom(Against.full)] | None = Field(
        None, examples=[{"images": "imagenet-val/*.tar", "phash": {"distance": 4}}]
    )
    """An evaluation set to keep out of the result. null: none."""

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
    """Balanced sampling: entries over t rows are thinned to about t (MetaCLIP). Give `t`, `rows` or `tail_share`.

    A row is kept if the draw of any of its entries succeeds: p = t / max(count, t), and π = 1 − ∏(1 − p). Draws are
    hashes of uid, entry and seed. So the kept set does not depend on sharding, order, workers or retries, and only
    grows with t. Weights 1/π estimate, from the kept set, the pool before balancing. For the size
    of another t: `curate whatif RUN --set balance.t=…`. `tail_share` inverts MetaCLIP 2's `t_to_p`. Its own `p_to_t`
    counts entries with t rows too, and often gives another t.

    With `of`, the values of a column take the place of entries: a value with over t rows is thinned to about t. A row
    without a value is never drawn.

    With `scheme: per_language`, entries of each language have a t of their own, by which its tail has the share of
    matches that the tail of `language` has (MetaCLIP 2). `t`, or the one that is solved, is that of `language`. `t` by
    language gives that of some others by hand.

    With `one_per: url`, rows of one URL are texts of one image: all of them count, and the one with the smallest hash
    of uid and seed may be drawn. The others are dropped as `other_text`. Each is as likely to be that one, so π is
    divided by the number of these rows, and weights 1/π estimate all of them. A row without a URL is on its own.
    """

    gives = (
        Column("decisions", "probability", "float64", "Probability π of being kept; 1 without balance and sample."),
        Column("decisions", "draw", "float64", "Smallest u/p over the entries; kept if below 1."),
    )

    t: Threshold | None = Field(None, examples=[20000, {"en": 170000, "de": 20000}])
    """Rows that an entry may have before it is thinned: MetaCLIP's t. By language with `per_language` alone."""
    rows: int | None = Field(None, examples=[1000000], lt=2**31, ge=1, strict=True)
    """Target size: the largest t whose expected size is at most this; an error where t = 1 exceeds it."""
    tail_share: float | None = Field(None, exclude_if=is_none, examples=[0.06], gt=0, lt=1, strict=True)
    """Share of all matches that entries with fewer than t rows have: the t nearest to it (MetaCLIP 2)."""
    of: AnyColumn | None = Field(None, exclude_if=is_none, examples=["cluster"])
    """Column whose values take the place of metadata entries: clusters, tags. null: entries, which need `match`."""
    counts: fields.UserPath | None = Field(None, exclude_if=is_none, examples=["run1"])
    """A finished run with the same entries, whose counts are taken. null: this run's own."""
    scheme: Annotated[str, KindOf(SCHEMES)] = Field("metaclip", exclude_if="metaclip".__eq__, examples=["per_language"])
    """How each entry's limit follows from t: `metaclip`, t itself; `per_language`, the t of its language."""
    language: str = Field("en", exclude_if="en".__eq__, examples=["de"])
    """Language of the metadata whose tail's share the others get, with `per_language`."""
    one_per: Literal["url", "image"] | None = Field(None, exclude_if=is_none, examples=["url"])
    """Draw at most one text of each URL, or image by its sha256. null: each row is on its own."""

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
    """A sample of a fixed number of rows in place of balancing: random, by weights, quotas or shares. One of its forms.

    `rows` alone: each row is equally likely. `weights`: likelier by weight, without replacement, as numpy's `choice`
    with `p`. A weight that is null, NaN, infinite or not above 0 is never drawn. A smaller sample of the same seed is
    part of a larger one.
    """

    registry = FORMS

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    rows: int | None = Field(None, exclude_if=is_none, examples=[100000], ge=1, lt=2**63, strict=True)
    """Number of rows; all where no more are left."""
    weights: Expression | None = Field(None, exclude_if=is_none, examples=["exp(clip_score / 0.05)"])
    """Weight of each row. null: all have the same."""

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
