"""Entries of the metadata before and after balancing (MetaCLIP's figure), and which gained and lost.

Before: the rows left when balancing began, or the pool where the run does not balance. Shares are of all matches: a
caption that matches three entries counts in three.
"""

from typing import Any

import numpy as np

from curate.ask.library import find_query, report_sql
from curate.ask.opened import OpenRun
from curate.ask.report.blocks import Bar, Block, Cell, Figure, Figures, Section, Table, Tables, Tiles
from curate.ask.report.charts import Bin, compare_bins, compare_lines, log_axis, mark_threshold
from curate.ask.report.distributions import LEGEND
from curate.ask.report.text import SHORT, clean, count, counts, names, number, percent

POINTS = 250  # of each curve
TOP = 15  # entries in a list
_MANY = 30  # entries in a caption, from where all count together


def entries_section(run: OpenRun) -> Section | None:
    """Return the figure, key numbers, matches per caption, and the entries that changed most; None without `match`."""
    if not run.facts.recipe.get("match"):
        return None
    [facts] = run.rows(report_sql("entries"), balanced=run.balanced)
    per_text = run.rows(find_query("matches_per_text").sql)
    reading = "Entries are the strings of the metadata; a caption matches those that occur in it."
    ts = run.facts.t_by_language
    if run.facts.t is None:
        reading += " This run does not balance."
    else:
        t = f"t = {count(run.facts.t)} samples{f' in {clean(next(iter(ts)), SHORT)}' if ts else ''}"
        reading += (
            f" Balancing downsamples entries with more than {t} (the head) and keeps "
            "every sample of the others (the tail). A frequent entry may keep more than t, through captions that also "
            "match rarer ones."
        )
    blocks: list[Block] = [reading, _tiles(run, facts, per_text)]
    figures = [figure for figure in (_ranks(run), _per_text(per_text)) if figure]
    blocks += [Figures(figures)] if figures else []
    if facts["matches"] and facts["matches_kept"]:
        changed = [table for gained in (True, False) if (table := _changed(run, facts, gained)).rows]
        blocks += [Tables(changed)] if changed else []
    return Section("entries", "Entries", [*blocks, _lost(run)])


def _tiles(run: OpenRun, facts: dict[str, Any], per_text: list[dict[str, Any]]) -> Tiles:
    texts = sum(row["pool"] for row in per_text)
    matched = sum(row["pool"] for row in per_text if row["entries"])
    matches = sum(row["pool"] * row["entries"] for row in per_text)
    tiles = [
        ("match rate: captions that match an entry", percent(matched, texts)),
        ("entries per matched caption", number(matches / matched) if matched else "–"),
        ("entries in the metadata", count(facts["entries"])),
        ("of them, matched in the pool", count(facts["in_pool"])),
        ("of them, matched in the kept set", count(facts["in_kept"])),
    ]
    if run.balanced:
        tiles += [
            ("entries in the head (downsampled)", count(facts["head"])),
            ("tail's share of matches before", percent(facts["tail"], facts["matches"])),
            ("and after balancing", percent(facts["tail_kept"], facts["matches_kept"])),
        ]
    return Tiles(tiles)


def log_ranks(length: int) -> list[int]:
    """Return at most POINTS ranks from 1 to `length`, evenly spaced on a log axis."""
    return np.unique(np.rint(np.geomspace(1, length, POINTS))).astype(int).tolist() if length else []


def _ranks(run: OpenRun) -> Figure | None:
    """Return counts by rank, before and after, each set in its own order."""
    rows: list[dict[str, Any]] = []
    for series, column in (("before", "survivors" if run.balanced else "pool"), ("kept", "kept")):
        [length] = run.rows(f"SELECT count(*) FILTER ({column} > 0) AS entries FROM entries")
        sql = report_sql("entry_ranks").format(series=series, rows=column)
        rows += run.rows(sql, ranks=log_ranks(length["entries"]))
    if not any(row["rank"] > 1 for row in rows):
        return None
    title = "Samples per entry by rank, before and after balancing" if run.balanced else "Samples per entry by rank"
    t = run.facts.t if run.balanced and not run.facts.t_by_language else None
    x, y = log_axis("rank", "rank of the entry", rows, grid=False), log_axis("rows", "samples", rows, grid=True)
    marks: list[dict[str, Any]] = []
    if t and any(t <= row["rows"] for row in rows):
        marks = mark_threshold({"rows": t, "label": f"t = {count(t)}"}, {"y": y}, {"x": 5, "dy": -8})
    wide, narrow = compare_lines(rows, f"{title}, both axes logarithmic", {"x": x, "y": y}, *marks)
    note = "Both axes are logarithmic; entries are ranked by their count in each set. Dashed: t." if t else ""
    legend = (("before", "before balancing" if run.balanced else "pool"), ("kept", "kept"))
    cells = [[row["series"], *counts(row, "rank", "rows")] for row in rows[::5]]
    table = Table(("set", "rank", "samples"), cells, words=("set",), folded=True)
    return Figure(title, wide, table, narrow, legend, note)


def _per_text(per_text: list[dict[str, Any]]) -> Figure | None:
    """Return how many entries captions match, in the pool and in the kept set; 30 and more together."""
    if not any(row["pool"] for row in per_text):
        return None
    bins = []
    for n in range(min(_MANY, per_text[-1]["entries"]) + 1):
        rows = [row for row in per_text if min(row["entries"], _MANY) == n]
        pool, kept = (sum(row[name] for row in rows) for name in ("pool", "kept"))
        bins.append(Bin(f"{n} and more" if n == _MANY else str(n), n - 0.5, n + 0.5, pool, kept))
    x = {"title": "entries per caption", "axis": {"format": "d", "tickMinStep": 1}}
    title = "Entries per caption"
    return Figure(title, *compare_bins(bins, x, f"{title}: shares of the pool and of the kept set"), legend=LEGEND)


def _changed(run: OpenRun, facts: dict[str, Any], gained: bool) -> Table:
    """Return the entries whose share of all matches grew or shrank most."""
    sums = {name: float(facts[name]) for name in ("matches", "matches_kept")}
    rows = run.rows(report_sql("entries_changed"), balanced=run.balanced, gained=gained, top=TOP, **sums)
    longest = max((max(row["old"], row["new"]) for row in rows), default=1)
    cells: list[list[Cell]] = []
    for row in rows:
        old = Bar(percent(row["old"], 1, 3), row["old"] / longest, "pool")
        new = Bar(percent(row["new"], 1, 3), row["new"] / longest)
        change = f"× {row['new'] / row['old']:,.3f}" if row["old"] else "new"
        cells.append([*names(row, "entry"), *counts(row, "before", "kept"), old, new, change])
    title = "Entries that gained most" if gained else "Entries that lost most"
    heads = ("entry", "before" if run.balanced else "pool", "kept", "share before", "share after", "change")
    return Table(
        heads, cells, words=("entry", "share before", "share after"), title=f"{title}: by difference of the shares"
    )


def _lost(run: OpenRun) -> Block:
    """Return the most frequent entries of the pool that no kept sample matches."""
    rows = run.rows(report_sql("entries_lost"))
    if not rows:
        return "Every entry that the pool matches is matched in the kept set too."
    total = rows[0]["lost"]
    most = f" The {len(rows)} most frequent:" if total > len(rows) else ""
    note = f"Of {count(total)} entries that the pool matches, every sample was dropped.{most}"
    cells = [[*names(row, "entry"), *counts(row, "pool", "survivors")] for row in rows]
    heads = ("entry", "pool", "left before balancing")
    return Table(heads, cells, words=("entry",), title="Entries that were lost", note=note)
