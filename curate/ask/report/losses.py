"""What was dropped: by each step, in shares that sum exactly; duplicates by kind of match, failures by reason."""

from curate.ask.report.blocks import Bar, Block, Cell, Section, Table, Tables
from curate.ask.report.source import Run
from curate.ask.report.text import SHORT, clean, count, counts, percent, shares
from curate.base import schema

MOST = 40
_STEPS = 200  # lines of the funnel that are shown one by one

_MATCH_TYPES = """
WITH dropped AS (SELECT uid, sha256, duplicate_of FROM verdicts WHERE rule = 'duplicate'), representatives AS (
    SELECT uid, any_value(sha256) AS sha256 FROM verdicts
    WHERE (kept OR rule = 'forgotten' OR rule IN (FROM later_rules)) AND uid IN (SELECT duplicate_of FROM dropped)
    GROUP BY uid
)
SELECT CASE WHEN a.uid = a.duplicate_of THEN 'same uid' WHEN a.sha256 = b.sha256 THEN 'same image bytes'
    ELSE 'near-duplicate' END AS match_type, count(*) AS rows
FROM dropped a LEFT JOIN representatives b ON b.uid = a.duplicate_of GROUP BY match_type ORDER BY rows DESC, match_type
"""


def funnel_section(run: Run) -> Section:
    """Return the steps in order: what each is, what it dropped, and what was left."""
    pool, kept, failed = (run.counts.get(name, 0) for name in ("pool", "kept", schema.FAILED))
    text = (
        f"Every sample of the pool is counted in exactly one line: {count(pool)} found = {count(kept)} kept + "
        f"{count(pool - kept - failed)} dropped + {count(failed)} that could not be read. A sample is dropped by the "
        "first step that it fails."
    )
    return Section("funnel", "Funnel", [text, funnel_table(run)])


def funnel_table(run: Run) -> Table:
    """Return a line for each step; shares are of the pool, so those of all drops and of the kept set sum to 100 %."""
    drops = [(line["rule"], line["rows"]) for line in run.funnel if line["kind"] == "drop"]
    pool, kept = run.counts["pool"], run.counts["kept"]
    meaning = {rule.name: rule.expression for rule in run.facts.rules}
    meaning |= {name: stage.meaning for name, stage in schema.STAGE.items()}
    meaning |= {run.facts.selection.key: run.facts.selection.meaning} if run.facts.selection else {}
    if len(drops) > _STEPS:
        rest = drops[_STEPS:]
        drops = [*drops[:_STEPS], (f"{len(rest):,} more steps", sum(n for _, n in rest))]
    parts = shares([*(n for _, n in drops), kept])
    whole = Bar(count(pool), 1.0, "pool")
    rows: list[list[Cell]] = [["pool", count(pool), percent(pool, pool), whole, "", "all samples found"]]
    left = pool
    for (rule, dropped), share in zip(drops, parts, strict=False):
        reached, left = left, left - dropped
        bar = Bar(count(left), left / pool if pool else 0.0, "pool")
        text = clean(meaning.get(rule, ""), 120)
        rows.append([clean(rule, SHORT), count(-dropped), share, bar, percent(dropped, reached), text])
    bar = Bar(count(kept), kept / pool if pool else 0.0)
    rows.append(["kept", count(kept), parts[-1], bar, "", meaning[schema.KEPT]])
    heads = ("step", "samples", "share of the pool", "left", "share of those reaching it", "meaning")
    return Table(heads, rows, words=("step", "left", "meaning"), last_is_sum=True)


def duplicates_section(run: Run) -> Section | None:
    """Return how many there are, by kind of match and by size of their groups; None where there are none."""
    dropped = run.counts.get(schema.DUPLICATE, 0)
    if not dropped:
        return None
    sizes = run.rows(
        """SELECT least(n, 10) AS n, count(*) AS groups, sum(n)::BIGINT AS rows FROM
        (SELECT count(*) AS n FROM decisions WHERE rule = 'duplicate' GROUP BY duplicate_of) GROUP BY 1 ORDER BY 1"""
    )
    matches = run.rows(_MATCH_TYPES)
    groups = sum(row["groups"] for row in sizes)
    text = f"{count(dropped)} samples were dropped as duplicates; {count(groups)} other samples represent them."
    kinds = [
        [row["match_type"], count(row["rows"]), share]
        for row, share in zip(matches, shares([row["rows"] for row in matches]), strict=True)
    ]
    by_size = [["10 and more" if row["n"] == 10 else count(row["n"]), *counts(row, "groups", "rows")] for row in sizes]
    size = "duplicates of one sample"
    tables = [
        Table(("match", "dropped", "share"), kinds, words=("match",), title="Kind of match"),
        Table((size, "groups", "dropped"), by_size, words=(size,), title="Size of groups"),
    ]
    near = [
        f"Pass {recall.place}, by embedding: {count(recall.found)} of {count(recall.sampled)} close pairs in a sample "
        "of the pool were found."
        for recall in run.facts.near
        if recall.sampled
    ]
    large = [f"{group.describe(bool(run.facts.near))}." for group in run.facts.large_groups or ()]
    return Section("duplicates", "Duplicates", [text, *large, Tables(tables), *near])


def failures_section(run: Run) -> Section | None:
    """Return samples and files that could not be read, by reason; None where all could."""
    failures = run.rows(
        """SELECT kind, reason, count(*) AS n, any_value(meaning) AS meaning,
        arg_min(detail, (shard, key, unit, row)) AS detail FROM (
            SELECT f.*, r.meaning, coalesce(r.kind, CASE WHEN f.row IS NULL THEN 'file' ELSE 'sample' END) AS kind
            FROM failures f LEFT JOIN reasons r USING (reason)
        ) GROUP BY kind, reason ORDER BY kind DESC, n DESC, reason"""
    )
    if not failures:
        return None
    blocks: list[Block] = []
    for samples in (True, False):
        rows = [row for row in failures if (row["kind"] == "sample") == samples][:MOST]
        parts = shares([row["n"] for row in rows]) if samples else [row["kind"] for row in rows]
        cells = [
            [clean(row["reason"], SHORT), count(row["n"]), part, clean(row["meaning"], 160), clean(row["detail"], 160)]
            for row, part in zip(rows, parts, strict=True)
        ]
        heads = ("reason", "samples" if samples else "files", "share" if samples else "what", "meaning", "example")
        title = "Samples that could not be used" if samples else "Files that could not be read, entirely or in part"
        blocks += [Table(heads, cells, words=("reason", "meaning", "what", "example"), title=title)] if cells else []
    return Section("failures", "Failures", blocks)
