"""The funnel: what each step dropped, in counts and shares that sum exactly."""

from curate import schema
from curate.report.blocks import Bar, Cell, Section, Table
from curate.report.source import Run
from curate.report.text import SHORT, clean, count, percent, shares

MOST = 200  # lines that are shown one by one


def funnel_section(run: Run) -> Section:
    """Return the steps in order: what each is, what it dropped, and what was left."""
    return Section("funnel", "Funnel", [_reading(run), funnel_table(run)])


def funnel_table(run: Run) -> Table:
    """Return one line for each step; shares are of the pool, so that those of all drops and of the kept set sum to 100 %."""
    drops = [(line["rule"], line["rows"]) for line in run.funnel if line["kind"] == "drop"]
    pool, kept = run.counts["pool"], run.counts["kept"]
    meaning = {row["name"]: row["expression"] for row in run.rows("SELECT name, expression FROM rules")}
    meaning |= {name: stage.meaning for name, stage in schema.STAGE.items()}
    if len(drops) > MOST:
        rest = drops[MOST:]
        drops = [*drops[:MOST], (f"{len(rest):,} more steps", sum(n for _, n in rest))]
    parts = shares([*(n for _, n in drops), kept])
    rows: list[list[Cell]] = [
        ["pool", count(pool), percent(pool, pool), Bar(count(pool), 1.0, "pool"), "", "all samples found"]
    ]
    left = pool
    for (rule, dropped), share in zip(drops, parts, strict=False):
        reached, left = left, left - dropped
        bar = Bar(count(left), left / pool if pool else 0.0, "pool")
        text = clean(meaning.get(rule, ""), 120)
        rows.append([clean(rule, SHORT), count(-dropped), share, bar, percent(dropped, reached), text])
    rows.append(
        ["kept", count(kept), parts[-1], Bar(count(kept), kept / pool if pool else 0.0), "", meaning[schema.KEPT]]
    )
    heads = ("step", "samples", "share of the pool", "left", "share of those reaching it", "meaning")
    return Table(heads, rows, words=("step", "left", "meaning"), last_is_sum=True)


def _reading(run: Run) -> str:
    pool, kept, failed = (run.counts.get(name, 0) for name in ("pool", "kept", schema.FAILED))
    return (
        f"Every sample of the pool is counted in exactly one line: {count(pool)} found = {count(kept)} kept + "
        f"{count(pool - kept - failed)} dropped + {count(failed)} that could not be read. A sample is dropped by the first step that it fails."
    )
