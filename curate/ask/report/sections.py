"""Sections of the report: the number that each step dropped, duplicates by kind, failures by reason, and others.

Link rot: how many URLs of each source were downloaded, why the others failed, and on which hosts. Composition: sources,
languages, formats and licenses before and after, what each source lost at each step, and drift of embeddings. Entries
of the metadata before and after balancing (MetaCLIP's figure), which gained and lost, and their languages: "before" is
the rows left when balancing began, or the pool if the run does not balance; shares are of all matches. Last, the run
itself: its times, and what determines its result.
"""

from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

import yaml

from curate.ask.library import find_query
from curate.ask.opened import OpenRun
from curate.ask.report.blocks import SHORT, Figure, Section, Table, clean
from curate.ask.report.charts import count_integers, describe_bins, draw_lines, render_svg
from curate.ask.report.distributions import LEGEND
from curate.base import stages
from curate.base.errors import RecipeError
from curate.base.wording import format_bytes, format_seconds
from curate.store.layout import REPORT_FILE

_STEPS = 200  # lines of the funnel shown one by one
POINTS = 250  # in each curve of entries
TOP = 15  # entries in a list
_MANY = 30  # entries in a caption; captions with more share one bin
_LANGUAGES = 40  # lines in their table
_TITLES = {"source": "Sources", "language": "Languages", "format": "Image formats"}


def funnel_section(run: OpenRun) -> Section:
    """Return the steps in order, each with its meaning, the rows that it dropped, and the rows that were left."""
    selection = run.facts.selection
    summary = selection.summary if selection and not selection.by_entries else []
    facts = {"steps": funnel_table(run), "summary": summary, "warnings": run.facts.language_warnings}
    return Section("funnel", "Funnel", facts)


def funnel_table(run: OpenRun) -> Table:
    """Return a line for each step, with shares of the pool."""
    meaning = {rule.name: rule.expression for rule in run.facts.rules}
    meaning |= {name: verdict.meaning for name, verdict in stages.VERDICT.items()}
    meaning |= {run.facts.selection.key: run.facts.selection.meaning} if run.facts.selection else {}
    lines = run.report("funnel", most=_STEPS)
    for line in lines:
        line["meaning"] = line["meaning"] or meaning.get(line["step"], "")
    return Table.of(lines, last_is_sum=True)


def duplicates_section(run: OpenRun) -> Section | None:
    """Return the number of duplicates, by kind of match and by size of group; None if there are none."""
    dropped = run.counts.get(stages.DUPLICATE, 0)
    if not dropped:
        return None
    facts = {"dropped": dropped, "kinds": run.report("duplicate_kinds"), "sizes": run.report("duplicate_groups")}
    return Section("duplicates", "Duplicates", facts)


def failures_section(run: OpenRun) -> Section | None:
    """Return samples and files that could not be read, by reason; None if there are none."""
    facts = {"samples": run.report("failed_samples"), "files": run.report("failed_files")}
    return Section("failures", "Failures", facts) if any(facts.values()) else None


def downloads_section(run: OpenRun) -> Section | None:
    """Return the results of downloading URLs; None if none were downloaded."""
    [facts] = run.report("downloads")
    if not facts["urls"]:
        return None
    facts["sources"] = run.report("download_sources")
    if facts["missing"]:
        facts |= {"reasons": run.report("download_reasons"), "hosts": run.report("download_hosts", limit=None)}
    return Section("downloads", "Downloads", facts)


def composition_section(run: OpenRun) -> Section:
    """Return a table for each column that has values, and a table of sources by step if there are several sources."""
    tables = []
    for column, rows in groupby(run.report("composition"), itemgetter("column")):
        values = [{column: row.pop("name"), **row} for row in rows if row.pop("column")]
        tables.append(Table.of(values, _TITLES.get(column, "Licenses")))
        if column == "source" and len(values) > 1:
            note = "Shares of the source's samples."
            tables.append(Table.of(run.report("lost_by_source"), "Samples lost by source and step", note))
    return Section("composition", "Sources and languages", {"tables": tables, "drift": run.report("drift")})


def entries_section(run: OpenRun) -> Section | None:
    """Return the figure, key numbers, matches per caption, and the entries that changed most; None without `match`."""
    if not run.facts.recipe.get("match"):
        return None
    [counts] = run.report("entries", balanced=run.balanced)
    per_text = run.rows(find_query("matches_per_text").sql)
    figures = [figure for figure in (_ranks(run), _per_text(run)) if figure]
    changed = {
        name: run.report("entries_changed", balanced=run.balanced, gained=name == "gained", top=TOP)
        for name in ("gained", "lost")
    }
    facts = {"counts": counts, "per_text": per_text, "figures": figures, "changed": changed}
    return Section("entries", "Entries", facts | {"lost": run.report("entries_lost"), "is_balanced": run.balanced})


