"""What was dropped: by each step, in shares that sum exactly; duplicates by kind of match, failures by reason.

And link rot: how many URLs of each source came, why the others did not, and on which hosts. And what it comes to:
sources, languages, formats and licenses before and after, what each source lost at each step, and drift of embeddings.
"""

from collections import Counter
from typing import Any

from curate.ask.library import find_query, report_sql
from curate.ask.opened import OpenRun
from curate.ask.report.blocks import Bar, Block, Cell, Section, Table, Tables
from curate.ask.report.text import SHORT, clean, count, counts, names, percent, shares
from curate.base import schema, stages

MOST = 40  # lines of a table
_STEPS = 200  # lines of the funnel that are shown one by one
_HOSTS = 15
_ATTEMPTS = ("most attempts", "last attempt (UTC)")

_VALUES = 12  # of a column that are shown one by one
_BY_SOURCE = 40  # steps that are shown by source
_COLUMNS = (("source", "Sources", 0b011), ("language", "Languages", 0b101), ("format", "Image formats", 0b110))


def funnel_section(run: OpenRun) -> Section:
    """Return the steps in order: what each is, what it dropped, and what was left."""
    pool, kept, failed = (run.counts.get(name, 0) for name in ("pool", "kept", stages.FAILED))
    text = (
        f"Every sample of the pool is counted in exactly one line: {count(pool)} found = {count(kept)} kept + "
        f"{count(pool - kept - failed)} dropped + {count(failed)} that could not be read. A sample is dropped by the "
        "first step that it fails."
    )
    selection = run.facts.selection
    lines = [clean(line, 300) for line in selection.summary] if selection and not selection.by_entries else []
    lines += [f"{clean(warning, 300)}." for warning in run.facts.language_warnings]
    return Section("funnel", "Funnel", [text, funnel_table(run), *lines])


def funnel_table(run: OpenRun) -> Table:
    """Return a line for each step; shares are of the pool."""
    drops = [(line["rule"], line["rows"]) for line in run.funnel if line["kind"] == "drop"]
    pool, kept = run.counts["pool"], run.counts["kept"]
    meaning = {rule.name: rule.expression for rule in run.facts.rules}
    meaning |= {name: verdict.meaning for name, verdict in stages.VERDICT.items()}
    meaning |= {run.facts.selection.key: run.facts.selection.meaning} if run.facts.selection else {}
    if len(drops) > _STEPS:
        rest = drops[_STEPS:]
        drops = [*drops[:_STEPS], (f"{len(rest):,} more steps", sum(n for _, n in rest))]
    parts = shares([*(n for _, n in drops), kept])
    bar = Bar(count(pool), 1.0, "pool")
    rows: list[list[Cell]] = [["pool", count(pool), percent(pool, pool), bar, "", "all samples found"]]
    left = pool
    for (rule, dropped), share in zip(drops, parts, strict=False):
        reached, left = left, left - dropped
        bar = Bar(count(left), left / pool if pool else 0.0, "pool")
        text = clean(meaning.get(rule, ""), 120)
        rows.append([clean(rule, SHORT), count(-dropped), share, bar, percent(dropped, reached), text])
    bar = Bar(count(kept), kept / pool if pool else 0.0)
    rows.append(["kept", count(kept), parts[-1], bar, "", meaning[stages.KEPT]])
    heads = ("step", "samples", "share of the pool", "left", "share of those reaching it", "meaning")
    return Table(heads, rows, words=("step", "left", "meaning"), last_is_sum=True)


def duplicates_section(run: OpenRun) -> Section | None:
    """Return how many there are, by kind of match and by size of their groups; None where there are none."""
    dropped = run.counts.get(stages.DUPLICATE, 0)
    if not dropped:
        return None
    sizes = run.rows(report_sql("duplicate_groups"))
    matches: Counter[str] = Counter()
    for row in run.rows(find_query("duplicate_kinds").sql):
        words = {"pair": "same uid", "image": "same image bytes"}
        matches[words.get(row["match_type"], "near-duplicate")] += row["dropped"]
    groups = sum(row["groups"] for row in sizes)
    text = f"{count(dropped)} samples were dropped as duplicates; {count(groups)} other samples represent them."
    parts = sorted(matches.items(), key=lambda part: (-part[1], part[0]))
    kinds = [[name, count(n), share] for (name, n), share in zip(parts, shares([n for _, n in parts]), strict=True)]
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


def failures_section(run: OpenRun) -> Section | None:
    """Return samples and files that could not be read, by reason; None where all could."""
    failures = run.rows(f"FROM {find_query('failures').table} ORDER BY kind DESC, count DESC, reason")
    if not failures:
        return None
    blocks: list[Block] = []
    for samples in (True, False):
        rows = [row for row in failures if (row["kind"] == "sample") == samples][:MOST]
        parts = shares([row["count"] for row in rows]) if samples else [row["kind"] for row in rows]
        cells = [
            [*names(row, "reason"), count(row["count"]), part, clean(row["meaning"], 160), clean(row["detail"], 160)]
            for row, part in zip(rows, parts, strict=True)
        ]
        heads = ("reason", "samples" if samples else "files", "share" if samples else "what", "meaning", "example")
        title = "Samples that could not be used" if samples else "Files that could not be read, entirely or in part"
        blocks += [Table(heads, cells, words=("reason", "meaning", "what", "example"), title=title)] if cells else []
    return Section("failures", "Failures", blocks)


