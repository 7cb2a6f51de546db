"""The sections of a recipe that decide which samples stay: top rules, deduplication and balance. See `curate.recipe.recipe`.

`rules` itself is a field of `Recipe`; its SQL is checked by `curate.decide.rules`. The passes of deduplication and the schemes
of balancing are what their registries hold.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    Tag,
    field_validator,
    model_serializer,
    model_validator,
)

from curate.recipe.measure import Measure
from curate.recipe.section import BuiltFrom, KindOf, OneKind, Section, UserPath, UserPaths
from curate.registry import Registry

KEYS: Registry[Any] = Registry("deduplication key", "curate.decide.passes.registry:KEYS")
NEARNESS: Registry[Any] = Registry("kind of nearness", "curate.decide.passes.registry:NEARNESS")
SCHEMES: Registry[Any] = Registry("balancing scheme", "curate.decide.schemes.registry:KINDS")


class Top(Section):
    """The best fraction of the rows with a value, `{top: 0.3, of: clip_score}` (DataComp's cut), or the best `rows`, and ties.

    They are the best of the rows that reach the rule or, with `over: pool`, of all rows of the pool, where the fraction is of
    all rows, those without a value too. With `by`, a column of at most 1,000 values, of each group of rows with one value.
    """

    top: float | None = Field(None, gt=0, le=1, strict=True)
    rows: int | None = Field(None, ge=1, lt=2**63, strict=True)
    of: str
    over: Literal["reached", "pool"] = "reached"
    by: str | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.top is None) == (self.rows is None):
            raise ValueError("give either top, a fraction, or rows")
        return self

    @model_serializer(mode="wrap")
    def _without_defaults(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        return {name: value for name, value in serialise(self).items() if value != fields[name].default}


DEDUP = "dedup"
"""The rule that is no expression, but the place of deduplication among the rules."""

_SQL, _BEST = "an expression", "the best rows"
Rule = Annotated[
    Annotated[str, Tag(_SQL)] | Annotated[Top, Tag(_BEST)],
    Discriminator(lambda rule: _BEST if isinstance(rule, dict | Top) else _SQL),
]


class Near(OneKind):
    """A pass by nearness: connected components of near pairs are groups. Each kind of nearness adds an optional section."""

    registry = NEARNESS

    @classmethod
    def shown(cls, kind: Any) -> str:
        """Return what messages show of a kind."""
        return f"{kind.key}: {kind.form}"

    @model_serializer(mode="wrap")
    def _without_others(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialise(self).items() if value is not None}


class Against(Near):
    """Images of an evaluation set: rows near one of them are dropped by rule `contaminated`, before deduplication."""

    images: UserPaths  # image files or webdataset tars

    @classmethod
    def kinds(cls) -> tuple[Any, ...]:
        """Return the kinds that compare images."""
        return tuple(kind for kind in super().kinds() if kind.compares_images)


_KEY, _NEAR = "a key", "nearness"
Pass = Annotated[
    Annotated[str, KindOf(KEYS), Tag(_KEY)] | Annotated[SerializeAsAny[Near], BuiltFrom(Near.full), Tag(_NEAR)],
    Discriminator(lambda by: _NEAR if isinstance(by, dict | Near) else _KEY),
]


class Dedup(Section):
    """Deduplication in passes in the listed order, by equal keys or by nearness; of a group the smallest uid stays.

    Each pass is in `by` once, and uid is always among them, first unless listed elsewhere. `prefer` names a numeric
    column: the row with its largest value stays instead.
    """

    by: tuple[Pass, ...] = ("uid",)
    prefer: str | None = None
    against: Annotated[SerializeAsAny[Against], BuiltFrom(Against.full)] | None = None

    @field_validator("by")
    @classmethod
    def _uid_always(cls, by: tuple[Pass, ...]) -> tuple[Pass, ...]:
        listed = tuple(dict.fromkeys(by))
        return listed if "uid" in listed else ("uid", *listed)

    @property
    def near(self) -> dict[int, Near]:
        """The passes by nearness, by their places."""
        return {place: by for place, by in enumerate(self.by) if isinstance(by, Near)}

    def check_measured(self, measure: Measure) -> None:
        """Check that what the passes compare is measured. Raises ValueError."""
        for by in self.by:
            if isinstance(by, str):
                KEYS.find(by).check(measure)
            else:
                NEARNESS.find(by.kind).check(by.section, measure)
        if self.against:
            NEARNESS.find(self.against.kind).check_against(self.against.section, measure)


class Balance(Section):
    """Balanced sampling: by `t`, the rows an entry may have before it is thinned, or by what it is solved for.

    That is a target number of `rows`, or `tail_share`, the share that entries with fewer than t rows have in the sum of all counts:
    the t whose share is nearest. `scheme` says how the limit of each entry follows from t; by default it is t itself (MetaCLIP).
    """

    t: int | None = Field(None, lt=2**63, ge=1, strict=True)
    rows: int | None = Field(None, lt=2**31, ge=1, strict=True)
    tail_share: float | None = Field(None, gt=0, lt=1, strict=True)
    counts: UserPath | None = (
        None  # of a finished run with the same entries, whose counts are taken in place of the own
    )
    scheme: Annotated[str, KindOf(SCHEMES)] = "metaclip"

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if sum(value is not None for value in (self.t, self.rows, self.tail_share)) != 1:
            raise ValueError("give either t, rows or tail_share")
        return self

    @model_serializer(mode="wrap")
    def _without_default(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = serialise(self)
        defaults = {name: type(self).model_fields[name].default for name in ("tail_share", "counts", "scheme")}
        return {name: value for name, value in plain.items() if name not in defaults or value != defaults[name]}


class Sample(Section):
    """A random sample of exactly so many rows, or of all where there are no more, each as likely: without entries."""

    rows: int = Field(ge=1, lt=2**63, strict=True)
