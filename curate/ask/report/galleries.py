"""Galleries: a few kept and dropped samples of every step, with the values that decided.

A hash of the uid chooses them, so they depend on the samples alone, not on shards or units.
"""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from curate.ask.opened import OpenRun
from curate.ask.report.blocks import Card, Gallery, Picture, Section
from curate.ask.report.text import SHORT, clean, count
from curate.ask.report.thresholds import rule_columns
from curate.ask.report.thumbnails import AT_PLACES, Place, Row, at_places, make_pictures, place_of
from curate.base import schema

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


def galleries_section(run: OpenRun) -> Section:
    """Return kept samples first, then those of each step that dropped any, in the order of the steps."""
    lines = [row for row in run.funnel if row["kind"] != "pool" and row["rows"] and row["rule"] != schema.FORGOTTEN]
    largest = sorted(lines, key=lambda line: (line["kind"] != "kept", -line["rows"]))[:MOST]
    shown = sorted((line for line in lines if line in largest), key=lambda line: line["kind"] != "kept")
    chosen = _choose(run, SAMPLES if len(shown) <= MOST // 2 else SAMPLES // 2)
    places = at_places(place for line in shown for place in chosen[line["rule"]])
    known = run.rows(f"SELECT * FROM verdicts WHERE (unit, row) IN {AT_PLACES}", **places)
    rows = {place_of(row): row for row in known}
    steps = {line["rule"]: [rows[place] for place in chosen[line["rule"]]] for line in shown}
    uids = {row["duplicate_of"] for row in known if row["rule"] == schema.DUPLICATE} - {None}
    sql = "SELECT * FROM representatives WHERE uid IN (SELECT unnest($uids::VARCHAR[]))"
    partners = {row["uid"]: row for row in run.rows(sql, uids=sorted(uids))}
    # The page's room goes to the first sample of each step, then to the second.
    in_turn = [row for rank in zip_longest(*steps.values()) for row in rank if row is not None]
    wanted = [part for row in in_turn for part in (row, partners.get(row["duplicate_of"])) if part is not None]
    pictures = make_pictures(run, wanted) if run.facts.pool.images else {}
    entries = _entries(run, rows)
    blocks = []
    for line in shown:
        cards = []
        for row in steps[line["rule"]]:
            partner = partners.get(row["duplicate_of"]) if line["rule"] == schema.DUPLICATE else None
            cards.append(_card(run, line["rule"], row, partner, pictures, entries))
        blocks.append(_gallery(run, line, cards))
    text = "A few samples of each step, chosen by a hash of their uid, with the values that decided. "
    text += "Captions, URLs and images come from the pool unchecked."
    if left_out := len(lines) - len(shown):
        text += f" {left_out} steps that dropped few samples are left out."
    return Section("samples", "Samples", [text, *blocks])


def _choose(run: OpenRun, most: int) -> dict[str, list[Place]]:
    """Return step → places of its samples, one for each uid."""
    chosen: dict[str, list[Place]] = {}
    for line in run.rows(_CHOOSE.format(most=3 * most)):
        first = {row["uid"] or place_of(row): place_of(row) for row in reversed(line["chosen"])}
        chosen[line["step"]] = [place for place in map(place_of, line["chosen"]) if place in first.values()][:most]
    return chosen


def _entries(run: OpenRun, rows: dict[Place, Row]) -> dict[Place, str]:
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


def _gallery(run: OpenRun, line: dict[str, Any], cards: list[Card]) -> Gallery:
    rule, rows = line["rule"], count(line["rows"])
    if line["kind"] == "kept":
        return Gallery(f"Kept: {rows}", cards)
    note = "Each with the sample that represents it." if rule == schema.DUPLICATE else ""
    for fact in run.facts.rules:
        if fact.name == rule:
            threshold = "" if fact.threshold is None else f": at least {fact.show(fact.threshold)}"
            note = fact.sql or f"{fact.expression}{threshold}"
    title = "Failed" if rule == schema.FAILED else f"Dropped by {clean(rule, SHORT)}"
    return Gallery(f"{title}: {rows}", cards, note=clean(note))


def _card(
    run: OpenRun, step: str, row: Row, partner: Row | None, pictures: dict[Place, Picture], entries: dict[Place, str]
) -> Card:
    parts = [part for part in (row, partner) if part is not None and place_of(part) in pictures]
    roles = zip(parts, ("duplicate", "representative") if len(parts) == 2 else ("",), strict=False)
    shown = [pictures[place_of(part)]._replace(label=fate(role, part)) for part, role in roles]
    values = [(clean(name, 40), clean(value, SHORT)) for name, value in _values(run, step, row)]
    if place_of(row) in entries and step in (schema.KEPT, run.drawn):
        values.append(("entries", entries[place_of(row)]))
    name = row["uid"] or (f"key {row['key']}" if row["key"] else "")
    return Card(shown, sample_texts(row, partner), values, clean(name, 80))


def fate(role: str, row: Row) -> str:
    """Return the label of a picture in a group of duplicates: the row's role, if any, and what became of it."""
    became = "kept" if row["kept"] else f"dropped by {row['rule']}"
    return role if not role or row["rule"] == schema.DUPLICATE else clean(f"{role}, {became}", SHORT)


def sample_texts(row: Row, partner: Row | None = None) -> list[tuple[str, str]]:
    """Return the texts of a sample's card, with the caption of what represents it where that is another."""
    texts = [] if row["caption"] is None else [("", clean(row["caption"]))]
    if partner and partner["caption"] != row["caption"]:
        texts.append(("representative", clean(partner["caption"])))
    return texts + ([("url", clean(row["url"], 160))] if row["url"] else [])


def _values(run: OpenRun, step: str, row: Row) -> Iterator[tuple[str, Any]]:
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
