"""Compare the run with another one: settings, and samples gained and lost by rule, source, language and entry."""

from collections.abc import Iterable

import pyarrow as pa

from curate.ask.diff import Diff, changed_samples
from curate.ask.report.blocks import Block, Section, Table, Tables, Tiles
from curate.ask.report.text import SHORT, clean, count, names
from curate.base.schema import KEPT, POOL

_MOST = 20  # rows of a table
_SAMPLES = 12  # of each side


def changes_section(diff: Diff) -> Section:
    """Return the comparison with another run."""
    other = diff.a.name if diff.a.name != diff.b.name else diff.a.url
    return Section("changes", f"Compared with {clean(other, SHORT)}", list(_blocks(diff)))


def _blocks(diff: Diff) -> Iterable[Block]:
    first = f"A is {clean(diff.a.url)}, which keeps {count(diff.a.kept)} samples"
    second = f"B is this run, {clean(diff.b.url)}, which keeps {count(diff.b.kept)}"
    yield f"{first}; {second}. Lost: kept by A and not by B. Gained: kept by B and not by A."
    yield Tiles([("lost", count(diff.lost)), ("gained", count(diff.gained)), ("in both", count(diff.shared))])
    if settings := diff.settings.slice(0, _MOST).to_pylist():
        values = [[*names(row, "key"), clean(row["a"]), clean(row["b"])] for row in settings]
        yield Table(("setting", "A", "B"), values, words=("setting", "A", "B"), title="Settings that differ")
    if diff.is_same:
        return
    drops = "A and B: samples that the rule drops. Lost: dropped by it in B; gained: dropped by it in A."
    tables = (
        ("rule", "By rule", diff.rules, drops),
        ("entry", "By entry", diff.entries, "Kept samples that match the entry; the entries that changed most."),
        ("source", "By source", diff.sources, ""),
        ("language", "By language", diff.languages, ""),
    )
    yield Tables([_changes(name, title, table, note) for name, title, table, note in tables if len(table)])
    samples = [
        [row["side"], *names(row, "rule", "source"), clean(row["caption"]), row["uid"]]
        for batch in changed_samples(diff.a.url, diff.b.url, _SAMPLES)  # by uid, which is a hash
        for row in batch.to_pylist()
    ]
    heads, note = ("side", "dropped by", "source", "caption", "uid"), "curate diff A B --by sample lists all."
    yield Table(heads, samples, words=heads, title="Some of the samples", note=note)


def _changes(name: str, title: str, table: pa.Table, note: str) -> Table:
    """Return the rows of CHANGES that changed, of the funnel those that are not 0 in both."""
    columns = ("a", "b", "lost", "gained") if name == "rule" else ("lost", "gained")
    rows = [row for row in table.to_pylist() if any(row[column] for column in columns)]
    if name != "rule" and len(rows) > _MOST:
        note = f"{note} The first {_MOST} of {count(len(rows))} that changed.".strip()
        rows = rows[:_MOST]
    cells = []
    for row in rows:
        missing = "" if row["name"] in (POOL, KEPT) else "–"
        numbers = [missing if row[side] is None else count(row[side]) for side in ("a", "b", "lost", "gained")]
        cells.append(["unknown" if row["name"] is None else clean(row["name"], SHORT), *numbers])
    return Table((name, "A", "B", "lost", "gained"), cells, words=(name,), title=title, note=note)
