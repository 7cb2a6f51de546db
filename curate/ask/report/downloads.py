"""Link rot: how many URLs of each source came, why the others did not, and on which hosts."""

from typing import Any

from curate.ask.library import find_query
from curate.ask.report.blocks import Bar, Block, Cell, Section, Table
from curate.ask.report.source import Run
from curate.ask.report.text import SHORT, clean, count, percent

_MOST = 40  # lines of a table
_HOSTS = 15

_HOSTS_OF = """
SELECT host, sum(count)::BIGINT AS missing, round(any_value(count / share))::BIGINT AS urls, arg_max(reason, (count, reason)) AS most,
    sum(may_pass)::BIGINT AS may_pass
FROM ({}) JOIN reasons USING (reason) WHERE never_came GROUP BY host ORDER BY missing DESC, urls, host LIMIT {}
"""


def downloads_section(run: Run) -> Section | None:
    """Return what came of the URLs; None where none were downloaded."""
    found = run.rows(_sql("downloads"))
    if not found:
        return None
    urls, missing, may_pass = _sums(found)
    text = f"{count(urls - missing)} of {count(urls)} URLs were downloaded ({percent(urls - missing, urls)})."
    if missing:
        mend = (
            f"{count(may_pass)} of them may succeed on another attempt"
            if may_pass
            else "none of them is worth another attempt"
        )
        text += f" {count(missing)} were not; {mend}{' (curate run … --retry)' if may_pass else ''}."
    blocks: list[Block] = [text, _by_source(found)]
    if missing:
        blocks += [_by_reason(run, found, missing), _by_host(run)]
    return Section("downloads", "Downloads", blocks)


def _sql(name: str) -> str:
    return find_query(name).sql.rstrip().rstrip(";")


def _sums(rows: list[dict[str, Any]]) -> tuple[int, int, int]:
    """Return how many URLs there are, did not come, and may come on another attempt."""
    not_there = [row for row in rows if row["outcome"] != "came"]
    of_all, missing = sum(row["count"] for row in rows), sum(row["count"] for row in not_there)
    return of_all, missing, sum(row["may_pass"] for row in not_there)


def _by_source(found: list[dict[str, Any]]) -> Table:
    cells: list[list[Cell]] = []
    for source in list(dict.fromkeys(row["source"] for row in found))[:_MOST]:
        rows = [row for row in found if row["source"] == source]
        urls, missing, may_pass = _sums(rows)
        came = Bar(percent(urls - missing, urls), (urls - missing) / urls)
        numbers: list[Cell] = [count(urls), count(urls - missing), came, count(missing), count(may_pass)]
        cells.append([clean(source, SHORT), *numbers, _most(rows), _last(rows)])
    heads = (
        "source",
        "URLs",
        "downloaded",
        "share downloaded",
        "not downloaded",
        "may succeed",
        "most attempts",
        "last attempt (UTC)",
    )
    return Table(heads, cells, words=("source", "share downloaded"), title="Sources")


def _by_reason(run: Run, found: list[dict[str, Any]], missing: int) -> Table:
    meanings = {row["reason"]: row["meaning"] for row in run.rows("SELECT reason, meaning FROM reasons")}
    reasons: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        if row["outcome"] != "came":
            reasons.setdefault(row["outcome"], []).append(row)
    most = max(sum(row["count"] for row in rows) for rows in reasons.values())
    cells: list[list[Cell]] = []
    for reason, rows in sorted(reasons.items(), key=lambda item: (-_sums(item[1])[0], item[0]))[:_MOST]:
        urls, _, may_pass = _sums(rows)
        share = Bar(percent(urls, missing), urls / most, "drop")
        numbers: list[Cell] = [count(urls), share, count(may_pass), _most(rows), _last(rows)]
        cells.append([clean(reason, SHORT), *numbers, clean(meanings[reason], 160)])
    heads = ("reason", "URLs", "share", "may succeed", "most attempts", "last attempt (UTC)", "meaning")
    note = "Shares of the URLs that were not downloaded. May succeed: on another attempt, since the reason may be temporary."
    return Table(heads, cells, words=("reason", "share", "meaning"), title="Why URLs were not downloaded", note=note)


def _by_host(run: Run) -> Table:
    rows = run.rows(_HOSTS_OF.format(_sql("failures_by_host"), _HOSTS), limit=None)
    cells: list[list[Cell]] = [
        [
            clean(row["host"], SHORT),
            count(row["urls"]),
            count(row["missing"]),
            Bar(percent(row["missing"], row["urls"]), row["missing"] / row["urls"], "drop"),
            count(row["may_pass"]),
            clean(row["most"], SHORT),
        ]
        for row in rows
    ]
    heads = ("host", "URLs", "not downloaded", "share of the host", "may succeed", "most frequent reason")
    words = ("host", "share of the host", "most frequent reason")
    return Table(heads, cells, words=words, title="Hosts with most URLs not downloaded")


def _most(rows: list[dict[str, Any]]) -> str:
    known = [row["attempts"] for row in rows if row["attempts"] is not None]
    return count(max(known)) if known else "–"


def _last(rows: list[dict[str, Any]]) -> str:
    known = [row["last"] for row in rows if row["last"] is not None]
    return f"{max(known):%Y-%m-%d %H:%M}" if known else "–"
