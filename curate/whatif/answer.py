"""`whatif`: what a finished run would yield with other rules, deduplication or balance, compared with what it did yield.

In: a run and `key=value` overrides, as of `curate run --set`. Out: a `WhatIf` of small Arrow tables. Rows that rules and
deduplication drop are exact counts; what balancing keeps is an expectation, with the standard error of a run's draws.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curate import schema
from curate.ask.diff import merge_names
from curate.decide.state import ALIVE, UnitState
from curate.numeric.arrays import F64
from curate.process import in_threads
from curate.schema import CODES
from curate.store.layout import ENTRIES_FILE
from curate.whatif.changes import changed_recipe
from curate.whatif.expectation import Expectation, expect, solve_t
from curate.whatif.survivors import DecidedRows, FinishedRun, among, find_survivors, open_finished

_NUMBERS = [("run", pa.int64()), ("whatif", pa.float64()), ("change", pa.float64())]
FUNNEL = pa.schema(
    [("position", pa.int32()), ("kind", pa.string()), ("rule", pa.string()), *_NUMBERS, ("error", pa.float64())]
)
SOURCES = pa.schema([("source", pa.string()), ("pool", pa.int64()), *_NUMBERS])
LANGUAGES = pa.schema([("language", pa.string()), ("pool", pa.int64()), *_NUMBERS])
FACTS = pa.schema([("fact", pa.string()), ("run", pa.float64()), ("whatif", pa.float64())])


@dataclass(frozen=True)
class WhatIf:
    """What a run did yield (`run`), and would (`whatif`), with `change` the difference.

    Attributes:
        changes: the overrides.
        funnel: position int32 · kind string (pool, drop, kept) · rule string · run int64 · whatif float64 · change float64 ·
            error float64, one standard error of a run's draws; null where one of the two recipes has no such rule.
        sources: source string · pool int64 (rows of the pool) · run int64 (kept) · whatif float64 (expected) · change float64.
        languages: the same by language string; no rows where languages are not known.
        facts: fact string · run float64 · whatif float64: t; survivors, the rows still in when balancing begins; entries
            that some survivor matches, and how many are gained and lost; the tail's share (entries with at most their limit of survivors)
            of the matches of survivors, and of kept rows.
        expected: the expected number of kept rows.
        error: one standard error of the number that a run draws; 0 without balance.
        t: of balance, from the recipe or solved; None without balance.
    """

    changes: tuple[str, ...]
    funnel: pa.Table
    sources: pa.Table
    languages: pa.Table
    facts: pa.Table
    expected: float
    error: float
    t: int | None


def whatif(url: str, overrides: Sequence[str]) -> WhatIf:
    """Return what a finished run would yield with other rules, deduplication or balance, without a run.

    Args:
        url: the run folder, local or remote.
        overrides: `key=value` as of `curate run --set`, of rules, dedup and balance; `rules.NAME=null` removes a rule.

    Raises:
        RecipeError: there is no run, or an override is wrong or would need the pool.
        RunError: the run is not finished, or not even t = 1 gives so few rows.
    """
    return answer(open_finished(url), overrides)


def answer(run: FinishedRun, overrides: Sequence[str]) -> WhatIf:
    """Return what `whatif` does, for a run that is open."""
    recipe = changed_recipe(run.recipe, overrides)
    survivors = find_survivors(run, recipe)
    found = expect(survivors, solve_t(survivors, recipe.balance))
    sources, languages = _composition(run, survivors, found.inclusion)
    return WhatIf(
        changes=tuple(overrides),
        funnel=_funnel(run, survivors, found),
        sources=_parts(sources, SOURCES),
        languages=_parts(languages, LANGUAGES),
        facts=_facts(run, survivors, found),
        expected=found.rows,
        error=found.error,
        t=found.t,
    )


def count_verdicts(states: Sequence[UnitState], rules: Sequence[str]) -> Counter[str]:
    """Return rows by rule and reserved name; those alive as `kept`."""
    codes: Counter[int] = Counter()
    for state in states:
        codes.update(dict(zip(*(part.tolist() for part in np.unique(state.verdicts, return_counts=True)), strict=True)))
    names = {**{code: name for name, code in CODES.items()}, **dict(enumerate(rules))}
    return Counter({names[code]: rows for code, rows in codes.items()})


def _funnel(run: FinishedRun, survivors: DecidedRows, found: Expectation) -> pa.Table:
    old, new = run.recipe, survivors.recipe
    was = count_verdicts(run.states, list(old.rules))
    will: dict[str, float] = dict(count_verdicts(survivors.states, list(new.rules)))
    will |= {schema.BALANCE: will.get(schema.KEPT, 0) - found.rows, schema.KEPT: found.rows}
    forgotten = bool(was[schema.FORGOTTEN])
    olds, news = ({schema.POOL, *(s.name for s in recipe.stages(forgotten))} for recipe in (old, new))
    rules = merge_names(list(new.rules), list(old.rules))
    steps = [name for stage in schema.STAGES for name in (rules if stage.name == schema.RULES else [stage.name])]
    was[schema.POOL] = was.total()
    will[schema.POOL] = was[schema.POOL]
    rows: list[dict[str, Any]] = []
    for name in [schema.POOL, *steps]:
        before, after = name in olds, name in news
        if before or after:
            drawn = name in (schema.BALANCE, schema.KEPT)
            row: dict[str, Any] = {"position": len(rows), "rule": name}
            row["kind"] = name if name in (schema.POOL, schema.KEPT) else "drop"
            row["run"], row["whatif"] = was[name] if before else None, will.get(name, 0) if after else None
            row["change"] = (row["whatif"] or 0) - (row["run"] or 0)
            row["error"] = (found.error if drawn else 0.0) if after else None
            rows.append(row)
    return pa.Table.from_pylist(rows, FUNNEL)


def _composition(
    run: FinishedRun, survivors: DecidedRows, inclusion: list[F64]
) -> tuple[dict[str, F64], dict[str | None, F64]]:
    """Return rows of the pool, kept and expected rows (float64[3]), by source and by language."""
    known = "language" in survivors.settings.columns.names

    def weigh(place: int) -> tuple[F64, dict[str | None, F64]]:
        was, now = run.states[place], survivors.states[place]
        weights = np.zeros((3, len(was.verdicts)))
        weights[0], weights[1] = 1, was.alive
        weights[2, now.alive] = inclusion[place]
        if not known:
            return weights.sum(axis=1), {}
        coded = run.tables(was.unit).read("samples", ["language"])["language"].combine_chunks().dictionary_encode()
        names = [*coded.dictionary.to_pylist(), None]
        codes = coded.indices.fill_null(len(names) - 1).to_numpy().astype(np.int64)
        sums = np.stack([np.bincount(codes, part, len(names)) for part in weights], axis=1)
        return weights.sum(axis=1), dict(zip(names, sums, strict=True))

    sources: dict[str, F64] = {source.name: np.zeros(3) for source in run.recipe.input}
    languages: dict[str | None, F64] = {}
    for unit, (sums, by_language) in zip(run.units, in_threads(weigh, range(len(run.units))), strict=True):
        sources[unit.source] = sources[unit.source] + sums
        for language, part in by_language.items():
            languages[language] = languages.get(language, np.zeros(3)) + part
    return sources, {language: sums for language, sums in languages.items() if sums[0]}


def _parts(sums: dict[Any, F64], columns: pa.Schema) -> pa.Table:
    """Return the table of parts of the pool, the largest first."""
    order = sorted(sums, key=lambda name: (-sums[name][0], str(name)))
    rows = [(name, round(sums[name][0]), round(sums[name][1]), float(sums[name][2])) for name in order]
    found = [(name, pool, kept, expected, expected - kept) for name, pool, kept, expected in rows]
    return pa.Table.from_pylist([dict(zip(columns.names, row, strict=True)) for row in found], columns)


def _facts(run: FinishedRun, survivors: DecidedRows, found: Expectation) -> pa.Table:
    rows: list[tuple[str, float | None, float | None]] = [("t", run.t, found.t)]
    reached = sum(int(among(b.verdicts, (ALIVE, CODES[schema.BALANCE])).sum()) for b in run.states)
    rows.append(("survivors", reached, sum(int(b.alive.sum()) for b in survivors.states)))
    if run.recipe.match:
        entries = run.context.store.read_parquet(ENTRIES_FILE, ["survivors", "expected", "probability"])
        before, expected, p = (entries[name].to_numpy() for name in ("survivors", "expected", "probability"))
        now = survivors.counts
        rows.append(("entries", int((before > 0).sum()), int((now > 0).sum())))
        rows.append(("entries_gained", None, int(((now > 0) & (before == 0)).sum())))
        rows.append(("entries_lost", None, int(((now == 0) & (before > 0)).sum())))
        tail = p == 1
        shares = [float(w[tail].sum()) / float(w.sum()) if run.t and w.any() else None for w in (before, expected)]
        rows += [("tail_share", shares[0], found.tail), ("tail_share_kept", shares[1], found.tail_kept)]
    return pa.Table.from_pylist([dict(zip(FACTS.names, row, strict=True)) for row in rows], FACTS)
