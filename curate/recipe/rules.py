"""The sections of a recipe that decide which samples stay: top rules, deduplication and balance. See `curate.recipe.recipe`."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from curate.recipe.section import ColumnName, Section, UserPaths


class Top(Section):
    """The best fraction of what reaches the rule: `{top: 0.3, of: clip_score}` (DataComp's cut)."""

    top: float = Field(gt=0, lt=1, strict=True)
    of: str


class PhashDistance(Section):
    """Perceptual hashes that differ in at most so many of 64 bits."""

    distance: int = Field(ge=1, le=16, strict=True)


class EmbeddingCosine(Section):
    """Image embeddings of a model of `measure.clip`, which keeps them, with at least this cosine."""

    cosine: float = Field(gt=0, lt=1, strict=True)
    of: ColumnName = "clip"


class Near(Section):
    """A pass by nearness: what a chain of near pairs joins is one group (single linkage)."""

    phash: PhashDistance | None = None
    embedding: EmbeddingCosine | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "Near":
        if (self.phash is None) == (self.embedding is None):
            raise ValueError("give either phash: {distance: k} or embedding: {cosine: x}")
        return self


class Against(Near):
    """Images of an evaluation set: rows near one of them are dropped by rule `contaminated`, before deduplication."""

    images: UserPaths  # image files or webdataset tars


_KEY, _NEAR = "a key", "nearness"
Pass = Annotated[
    Annotated[Literal["uid", "sha256", "phash"], Tag(_KEY)] | Annotated[Near, Tag(_NEAR)],
    Discriminator(lambda by: _NEAR if isinstance(by, dict | Near) else _KEY),
]


class Dedup(Section):
    """Deduplication in passes in the listed order, by equal keys or by nearness; of a group the smallest uid stays.

    Each pass stands once in `by`, and uid is always among them, first unless listed elsewhere. `prefer` names a numeric
    column: the row with its largest value stays instead.
    """

    by: tuple[Pass, ...] = ("uid",)
    prefer: str | None = None
    against: Against | None = None

    @field_validator("by")
    @classmethod
    def _uid_always(cls, by: tuple[Pass, ...]) -> tuple[Pass, ...]:
        listed = tuple(dict.fromkeys(by))
        return listed if "uid" in listed else ("uid", *listed)

    @property
    def near(self) -> dict[int, Near]:
        """The passes by nearness, by their places."""
        return {place: by for place, by in enumerate(self.by) if isinstance(by, Near)}


class Balance(Section):
    """Balanced sampling: by `t`, the rows an entry may have before it is thinned, or by a wished number of `rows`."""

    t: int | None = Field(None, lt=2**63, ge=1, strict=True)
    rows: int | None = Field(None, lt=2**31, ge=1, strict=True)

    @model_validator(mode="after")
    def _one_of_two(self) -> "Balance":
        if (self.t is None) == (self.rows is None):
            raise ValueError("give either t or rows")
        return self