def downloads_section(run: OpenRun) -> Section | None:
    """Return what came of the URLs; None where none were downloaded."""
    rows = run.rows(report_sql("downloads").format(downloads=find_query("downloads").table))
    total = next(row for row in rows if row["source"] is row["outcome"] is None)
    if not total["urls"]:
        return None
    urls, missing, may_pass = total["urls"], total["missing"], total["may_pass"]
    text = f"{count(urls - missing)} of {count(urls)} URLs were downloaded ({percent(urls - missing, urls)})."
    if missing:
        mend = f"{count(may_pass)} of them may succeed on another attempt (curate run … --retry)"
        text += f" {count(missing)} were not; {mend if may_pass else 'none of them is worth another attempt'}."
    blocks: list[Block] = [text, _by_source([row for row in rows if row["source"]])]
    if missing:
        blocks += [_by_reason([row for row in rows if row["outcome"] not in (None, "came")], missing), _by_host(run)]
    return Section("downloads", "Downloads", blocks)


def _by_source(rows: list[dict[str, Any]]) -> Table:
    cells: list[list[Cell]] = []
    for row in rows[:MOST]:
        urls, came = row["urls"], row["urls"] - row["missing"]
        share = Bar(percent(came, urls), 1 - row["missing"] / urls)
        numbers = [*counts(row, "missing", "may_pass"), *_attempts(row)]
        cells.append([*names(row, "source"), count(urls), count(came), share, *numbers])
    heads = ("source", "URLs", "downloaded", "share downloaded", "not downloaded", "may succeed", *_ATTEMPTS)
    return Table(heads, cells, words=("source", "share downloaded"), title="Sources")


def _by_reason(rows: list[dict[str, Any]], missing: int) -> Table:
    cells: list[list[Cell]] = []
    for row in rows[:MOST]:
        share = Bar(percent(row["urls"], missing), row["urls"] / rows[0]["urls"], "drop")
        attempts, meaning = _attempts(row), clean(row["meaning"], 160)
        cells.append([*names(row, "outcome"), count(row["urls"]), share, count(row["may_pass"]), *attempts, meaning])
    heads = ("reason", "URLs", "share", "may succeed", *_ATTEMPTS, "meaning")
    note = "Shares of the URLs that were not downloaded. May succeed: another attempt may, if the reason is temporary."
    return Table(heads, cells, words=("reason", "share", "meaning"), title="Why URLs were not downloaded", note=note)


def _by_host(run: OpenRun) -> Table:
    cells: list[list[Cell]] = []
    sql = report_sql("download_hosts").format(failures_by_host=find_query("failures_by_host").table)
    for row in run.rows(sql, hosts=_HOSTS, limit=None):
        share = Bar(percent(row["missing"], row["urls"]), row["missing"] / row["urls"], "drop")
        urls, may_pass = counts(row, "urls", "missing"), count(row["may_pass"])
        cells.append([*names(row, "host"), *urls, share, may_pass, *names(row, "most")])
    heads = ("host", "URLs", "not downloaded", "share of the host", "may succeed", "most frequent reason")
    words = ("host", "share of the host", "most frequent reason")
    return Table(heads, cells, words=words, title="Hosts with most URLs not downloaded")


def _attempts(row: dict[str, Any]) -> tuple[str, str]:
    last = row["last"]
    return count(row["attempts"]), "–" if last is None else f"{last:%Y-%m-%d %H:%M}"


def composition_section(run: OpenRun) -> Section:
    """Return a table for each column that has values, and one of sources by step where there are several sources."""
    rows = run.rows(report_sql("composition"))
    tables: list[Table] = []
    for column, title, others in _COLUMNS:
        groups = [(row[column], row["pool"], row["kept"]) for row in rows if row["others"] == others]
        if any(name is not None for name, *_ in groups):
            tables.append(_before_and_after(column, title, groups))
            tables += [_by_step(run)] if column == "source" and len(groups) > 1 else []
    scores = {row["column_name"] for row in run.rows("DESCRIBE scores")}
    for stated in (name for name in schema.LICENCES if name in scores):
        sums = "count(*) AS pool, count(*) FILTER (kept) AS kept FROM verdicts GROUP BY licence"
        rows = run.rows(f"SELECT {stated}::VARCHAR AS licence, {sums} ORDER BY pool DESC, licence")
        groups = [(row["licence"], row["pool"], row["kept"]) for row in rows]
        tables.append(_before_and_after(stated, "Licenses", groups))
    return Section("composition", "Sources and languages", [Tables(tables), *_drift(run)])


def _before_and_after(column: str, title: str, groups: list[tuple[str | None, int, int]]) -> Table:
    values = ["unknown" if name is None else clean(name, SHORT) for name, *_ in groups]
    if len(groups) > _VALUES:
        rest = groups[_VALUES - 1 :]
        values = [*values[: _VALUES - 1], f"{len(rest)} others"]
        groups = [*groups[: _VALUES - 1], ("", sum(pool for _, pool, _ in rest), sum(kept for *_, kept in rest))]
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
    steps = [line["rule"] for line in run.funnel if line["kind"] == "drop" and line["rows"]][:_BY_SOURCE]
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
