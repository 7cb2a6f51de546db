"""Compare the run with another one: settings, and samples gained and lost by rule, source, language and entry."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from curate.ask.diff import Diff, changed_samples
from curate.ask.report.blocks import Block, Section, Table, Tables, Tiles
from curate.ask.report.source import Run
from curate.ask.report.text import SHORT, clean, count, names
from curate.base.schema import KEPT, POOL

_MOST = 20  # rows of a table
_SAMPLES = 12  # of each side


def changes_section(run: Run) -> Section | None:
    """Return the comparison; None without another run."""
    diff = run.against
    if diff is None:
        return None
    other = diff.a.name if diff.a.name != diff.b.name else diff.a.url
    return Section("changes", f"Compared with {clean(other, SHORT)}", list(_blocks(diff)))


def _blocks(diff: Diff) -> Iterable[Block]:
    yield (
        f"A is {clean(diff.a.url)}, which keeps {count(diff.a.kept)} samples; B is this run, {clean(diff.b.url)}, "
        f"which keeps {count(diff.b.kept)}. Lost: kept by A and not by B. Gained: kept by B and not by A."
    )
    yield Tiles([("lost", count(diff.lost)), ("gained", count(diff.gained)), ("in both", count(diff.shared))])
    if len(diff.settings):
        yield _settings(diff.settings)
    if diff.is_same:
        return
    drops = "A and B: samples that the rule drops. Lost: dropped by it in B; gained: dropped by it in A."
    entries = "Kept samples that match the entry; the entries that changed most."
    tables = (
        ("rule", "By rule", diff.rules, drops),
        ("entry", "By entry", diff.entries, entries),
        ("source", "By source", diff.sources, ""),
        ("language", "By language", diff.languages, ""),
    )
    yield Tables([_changes(name, title, table, note) for name, title, table, note in tables if len(table)])
    yield _samples(diff)


def _settings(table: pa.Table) -> Table:
    rows = [[*names(row, "key"), clean(row["a"]), clean(row["b"])] for row in table.slice(0, _MOST).to_pylist()]
    heads = ("setting", "A", "B")
    return Table(heads, rows, words=heads, title="Settings that differ")


def _changes(name: str, title: str, table: pa.Table, note: str) -> Table:
    """Return the rows of CHANGES that changed, of the funnel those that are not 0 in both."""
    columns = ("a", "b", "lost", "gained") if name == "rule" else ("lost", "gained")
    rows = [row for row in table.to_pylist() if any(row[column] for column in columns)]
    if name != "rule" and len(rows) > _MOST:
        note = f"{note} The first {_MOST} of {count(len(rows))} that changed.".strip()
        rows = rows[:_MOST]
    values = ["unknown" if row["name"] is None else clean(row["name"], SHORT) for row in rows]
    counted = ("a", "b", "lost", "gained")
    cells = [[value, *(_count(row, n) for n in counted)] for value, row in zip(values, rows, strict=True)]
    return Table((name, "A", "B", "lost", "gained"), cells, words=(name,), title=title, note=note)


def _count(row: dict[str, Any], column: str) -> str:
    if row[column] is None:
        return "" if row["name"] in (POOL, KEPT) else "–"
    return count(row[column])


def _samples(diff: Diff) -> Table:
    """Return the first samples of each side by uid, which is a hash."""
    rows = [
        [row["side"], *names(row, "rule", "source"), clean(row["caption"]), row["uid"]]
        for batch in changed_samples(diff.a.url, diff.b.url, _SAMPLES)
        for row in batch.to_pylist()
    ]
    heads = ("side", "dropped by", "source", "caption", "uid")
    return Table(heads, rows, words=heads, title="Some of the samples", note="`curate diff A B --by sample` lists all.")
