"""What each source adds to table `scores`: columns of its inputs, and those that its joins give, in groups that have one key each."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa

from curate.base import schema
from curate.base.errors import RecipeError
from curate.pool.decode.columns import SCORE_TYPES, Columns, score_type, unify_scores
from curate.pool.formats.input_format import PlannedSource
from curate.pool.join import JoinIdentity, identify_join
from curate.pool.registry import find_format
from curate.recipe.source import Source

SUPPLIED = "the pool"  # the group of the columns that inputs supply, whatever a recipe names


@dataclass(frozen=True)
class ScoreGroup:
    """Columns of table `scores` that a source supplies together, under one key.

    Attributes:
        name: unique among the groups of a source, and among signals.
        columns: their names.
        join: the place among the source's joins of the one that gives them; None: they are read from its inputs.
        digest: of the join.
    """

    name: str
    columns: tuple[str, ...]
    join: int | None = None
    digest: str = ""

    @property
    def is_named(self) -> bool:
        """Whether it is supplied because an expression names it."""
        return self.join is None and self.name != SUPPLIED


def find_score_groups(
    sources: Sequence[tuple[Source, PlannedSource]], named: Collection[str]
) -> tuple[dict[str, tuple[ScoreGroup, ...]], pa.Schema]:
    """Return what each source supplies of table `scores`, and the columns of all sources, each of one type."""
    groups: dict[str, tuple[ScoreGroup, ...]] = {}
    types = _ScoreTypes()
    for source, planned in sources:
        joins = [_identify(source, planned, place) for place in range(len(source.join))]
        joined = {name.lower() for one in joins for name in one.columns.names}
        # A column that holds integers in one file and floats in another is a score in both.
        always = list(dict.fromkeys(name for one in planned.columns for name in one.scores))
        more = dict.fromkeys(name for one in planned.columns for name in one.nameable if name.lower() in named)
        extra = [name for name in more if name not in always and name.lower() not in {*schema.OWN_COLUMNS, *joined}]
        for one in planned.columns:
            for name in (name for name in [*always, *extra] if name in one.schema.names):
                key = "columns.scores" if isinstance(getattr(source, "columns", None), Columns) else "columns"
                types.add(source, name, one.schema.field(name).type, key)
        for place, identity in enumerate(joins):
            for field_ in identity.columns:
                types.add(source, field_.name, field_.type, f"join.{place}.columns")
        groups[source.name] = (
            ScoreGroup(SUPPLIED, tuple(always)),
            *(ScoreGroup(f"{SUPPLIED}: {name}", (name,)) for name in extra),
            *(
                ScoreGroup(f"join of {', '.join(one.columns.names)}", tuple(one.columns.names), place, one.digest)
                for place, one in enumerate(joins)
            ),
        )
        if both := joined & {name.lower() for name in [*always, *extra]}:
            raise RecipeError(
                f"input {source.name!r}: join adds a column {min(both)!r}, which its files have already; rename the joined one"
            )
    return groups, types.schema


def _identify(source: Source, planned: PlannedSource, place: int) -> JoinIdentity:
    """Return what a join of a source gives. Raises RecipeError where rows of the source have nothing to be joined on."""
    on, where = source.join[place].on, f"input {source.name!r}: join.{place}"
    stated = [one for one in planned.columns if one.schema.names]
    if on != "uid" and stated and not find_format(source).has_members and not any(on in one.supplied for one in stated):
        raise RecipeError(
            f"{where}.on: no file of the source has a column {on!r}; accepted: uid, or name the column in columns.{on}"
        )
    return identify_join(source.join[place], where)


class _ScoreTypes:
    """The columns of table `scores` that sources supply, as far as they are known."""

    def __init__(self) -> None:
        self._types: dict[str, pa.DataType] = {}
        self._by_lower: dict[str, str] = {}

    @property
    def schema(self) -> pa.Schema:
        """Return them, in order of appearance."""
        return unify_scores([pa.schema(list(self._types.items()))])

    def add(self, source: Source, name: str, found: pa.DataType, key: str) -> None:
        """Add a column that has this type in some file. Raises RecipeError where it does not go together with what is known."""
        where = f"input {source.name!r}: {key}: {name!r}"
        if name.lower() in schema.OWN_COLUMNS:
            raise RecipeError(f"{where} is a column name that curate uses itself; choose other columns, or rename it")
        if self._by_lower.setdefault(name.lower(), name) != name:
            raise RecipeError(
                f"{where} and {self._by_lower[name.lower()]!r} differ in case only; to SQL they are the same"
            )
        kind = score_type(found)
        if kind is None:
            raise RecipeError(f"{where} is {found}; accepted: {SCORE_TYPES}")
        pair = [pa.schema([(name, one)]) for one in (self._types.get(name, kind), kind)]
        try:
            self._types[name] = pa.unify_schemas(pair, promote_options="permissive").field(0).type
        except pa.ArrowException:
            raise RecipeError(f"{where} is {kind} here and {self._types[name]} in another file; use one type") from None
