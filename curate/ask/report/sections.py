"""What was dropped: by each step, in shares that sum exactly; duplicates by kind of match, failures by reason.

And link rot: how many URLs of each source came, why the others did not, and on which hosts. And what it comes to:
sources, languages, formats and licenses before and after, what each source lost at each step, and drift of embeddings.
At the end the run itself: its times, and what determines it.
"""

from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

import yaml

from curate.ask.opened import OpenRun
from curate.ask.report.blocks import Section, Table
from curate.base import stages
from curate.base.wording import format_bytes, format_seconds
from curate.store.layout import REPORT_FILE

_STEPS = 200  # lines of the funnel that are shown one by one
_TITLES = {"source": "Sources", "language": "Languages", "format": "Image formats"}


def funnel_section(run: OpenRun) -> Section:
    """Return the steps in order: what each is, what it dropped, and what was left."""
    selection = run.facts.selection
    summary = selection.summary if selection and not selection.by_entries else []
    facts = {"steps": funnel_table(run), "summary": summary, "warnings": run.facts.language_warnings}
    return Section("funnel", "Funnel", facts)


def funnel_table(run: OpenRun) -> Table:
    """Return a line for each step; shares are of the pool."""
    meaning = {rule.name: rule.expression for rule in run.facts.rules}
    meaning |= {name: verdict.meaning for name, verdict in stages.VERDICT.items()}
    meaning |= {run.facts.selection.key: run.facts.selection.meaning} if run.facts.selection else {}
    lines = run.report("funnel", most=_STEPS)
    for line in lines:
        line["meaning"] = line["meaning"] or meaning.get(line["step"], "")
    return Table.of(lines, last_is_sum=True)


def duplicates_section(run: OpenRun) -> Section | None:
    """Return how many there are, by kind of match and by size of their groups; None where there are none."""
    dropped = run.counts.get(stages.DUPLICATE, 0)
    if not dropped:
        return None
    facts = {"dropped": dropped, "kinds": run.report("duplicate_kinds"), "sizes": run.report("duplicate_groups")}
    return Section("duplicates", "Duplicates", facts)


def failures_section(run: OpenRun) -> Section | None:
    """Return samples and files that could not be read, by reason; None where all could."""
    facts = {"samples": run.report("failed_samples"), "files": run.report("failed_files")}
    return Section("failures", "Failures", facts) if any(facts.values()) else None


def downloads_section(run: OpenRun) -> Section | None:
    """Return what came of the URLs; None where none were downloaded."""
    [facts] = run.report("downloads")
    if not facts["urls"]:
        return None
    facts["sources"] = run.report("download_sources")
    if facts["missing"]:
        facts |= {"reasons": run.report("download_reasons"), "hosts": run.report("download_hosts", limit=None)}
    return Section("downloads", "Downloads", facts)


def composition_section(run: OpenRun) -> Section:
    """Return a table for each column that has values, and one of sources by step where there are several sources."""
    tables = []
    for column, rows in groupby(run.report("composition"), itemgetter("column")):
        values = [{column: row.pop("name"), **row} for row in rows if row.pop("column")]
        tables.append(Table.of(values, _TITLES.get(column, "Licenses")))
        if column == "source" and len(values) > 1:
            note = "Shares of the source's samples."
            tables.append(Table.of(run.report("lost_by_source"), "Samples lost by source and step", note))
    return Section("composition", "Sources and languages", {"tables": tables, "drift": run.report("drift")})


def time_section(run: OpenRun) -> Section | None:
    """Return how long the run took, and its throughput; None where run.json holds no times."""
    started, seconds = run.facts.started, run.facts.seconds
    if not started or not seconds:
        return None
    steps = []
    if any(step.seconds for step in run.facts.steps):  # else all tables were present already
        steps = [row | {"work": format_seconds(row["work"])} for row in run.report("steps")]
    times = {"started": datetime.fromtimestamp(started, UTC), "seconds": seconds, "pool": run.counts["pool"]}
    return Section("time", "Time", times | {"steps": steps})


def provenance_section(run: OpenRun) -> Section:
    """Return what determines the run, and its digests."""
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
