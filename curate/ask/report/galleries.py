"""Galleries: a few kept and dropped samples of every step, with the values that decided.

A hash of the uid chooses them, so they depend on the samples alone, not on shards or units.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from curate.ask.report.blocks import Card, Gallery, Picture, Section
from curate.ask.report.source import Run
from curate.ask.report.text import SHORT, clean, count
from curate.ask.report.thresholds import rule_columns
from curate.ask.report.thumbnails import AT_PLACES, Place, Row, at_places, make_pictures, place_of
from curate.base import schema
from curate.store.facts import RuleFacts

MOST = 30  # galleries
SAMPLES = 8  # of each; half as many where there are many galleries
SCORES = 6  # of a kept sample
ENTRIES = 5  # of a sample

_CHOOSE = """
SELECT coalesce(d.rule, 'kept') AS step, arg_min(
    {{'unit': s.unit, 'row': s.row, 'uid': s.uid}},
    {{'hash': md5(concat_ws('|', coalesce(s.uid, ''), CASE WHEN s.uid IS NULL
        THEN concat_ws('|', s.source, s.key, s.url, s.caption, s.sha256) END)),
      'source': s.source, 'key': s.key, 'url': s.url}}, {most}) AS chosen
FROM samples s JOIN decisions d USING (unit, row) GROUP BY step
"""


@dataclass(frozen=True)
class _Shown:
    """What cards are made of."""

    run: Run
    partners: dict[str, Row]  # the samples that represent duplicates, by uid
    pictures: dict[Place, Picture]
    entries: dict[Place, str]


def galleries_section(run: Run) -> Section:
    """Return kept samples first, then those of each step that dropped any, in the order of the steps."""
    lines = [line for line in run.funnel if line["kind"] != "pool" and line["rows"]]
    lines = [line for line in lines if line["rule"] != schema.FORGOTTEN]
    largest = sorted(lines, key=lambda line: (line["kind"] != "kept", -line["rows"]))[:MOST]
    shown = sorted((line for line in lines if line in largest), key=lambda line: line["kind"] != "kept")
    chosen = _choose(run, SAMPLES if len(shown) <= MOST // 2 else SAMPLES // 2)
    rows = _fetch(run, [place for line in shown for place in chosen[line["rule"]]])
    steps = {line["rule"]: [rows[place] for place in chosen[line["rule"]]] for line in shown}
    partners = _partners(run, rows.values())
    # The page's room goes to the first sample of each step, then to the second.
    in_turn = [row for rank in zip_longest(*steps.values()) for row in rank if row is not None]
    wanted = [part for row in in_turn for part in (row, partners.get(row["duplicate_of"])) if part is not None]
    pictures = make_pictures(run, wanted) if run.has_images else {}
    known = _Shown(run, partners, pictures, _entries(run, rows))
    blocks = [_gallery(run, line, [_card(known, line["rule"], row) for row in steps[line["rule"]]]) for line in shown]
    text = "A few samples of each step, chosen by a hash of their uid, with the values that decided. "
    text += "Captions, URLs and images come from the pool unchecked."
    left_out = len(lines) - len(shown)
    if left_out:
        text += f" {left_out} steps that dropped few samples are left out."
    return Section("samples", "Samples", [text, *blocks])


def _choose(run: Run, most: int) -> dict[str, list[Place]]:
    """Return step → places of its samples, one for each uid."""
    chosen: dict[str, list[Place]] = {}
    for line in run.rows(_CHOOSE.format(most=3 * most)):
        first = {row["uid"] or place_of(row): place_of(row) for row in reversed(line["chosen"])}
        chosen[line["step"]] = [place for place in map(place_of, line["chosen"]) if place in first.values()][:most]
    return chosen


def _fetch(run: Run, places: Sequence[Place]) -> dict[Place, Row]:
    """Return what is known of the samples: their rows of samples, scores and decisions."""
    rows = run.rows(f"SELECT * FROM verdicts WHERE (unit, row) IN {AT_PLACES}", **at_places(places))
    return {place_of(row): row for row in rows}


def _partners(run: Run, rows: Iterable[Row]) -> dict[str, Row]:
    """Return the samples that represent these duplicates, by uid."""
    uids = sorted({row["duplicate_of"] for row in rows if row["rule"] == schema.DUPLICATE and row["duplicate_of"]})
    sql = "SELECT * FROM representatives WHERE uid IN (SELECT unnest($uids::VARCHAR[]))"
    return {row["uid"]: row for row in run.rows(sql, uids=uids)}


def _entries(run: Run, rows: dict[Place, Row]) -> dict[Place, str]:
    """Return the rarest entries of samples, with how many samples matched them before balancing."""
    matched = run.rows(
        f"""SELECT m.unit, m.row, count(*) AS n,
        list({{'entry': e.entry, 'n': e.survivors}} ORDER BY e.survivors, e.entry)[1:{ENTRIES}] AS entries
        FROM (SELECT unit, row, unnest(entry_ids) AS entry_id FROM matches WHERE (unit, row) IN {AT_PLACES}) m
        JOIN entries e USING (entry_id) GROUP BY m.unit, m.row""",
        **at_places(rows),
    )
    texts = {}
    for row in matched:
        names = ", ".join(f"{clean(entry['entry'], 40)} ({count(entry['n'])})" for entry in row["entries"])
        texts[place_of(row)] = names + (f", {row['n'] - ENTRIES} more" if row["n"] > ENTRIES else "")
    return texts


def _gallery(run: Run, line: dict[str, Any], cards: list[Card]) -> Gallery:
    rule, rows = line["rule"], count(line["rows"])
    if line["kind"] == "kept":
        return Gallery(f"Kept: {rows}", cards)
    expression = next((_what(item) for item in run.facts.rules if item.name == rule), "")
    note = expression or {schema.DUPLICATE: "Each with the sample that represents it."}.get(rule, "")
    title = "Failed" if rule == schema.FAILED else f"Dropped by {clean(rule, SHORT)}"
    return Gallery(f"{title}: {rows}", cards, note=clean(note))


def _what(rule: RuleFacts) -> str:
    if rule.sql:
        return rule.sql
    threshold = "" if rule.threshold is None else f": at least {rule.show(rule.threshold)}"
    return f"{rule.expression}{threshold}"


def _card(known: _Shown, step: str, row: Row) -> Card:
    partner = known.partners.get(row["duplicate_of"]) if step == schema.DUPLICATE else None
    parts = [part for part in (row, partner) if part is not None and place_of(part) in known.pictures]
    pictures = [known.pictures[place_of(part)] for part in parts]
    if len(pictures) == 2:
        labels = ("dropped", "representative")
        pictures = [replace(picture, label=label) for picture, label in zip(pictures, labels, strict=True)]
    texts = [] if row["caption"] is None else [("", clean(row["caption"]))]
    if partner and partner["caption"] != row["caption"]:
        texts.append(("representative", clean(partner["caption"])))
    if row["url"]:
        texts.append(("url", clean(row["url"], 160)))
    values = [(clean(name, 40), clean(value, SHORT)) for name, value in _values(known.run, step, row)]
    if place_of(row) in known.entries and step in (schema.KEPT, known.run.drawn):
        values.append(("entries", known.entries[place_of(row)]))
    return Card(pictures, texts, values, clean(row["uid"] or (f"key {row['key']}" if row["key"] else ""), 80))


def _values(run: Run, step: str, row: Row) -> Iterator[tuple[str, Any]]:
    """Yield the values that decided, or of a kept sample its scores."""
    rule = next((item for item in run.facts.rules if item.name == step), None)
    if rule:
        columns = rule_columns(run, rule)[:SCORES]
        yield from ((name, row[name]) for name in columns if name in row and name not in ("caption", "url"))
    elif step == schema.FAILED:
        yield "reason", row["status"]
        if row["error"]:
            yield "detail", row["error"]
    elif step in (schema.DUPLICATE, schema.CONTAMINATED):
        yield "representative" if step == schema.DUPLICATE else "near", row["duplicate_of"]
    elif step == run.drawn:
        yield "probability", row["probability"]
        yield "draw (kept below 1)", row["draw"]
    elif step == schema.KEPT:
        if row["width"]:
            yield "size", f"{row['width']} × {row['height']}"
        yield from ((name, row[name]) for name in run.scores[:SCORES] if row[name] is not None)
        if run.drawn:
            yield "probability", row["probability"]
