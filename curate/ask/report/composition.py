"""Sources, languages and formats before and after, what each source lost at each step, and drift of embeddings."""

from curate.ask.opened import OpenRun
from curate.ask.report.blocks import Bar, Block, Cell, Section, Table, Tables
from curate.ask.report.text import SHORT, clean, count, names, percent, shares

MOST = 12  # values that are shown one by one
_STEPS = 40
_COLUMNS = (("source", "Sources", 0b011), ("language", "Languages", 0b101), ("format", "Image formats", 0b110))


def composition_section(run: OpenRun) -> Section:
    """Return a table for each column that has values, and one of sources by step where there are several sources."""
    rows = run.rows(
        """SELECT source, language, format, grouping(source, language, format) AS others, count(*) AS pool,
        count(*) FILTER (kept) AS kept FROM verdicts
        GROUP BY GROUPING SETS ((source), (language), (format)) ORDER BY pool DESC, source, language, format"""
    )
    tables: list[Table] = []
    for column, title, others in _COLUMNS:
        groups = [(row[column], row["pool"], row["kept"]) for row in rows if row["others"] == others]
        if any(name is not None for name, *_ in groups):
            tables.append(_before_and_after(column, title, groups))
            tables += [_by_step(run)] if column == "source" and len(groups) > 1 else []
    return Section("composition", "Sources and languages", [Tables(tables), *_drift(run)])


def _before_and_after(column: str, title: str, groups: list[tuple[str | None, int, int]]) -> Table:
    values = ["unknown" if name is None else clean(name, SHORT) for name, *_ in groups]
    if len(groups) > MOST:
        rest = groups[MOST - 1 :]
        values = [*values[: MOST - 1], f"{len(rest)} others"]
        groups = [*groups[: MOST - 1], ("", sum(pool for _, pool, _ in rest), sum(kept for *_, kept in rest))]
    pools, kepts = [pool for _, pool, _ in groups], [kept for *_, kept in groups]
    longest = max([n / (sum(part) or 1) for part in (pools, kepts) for n in part], default=1) or 1
    cells: list[list[Cell]] = []
    for value, pool, kept, old, new in zip(values, pools, kepts, shares(pools), shares(kepts), strict=True):
        bars = Bar(old, pool / sum(pools) / longest, "pool"), Bar(new, kept / (sum(kepts) or 1) / longest)
        cells.append([value, count(pool), count(kept), percent(kept, pool), *bars])
    heads = (column, "pool", "kept", "share kept", "pool share", "kept share")
    return Table(heads, cells, words=(column, "pool share", "kept share"), title=title)


def _by_step(run: OpenRun) -> Table:
    """Return the rows that each source lost at each step, as shares of the source."""
    sources = run.rows("SELECT source, pool FROM sources WHERE pool > 0 ORDER BY pool DESC, source LIMIT 8")
    drops = {(row["source"], row["rule"]): row["rows"] for row in run.rows("SELECT source, rule, rows FROM drops")}
    steps = [line["rule"] for line in run.funnel if line["kind"] == "drop" and line["rows"]][:_STEPS]
    cells = [
        [clean(step, SHORT), *(percent(drops.get((row["source"], step), 0), row["pool"]) for row in sources)]
        for step in steps
    ]
    heads = ("step", *(clean(row["source"], SHORT) for row in sources))
    note = "Shares of the source's samples."
    return Table(heads, cells, words=("step",), title="Samples lost by source and step", note=note)


def _drift(run: OpenRun) -> list[Block]:
    rows = run.rows("SELECT * FROM drift ORDER BY ALL LIMIT 60")
    if not rows:
        return []
    note = (
        "Distance of the embeddings of the kept set from those of the pool (sliced Wasserstein, with its standard "
        "error), and the distance that a random subset of the same size would have."
    )
    cells = []
    for row in rows:
        values = [row[column] for column in ("distance", "standard_error", "unchanged")]
        measured = ["–" if value is None else f"{value:.5f}" for value in values]
        cells.append([*names(row, "source", "model", "side"), *measured])
    heads = ("source", "model", "side", "distance", "standard error", "random subset")
    return [Table(heads, cells, words=("source", "model", "side"), title="Drift of embeddings", note=note)]
