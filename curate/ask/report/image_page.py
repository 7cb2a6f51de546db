"""Pages of a query's rows with thumbnails, and of histograms of columns; exports a query's rows for FiftyOne.

In: a run, and for rows a query with a column `uid`. Out: HTML that needs no network. If rows share a uid, the page
shows one of them, a kept one if any; if the query yields `members`, `representative` or `duplicate_of`, it shows all
pictures of the group of duplicates. For FiftyOne, a folder: `data/` with the original images, and `samples.json`, a
`fiftyone.types.FiftyOneDataset` whose fields are the query's columns, with a tag `kept` or the rule's name.
"""

import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

from curate.ask.opened import OpenRun
from curate.ask.output import Result, write_json
from curate.ask.report import galleries
from curate.ask.report.blocks import Card, Section, count
from curate.ask.report.charts import join_charts, write_chart
from curate.ask.report.distributions import count_bins, distributions_section
from curate.ask.report.galleries import Row, position_of
from curate.ask.report.page import render_sections
from curate.base.errors import RecipeError
from curate.base.stages import KEPT
from curate.base.wording import format_bytes, pluralize

MAX_ROWS = 300  # rows on a page
_PICTURES = 600  # pictures on a page, spread evenly over the rows, but at least two each
_TOGETHER = 256  # rows whose images are in memory at once
_RESERVED = ("id", "filepath", "tags", "metadata", "created_at", "last_modified_at")  # FiftyOne's own fields

_LEGEND = "Shares by value. Gray: readable samples of the pool; line: kept; dashed: thresholds of rules"
_NO_UID = "This row could not be read, so it has no uid and no picture. `curate explain` takes its key or URL."


@dataclass(frozen=True, repr=False)
class HtmlPage:
    """A page of HTML, which notebooks show in an iframe. `chart`: its charts as one Vega-Lite spec, if any."""

    text: str
    height: int = 600  # of the iframe, pixels
    chart: Mapping[str, Any] | None = None

    def save(self, path: str) -> None:
        """Write the page as HTML, or its charts as SVG or PNG. Raises RecipeError for other suffixes, and OSError."""
        suffix = os.path.splitext(path)[1].lower()
        if self.chart is not None and suffix in (".svg", ".png"):
            write_chart(path, self.chart)
            return
        if suffix not in ("", ".html", ".htm"):
            accepted = ".html" if self.chart is None else ".html, .svg or .png"
            raise RecipeError(f"{path}: cannot write {suffix}; accepted: a name that ends in {accepted}")
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.text)

    def __repr__(self) -> str:
        return f'HtmlPage({format_bytes(len(self.text.encode()))}): .save("page.html") writes it; notebooks show it'

    def _repr_html_(self) -> str:
        frame = f"width:100%;height:{self.height}px;border:0"
        return f'<iframe sandbox="allow-scripts" srcdoc="{html.escape(self.text)}" style="{frame}"></iframe>'


def plot_columns(run: OpenRun, columns: Sequence[str] = ()) -> HtmlPage:
    """Return histograms of the `columns` in the pool and in the kept set; without `columns`, of all measured numbers.

    Raises RecipeError if a column is not a measured number, or has only one value.
    """
    histograms = {histogram.name: histogram for histogram in count_bins(run)}
    for name in columns:
        if name not in histograms:
            raise RecipeError(f"plot: no histogram of {name!r}; accepted: {', '.join(histograms) or 'none'}")
    chosen = [histograms[name] for name in columns or histograms]
    section = distributions_section(run, chosen)
    lead = "Shares of the pool and of the kept set by value."
    page = render_sections("Histograms", run, [section] if section else [], lead)
    return HtmlPage(page, chart=join_charts(section.facts["figures"], _LEGEND) if section else None)


def uid_column(result: Result) -> int:
    """Return the position of a query's column uid. Raises RecipeError if it has none."""
    names = [name.lower() for name in result.names]
    if "uid" not in names:
        example = "SELECT uid, clip_score FROM kept ORDER BY clip_score LIMIT 50"
        problem = f"the query yields no uid; it yields {', '.join(result.names) or 'nothing'}"
        raise RecipeError(f"{problem}; accepted: one with a column uid, such as {example}")
    return names.index("uid")


def samples_of(run: OpenRun, uids: Sequence[Any]) -> dict[str, list[Row]]:
    """Return the rows of each uid; if rows share a uid, duplicates are first and the kept row is last."""
    rows = run.report("rows_of_uids", uids=list(uids))
    return {uid: list(of_uid) for uid, of_uid in groupby(rows, itemgetter("uid"))}


