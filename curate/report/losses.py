"""Duplicates by how they are alike, and failures by reason."""

from curate import schema
from curate.report.blocks import Block, Cell, Paragraph, Section, Table, Tables
from curate.report.source import Run
from curate.report.text import SHORT, clean, count, shares

MOST = 40

_ALIKE = """
WITH dropped AS (
    SELECT s.uid, s.sha256, d.duplicate_of FROM samples s JOIN decisions d USING (unit, row) WHERE d.rule = 'duplicate'
), standing AS (
    SELECT s.uid, any_value(s.sha256) AS sha256 FROM samples s JOIN decisions d USING (unit, row)
    WHERE (d.kept OR d.rule IN ('balance', 'forgotten')) AND s.uid IN (SELECT duplicate_of FROM dropped) GROUP BY s.uid
)
SELECT CASE WHEN a.uid = a.duplicate_of THEN 'the same uid' WHEN a.sha256 = b.sha256 THEN 'the same image bytes' ELSE 'a near-duplicate' END AS alike,
    count(*) AS rows
FROM dropped a LEFT JOIN standing b ON b.uid = a.duplicate_of GROUP BY alike ORDER BY rows DESC, alike
"""


def duplicates_section(run: Run) -> Section | None:
    """How many there are, how they are alike, how large the groups are; None where there is none."""
    dropped = run.counts.get(schema.DUPLICATE, 0)
    if not dropped:
        return None
    sizes = run.rows(
        """SELECT least(n, 10) AS n, count(*) AS groups, sum(n)::BIGINT AS rows FROM
        (SELECT count(*) AS n FROM decisions WHERE rule = 'duplicate' GROUP BY duplicate_of) GROUP BY 1 ORDER BY 1"""
    )
    groups = sum(row["groups"] for row in sizes)
    alike = run.rows(_ALIKE)
    text = f"{count(dropped)} samples were dropped as duplicates; {count(groups)} others stand for them."
    rows: list[list[Cell]] = [
        [row["alike"], count(row["rows"]), share]
        for row, share in zip(alike, shares([row["rows"] for row in alike]), strict=True)
    ]
    by_size: list[list[Cell]] = [
        ["10 and more" if row["n"] == 10 else count(row["n"]), count(row["groups"]), count(row["rows"])]
        for row in sizes
    ]
    blocks: list[Block] = [
        Paragraph(text),
        Tables(
            [
                Table(
                    ("alike by", "dropped", "share"),
                    rows,
                    words=("alike by",),
                    title="How they are alike",
                ),
                Table(
                    ("samples that one stands for", "groups", "dropped"),
                    by_size,
                    words=("samples that one stands for",),
                    title="Size of groups",
                ),
            ]
        ),
    ]
    return Section("duplicates", "Duplicates", [*blocks, *_near(run)])


def _near(run: Run) -> list[Block]:
    """How completely the passes by embedding found close pairs, as the run measured it."""
    near = [pair for pair in run.facts.near if pair.sampled]
    return [
        Paragraph(
            f"Pass {pair.place}, by embedding: of {count(pair.sampled)} close pairs of a sample of the pool, {count(pair.found)} were compared."
        )
        for pair in near
    ]


def failures_section(run: Run) -> Section | None:
    """Samples and files that could not be read, by reason; None where all could."""
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
        parts = shares([row["n"] for row in rows])
        cells: list[list[Cell]] = [
            [
                clean(row["reason"], SHORT),
                count(row["n"]),
                part if samples else clean(row["kind"], SHORT),
                clean(row["meaning"], 160),
                clean(row["detail"], 160),
            ]
            for row, part in zip(rows, parts, strict=True)
        ]
        heads = ("reason", "samples" if samples else "files", "share" if samples else "what", "meaning", "for example")
        title = "Samples that could not be used" if samples else "Files that could not be read, whole or in part"
        blocks += (
            [Table(heads, cells, words=("reason", "meaning", "what", "for example"), title=title)] if cells else []
        )
    return Section("failures", "Failures", blocks)
