"""Finds the columns that each source adds to table `scores`, from its files and joins, in groups with one key each."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa

from curate.base import schema
from curate.pool.formats.input_format import PlannedSource
from curate.pool.join import KEYS, identify_join
from curate.pool.registry import find_format
from curate.read.columns import SCORE_TYPES, Columns, score_type, unify_scores
from curate.recipe.source import Source

SUPPLIED = "the pool"  # the group of the columns that inputs always supply


@dataclass(frozen=True)
class ScoreGroup:
    """Columns of table `scores` that a source supplies together, under one key."""

    name: str  # unique among the source's groups and signals
    columns: tuple[str, ...]
    join: int | None = None  # the position of the join that supplies them; None: the inputs do
    digest: str = ""  # of the join

    @property
    def is_named(self) -> bool:
        """Whether it is supplied because an expression names it."""
        return self.join is None and self.name != SUPPLIED


def find_score_groups(
    sources: Sequence[tuple[Source, PlannedSource]], named: Collection[str]
) -> tuple[dict[str, tuple[ScoreGroup, ...]], pa.Schema]:
    """Return each source's groups in table `scores`, and all sources' columns, each with one type."""
    groups: dict[str, tuple[ScoreGroup, ...]] = {}
    fields: dict[str, pa.Field] = {}  # by lower-case name
    for source, planned in sources:
        joins = [_identify(source, planned, index) for index in range(len(source.join))]
        joined = {name.lower() for columns, _ in joins for name in columns.names}
        # If a column has integers in one file and floats in another, it is a score in both.
        always = list(dict.fromkeys(name for kind in planned.columns for name in kind.scores))
        asked = dict.fromkeys(name for kind in planned.columns for name in kind.nameable if name.lower() in named)
        extra = [name for name in asked if name not in always and name.lower() not in {*schema.OWN_COLUMNS, *joined}]
        key = "columns.scores" if isinstance(getattr(source, "columns", None), Columns) else "columns"
        for kind in planned.columns:
            for name in (name for name in [*always, *extra] if name in kind.schema.names):
                _add(fields, source, kind.schema.field(name), key)
        of_files = [ScoreGroup(SUPPLIED, tuple(always))]
        of_source = of_files + [ScoreGroup(f"{SUPPLIED}: {name}", (name,)) for name in extra]
        for index, (columns, digest) in enumerate(joins):
            for column in columns:
                _add(fields, source, column, f"join.{index}.columns")
            of_source.append(ScoreGroup(f"join of {', '.join(columns.names)}", tuple(columns.names), index, digest))
        groups[source.name] = tuple(of_source)
        if both := joined & {name.lower() for name in [*always, *extra]}:
            raise source.error(f"join adds a column {min(both)!r}, but the input files have one too; rename one")
    return groups, unify_scores([pa.schema(list(fields.values()))])


def _identify(source: Source, planned: PlannedSource, index: int) -> tuple[pa.Schema, str]:
    """Return a join's columns and digest. Raises RecipeError if the source's rows lack the key."""
    on, label = source.join[index].on, f"input {source.name!r}: join.{index}"
    if on not in KEYS:
        columns = {name for kind in planned.columns for name in (*kind.scores, *kind.nameable)}
        if on not in columns or on.lower() in schema.OWN_COLUMNS:
            problem = f"join.{index}.on: no file of the source has a column {on!r} that rules can use"
            raise source.error(f"{problem}; accepted: key, url, uid, or one of {', '.join(sorted(columns))}"[:400])
        return identify_join(source.join[index], label)
    stated = [kind.supplied for kind in planned.columns if kind.schema.names]
    if on != "uid" and stated and not find_format(source).has_members and not any(on in names for names in stated):
        problem = f"join.{index}.on: no file of the source has a column {on!r}"
        raise source.error(f"{problem}; accepted: uid, or name the column in columns.{on}")
    return identify_join(source.join[index], label)


def _add(fields: dict[str, pa.Field], source: Source, column: pa.Field, key: str) -> None:
    name, where = column.name, f"{key}: {column.name!r}"
    if name.lower() in schema.OWN_COLUMNS:
        raise source.error(f"{where} is a name that curate reserves; choose other columns, or rename it")
    kind = score_type(column.type)
    earlier = fields.get(name.lower())
    if earlier and earlier.name != name:
        raise source.error(f"{where} and {earlier.name!r} differ only in case; SQL treats them as the same name")
    if kind is None:
        raise source.error(f"{where} is {column.type}; accepted: {SCORE_TYPES}")
    field = pa.field(name, kind)
    try:
        both = pa.unify_schemas([pa.schema([earlier or field]), pa.schema([field])], promote_options="permissive")
    except pa.ArrowException:
        other = earlier and earlier.type
        raise source.error(f"{where} is {kind} in one file and {other} in another; use one type") from None
    fields[name.lower()] = both.field(0)
