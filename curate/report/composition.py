"""Sources, languages and formats before and after, what each source lost at each step, and drift of embeddings."""

from typing import Any

from curate.report.blocks import Bar, Block, Cell, Section, Table, Tables
from curate.report.source import Run
from curate.report.text import SHORT, clean, count, percent, shares

MOST = 12  # values that are shown one by one
_STEPS = 40
_COLUMNS = (("source", "Sources"), ("language", "Languages"), ("format", "Image formats"))


def composition_section(run: Run) -> Section:
    """Return a table for each column that has values, and one of sources by step where there are several sources."""
    rows = run.rows(
        """SELECT s.source, s.language, s.format, count(*) AS pool, count(*) FILTER (d.kept) AS kept
        FROM samples s JOIN decisions d USING (unit, row) GROUP BY ALL"""
    )
    tables: list[Table] = []
    for column, title in _COLUMNS:
        groups = _grouped(rows, column)
        if any(name is not None for name, *_ in groups):
            tables.append(_before_and_after(column, title, groups))
            tables += [_by_step(run)] if column == "source" and len(groups) > 1 else []
    return Section("composition", "Sources and languages", [Tables(tables), *_drift(run)])


def _grouped(rows: list[dict[str, Any]], column: str) -> list[tuple[str | None, int, int]]:
    """Return value, rows in the pool and rows kept, the most frequent value first."""
    found: dict[str | None, tuple[int, int]] = {}
    for row in rows:
        pool, kept = found.get(row[column], (0, 0))
        found[row[column]] = pool + row["pool"], kept + row["kept"]
    return sorted(((name, *counts) for name, counts in found.items()), key=lambda group: (-group[1], str(group[0])))


def _before_and_after(column: str, title: str, groups: list[tuple[str | None, int, int]]) -> Table:
    names = ["unknown" if name is None else clean(name, SHORT) for name, *_ in groups]
    if len(groups) > MOST:
        rest = groups[MOST - 1 :]
        names = [*names[: MOST - 1], f"{len(rest)} others"]
        groups = [*groups[: MOST - 1], ("", sum(pool for _, pool, _ in rest), sum(kept for *_, kept in rest))]
    pools, kepts = [pool for _, pool, _ in groups], [kept for *_, kept in groups]
    before, after = shares(pools), shares(kepts)
    longest = max([n / (sum(part) or 1) for part in (pools, kepts) for n in part], default=1) or 1
    cells: list[list[Cell]] = [
        [
            name,
            count(pool),
            count(kept),
            percent(kept, pool),
            Bar(old, pool / sum(pools) / longest, "pool"),
            Bar(new, kept / (sum(kepts) or 1) / longest),
        ]
        for name, (_, pool, kept), old, new in zip(names, groups, before, after, strict=True)
    ]
    heads = (column, "pool", "kept", "share kept", "pool share", "kept share")
    return Table(heads, cells, words=(column, "pool share", "kept share"), title=title)


def _by_step(run: Run) -> Table:
    """Return the rows that each source lost at each step, as shares of the source."""
    pools = {
        row["source"]: row["pool"]
        for row in run.rows("SELECT source, pool FROM sources ORDER BY pool DESC, source LIMIT 8")
        if row["pool"]
    }
    drops = {(row["source"], row["rule"]): row["rows"] for row in run.rows("SELECT source, rule, rows FROM drops")}
    steps = [line["rule"] for line in run.funnel if line["kind"] == "drop" and line["rows"]][:_STEPS]
    cells: list[list[Cell]] = [
        [clean(step, SHORT), *(percent(drops.get((source, step), 0), pool) for source, pool in pools.items())]
        for step in steps
    ]
    heads = ("step", *(clean(source, SHORT) for source in pools))
    return Table(
        heads, cells, words=("step",), title="Samples lost by source and step", note="Shares of the source's samples."
    )


def _drift(run: Run) -> list[Block]:
    rows = run.rows("SELECT * FROM drift ORDER BY ALL LIMIT 60")
    if not rows:
        return []
    text = (
        "Distance of the embeddings of the kept set from those of the pool (sliced Wasserstein, with its standard error), "
        "and the distance that a random subset of the same size would have."
    )
    cells: list[list[Cell]] = [
        [
            clean(row["source"], SHORT),
            clean(row["model"], SHORT),
            clean(row["side"], SHORT),
            *(_measure(row[name]) for name in ("distance", "standard_error", "unchanged")),
        ]
        for row in rows
    ]
    heads = ("source", "model", "side", "distance", "standard error", "random subset")
    return [Table(heads, cells, words=("source", "model", "side"), title="Drift of embeddings", note=text)]


def _measure(value: float | None) -> str:
    return "–" if value is None else f"{value:.5f}"
