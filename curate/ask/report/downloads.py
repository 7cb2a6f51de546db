"""Link rot: how many URLs of each source came, why the others did not, and on which hosts."""

from typing import Any

from curate.ask.library import find_query
from curate.ask.report.blocks import Bar, Block, Cell, Section, Table
from curate.ask.report.source import Run
from curate.ask.report.text import SHORT, clean, count, counts, percent

_MOST = 40  # lines of a table
_HOSTS = 15
_ATTEMPTS = ("most attempts", "last attempt (UTC)")

_SUMS = """
SELECT source, outcome, sum(count)::BIGINT AS urls,
    coalesce(sum(count) FILTER (outcome <> 'came'), 0)::BIGINT AS missing,
    sum(may_pass)::BIGINT AS may_pass, max(attempts) AS attempts, max(last) AS last, any_value(meaning) AS meaning
FROM ({}) LEFT JOIN reasons ON reason = outcome GROUP BY GROUPING SETS ((), (source), (outcome))
ORDER BY source, urls DESC, outcome
"""
_HOSTS_OF = """
SELECT host, sum(count)::BIGINT AS missing, round(any_value(count / share))::BIGINT AS urls,
    arg_max(reason, (count, reason)) AS most, sum(may_pass)::BIGINT AS may_pass
FROM ({}) JOIN reasons USING (reason) WHERE never_came GROUP BY host ORDER BY missing DESC, urls, host LIMIT {}
"""


def downloads_section(run: Run) -> Section | None:
    """Return what came of the URLs; None where none were downloaded."""
    rows = run.rows(_SUMS.format(_sql("downloads")))
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


def _sql(name: str) -> str:
    return find_query(name).sql.rstrip().rstrip(";")


def _by_source(rows: list[dict[str, Any]]) -> Table:
    cells: list[list[Cell]] = [
        [
            clean(row["source"], SHORT),
            count(row["urls"]),
            count(row["urls"] - row["missing"]),
            Bar(percent(row["urls"] - row["missing"], row["urls"]), 1 - row["missing"] / row["urls"]),
            *counts(row, "missing", "may_pass"),
            *_attempts(row),
        ]
        for row in rows[:_MOST]
    ]
    heads = ("source", "URLs", "downloaded", "share downloaded", "not downloaded", "may succeed", *_ATTEMPTS)
    return Table(heads, cells, words=("source", "share downloaded"), title="Sources")


def _by_reason(rows: list[dict[str, Any]], missing: int) -> Table:
    cells: list[list[Cell]] = [
        [
            clean(row["outcome"], SHORT),
            count(row["urls"]),
            Bar(percent(row["urls"], missing), row["urls"] / rows[0]["urls"], "drop"),
            count(row["may_pass"]),
            *_attempts(row),
            clean(row["meaning"], 160),
        ]
        for row in rows[:_MOST]
    ]
    heads = ("reason", "URLs", "share", "may succeed", *_ATTEMPTS, "meaning")
    note = "Shares of the URLs that were not downloaded. May succeed: another attempt may, if the reason is temporary."
    return Table(heads, cells, words=("reason", "share", "meaning"), title="Why URLs were not downloaded", note=note)


def _by_host(run: Run) -> Table:
    rows = run.rows(_HOSTS_OF.format(_sql("failures_by_host"), _HOSTS), limit=None)
    cells: list[list[Cell]] = [
        [
            clean(row["host"], SHORT),
            *counts(row, "urls", "missing"),
            Bar(percent(row["missing"], row["urls"]), row["missing"] / row["urls"], "drop"),
            count(row["may_pass"]),
            clean(row["most"], SHORT),
        ]
        for row in rows
    ]
    heads = ("host", "URLs", "not downloaded", "share of the host", "may succeed", "most frequent reason")
    words = ("host", "share of the host", "most frequent reason")
    return Table(heads, cells, words=words, title="Hosts with most URLs not downloaded")


def _attempts(row: dict[str, Any]) -> tuple[str, str]:
    """Return the cells of the columns _ATTEMPTS."""
    most, last = row["attempts"], row["last"]
    return "–" if most is None else count(most), "–" if last is None else f"{last:%Y-%m-%d %H:%M}"
