"""Entries of the metadata before and after balancing (MetaCLIP's figure), which gained and lost, and their languages.

Before: the rows left when balancing began, or the pool where the run does not balance. Shares are of all matches: a
caption that matches three entries counts in three.
"""

from typing import Any

from curate.ask.library import find_query
from curate.ask.opened import OpenRun
from curate.ask.report.blocks import Block, Figure, Figures, Section, Table, Tables, Tiles
from curate.ask.report.charts import compare_counts, compare_lines, log_axis, mark_threshold
from curate.ask.report.distributions import LEGEND
from curate.ask.report.text import SHORT, clean, count, number, percent
from curate.base.errors import RecipeError

POINTS = 250  # of each curve
TOP = 15  # entries in a list
_MANY = 30  # entries in a caption, from where all count together
_LANGUAGES = 40  # lines of their table


def entries_section(run: OpenRun) -> Section | None:
    """Return the figure, key numbers, matches per caption, and the entries that changed most; None without `match`."""
    if not run.facts.recipe.get("match"):
        return None
    [facts] = run.report("entries", balanced=run.balanced)
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
    figures = [figure for figure in (_ranks(run), _per_text(run)) if figure]
    blocks += [Figures(figures)] if figures else []
    if facts["matches"] and facts["matches_kept"]:
        changed = [_changed(run, facts, gained) for gained in (True, False)]
        blocks.append(Tables([table for table in changed if table.rows]))
    return Section("entries", "Entries", [*blocks, _lost(run, facts["lost"])])


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


def _ranks(run: OpenRun) -> Figure | None:
    rows = run.report("entry_ranks", balanced=run.balanced, points=POINTS)
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
    shown = [{"set": row["series"], "rank": row["rank"], "samples": row["rows"]} for row in rows[::5]]
    return Figure(title, wide, Table.of(shown, folded=True), narrow, legend, note)


def _per_text(run: OpenRun) -> Figure | None:
    rows = run.report("entries_per_text", longest=_MANY)
    if not any(row["before"] for row in rows):
        return None
    x = {"title": "entries per caption", "axis": {"format": "d", "tickMinStep": 1}}
    title = "Entries per caption"
    chart = compare_counts(rows, _MANY, x, f"{title}: shares of the pool and of the kept set", shift=0.5)
    return Figure(title, *chart, legend=LEGEND)


def _changed(run: OpenRun, facts: dict[str, Any], gained: bool) -> Table:
    sums = {name: float(facts[name]) for name in ("matches", "matches_kept")}
    rows = run.report("entries_changed", balanced=run.balanced, gained=gained, top=TOP, **sums)
    return Table.of(rows, f"Entries that {'gained' if gained else 'lost'} most: by difference of the shares")


def _lost(run: OpenRun, total: int) -> Block:
    rows = run.report("entries_lost")
    if not rows:
        return "Every entry that the pool matches is matched in the kept set too."
    most = f" The {len(rows)} most frequent:" if total > len(rows) else ""
    note = f"Of {count(total)} entries that the pool matches, every sample was dropped.{most}"
    return Table.of(rows, "Entries that were lost", note)


# ---- languages of entries


def languages_section(run: OpenRun, chosen: str | None = None) -> Section | None:
    """Return a table of languages, and the chosen one in detail, by default the largest but that whose share is taken.

    None where entries are of one language or there are none. Raises RecipeError where there is no such language.
    """
    rows = run.report("languages") if run.facts.recipe.get("match") else []
    names = [row["language"] for row in rows]
    if chosen is not None and chosen not in names:
        raise RecipeError(f"--language {chosen}: entries have none such; accepted: {', '.join(names) or 'none'}")
    if len(rows) < 2:
        return None
    reference = next(iter(run.facts.t_by_language or {}), None)
    language = chosen or next(name for name in names if name != reference)
    reading = "A sample that matches entries of several languages counts in each."
    if reference is not None:
        reading += (
            f" Each language has a t of its own, by which its tail has the share of matches that the tail of "
            f"{clean(reference, SHORT)} has; entries with more samples than that are downsampled."
        )
    rest = len(rows) - _LANGUAGES
    note = "Samples by measured language; the other columns by language of entries. Tail: entries below t."
    note += f" {count(rest)} more: curate sql DIR language_balance." if rest > 0 else ""
    blocks: list[Block] = [reading, Table.of(rows[:_LANGUAGES], note=note)]
    if not (entries := run.report("language_entries", language=language, top=TOP)):
        none = f"No sample that was left when balancing began matches an entry of {clean(language, SHORT)}."
        return Section("languages", "Languages of entries", [*blocks, none])
    if curve := _curve(run, language, rows[names.index(language)]["t"], reference):
        blocks.append(Figures([curve]))
    title = f"Entries of {clean(language, SHORT)} with the most samples"
    blocks.append(Table.of(entries, title, "Another one: curate report DIR --language LANG."))
    return Section("languages", "Languages of entries", blocks)


def _curve(run: OpenRun, language: str, t: int | None, reference: str | None) -> Figure | None:
    """Return the share of matches of entries up to a count, of a language and of the one whose share it takes."""
    series = {"kept": language} | ({"before": reference} if reference not in (None, language) else {})
    legend = [(key, clean(name, SHORT)) for key, name in series.items()]
    points = [
        point | {"series": key}
        for key, name in legend
        for point in run.report("language_curve", language=series[key], label=name, points=POINTS)
    ]
    if len(points) < 3:
        return None
    title = f"Share of matches that entries with up to so many samples have: {clean(language, SHORT)}"
    x = log_axis("rows", "samples of the entry", points)
    y = {"field": "share", "type": "quantitative", "scale": {"domain": [0, 1]}, "title": None, "axis": {"format": "~%"}}
    axes, marks = {"x": x, "y": y}, []
    if t is not None and t <= x["scale"]["domain"][1]:
        values = {"rows": t, "share": 1, "label": f"t = {count(t)}"}
        marks = mark_threshold(values, {"x": x}, {"dx": 5, "dy": 8}, axes)
    wide, narrow = compare_lines(points, title, axes, *marks, interpolate="step-after")
    shown = [{"samples of the entry": p["rows"], "share": p["share"]} for p in points if p["series"] == "kept"]
    table = Table.of(shown[:: max(1, len(shown) // 50)], folded=True)
    return Figure(title, wide, table, narrow, legend, "Dashed: t of the language." if t is not None else "")
