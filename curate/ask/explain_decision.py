"""Sections of an explanation: the verdict, each rule with its values, and the entries with their draws.

Rules are evaluated again over the row, so that those after the first failed one can be shown too, and so are draws of
single entries.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import numpy as np

from curate.ask.explain_parts import NO, OPEN, VALUE, YES, fetch, marked, show
from curate.ask.page import Line, Part, columns, heading, line
from curate.base import schema
from curate.base.wording import pluralise
from curate.decide.draw.inclusion import entry_draws
from curate.decide.rules.rules import Rule
from curate.recipe.deciding import Top
from curate.store.facts import RunFacts

_ENTRIES = 100  # entries that are shown


def verdict(connection: Any, run: RunFacts, row: dict[str, Any], forgotten: datetime | None) -> Iterator[Line]:
    """Yield whether a row is kept, and why; `forgotten`: when it was."""
    rule, status, error = row["rule"], row["status"], row["error"]
    failure = f"{status} ({schema.SAMPLE_REASONS.get(status, 'unknown reason')}){f': {error}' if error else ''}"
    is_missing = status in schema.MISSING_REASONS
    attempts = _attempts(connection, row) if is_missing else ""
    facts = {
        "failure": f"not downloaded: {failure}{attempts}" if is_missing else f"could not be read: {failure}",
        "date": f", {forgotten:%Y-%m-%d}" if forgotten else "",
        "duplicate_of": row["duplicate_of"],
        "draw": show(row["draw"]),
        "probability": show(row["probability"]),
    }
    words = run.selection
    if row["kept"]:
        why = words.kept.format(**facts) if words and row["draw"] is not None else ""
        why += f"; {pluralise(row['repeats'], 'time')} in uids.npy" if row.get("repeats") is not None else ""
        if (earlier := row.get(schema.INPUT_PROBABILITY)) is not None and row["probability"] is not None:
            why += f"; probability of both stages {show(earlier * row['probability'])}"
        yield line(("verdict: kept", "bold green"), why)
        return
    stage = schema.STAGE.get(rule, schema.STAGE_OF_RULES)
    reason = words.dropped if words and rule == words.key else stage.reason
    yield line((f"verdict: dropped by {rule}", "bold red"), f", {reason.format(**facts)}", hang=9)


def _attempts(connection: Any, row: dict[str, Any]) -> str:
    """Return how often the run tried to download a row, and when last; empty where it did not."""
    sql = "SELECT attempts, attempted FROM failures WHERE unit = $unit AND row = $row AND attempted IS NOT NULL"
    failures = fetch(connection, sql, unit=row["unit"], row=row["row"]).to_pylist()
    return "".join(
        f" ({pluralise(failure['attempts'], 'attempt')}, the last at {failure['attempted']:%Y-%m-%d %H:%M:%S} UTC)"
        for failure in failures
    )


def rule_lines(run: RunFacts, rules: list[Rule], row: dict[str, Any], values: dict[str, bool | None]) -> Iterator[Line]:
    """Yield each rule with its result, and the values of the columns that it reads."""
    if not rules:
        return
    names = [rule.name for rule in rules]
    # How many rules the row passed: all, unless one dropped it, or deduplication among them, or it could not be read.
    place = next((place for place, fact in enumerate(run.rules) if fact.dedup), len(names))
    ended = {schema.FAILED: -1, **dict.fromkeys((schema.UNMATCHED, schema.CONTAMINATED, schema.DUPLICATE), place)}
    ended |= {name: position for position, name in enumerate(names)}
    passed = ended.get(row["rule"], len(names))
    yield from (line(), heading("rules", "in order; the first one that it fails drops the sample"))
    margin = max(map(len, names)) + 2
    for position, (rule, fact) in enumerate(zip(rules, run.rules, strict=True)):
        if isinstance(rule.spec, Top):
            value, *group = (row[name] for name in rule.columns)
            threshold = fact.threshold_of(*group)
            passes = None if value is None else threshold is not None and value >= threshold
            reached = "which no row reached" if threshold is None else f"threshold {fact.show(threshold)}"
            text = f"{fact.expression}, {reached}"
        elif fact.dedup:
            passes = row["rule"] != schema.DUPLICATE
            text = "no duplicate" if position < passed else row["rule"] if position == passed else "deduplication"
        else:
            passes, text = values[rule.name], " ".join(rule.spec.split())
        readable = row["status"] == schema.OK
        would = f", would {'pass' if passes else 'fail'}" if readable and not fact.dedup else ""
        word = "" if position < passed else "fails here: " if position == passed else f"not reached{would}: "
        mark = YES if position < passed else NO if position == passed else OPEN
        cells = {name: show(row[name], VALUE) for name in rule.columns}
        if isinstance(rule.spec, Top) and row[rule.columns[0]] is not None:
            cells[rule.columns[0]] = fact.show(row[rule.columns[0]])  # beside the threshold, which it may equal
        shown = ", ".join(f"{name} = {value}" for name, value in cells.items())
        null = "; NULL fails" if passes is None and readable else ""
        yield marked(mark, rule.name, margin, (word, mark[1]), text, (f"  [{shown}{null}]" if shown else "", "cyan"))


def entry_lines(connection: Any, run: RunFacts, row: dict[str, Any]) -> Iterator[Line]:
    """Yield the entries that the caption matches, the rarest first, since those decide, with the draw of each."""
    if not run.recipe.get("match") or row["status"] != schema.OK:
        return
    entries = connection.execute(
        "SELECT e.entry, e.pool, e.survivors, e.probability FROM entries e JOIN "
        "(SELECT unnest(entry_ids) AS entry_id FROM matches WHERE unit = $unit AND row = $row) USING (entry_id) "
        "ORDER BY e.probability DESC, e.survivors, e.entry",
        {"unit": row["unit"], "row": row["row"]},
    ).fetchall()
    drawn = row["draw"] is not None and run.selection is not None and run.selection.by_entries
    more = "; one draw u/p below 1 is enough" if drawn else ""
    yield from (line(), heading("entries", f"{len(entries)} matched{more}" if entries else "none matched"))
    if not entries:
        return
    head: list[Part] = [(name, "dim") for name in ("", "entry", "in pool", "at balance", "p")]
    table: list[list[Part]] = [["", show(name), f"{n:,}", f"{left:,}", f"{p:.4g}"] for name, n, left, p in entries]
    if drawn:
        draws = _draws(run, str(row["uid"]), entries, row.get(schema.INPUT_PROBABILITY))
        head += [("u", "dim"), ("u/p", "dim"), ""]
        for cells, draw, (*_, p) in zip(table, draws, entries, strict=True):
            cells[0] = YES if draw < 1 else NO
            cells += [f"{draw * p:.4g}", f"{draw:.4g}", ("← smallest", "dim") if draw == min(draws) else ""]
    yield from columns([head, *table[:_ENTRIES]], right=range(2, 7))
    if len(entries) > _ENTRIES:
        yield line(f"  and {len(entries) - _ENTRIES} more")


def _draws(run: RunFacts, uid: str, entries: list[tuple[str, int, int, float]], earlier: float | None) -> list[float]:
    """Return u/p of each entry alone, of which `decisions` has the smallest. `earlier` is as of `inclusion.draw`."""
    is_of_another = (run.recipe.get("balance") or {}).get("counts")  # whether counts of another run decided
    counts = None if is_of_another else np.array([survivors for _, _, survivors, _ in entries], np.int64)
    p, names = np.array([p for *_, p in entries]), [entry for entry, *_ in entries]
    return entry_draws(uid, names, p, counts, run.t, run.seed, earlier)
