"""Compare two finished runs: samples gained and lost from A to B, by rule, entry, source, language; and settings.

In: two run folders; shards, order and recipes may differ, since samples are identified by uid. Out: a `Diff` of small
Arrow tables, and the changed samples as batches. Memory: 16 bytes per kept sample and about 50 per changed one; DuckDB
does the joins and spills to disk.

A sample is *lost* if A keeps its uid and B does not, and *gained* if B keeps it and A does not. The reason comes from
the decisions of the run that does not keep it. If several rows of a pool have the same uid, the row that passed the
most steps counts. An unreadable row has no uid in most pools, so its sample is `not in the pool` of that run.
"""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.ask.library import report_sql
from curate.ask.opened import OpenRun, connected
from curate.ask.output import Tables
from curate.ask.query import find_run
from curate.base import schema, stages
from curate.base.errors import RecipeError, RunError, reraised
from curate.decide.rules.rules import check_rules
from curate.publish.uids import read_uids
from curate.publish.views import quote, quote_name
from curate.recipe.recipe import changes
from curate.store.facts import RunFacts

NOT_IN_POOL = "not in the pool"
LOST, GAINED = "lost", "gained"

# One row per rule, entry, source or language: rows of A and B, samples lost and gained; null if the run has none.
_TEXT, _ROWS = pa.string(), pa.int64()
CHANGES = schema.define(name=_TEXT, a=_ROWS, b=_ROWS, lost=_ROWS, gained=_ROWS)
# A key of the recipe, or another fact of a run, with its value in A and B as JSON; null if there is none.
SETTINGS = schema.define(key=_TEXT, a=_TEXT, b=_TEXT)
# A changed sample. `rule` dropped it in the run that does not keep it, and `value` has the numbers there that the rule
# reads, as `name = number`; the other columns are from the run that keeps it.
SAMPLES = schema.define(
    *schema.define(side=_TEXT, uid=_TEXT, rule=_TEXT, value=_TEXT, duplicate_of=_TEXT),
    *schema.define(source=_TEXT, language=_TEXT, url=_TEXT, caption=_TEXT),
)

_MOST_FREQUENT = "a + b DESC"
_MOST_CHANGED = "coalesce(lost, 0) + coalesce(gained, 0) DESC, coalesce(a, 0) + coalesce(b, 0) DESC"


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    url: str
    name: str
    pool: int  # rows
    failed: int  # rows that could not be read
    kept: int
    uids: int  # in uids.npy: more than `kept` if samples repeat


@dataclass(frozen=True, repr=False)
class Diff(Tables):
    """What differs between two runs, A and B.

    Attributes:
        settings: SETTINGS; the recipe's keys that differ, then models, metadata, version, thresholds and t.
        rules: CHANGES; `pool`, each rule in A's order (a, b: rows that it dropped; lost: samples that it dropped in B;
            gained: those that it dropped in A), `not in the pool`, and `kept`.
        entries: CHANGES; kept samples of each entry that has any, by text, all languages together, the largest change
            first; a and lost are null if A does not match, b and gained if B does not.
        sources: CHANGES; kept samples by source.
        languages: CHANGES; kept samples by language, null if no language was measured.
    """

    a: Side
    b: Side
    lost: int  # how many samples A keeps and B does not
    gained: int  # how many samples B keeps and A does not
    repeated: int  # samples that both keep, but with different counts in uids.npy
    settings: pa.Table
    rules: pa.Table
    entries: pa.Table
    sources: pa.Table
    languages: pa.Table

    def __repr__(self) -> str:
        return f"{self.a.name} → {self.b.name}: lost {self.lost:,}, gained {self.gained:,}, {self.shared:,} in both"

    def samples(self, side: str, limit: int | None = None) -> pa.Table:
        """Return at most `limit` SAMPLES that are `lost` or `gained`, in order of uid; opens both runs again.

        Raises what `diff_runs` raises, and RecipeError for another side.
        """
        if side not in (LOST, GAINED):
            raise RecipeError(f"samples: {side!r} is not a side; accepted: {LOST!r}, {GAINED!r}")
        return pa.Table.from_batches(changed_samples(self.a.url, self.b.url, limit, [side]), SAMPLES)

    @property
    def shared(self) -> int:
        return self.a.kept - self.lost

    @property
    def is_same(self) -> bool:
        return not self.lost and not self.gained

    @property
    def shares_no_pool(self) -> bool:
        """Whether the runs share nothing: neither run keeps a sample that is in the other run's pool."""
        row = self.rules["name"].to_pylist().index(NOT_IN_POOL)
        outside = int(self.rules["lost"][row].as_py() + self.rules["gained"][row].as_py())
        return outside > 0 and outside == self.a.kept + self.b.kept

    @property
    def entry_changes(self) -> dict[str, int]:
        """How many entries have kept samples only in A, only in B, or in both, but fewer or more in B."""
        a, b = (np.nan_to_num(self.entries[name].to_numpy()) for name in ("a", "b"))  # null is 0
        changed = {"lost": (a > 0) & (b == 0), "gained": (a == 0) & (b > 0)}
        changed |= {"decreased": (b < a) & (b > 0), "increased": (b > a) & (a > 0)}
        return {name: int(mask.sum()) for name, mask in changed.items()}


