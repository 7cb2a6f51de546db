"""What was dropped: by each step, in shares that sum exactly; duplicates by kind of match, failures by reason.

And link rot: how many URLs of each source came, why the others did not, and on which hosts. And what it comes to:
sources, languages, formats and licenses before and after, what each source lost at each step, and drift of embeddings.
"""

from itertools import groupby
from operator import itemgetter

from curate.ask.opened import OpenRun
from curate.ask.report.blocks import Section, Table
from curate.base import stages

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
