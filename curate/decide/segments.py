"""How rules are cut into segments: what units can do alone, up to what must be asked of all of them.

A segment is SQL rules, and then one of: statistics of derived columns, which the next rule uses; a top rule;
deduplication; or nothing more.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from curate.decide.rules.rules import Rule
from curate.decide.statistics.derived import Derived, needed_columns
from curate.recipe.deciding import DEDUP, Top


@dataclass(frozen=True)
class Segment:
    """SQL rules that are evaluated together, and what follows them."""

    first: int  # position of the first of them among all rules
    rules: tuple[Rule, ...] = ()
    derive: tuple[str, ...] = ()  # derived columns whose statistics are computed then, of the rows that are still in
    top: Rule | None = None
    dedup: bool = False


def cut_segments(rules: Sequence[Rule], derived: Mapping[str, Derived], prefer: str | None) -> list[Segment]:
    """Return the segments of a recipe's rules; the last one is followed by nothing.

    `prefer` is the column that deduplication prefers, if any. A derived column is known before the first rule that uses
    it, or before deduplication; where nothing uses it, after all rules.
    """
    cut: list[Segment] = []
    group: list[Rule] = []
    known: set[str] = set()
    first = 0

    def know(columns: Iterable[str]) -> None:
        nonlocal group, first
        needed = needed_columns(derived, list(columns))
        wanted = [name for name in needed if name not in known and derived[name].statistics]
        while wanted:  # a column comes after those that it is computed from
            ready = tuple(name for name in wanted if {*needed_columns(derived, [name])} & {*wanted} == {name})
            cut.append(Segment(first, tuple(group), derive=ready))
            group, first = [], first + len(group)
            known.update(ready)
            wanted = [name for name in wanted if name not in ready]

    for rule in rules:
        know(rule.columns)
        if isinstance(rule.spec, Top):
            cut.append(Segment(first, tuple(group), top=rule))
            group, first = [], first + len(group) + 1
        elif rule.spec == DEDUP:
            know([prefer] if prefer else [])
            cut.append(Segment(first, tuple(group), dedup=True))
            group, first = [], first + len(group) + 1
        else:
            group.append(rule)
    know(derived)
    if not any(segment.dedup for segment in cut):
        cut.append(Segment(first, tuple(group), dedup=True))
        group, first = [], first + len(group)
    return [*cut, Segment(first, tuple(group))]
