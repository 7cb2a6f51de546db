"""Compute the yield of a finished run with other rules, deduplication or balance, and compare it with the run's yield.

In: a run and `key=value` overrides, as for `curate run --set`. Out: a `WhatIf` of small Arrow tables. The numbers of
rows that rules and deduplication drop are exact. The number that balancing keeps is an expected value, with the
standard error from a run's random draws. It is compared with the expected value for the run's own settings, since the
rows that the run kept differ from that by chance.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.ask.diff import merge_names
from curate.ask.output import Tables, tuples
from curate.ask.whatif.surviving import (
    DecidedRows,
    Expectation,
    FinishedRun,
    choose,
    count_copies,
    count_verdicts,
    expect,
    find_survivors,
)
from curate.base import schema, stages
from curate.base.process import in_threads
from curate.base.wording import all_digits, pluralize
from curate.decide.draw.selection import Choice
from curate.decide.select_rows import expected_kept
from curate.recipe.recipe import Recipe
from curate.store.layout import ENTRIES_FILE

_TEXT, _ROWS, _MEAN = pa.string(), pa.int64(), pa.float64()
# The run's counts, their expectation, the expectation with other settings, and the difference of the expectations.
_NUMBERS = schema.define(run=_ROWS, run_expected=_MEAN, whatif=_MEAN, change=_MEAN)
# Kinds are pool, drop and kept; dropped rows are negative, so that all lines sum to the kept rows. The error is one
# standard error of a run's draws. Null: the recipe has no such rule.
FUNNEL = schema.define(*schema.define(position=pa.int32(), kind=_TEXT, rule=_TEXT), *_NUMBERS, pa.field("error", _MEAN))
# Rows in the pool, and kept rows.
SOURCES = schema.define(*schema.define(source=_TEXT, pool=_ROWS), *_NUMBERS)
LANGUAGES = schema.define(*schema.define(language=_TEXT, pool=_ROWS), *_NUMBERS)
_WEIGHTS = schema.define(language=_TEXT, source=_TEXT, pool=_ROWS, run=_ROWS, run_expected=_MEAN, whatif=_MEAN)
_DIGITS = 6  # of expected rows, below which sums of probabilities depend on their order
# t; survivors, the rows left when balancing begins; in_uids, the length of uids.npy if rows repeat; entries that some
# survivor matches, and how many are gained and lost; the share of matches in entries that keep all rows, among
# survivors and among kept rows; the share in entries with fewer than t rows (`balance.tail_share`), and its smallest
# value above 0 that the counts allow.
FACTS = schema.define(fact=_TEXT, run=_MEAN, whatif=_MEAN)


@dataclass(frozen=True, repr=False)
class WhatIf(Tables):
    """The rows that a run kept (`run`) or would keep with changes (`whatif`); `change`: `whatif` - `run_expected`."""

    changes: tuple[str, ...]  # the overrides
    funnel: pa.Table  # FUNNEL
    sources: pa.Table  # SOURCES
    languages: pa.Table  # LANGUAGES; no rows if languages are unknown
    facts: pa.Table  # FACTS
    expected: float  # the expected number of kept rows
    error: float  # one standard error of the number that a run draws; 0 without balance
    choice: Choice | None  # of the selection; None if all remaining rows are kept
    t: int | None  # of balance, from the recipe or solved; None without balance
    above: float | None  # expected rows with t + 1, if t was solved for a target size and more can be kept
    is_same: bool  # whether a run would keep exactly the rows that this one kept
    thresholds: Mapping[str, float]  # of top rules, if rules were evaluated again

    def fact(self, name: str) -> float | None:
        return next((row["whatif"] for row in self.facts.to_pylist() if row["fact"] == name), None)

    def __repr__(self) -> str:
        rows = pluralize(round(self.expected), "row")
        return f"{', '.join(self.changes) or 'no change'}: {rows} expected ± {self.error:,.0f}"


def answer(run: FinishedRun, overrides: Sequence[str]) -> WhatIf:
    """Return what a run, opened by `open_finished`, would yield with other settings.

    `overrides` are `key=value` as for `curate run --set`: rules, dedup and balance; `rules.NAME=null` removes a rule.
    Raises RecipeError if one is wrong or would need the pool, RunError if even t = 1 gives too many rows.
    """
    recipe = run.changed(overrides)
    surviving = find_survivors(run, recipe)
    expectation = expect(surviving, choose(surviving, recipe))
    expectation = expectation._replace(rows=round(expectation.rows, _DIGITS))
    was, will = count_verdicts(run.states, run.recipe), count_verdicts(surviving.states, recipe)
    weighed = list(in_threads(lambda index: _weigh(run, surviving, expectation, index), range(len(run.units))))
    weights = pa.concat_tables([_WEIGHTS.empty_table(), *(table for table, _ in weighed)])
    sources = pa.table({"source": [source.name for source in run.recipe.input]})  # including sources without rows
    has_languages = "language" in surviving.settings.columns.names
    run_expected = round(pc.sum(weights["run_expected"]).as_py() or 0.0, _DIGITS)
    return WhatIf(
        changes=tuple(overrides),
        funnel=_funnel(run.recipe, was, run_expected, recipe, will, expectation),
        sources=_parts(pa.concat_tables([weights, sources], promote_options="default"), SOURCES),
        languages=_parts(weights, LANGUAGES) if has_languages else LANGUAGES.empty_table(),
        facts=_facts(run, surviving, expectation, _count_kept(was, run.recipe), _count_kept(will, recipe)),
        expected=expectation.rows,
        error=expectation.error,
        choice=expectation.choice,
        t=expectation.values.get("t"),
        above=expectation.values.get("expected_above"),
        is_same=expectation.values.get("t") == run.facts.t and all(is_same for _, is_same in weighed),
        thresholds={
            rule: float(all_digits(threshold, search.single))
            for rule, search in surviving.thresholds.items()
            for threshold in search.thresholds.values()
            if search.spec.by is None
        },
    )


def _rows_left(counts: Counter[str], recipe: Recipe) -> int:
    """Return the number of rows that the draw may keep."""
    return counts[stages.KEPT] + sum(counts[drawn] for drawn in (recipe.selection or ())[:1])


def _count_kept(counts: Counter[str], recipe: Recipe) -> int:
    """Return the number of rows left when the last choice began."""
    return _rows_left(counts, recipe) + counts[stages.OTHER_TEXT]


def _funnel(
    old: Recipe, was: Counter[str], run_expected: float, new: Recipe, will: Counter[str], expectation: Expectation
) -> pa.Table:
    """Return FUNNEL with the counts of both recipes; `run_expected`: how many rows the run is expected to keep."""
    forgotten = bool(was[stages.FORGOTTEN])

    def rows_of(counts: Counter[str], recipe: Recipe, kept: float) -> dict[str, float]:
        """Return rows by verdict if `kept` rows are kept; the selection drops the others that are left."""
        rows: dict[str, float] = {stages.POOL: counts.total()}
        rows |= {verdict.name: counts[verdict.name] for verdict in recipe.verdicts(forgotten)}
        if recipe.selection:
            rows |= {recipe.selection[0]: _rows_left(counts, recipe) - kept, stages.KEPT: kept}
        return rows

    columns = {"run": rows_of(was, old, was[stages.KEPT]), "run_expected": rows_of(was, old, run_expected)}
    columns["whatif"] = rows_of(will, new, expectation.rows)
    drawn = (stages.KEPT, *(new.selection or ())[:1])
    lines: list[dict[str, Any]] = []
    for position, name in enumerate(merge_names(list(columns["whatif"]), list(columns["run"]))):
        kind = name if name in (stages.POOL, stages.KEPT) else "drop"
        rows = {column: counts.get(name) for column, counts in columns.items()}
        rows = {column: 0 - n if n is not None and kind == "drop" else n for column, n in rows.items()}
        change = (rows["whatif"] or 0) - (rows["run_expected"] or 0)
        error = None if rows["whatif"] is None else expectation.error if name in drawn else 0.0
        lines.append({"position": position, "kind": kind, "rule": name, **rows, "change": change, "error": error})
    return pa.Table.from_pylist(lines, FUNNEL)


def _weigh(run: FinishedRun, survivors: DecidedRows, expectation: Expectation, index: int) -> tuple[pa.Table, bool]:
    """Return _WEIGHTS of a unit by language, and whether each of its rows is kept with the probability of the run."""
    was, now = run.states[index], survivors.states[index]
    tables = survivors.settings.tables(was.unit)
    before = expected_kept(tables.read("decisions", ["kept", "probability"]))
    after = np.zeros(len(was.verdicts))
    after[now.eligible] = expectation.inclusion[index]
    language: pa.Array | pa.ChunkedArray = pa.nulls(len(after), pa.string())
    if "language" in survivors.settings.columns.names:
        language = tables.read("samples", ["language"])["language"]
    numbers = _WEIGHTS.names[3:]
    columns = [language, *map(pa.array, (was.surviving.astype(np.int64), before, after))]
    rows = pa.table(columns, ["language", *numbers])
    sums = rows.group_by("language", use_threads=False).aggregate([([], "count_all"), *((n, "sum") for n in numbers)])
    weights = sums.add_column(1, "source", pa.repeat(pa.scalar(was.unit.source), len(sums)))
    return weights.rename_columns(_WEIGHTS.names).cast(_WEIGHTS), np.array_equal(before, after)


def _parts(weights: pa.Table, columns: pa.Schema) -> pa.Table:
    by = columns.names[0]
    sums = weights.group_by(by, use_threads=False).aggregate([(name, "sum") for name in _WEIGHTS.names[2:]])
    lines = []
    for name, *rows in tuples(sums):
        pool, kept, before, after = (round(n or 0, _DIGITS) for n in rows)
        lines.append(dict(zip(columns.names, (name, pool, kept, before, after, after - before), strict=True)))
    return pa.Table.from_pylist(lines, columns).sort_by([("pool", "descending"), (by, "ascending")])


def _copies(run: FinishedRun) -> int:
    name = schema.REPEATS.name if run.facts.repeats else "kept"
    tables = (run.context.unit_tables(unit).read("decisions", [name]) for unit in run.units)
    return sum(pc.sum(table.column(0)).as_py() or 0 for table in tables)


def _facts(run: FinishedRun, survivors: DecidedRows, expectation: Expectation, was_left: int, left: int) -> pa.Table:
    """Return FACTS; `was_left` and `left` are the rows that were, and would be, left when balancing begins."""
    rows: list[tuple[str, float | None, float | None]] = [
        ("t", run.facts.t, expectation.values.get("t")),
        ("survivors", was_left, left),
    ]
    if run.facts.repeats or survivors.recipe.repeats:
        rows.append(("in_uids", _copies(run), count_copies(survivors, expectation)))
    was: Mapping[str, float | None] = {}
    if run.recipe.match:
        entries = run.context.store.read_parquet(ENTRIES_FILE, ["entry_id", "survivors", "expected"])
        entry_ids, before, expected = (column.to_numpy() for column in entries.columns)
        now = survivors.counts[entry_ids]
        rows.append(("entries", int((before > 0).sum()), int((now > 0).sum())))
        rows.append(("entries_gained", None, int(((now > 0) & (before == 0)).sum())))
        rows.append(("entries_lost", None, int(((now == 0) & (before > 0)).sum())))
        counts, kept = np.zeros_like(survivors.counts), np.zeros(len(survivors.counts))
        counts[entry_ids], kept[entry_ids] = before, expected
        if run.recipe.selection and run.facts.selection:  # another run's counts only if they are read anyway
            section = run.recipe.selection[1]
            choice = run.recipe.selector.recorded(section, run.facts, survivors.selection_run, counts)
            was = choice.shares(counts, kept) if choice else {}
    rows += [(name, was.get(name), expectation.shares.get(name)) for name in {**was, **expectation.shares}]
    return pa.Table.from_pylist([dict(zip(FACTS.names, row, strict=True)) for row in rows], FACTS)