def _ranks(run: OpenRun) -> Figure | None:
    rows = run.report("entry_ranks", balanced=run.balanced, points=POINTS)
    if not any(row["rank"] > 1 for row in rows):
        return None
    title = "Samples per entry by rank, before and after balancing" if run.balanced else "Samples per entry by rank"
    t = run.facts.t if run.balanced and not run.facts.t_by_language else None
    charts = draw_lines(rows, f"{title}, both axes logarithmic", t, is_share=False)
    note = "Both axes are logarithmic; entries are ranked by their count in each set. Dashed: t." if t else ""
    legend = (("before", "before balancing" if run.balanced else "pool"), ("kept", "kept"))
    shown = [{"set": row["series"], "rank": row["rank"], "samples": row["rows"]} for row in rows[::5]]
    return Figure(title, charts[0], Table.of(shown, folded=True), charts[1], legend, note)


def _per_text(run: OpenRun) -> Figure | None:
    rows = run.report("entries_per_text", longest=_MANY)
    if not any(row["before"] for row in rows):
        return None
    title = "Entries per caption"
    spec, table = describe_bins(
        count_integers(rows, _MANY, shift=0.5), "entries per caption", {"format": "d", "tickMinStep": 1}
    )
    svg = render_svg(spec, f"{title}: shares of the pool and of the kept set")
    return Figure(title, svg, table, legend=LEGEND)


def languages_section(run: OpenRun, chosen: str | None = None) -> Section | None:
    """Return a table of languages, and details of one: the chosen one, or the largest except the reference language.

    None if the entries have at most one language. Raises RecipeError if there is no such language.
    """
    rows = run.report("languages") if run.facts.recipe.get("match") else []
    names = [row["language"] for row in rows]
    if chosen is not None and chosen not in names:
        raise RecipeError(f"--language {chosen}: no entry has this language; accepted: {', '.join(names) or 'none'}")
    if len(rows) < 2:
        return None
    reference = next(iter(run.facts.t_by_language or {}), None)
    language = chosen or next(name for name in names if name != reference)
    entries = run.report("language_entries", language=language, top=TOP)
    curve = _curve(run, language, rows[names.index(language)]["t"], reference) if entries else None
    facts = {"rows": rows, "most": _LANGUAGES, "language": language, "reference": reference}
    return Section("languages", "Languages of entries", facts | {"entries": entries, "curve": curve})


def _curve(run: OpenRun, language: str, t: int | None, reference: str | None) -> Figure | None:
    """Return the share of matches in entries up to a count, for a language and for the reference language."""
    series = {"kept": language} | ({"before": reference} if reference not in (None, language) else {})
    legend = [(key, clean(name, SHORT)) for key, name in series.items()]
    points = [
        point | {"series": key}
        for key, name in legend
        for point in run.report("language_curve", language=series[key], label=name, points=POINTS)
    ]
    if len(points) < 3:
        return None
    title = f"Share of matches in entries with up to a number of samples: {clean(language, SHORT)}"
    wide, narrow = draw_lines(points, title, t, is_share=True)
    shown = [{"samples of the entry": p["rows"], "share": p["share"]} for p in points if p["series"] == "kept"]
    table = Table.of(shown[:: max(1, len(shown) // 50)], folded=True)
    return Figure(title, wide, table, narrow, legend, "Dashed: t of the language." if t is not None else "")


def time_section(run: OpenRun) -> Section | None:
    """Return how long the run took, and its throughput; None if run.json has no times."""
    started, seconds = run.facts.started, run.facts.seconds
    if not started or not seconds:
        return None
    steps = []
    if any(step.seconds for step in run.facts.steps):  # else all tables existed already
        steps = [row | {"work": format_seconds(row["work"])} for row in run.report("steps")]
    times = {"started": datetime.fromtimestamp(started, UTC), "seconds": seconds, "pool": run.counts["pool"]}
    return Section("time", "Time", times | {"steps": steps})


def provenance_section(run: OpenRun) -> Section:
    """Return the inputs that determine the run, and its digests."""
    facts = run.facts
    [digest] = run.report("published_digest", report=REPORT_FILE)
    published = run.report("published_files", report=REPORT_FILE)
    found = {
        "run": facts,
        "digest": digest["sha256"],
        "models": [*facts.models.items(), *facts.engine_ids.items()],
        "files": [row | {"size": format_bytes(row["size"])} for row in published],
        "recipe": yaml.safe_dump(_plain(facts.recipe), sort_keys=False, allow_unicode=True, width=110),
    }
    return Section("provenance", "Provenance", found)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item not in (None, {}, [])}
    return [_plain(item) for item in value] if isinstance(value, list) else value
