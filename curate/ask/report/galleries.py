"""Galleries: a few kept and dropped samples of every step, with the values that decided; and thumbnails, as data URIs.

A hash of the uid chooses samples, so they depend on the samples alone, not on shards or units. Images are of the input
pool, or of kept samples in the published shards. A sample whose image is missing, changed, unreadable or too much for
the page gets words instead. Images are untrusted: they are decoded with the limits of measuring, and the page holds a
JPEG that is written here.
"""

import base64
import hashlib
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from itertools import groupby, zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from curate.ask.explain_sections import explain_verdict
from curate.ask.library import report_sql
from curate.ask.opened import OpenRun
from curate.ask.report.blocks import Card, Gallery, Picture, Section, Value
from curate.ask.report.text import SHORT, clean, count
from curate.ask.rule_results import AT, FAILED, NOT_REACHED, RuleResult, evaluate_rows
from curate.base import stages
from curate.base.process import in_threads
from curate.base.schema import OK
from curate.emit.output_format import find_written
from curate.pool.reread import file_images
from curate.read.image import as_rgb, measure_image, rotate_by_exif
from curate.read.tar_samples import split_name
from curate.recipe.measure import Image as ImageOptions
from curate.recipe.source import Source, source_sections

SIDE = 160  # pixels of a thumbnail's longer side
BUDGET = 2_400_000  # characters of all data URIs together
BLURRED = 0.8  # images with an `nsfw` above this are blurred until pointed at

Row = dict[str, Any]
Place = tuple[int, int]
MOST = 30  # galleries
SAMPLES = 8  # of each; half as many where there are many galleries
SCORES = 6  # of a kept sample
ENTRIES = 5  # of a sample
NUMBERS = 16  # scores of any sample, folded, and these:
SIZES = ("words", "characters", "width", "height", "min_side", "aspect", "bytes")


def place_of(row: Row) -> Place:
    """Return the key of a row."""
    return row["unit"], row["row"]


def at_places(places: Iterable[Place]) -> list[dict[str, int]]:
    """Return places for a query that looks them up by AT."""
    return [{"unit": unit, "row": row} for unit, row in places]


def make_pictures(run: OpenRun, rows: Sequence[Row]) -> dict[Place, Picture]:
    """Return a picture for each row of samples, scores and decisions. The page's budget is spent in their order."""
    images, changed = read_originals(run, rows)
    thumbnails = in_threads(thumbnail, (images.get(place_of(row), b"") for row in rows))
    pictures: dict[Place, Picture] = {}
    left = BUDGET
    for row, jpeg in zip(rows, thumbnails, strict=True):
        place = place_of(row)
        if place in pictures:
            continue
        data = "data:image/jpeg;base64," + base64.b64encode(jpeg or b"").decode()
        if not jpeg:
            gone = "the input has changed" if place in changed else "the input no longer exists"
            why = "cannot be shown" if place in images else gone
            pictures[place] = Picture(missing=why if row["status"] == OK else f"not shown: {row['status']}")
        elif len(data) > left:
            pictures[place] = Picture(missing="left out: the page's size limit is reached")
        else:
            left -= len(data)
            pictures[place] = Picture(data, blurred=(row.get("nsfw") or 0) > BLURRED)
    return pictures


def thumbnail(data: bytes) -> bytes | None:
    """Return the image as a small JPEG, after EXIF rotation, transparency on white; None where it cannot be decoded."""
    if not data:
        return None
    facts = measure_image(data, ImageOptions(jpeg_side=2 * SIDE), [_shrink])
    return facts.observed[0] if facts.observed else None


def _shrink(image: Image.Image) -> bytes:
    small = as_rgb(rotate_by_exif(image)).copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.BOX if max(small.size) > 20 * SIDE else Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=78, optimize=True)
    return file.getvalue()


def read_originals(run: OpenRun, rows: Sequence[Row]) -> tuple[dict[Place, bytes], set[Place]]:
    """Return the images that can still be read, and the rows whose place in the input holds something else now."""
    wanted = [row for row in rows if row["sha256"] is not None]
    sources: dict[str, Source] = {}
    for section in run.facts.recipe.get("input", ()):
        with suppress(ValidationError):  # of a format that is not installed here
            source = TypeAdapter[Source](source_sections()).validate_python(section).placed_in(run.folder.url)
            sources[source.name] = source
    images: dict[Place, bytes] = {}
    changed: set[Place] = set()
    unreachable: set[str] = set()
    for shard in dict.fromkeys(row["shard"] for row in wanted):
        of_shard = [row for row in wanted if row["shard"] == shard]
        name = of_shard[0]["source"]
        if name not in sources or name in unreachable:
            continue
        try:
            for row, data in _from_input(run, sources[name], shard, of_shard):
                (images.update({place_of(row): data}) if _same(row, data) else changed.add(place_of(row)))
        except FileNotFoundError:
            continue
        except Exception:
            # Stores, drivers and replaced files raise errors of many kinds, and all of them mean: not there.
            if "://" in shard:  # a store that does not answer is not tried again for each file
                unreachable.add(name)
    return images | _published(run, [row for row in wanted if row["kept"] and place_of(row) not in images]), changed