def _group(row: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the role and uid of each picture for a query's row; if the row names a group, of the whole group."""
    uid, members = row["uid"], row.get("members")
    if isinstance(members, list):
        return [("representative", uid), *(("duplicate", member) for member in members if isinstance(member, str))]
    partner = row.get("representative") or row.get("duplicate_of")
    return [("duplicate", uid), ("representative", partner)] if isinstance(partner, str) else [("", uid)]


def look_at(run: OpenRun, result: Result, query: str) -> HtmlPage:
    """Return a page of a query's first MAX_ROWS rows. Raises RecipeError if the query yields no column uid."""
    names, at = [name.lower() for name in result.names], uid_column(result)
    rows = list(islice(of_query := iter(result.rows), MAX_ROWS))
    total = len(rows) + sum(1 for _ in of_query)
    groups, limit = [_group(dict(zip(names, row, strict=True))) for row in rows], max(2, _PICTURES // max(1, len(rows)))
    samples = samples_of(run, [uid for group in groups for _, uid in group[:limit]])
    shown = [
        [(role, samples[uid][0 if role == "duplicate" else -1]) for role, uid in group[:limit] if uid in samples]
        if row[at] in samples
        else []
        for row, group in zip(rows, groups, strict=True)
    ]
    judged = galleries.judge(run, {position_of(parts[0][1]) for parts in shown if parts})
    cards = []
    for row, group, parts in zip(rows, groups, shown, strict=True):
        verdict = judged[position_of(parts[0][1])][1] if parts else None
        rule = dict(zip(names, row, strict=True)).get("rule") or (verdict[0] if verdict else "")
        hidden = {"uid", "caption", "url"} if parts else {"uid"}
        if verdict and verdict[0] == rule:
            hidden |= {"rule", "kept"}
        if run.facts.pool.images and len(parts) > 1:  # the pictures show them
            hidden |= {"members", "representative", "duplicate_of"}
        values = [
            (name, value)
            for name, value in zip(result.names, row, strict=True)
            if value is not None and name.lower() not in hidden
        ]
        if len(group) > limit:
            values.append(("pictures", f"the first {limit} of {count(len(group))}"))
        missing = _NO_UID if row[at] is None else "no row of this run has the uid"
        cards.append(Card(parts, values, row[at] or "", verdict, rule, missing))
    title = f"{count(MAX_ROWS)} of {count(total)} rows" if total > MAX_ROWS else result.note or pluralize(total, "row")
    facts = {"cards": cards, "query": query, **galleries.of_cards(run, cards)}
    lead = "Rows in the query's order. Captions, URLs and images come from the pool, and nobody has checked them."
    return HtmlPage(render_sections("Rows of a query", run, [Section("rows", title, facts)], lead))


def export_rows(run: OpenRun, result: Result, folder: str) -> tuple[int, int]:
    """Write a query's rows to a new folder; return the numbers of samples and of rows without a readable image.

    Rows that share a uid are one sample. Raises RecipeError if the query yields no uid, the pool has no images, or the
    folder is not new or empty.
    """
    at = uid_column(result)
    if not run.facts.pool.images:
        problem = "the pool of this run has no images"
        raise RecipeError(f"--fiftyone: {problem}; accepted: a run over tars, or over Parquet with images")
    if os.path.isdir(folder) and os.listdir(folder):
        raise RecipeError(f"--fiftyone {folder}: holds {min(os.listdir(folder))!r}; accepted: a new or empty folder")
    os.makedirs(f"{folder}/data", exist_ok=True)
    samples: dict[str, dict[str, Any]] = {}
    missing, rows = 0, iter(result.rows)
    while batch := list(islice(rows, _TOGETHER)):
        by_uid = {uid: rows[-1] for uid, rows in samples_of(run, [row[at] for row in batch]).items()}
        images = galleries.read_originals(run, list(by_uid.values()))
        for row in batch:
            sample = by_uid.get(row[at])
            data = images.get(position_of(sample)) if sample else None
            if sample is None or not data:
                missing += 1
            elif row[at] not in samples:
                path = f"data/{row[at]}.{sample['format'].replace('jpeg', 'jpg')}"
                with open(f"{folder}/{path}", "wb") as file:
                    file.write(data)
                values = zip(result.names, row, strict=True)
                fields = {_field(name): value for name, value in values if value is not None}
                standard = {"filepath": path, "tags": [sample["rule"] or KEPT], "caption": sample["caption"]}
                samples[row[at]] = fields | standard | {"uid": row[at]}
    with open(f"{folder}/samples.json", "w", encoding="utf-8") as file:
        write_json({"samples": list(samples.values())}, file)
    return len(samples), missing


def _field(name: str) -> str:
    plain = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name).lstrip("_") or "column"
    return f"{plain}_" if plain in _RESERVED else plain
