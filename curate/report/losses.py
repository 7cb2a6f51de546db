"""Duplicates by kind of match, and failures by reason."""

from curate import schema
from curate.report.blocks import Block, Section, Table, Tables
from curate.report.source import Run
from curate.report.text import SHORT, clean, count, counts, shares

MOST = 40

_MATCH_TYPES = """
WITH dropped AS (
    SELECT s.uid, s.sha256, d.duplicate_of FROM samples s JOIN decisions d USING (unit, row) WHERE d.rule = 'duplicate'
), representatives AS (
    SELECT s.uid, any_value(s.sha256) AS sha256 FROM samples s JOIN decisions d USING (unit, row)
    WHERE (d.kept OR d.rule IN ('balance', 'forgotten')) AND s.uid IN (SELECT duplicate_of FROM dropped) GROUP BY s.uid
)
SELECT CASE WHEN a.uid = a.duplicate_of THEN 'same uid' WHEN a.sha256 = b.sha256 THEN 'same image bytes' ELSE 'near-duplicate' END AS match_type,
    count(*) AS rows
FROM dropped a LEFT JOIN representatives b ON b.uid = a.duplicate_of GROUP BY match_type ORDER BY rows DESC, match_type
"""


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
    text = f"{count(dropped)} samples were dropped as duplicates; {count(sum(row['groups'] for row in sizes))} other samples represent them."
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
        f"Pass {found.place}, by embedding: {count(found.found)} of {count(found.sampled)} close pairs in a sample of the pool were found."
        for found in run.facts.near
        if found.sampled
    ]
    return Section("duplicates", "Duplicates", [text, Tables(tables), *near])


def failures_section(run: Run) -> Section | None:
    """Return samples and files that could not be read, by reason; None where all could."""
    found = run.rows(
        """SELECT kind, reason, count(*) AS n, any_value(meaning) AS meaning, arg_min(detail, (shard, key)) AS detail FROM (
            SELECT f.*, r.meaning, coalesce(r.kind, CASE WHEN f.key IS NULL THEN 'file' ELSE 'sample' END) AS kind
            FROM failures f LEFT JOIN reasons r USING (reason)
        ) GROUP BY kind, reason ORDER BY kind DESC, n DESC, reason"""
    )
    if not found:
        return None
    blocks: list[Block] = []
    for samples in (True, False):
        rows = [row for row in found if (row["kind"] == "sample") == samples][:MOST]
        cells = [
            [
                clean(row["reason"], SHORT),
                count(row["n"]),
                part if samples else row["kind"],
                clean(row["meaning"], 160),
                clean(row["detail"], 160),
            ]
            for row, part in zip(rows, shares([row["n"] for row in rows]), strict=True)
        ]
        heads = ("reason", "samples" if samples else "files", "share" if samples else "what", "meaning", "example")
        title = "Samples that could not be used" if samples else "Files that could not be read, entirely or in part"
        blocks += [Table(heads, cells, words=("reason", "meaning", "what", "example"), title=title)] if cells else []
    return Section("failures", "Failures", blocks)