def diff_runs(a: str, b: str) -> Diff:
    """Compare two runs; see `Diff`.

    Raises RecipeError if one of them is not a run, RunError if one is unfinished or damaged.
    """
    with _open_both(a, b) as (first, second, sides, lost, gained, repeated):
        return Diff(
            a=sides[0],
            b=sides[1],
            lost=lost,
            gained=gained,
            repeated=repeated,
            settings=_settings(first.facts, second.facts),
            rules=_rules(first, second, lost, gained),
            entries=_side_by_side(first, second, report_sql("diff_entries"), _MOST_CHANGED, "match"),
            sources=_side_by_side(first, second, report_sql("diff_kept").format(column="source"), _MOST_FREQUENT),
            languages=_side_by_side(first, second, report_sql("diff_kept").format(column="language"), _MOST_FREQUENT),
        )


def changed_samples(
    a: str, b: str, limit: int | None = None, sides: Collection[str] = (LOST, GAINED)
) -> Iterator[pa.RecordBatch]:
    """Yield lost, then gained samples, at most `limit` each, by uid, as batches of SAMPLES. Raises like `diff_runs`."""
    with _open_both(a, b) as (first, second, *_):
        for side, keeping, dropping in ((LOST, first, second), (GAINED, second, first)):
            if side not in sides:
                continue
            keeping.connection.register("reasons", _with_values(dropping, limit))
            params = {"side": side, "limit": limit}
            changed = keeping.connection.sql(report_sql("diff_samples"), params=params)
            yield from (batch.cast(SAMPLES) for batch in changed.to_arrow_reader(10_000))


def _with_values(run: OpenRun, limit: int | None) -> pa.Table:
    """Return the reasons for the first `limit` wanted samples by uid: uid, rule, value, duplicate_of; see SAMPLES."""
    columns = run.table("FROM verdicts LIMIT 0").schema
    cases = []
    for rule in run.facts.rules:
        texts = []
        for name in check_rules({rule.name: rule.sql}, columns)[0].columns if rule.sql else filter(None, [rule.of]):
            kind = columns.field(name).type
            if pa.types.is_integer(kind) or pa.types.is_floating(kind):
                # Top rules show all digits, as their thresholds do.
                all_digits = pa.types.is_integer(kind) or not rule.sql
                text = f"{quote_name(name)}::VARCHAR" if all_digits else f"format('{{:.6g}}', {quote_name(name)})"
                texts.append(f"{quote(f'{name} = ')} || coalesce({text}, 'NULL')")
        if texts:
            cases.append(f"WHEN '{rule.name}' THEN concat_ws(', ', {', '.join(texts)})")
    reasons = run.table(f"{report_sql('diff_reasons')} LIMIT $limit", outside=NOT_IN_POOL, limit=limit)
    run.connection.register("reasons", reasons)
    value = f"CASE r.rule {' '.join(cases)} END" if cases else "NULL"
    return run.table(f"SELECT r.*, {value} AS value FROM reasons r LEFT JOIN verdicts USING (unit, row)")


@contextmanager
def _open_both(a: str, b: str) -> Iterator[tuple[OpenRun, OpenRun, list[Side], int, int, int]]:
    """Open both runs, and count the samples lost, gained, and kept by both but not equally often.

    In each connection, the table `only_here` has the uids that only this run keeps, `wanted` those of the other.
    """
    listed = {url: _listed_uids(url) for url in (a, b)}
    with connected(a) as first, connected(b) as second:
        first.connection.register("uids_a", listed[a])
        first.connection.register("uids_b", listed[b])
        uneven = first.table(report_sql("diff_uids"))
        lost, gained = (uneven.filter(pc.field(name).is_null()).select(["uid"]) for name in ("b", "a"))
        sides = []
        for url, run, only, other in ((a, first, lost, gained), (b, second, gained, lost)):
            run.connection.register("only_here", only)
            run.connection.register("wanted", other)
            pool, failed, kept = (run.counts[name] for name in (stages.POOL, stages.FAILED, stages.KEPT))
            sides.append(Side(url, run.facts.name, pool, failed, kept, len(listed[url])))
        yield first, second, sides, len(lost), len(gained), len(uneven) - len(lost) - len(gained)


