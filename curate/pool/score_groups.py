"""What each source adds to table `scores`: columns of its inputs and of its joins, in groups that have one key each."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa

from curate.base import schema
from curate.pool.decode.columns import SCORE_TYPES, Columns, score_type, unify_scores
from curate.pool.formats.input_format import PlannedSource
from curate.pool.join import JoinIdentity, identify_join
from curate.pool.registry import find_format
from curate.recipe.source import Source

SUPPLIED = "the pool"  # the group of the columns that inputs supply, whatever a recipe names


@dataclass(frozen=True)
class ScoreGroup:
    """Columns of table `scores` that a source supplies together, under one key."""

    name: str  # unique among the groups of a source, and among signals
    columns: tuple[str, ...]
    join: int | None = None  # the place among the source's joins of the one that gives them; None: its inputs do
    digest: str = ""  # of the join

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
        joined = {name.lower() for join in joins for name in join.columns.names}
        # A column that holds integers in one file and floats in another is a score in both.
        always = list(dict.fromkeys(name for kind in planned.columns for name in kind.scores))
        more = dict.fromkeys(name for kind in planned.columns for name in kind.nameable if name.lower() in named)
        extra = [name for name in more if name not in always and name.lower() not in {*schema.OWN_COLUMNS, *joined}]
        key = "columns.scores" if isinstance(getattr(source, "columns", None), Columns) else "columns"
        for kind in planned.columns:
            for name in (name for name in [*always, *extra] if name in kind.schema.names):
                types.add(source, name, kind.schema.field(name).type, key)
        of_source = [
            ScoreGroup(SUPPLIED, tuple(always)),
            *(ScoreGroup(f"{SUPPLIED}: {name}", (name,)) for name in extra),
        ]
        for place, join in enumerate(joins):
            for field_ in join.columns:
                types.add(source, field_.name, field_.type, f"join.{place}.columns")
            names = tuple(join.columns.names)
            of_source.append(ScoreGroup(f"join of {', '.join(names)}", names, place, join.digest))
        groups[source.name] = tuple(of_source)
        if both := joined & {name.lower() for name in [*always, *extra]}:
            raise source.error(f"join adds a column {min(both)!r}, which its files have already; rename the joined one")
    return groups, types.schema


def _identify(source: Source, planned: PlannedSource, place: int) -> JoinIdentity:
    """Return what a join of a source gives. Raises RecipeError where the source's rows have nothing to be joined on."""
    on = source.join[place].on
    stated = [kind.supplied for kind in planned.columns if kind.schema.names]
    if on != "uid" and stated and not find_format(source).has_members and not any(on in names for names in stated):
        what = f"join.{place}.on: no file of the source has a column {on!r}"
        raise source.error(f"{what}; accepted: uid, or name the column in columns.{on}")
    return identify_join(source.join[place], f"input {source.name!r}: join.{place}")


class _ScoreTypes:
    """The columns of table `scores` that sources supply, as far as they are known."""

    def __init__(self) -> None:
        self._types: dict[str, pa.DataType] = {}
        self._by_lower: dict[str, str] = {}

    @property
    def schema(self) -> pa.Schema:
        """Return them, in order of appearance."""
        return unify_scores([pa.schema(list(self._types.items()))])

    def add(self, source: Source, name: str, file_type: pa.DataType, key: str) -> None:
        """Add a column that has this type in some file. Raises RecipeError where it does not fit what is known."""
        where = f"{key}: {name!r}"
        if name.lower() in schema.OWN_COLUMNS:
            raise source.error(f"{where} is a column name that curate uses itself; choose other columns, or rename it")
        if (other := self._by_lower.setdefault(name.lower(), name)) != name:
            raise source.error(f"{where} and {other!r} differ in case only; to SQL they are the same")
        kind = score_type(file_type)
        if kind is None:
            raise source.error(f"{where} is {file_type}; accepted: {SCORE_TYPES}")
        pair = [pa.schema([(name, known)]) for known in (self._types.get(name, kind), kind)]
        try:
            self._types[name] = pa.unify_schemas(pair, promote_options="permissive").field(0).type
        except pa.ArrowException:
            raise source.error(
                f"{where} is {kind} here and {self._types[name]} in another file; use one type"
            ) from None