def _same(row: Row, data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == str(row["sha256"])


def _from_input(run: OpenRun, source: Source, path: str, rows: Sequence[Row]) -> Iterator[tuple[Row, bytes]]:
    """Yield images of an input file: its n-th row is the n-th of the run that names the file, unless it is damaged."""
    places = run.rows(
        f"""SELECT unit, row, place FROM (SELECT unit, row, row_number() OVER (ORDER BY unit, row) - 1 AS place
        FROM samples WHERE shard = $shard) {AT} ORDER BY place""",
        shard=path,
        places=at_places(map(place_of, rows)),
    )
    by_place = {place_of(row): row for row in rows}
    wanted = [by_place[place_of(place)] for place in places]
    samples = pa.table({name: [row[name] for row in wanted] for name in ("offset", "bytes")})
    images = file_images(source, path, np.array([place["place"] for place in places], np.int64), samples)
    yield from ((row, data or b"") for row, data in zip(wanted, images, strict=False))


def _published(run: OpenRun, rows: Sequence[Row]) -> dict[Place, bytes]:
    """Return images of kept rows, from the run's own shards."""
    by_uid = {row["uid"]: row for row in rows}
    of_uids = "uid IN (SELECT unnest($uids::VARCHAR[])) AND key IS NOT NULL"
    sql = f"SELECT uid, shard, key FROM published WHERE {of_uids} ORDER BY shard"
    places = run.rows(sql, uids=list(by_uid)) if rows else []
    images: dict[Place, bytes] = {}
    kind = find_written(run.facts)
    for shard, held in groupby(places, lambda place: str(place["shard"])):
        wanted = {place["key"]: by_uid[place["uid"]] for place in held}
        with suppress(Exception):  # as above: a shard may have been moved, too
            for member, data in kind.members(run.folder, shard.partition(".")[0], wanted.keys()):
                row = wanted[split_name(member)[0]]
                if _same(row, data):
                    images[place_of(row)] = data
    return images


def galleries_section(run: OpenRun) -> Section:
    """Return kept samples first, then those of each step that dropped any, in the order of the steps."""
    lines = [row for row in run.funnel if row["kind"] != "pool" and row["rows"] and row["rule"] != stages.FORGOTTEN]
    largest = sorted(lines, key=lambda line: (line["kind"] != "kept", -line["rows"]))[:MOST]
    shown = sorted((line for line in lines if line in largest), key=lambda line: line["kind"] != "kept")
    chosen = _choose(run, SAMPLES if len(shown) <= MOST // 2 else SAMPLES // 2)
    places = at_places(place for line in shown for place in chosen[line["rule"]])
    judged = [(row, judge(run, row, results)) for row, results in evaluate_rows(run, places)]
    rows = {place_of(row): row for row, _ in judged}
    verdicts = {place_of(row): verdict for row, verdict in judged}
    steps = {line["rule"]: [rows[place] for place in chosen[line["rule"]]] for line in shown}
    uids = {row["duplicate_of"] for row in rows.values() if row["rule"] == stages.DUPLICATE} - {None}
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
            partner = partners.get(row["duplicate_of"]) if line["rule"] == stages.DUPLICATE else None
            cards.append(_card(run, row, partner, verdicts[place_of(row)], pictures, entries))
        blocks.append(_gallery(run, line, cards))
    text = "A few samples of each step, chosen by a hash of their uid, with the values that decided. "
    text += "Captions, URLs and images are shown as the pool has them; nobody checked them."
    if left_out := len(lines) - len(shown):
        text += f" {left_out} steps that dropped few samples are left out."
    return Section("samples", "Samples", [text, *blocks])


def _choose(run: OpenRun, most: int) -> dict[str, list[Place]]:
    """Return step → places of its samples, one for each uid."""
    chosen: dict[str, list[Place]] = {}
    for line in run.rows(report_sql("choose_samples"), most=3 * most):
        first = {row["uid"] or place_of(row): place_of(row) for row in reversed(line["chosen"])}
        chosen[line["step"]] = [place for place in map(place_of, line["chosen"]) if place in first.values()][:most]
    return chosen


def _entries(run: OpenRun, rows: dict[Place, Row]) -> dict[Place, str]:
    """Return the rarest entries of samples, with how many samples matched them before balancing."""
    matched = run.rows(report_sql("sample_entries"), most=ENTRIES, places=at_places(rows))
    texts = {}
    for row in matched:
        names = ", ".join(f"{clean(entry['entry'], 40)} ({count(entry['n'])})" for entry in row["entries"])
        texts[place_of(row)] = names + (f", {row['n'] - ENTRIES} more" if row["n"] > ENTRIES else "")
    return texts


def _gallery(run: OpenRun, line: dict[str, Any], cards: list[Card]) -> Gallery:
    rule, rows = line["rule"], count(line["rows"])
    if line["kind"] == "kept":
        return Gallery(f"Kept: {rows}", cards)
    note = "Each with the sample that represents it." if rule == stages.DUPLICATE else ""
    for fact in run.facts.rules:
        if fact.name == rule:
            threshold = "" if fact.threshold is None else f": at least {fact.show(fact.threshold)}"
            note = fact.sql or f"{fact.expression}{threshold}"
    title = "Failed" if rule == stages.FAILED else f"Dropped by {clean(rule, SHORT)}"
    return Gallery(f"{title}: {rows}", cards, note=clean(note))


def _card(
    run: OpenRun,
    row: Row,
    partner: Row | None,
    verdict: Value,
    pictures: dict[Place, Picture],
    entries: dict[Place, str],
) -> Card:
    step = row["rule"] or stages.KEPT
    parts = [part for part in (row, partner) if part is not None and place_of(part) in pictures]
    roles = zip(parts, ("duplicate", "representative") if len(parts) == 2 else ("",), strict=False)
    shown = [pictures[place_of(part)]._replace(label=fate(role, part)) for part, role in roles]
    values = [make_value(name, value) for name, value in _values(run, step, row)]
    if place_of(row) in entries and step in (stages.KEPT, run.drawn):
        values.append(Value("entries", entries[place_of(row)]))
    name = clean(row["uid"] or (f"key {row['key']}" if row["key"] else ""), SHORT)
    numbers = folded_numbers(run, row, values)
    return Card(shown, sample_texts(row, partner), values, name, verdict, verdict.name, numbers)


def fate(role: str, row: Row) -> str:
    """Return the label of a picture in a group of duplicates: the row's role, if any, and what became of it."""
    became = "kept" if row["kept"] else f"dropped by {row['rule']}"
    return role if not role or row["rule"] == stages.DUPLICATE else clean(f"{role}, {became}", SHORT)


def sample_texts(row: Row, partner: Row | None = None) -> list[tuple[str, str]]:
    """Return the texts of a sample's card, with the caption of what represents it where that is another."""
    texts = [] if row["caption"] is None else [("", clean(row["caption"]))]
    if partner and partner["caption"] != row["caption"]:
        texts.append(("representative", clean(partner["caption"])))
    return texts + ([("url", clean(row["url"], 160))] if row["url"] else [])


def _values(run: OpenRun, step: str, row: Row) -> Iterator[tuple[str, Any]]:
    """Yield what a card shows besides the verdict: of a kept sample its scores, of a duplicate what represents it."""
    if step == stages.DUPLICATE:
        yield "representative", row["duplicate_of"]
    elif step == stages.KEPT:
        if row["width"]:
            yield "size", f"{row['width']} × {row['height']}"
        yield from ((name, row[name]) for name in run.scores[:SCORES] if row[name] is not None)


def make_value(name: str, value: Any) -> Value:
    """Return a value for a card; numbers that are finite can be sorted and filtered by."""
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool) and math.isfinite(value)
    return Value(clean(name, 40), clean(value, SHORT), float(value) if is_number else None)


def folded_numbers(run: OpenRun, row: Row, shown: Sequence[Value]) -> list[Value]:
    """Return the measured numbers of a row that its card does not show."""
    names = [name for name in (*run.scores[:NUMBERS], *SIZES) if row.get(name) is not None]
    left_out = {value.name for value in shown}
    return [value for value in (make_value(name, row[name]) for name in names) if value.name not in left_out]


def judge(run: OpenRun, row: Row, results: Sequence[RuleResult]) -> Value:
    """Return what became of a row, and why, in short: the value that decided and the threshold, where it is a rule."""
    failed = next((result for result in results if result.state == FAILED and not result.is_dedup), None)
    if failed:
        text = failed.short
    elif row["rule"] == stages.DUPLICATE:
        text = stages.VERDICT[stages.DUPLICATE].meaning
    else:
        text = explain_verdict(run, row).lstrip(":; ")
    others = [result.name for result in results if result.state == NOT_REACHED and not result.passes]
    if others and row["status"] == OK and not row["kept"]:
        text += f"; would also fail {', '.join(others[:6])}"
    return Value(clean(row["rule"] or stages.KEPT, SHORT), clean(text))
