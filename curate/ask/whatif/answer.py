"""Compute what a finished run would yield with other rules, deduplication or balance, compared with what it did.

In: a run and `key=value` overrides, as of `curate run --set`. Out: a `WhatIf` of small Arrow tables. Rows that rules
and deduplication drop are exact counts; what balancing keeps is an expectation, with the standard error of a run's
draws, compared with the run's own, from which the rows that it kept differ by chance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.ask.diff import merge_names
from curate.ask.whatif.expectation import Expectation, choose, expect
from curate.ask.whatif.survivors import (
    LEFT,
    DecidedRows,
    FinishedRun,
    among,
    changed_recipe,
    count_verdicts,
    find_survivors,
    open_finished,
)
from curate.base import schema
from curate.base.numeric.arrays import F64, I64
from curate.base.process import in_threads
from curate.base.wording import all_digits
from curate.decide.draw.inclusion import ONE, fixed_point
from curate.decide.draw.selection import Choice
from curate.recipe.deciding import SELECTIONS
from curate.recipe.recipe import Recipe
from curate.store.layout import ENTRIES_FILE

# Counts of the run, their expectation, that of the other settings, and the difference of the two expectations.
_NUMBERS = [("run", pa.int64()), *((name, pa.float64()) for name in ("run_expected", "whatif", "change"))]
# Kinds are pool, drop and kept; dropped rows are negative, so that all add up to the kept ones. The error is one
# standard error of a run's draws. Null: that recipe has no such rule.
FUNNEL = pa.schema(
    [("position", pa.int32()), ("kind", pa.string()), ("rule", pa.string()), *_NUMBERS, ("error", pa.float64())]
)
# Rows of the pool, and kept ones.
SOURCES = pa.schema([("source", pa.string()), ("pool", pa.int64()), *_NUMBERS])
LANGUAGES = pa.schema([("language", pa.string()), ("pool", pa.int64()), *_NUMBERS])
# Rows of the pool and kept ones; expected ones in fixed point with balance, else rows left before a sample: exact sums.
_EXACT = pa.decimal128(38)
_KEYS = [("language", pa.string()), ("source", pa.string())]
_WEIGHTS = pa.schema([*_KEYS, ("pool", pa.int64()), ("run", pa.int64()), ("run_expected", _EXACT), ("whatif", _EXACT)])
# t; survivors, the rows left when balancing begins; entries that some survivor matches, and how many are gained and
# lost; the share of entries of which all rows stay in the matches of survivors, and of kept rows; that of entries with
# fewer than t rows (`balance.tail_share`), and the smallest above 0 that the counts allow.
FACTS = pa.schema([("fact", pa.string()), ("run", pa.float64()), ("whatif", pa.float64())])


@dataclass(frozen=True)
class WhatIf:
    """What a run kept (`run`), and would keep (`whatif`); `change` is `whatif` minus `run_expected`, without chance."""

    changes: tuple[str, ...]  # the overrides
    funnel: pa.Table  # FUNNEL
    sources: pa.Table  # SOURCES
    languages: pa.Table  # LANGUAGES; no rows where languages are not known
    facts: pa.Table  # FACTS
    expected: float  # the expected number of kept rows
    error: float  # one standard error of the number that a run draws; 0 without balance
    choice: Choice | None  # of the selection; None where all rows that are left are kept
    t: int | None  # of balance, from the recipe or solved; None without balance
    above: float | None  # what is expected with t + 1, where t was solved for a target size and more can be kept
    is_same: bool  # whether a run would keep just the rows that this one kept
    thresholds: Mapping[str, str]  # of top rules, where rules were evaluated again, in all digits


def whatif(url: str, overrides: Sequence[str]) -> WhatIf:
    """Return what the finished run in a folder, local or remote, would yield with other settings.

    `overrides` are `key=value` as of `curate run --set`, of rules, dedup and balance; `rules.NAME=null` removes a rule.

    Raises:
        RecipeError: there is no run, or an override is wrong or would need the pool.
        RunError: the run is not finished, or not even t = 1 gives so few rows.
    """
    return answer(open_finished(url), overrides)


def answer(run: FinishedRun, overrides: Sequence[str]) -> WhatIf:
    """Return what `whatif` does, for a run that is open."""
    recipe = changed_recipe(run.recipe, overrides)
    survivors = find_survivors(run, recipe)
    expectation = expect(survivors, choose(survivors, recipe))
    units = list(in_threads(lambda place: _weigh(run, survivors, expectation, place), range(len(run.units))))
    weights = pa.concat_tables([_WEIGHTS.empty_table(), *(unit.weights for unit in units)])
    sources = pa.table({"source": [source.name for source in run.recipe.input]})  # those of no rows too
    left = sum(int(state.alive.sum()) for state in survivors.states)
    shares = _share_of_run(run), _share(expectation.is_uniform, expectation.rows, left)
    has_languages = "language" in survivors.settings.columns.names
    run_expected = float(int(pc.sum(weights["run_expected"]).as_py() or 0) * shares[0])
    return WhatIf(
        changes=tuple(overrides),
        funnel=_funnel(run, survivors, expectation, run_expected),
        sources=_parts(pa.concat_tables([weights, sources], promote_options="default"), SOURCES, shares),
        languages=_parts(weights, LANGUAGES, shares) if has_languages else LANGUAGES.empty_table(),
        facts=_facts(run, survivors, expectation),
        expected=expectation.rows,
        error=expectation.error,
        choice=expectation.choice,
        t=expectation.values.get("t"),
        above=expectation.values.get("expected_above"),
        is_same=expectation.values.get("t") == run.facts.t and all(unit.is_same for unit in units),
        thresholds=_thresholds(survivors),
    )


def _share_of_run(run: FinishedRun) -> Fraction:
    left = sum(int(among(state.verdicts, LEFT).sum()) for state in run.states)
    return _share(_was_uniform(run), sum(int(state.alive.sum()) for state in run.states), left)


def _was_uniform(run: FinishedRun) -> bool:
    return run.facts.selection is None or run.facts.selection.is_uniform


def _share(is_uniform: bool, kept: float, left: int) -> Fraction:
    """Return what one of _EXACT is in rows: where all rows left have one probability, the part of them that is kept."""
    return Fraction(1, ONE) if not is_uniform else Fraction(round(kept), max(1, left))


def _thresholds(survivors: DecidedRows) -> dict[str, str]:
    return {
        rule: all_digits(threshold, search.single)
        for rule, search in survivors.thresholds.items()
        for threshold in search.thresholds.values()
        if search.spec.by is None
    }


def _funnel(run: FinishedRun, survivors: DecidedRows, expectation: Expectation, run_expected: float) -> pa.Table:
    """Return FUNNEL; `run_expected` is the expected number of rows that the run keeps."""
    old, new = run.recipe, survivors.recipe
    was = count_verdicts(run.states, old)
    likely = _with_kept(was, old, run_expected)
    will = _with_kept(count_verdicts(survivors.states, new), new, expectation.rows)
    forgotten = bool(was[schema.FORGOTTEN])
    olds, news = ([s.name for s in recipe.stages(forgotten)] for recipe in (old, new))
    names = [schema.POOL, *merge_names(news, olds)]
    olds, news = [schema.POOL, *olds], [schema.POOL, *news]
    was[schema.POOL] = was.total()
    likely[schema.POOL] = will[schema.POOL] = was[schema.POOL]
    kinds = [name if name in (schema.POOL, schema.KEPT) else "drop" for name in names]

    def column(counts: Mapping[str, float], stages: Sequence[str]) -> list[float | None]:
        rows = [counts.get(name, 0) if name in stages else None for name in names]
        return [n if n is None or kind != "drop" else 0 - n for n, kind in zip(rows, kinds, strict=True)]

    before, between, after = column(was, olds), column(likely, olds), column(will, news)
    errors = dict.fromkeys((schema.KEPT, *(new.selection or ())[:1]), expectation.error)
    columns = {
        "position": list(range(len(names))),
        "kind": kinds,
        "rule": names,
        "run": before,
        "run_expected": between,
        "whatif": after,
        "change": [(b or 0) - (a or 0) for a, b in zip(between, after, strict=True)],
        "error": [errors.get(name, 0.0) if name in news else None for name in names],
    }
    return pa.table(columns, FUNNEL)


def _with_kept(counts: Mapping[str, int], recipe: Recipe, kept: float) -> dict[str, float]:
    """Return the counts with so many rows kept; the selection drops the others that are left."""
    if recipe.selection is None:
        return {**counts}
    drawn = recipe.selection[0]
    left = counts.get(schema.KEPT, 0) + counts.get(drawn, 0)
    return {**counts, drawn: left - kept, schema.KEPT: kept}


@dataclass(frozen=True)
class _UnitWeights:
    """Rows of a unit."""

    weights: pa.Table  # _WEIGHTS, by language
    is_same: bool  # whether each is kept with the probability of the run


def _weigh(run: FinishedRun, survivors: DecidedRows, expectation: Expectation, place: int) -> _UnitWeights:
    """Return rows of the pool, kept and expected ones, of one unit."""
    was, now = run.states[place], survivors.states[place]
    tables = survivors.settings.tables(was.unit)
    before = tables.read("decisions", ["probability"])["probability"].to_numpy()
    after = np.zeros(len(was.verdicts))
    after[now.alive] = expectation.inclusion[place]
    language = pa.nulls(len(after), pa.string())
    if "language" in survivors.settings.columns.names:
        language = tables.read("samples", ["language"])["language"]
    numbers = {
        "run": was.alive,
        "run_expected": among(was.verdicts, LEFT) if _was_uniform(run) else fixed_point(before),
        "whatif": now.alive if expectation.is_uniform else fixed_point(after),
    }
    rows = pa.table({"language": language, **{name: column.astype(np.int64) for name, column in numbers.items()}})
    by_language = rows.group_by("language", use_threads=False)
    sums = by_language.aggregate([([], "count_all"), *((name, "sum") for name in numbers)])
    weights = sums.add_column(1, "source", pa.repeat(was.unit.source, len(sums))).rename_columns(_WEIGHTS.names)
    return _UnitWeights(weights.cast(_WEIGHTS), np.array_equal(before, after))


def _parts(weights: pa.Table, columns: pa.Schema, shares: tuple[Fraction, Fraction]) -> pa.Table:
    """Return the table of parts of the pool, the largest first; `shares` are of the run and of the other settings."""
    by, numbers = columns.names[0], _WEIGHTS.names[2:]
    sums = weights.group_by(by, use_threads=False).aggregate([(name, "sum") for name in numbers])
    pool, kept, *expected = (pc.fill_null(sums[f"{name}_sum"], 0) for name in numbers)
    before, after = (
        pa.array([float(int(n) * share) for n in part.to_pylist()], pa.float64())
        for part, share in zip(expected, shares, strict=True)
    )
    table = pa.table([sums[by], pool, kept, before, after, pc.subtract(after, before)], names=columns.names)
    return table.sort_by([("pool", "descending"), (by, "ascending")]).cast(columns)


def _facts(run: FinishedRun, survivors: DecidedRows, expectation: Expectation) -> pa.Table:
    rows: list[tuple[str, float | None, float | None]] = [("t", run.facts.t, expectation.values.get("t"))]
    reached = sum(int(among(b.verdicts, LEFT).sum()) for b in run.states)
    rows.append(("survivors", reached, sum(int(b.alive.sum()) for b in survivors.states)))
    if run.recipe.match:
        entries = run.context.store.read_parquet(ENTRIES_FILE, ["entry_id", "survivors", "expected"])
        entry_ids, before, expected = (column.to_numpy() for column in entries.columns)
        now = survivors.counts[entry_ids]
        rows.append(("entries", int((before > 0).sum()), int((now > 0).sum())))
        rows.append(("entries_gained", None, int(((now > 0) & (before == 0)).sum())))
        rows.append(("entries_lost", None, int(((now == 0) & (before > 0)).sum())))
        counts, kept = np.zeros_like(survivors.counts), np.zeros(len(survivors.counts))
        counts[entry_ids], kept[entry_ids] = before, expected
        was, will = _shares_of_run(run, survivors, counts, kept), expectation.shares
        rows += [(name, was.get(name), will.get(name)) for name in {**was, **will}]
    return pa.Table.from_pylist([dict(zip(FACTS.names, row, strict=True)) for row in rows], FACTS)


def _shares_of_run(run: FinishedRun, survivors: DecidedRows, counts: I64, kept: F64) -> Mapping[str, float | None]:
    """Return `Choice.shares` of the run's choice; by another run's counts, only where they are read anyway."""
    if run.recipe.selection is None or run.facts.selection is None:
        return {}
    key, section = run.recipe.selection
    choice = SELECTIONS.find(key).recorded(section, run.facts, survivors.selection_run, counts)
    return choice.shares(counts, kept) if choice else {}