def _listed_uids(url: str) -> pa.Table:
    remedy = f"; see `curate verify {url}`"
    with reraised(RunError, f"{url}: uids.npy is damaged", ValueError, IndexError, EOFError, remedy=remedy):
        pairs = read_uids(find_run(url))
        halves = [pa.array(np.ascontiguousarray(pairs[half])) for half in ("f0", "f1")]
    return pa.table(halves, ["high", "low"])


def _settings(a: RunFacts, b: RunFacts) -> pa.Table:
    sides = []
    for facts in (a, b):
        recipe, plain = dict(facts.recipe), facts.to_json()
        if isinstance(recipe.get("input"), list):  # by name, so that an added source counts as one change
            recipe["input"] = {source["name"]: source for source in recipe["input"]}
        others = {key: plain[key] for key in ("models", "engine_ids", "metadata", "curate", "t")}
        others["t"] = facts.t_by_language or facts.t
        others["threshold"] = {
            rule.name: {str(group.group): group.threshold for group in rule.thresholds}
            if rule.thresholds is not None
            else rule.threshold
            for rule in facts.rules
        }
        sides.append((recipe, others))
    rows = []
    settings = {change.key: change for old, new in zip(*sides, strict=True) for change in changes(old, new)}
    if "t" in settings and (setting := settings.get("balance.t")):  # list t once
        del settings["t" if setting.old is not None and setting.new is not None else "balance.t"]
    for key, *values in settings.values():
        old, new = (None if value is None else json.dumps(value, ensure_ascii=False) for value in values)
        rows.append({"key": key, "a": old, "b": new})
    return pa.Table.from_pylist(rows, SETTINGS)


def _rules(a: OpenRun, b: OpenRun, lost: int, gained: int) -> pa.Table:
    """Return each line of the funnel: how many rows it has in A and B, and how many lost and gained samples it dropped.

    The query reads the table `wanted`, which `_open_both` registers.
    """
    sql = f"SELECT rule, count(*) AS n FROM ({report_sql('diff_reasons')}) GROUP BY rule"
    # B dropped what only A keeps, and vice versa.
    why_lost, why_gained = ({row["rule"]: row["n"] for row in run.rows(sql, outside=NOT_IN_POOL)} for run in (b, a))
    names = merge_names(list(a.counts), list(b.counts))
    names.insert(-1, NOT_IN_POOL)
    rows: list[dict[str, Any]] = [
        {"name": name, "a": a.counts.get(name), "b": b.counts.get(name)}
        | {"lost": why_lost.get(name, 0), "gained": why_gained.get(name, 0)}
        for name in names
    ]
    rows[0] |= {"lost": None, "gained": None}  # the pool
    rows[-1] |= {"lost": lost, "gained": gained}  # kept
    return pa.Table.from_pylist(rows, CHANGES)


def merge_names(a: list[str], b: list[str]) -> list[str]:
    """Merge two ordered lists of names; a name that only B has comes after its predecessor in B."""
    merged = list(a)
    for index, name in enumerate(b):
        if name not in merged:
            merged.insert(merged.index(b[index - 1]) + 1 if index else 0, name)
    return merged


def _side_by_side(a: OpenRun, b: OpenRun, sql: str, order: str, section: str | None = None) -> pa.Table:
    """Return CHANGES from a query on both runs (name, kept, changed), if their recipes have the section."""
    has = {name: section is None or bool(run.facts.recipe.get(section)) for name, run in (("a", a), ("b", b))}
    for name, run in (("a", a), ("b", b)):
        empty = schema.define(name=_TEXT, kept=_ROWS, changed=_ROWS).empty_table()
        a.connection.register(f"of_{name}", run.table(sql) if has[name] else empty)
    ordered = f"SELECT * FROM ({report_sql('diff_side_by_side')}) ORDER BY {order}, name"
    return a.table(ordered, has_a=has["a"], has_b=has["b"]).cast(CHANGES)
