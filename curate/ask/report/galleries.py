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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from itertools import groupby, zip_longest
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from curate.ask.explain import explain_verdict
from curate.ask.opened import OpenRun
from curate.ask.report.blocks import SHORT, Card, Gallery, Picture, Section, Value, clean, count
from curate.ask.rule_results import FAILED, NOT_REACHED, Position, at_positions, evaluate_rows
from curate.base import stages
from curate.base.errors import CurateError
from curate.base.process import in_threads
from curate.base.schema import OK
from curate.emit.output_format import find_written
from curate.pool.reread import file_images
from curate.read.image import as_rgb, measure_image, rotate_by_exif
from curate.read.tar_samples import split_name
from curate.recipe.measure import Image as ImageOptions
from curate.recipe.source import Source, source_sections
from curate.tar.byte_sources import errors_of

SIDE = 160  # pixels of a thumbnail's longer side
BUDGET = 2_400_000  # characters of all data URIs together
BLURRED = 0.8  # images with an `nsfw` above this are blurred until pointed at

Row = dict[str, Any]
MOST = 30  # galleries
SAMPLES = 8  # of each; half as many where there are many galleries
SCORES = 6  # of a kept sample
ENTRIES = 5  # of a sample
NUMBERS = 16  # scores of any sample, folded, and these:
SIZES = ("words", "characters", "width", "height", "min_side", "aspect", "bytes")


def position_of(row: Row) -> Position:
    """Return the key of a row in the tables."""
    return row["unit"], row["row"]


def make_pictures(run: OpenRun, rows: Sequence[Row]) -> dict[Position, Picture]:
    """Return a picture for each row of samples, scores and decisions. The page's budget is spent in their order."""
    images, changed = read_originals(run, rows)
    thumbnails = in_threads(thumbnail, (images.get(position_of(row), b"") for row in rows))
    pictures: dict[Position, Picture] = {}
    left = BUDGET
    for row, jpeg in zip(rows, thumbnails, strict=True):
        position = position_of(row)
        if position in pictures:
            continue
        data = "data:image/jpeg;base64," + base64.b64encode(jpeg or b"").decode()
        if jpeg and len(data) > left:
            pictures[position] = Picture(missing="left out: the page's size limit is reached")
        elif jpeg:
            left -= len(data)
            pictures[position] = Picture(data, blurred=(row.get("nsfw") or 0) > BLURRED)
        elif row["status"] != OK:
            pictures[position] = Picture(missing=f"not shown: {row['status']}")
        elif position in images:
            pictures[position] = Picture(missing="cannot be shown")
        else:
            became = "has changed" if position in changed else "no longer exists"
            pictures[position] = Picture(missing=f"the input {became}")
    return pictures


def thumbnail(data: bytes) -> bytes | None:
    """Return the image as a small JPEG, after EXIF rotation, transparency on white; None where it cannot be decoded."""
    facts = measure_image(data, ImageOptions(jpeg_side=2 * SIDE), [_shrink])
    return facts.observed[0] if facts.observed else None


def _shrink(image: Image.Image) -> bytes:
    small = as_rgb(rotate_by_exif(image)).copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.BOX if max(small.size) > 20 * SIDE else Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=78, optimize=True)
    return file.getvalue()


def read_originals(run: OpenRun, rows: Sequence[Row]) -> tuple[dict[Position, bytes], set[Position]]:
    """Return the images that can still be read, and the rows whose place in the input holds something else now."""
    wanted = [row for row in rows if row["sha256"] is not None]
    sources: dict[str, Source] = {}
    for section in run.facts.recipe.get("input", ()):
        with suppress(ValidationError):  # of a format that is not installed here
            source = TypeAdapter[Source](source_sections()).validate_python(section).placed_in(run.folder.url)
            sources[source.name] = source
    images: dict[Position, bytes] = {}
    changed: set[Position] = set()
    unreachable: set[str] = set()
    for shard in dict.fromkeys(row["shard"] for row in wanted):
        of_shard = [row for row in wanted if row["shard"] == shard]
        name = of_shard[0]["source"]
        if name not in sources or name in unreachable:
            continue
        try:
            with errors_of(shard):  # replaced files raise errors of many kinds
                for row, data in _from_input(run, sources[name], shard, of_shard):
                    if _is_original(row, data):
                        images[position_of(row)] = data
                    else:
                        changed.add(position_of(row))
        except FileNotFoundError:
            continue
        except (OSError, ImportError, CurateError):
            if "://" in shard:  # a store that does not answer is not tried again for each file
                unreachable.add(name)
    return images | _published(run, [row for row in wanted if row["kept"] and position_of(row) not in images]), changed


def _is_original(row: Row, data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == str(row["sha256"])


def _from_input(run: OpenRun, source: Source, path: str, rows: Sequence[Row]) -> Iterator[tuple[Row, bytes]]:
    """Yield images of an input file: its n-th row is the n-th of the run that names the file, unless it is damaged."""
    by_position = {position_of(row): row for row in rows}
    numbered = run.report("rows_of_shard", shard=path, positions=at_positions(by_position))
    wanted = [by_position[position_of(row)] for row in numbered]
    samples = pa.table({name: [row[name] for row in wanted] for name in ("offset", "bytes")})
    images = file_images(source, path, np.array([row["number"] for row in numbered], np.int64), samples)
    yield from ((row, data or b"") for row, data in zip(wanted, images, strict=False))


def _published(run: OpenRun, rows: Sequence[Row]) -> dict[Position, bytes]:
    by_uid = {row["uid"]: row for row in rows}
    images: dict[Position, bytes] = {}
    kind = find_written(run.facts)
    published = run.report("published_keys", uids=list(by_uid)) if rows else []
    for shard, in_shard in groupby(published, itemgetter("shard")):
        wanted = {row["key"]: by_uid[row["uid"]] for row in in_shard}
        with suppress(OSError, ImportError, CurateError), errors_of(shard):  # a shard may have been moved, too
            for member, data in kind.members(run.folder, shard.partition(".")[0], wanted.keys()):
                row = wanted[split_name(member)[0]]
                if _is_original(row, data):
                    images[position_of(row)] = data
    return images


def galleries_section(run: OpenRun) -> Section:
    """Return kept samples first, then those of each step that dropped any, in the order of the steps."""
    lines = [row for row in run.funnel if row["kind"] != "pool" and row["rows"] and row["rule"] != stages.FORGOTTEN]
    largest = sorted(lines, key=lambda line: (line["kind"] != "kept", -line["rows"]))[:MOST]
    shown = sorted((line for line in lines if line in largest), key=lambda line: line["kind"] != "kept")
    chosen = _choose(run, SAMPLES if len(shown) <= MOST // 2 else SAMPLES // 2)
    judged = judge(run, [position for line in shown for position in chosen[line["rule"]]])
    steps = {line["rule"]: [judged[position][0] for position in chosen[line["rule"]]] for line in shown}
    uids = {row["duplicate_of"] for row, _ in judged.values() if row["rule"] == stages.DUPLICATE} - {None}
    partners = {row["uid"]: row for row in run.report("representatives", uids=sorted(uids))}

    def group(row: Row) -> list[tuple[str, Row]]:
        partner = partners.get(row["duplicate_of"]) if row["rule"] == stages.DUPLICATE else None
        return [("duplicate", row), ("representative", partner)] if partner else [("", row)]

    # The page's room goes to the first sample of each step, then to the second.
    in_turn = [row for rank in zip_longest(*steps.values()) for row in rank if row is not None]
    pictures = make_pictures(run, [part for row in in_turn for _, part in group(row)]) if run.facts.pool.images else {}
    entries = _entries(run, list(judged))
    shown_galleries = []
    for line in shown:
        cards = []
        for row in steps[line["rule"]]:
            values = [make_value(name, value) for name, value in _values(run, row)]
            if position_of(row) in entries and line["rule"] in (stages.KEPT, run.drawn):
                values.append(Value("entries", entries[position_of(row)]))
            name = row["uid"] or (f"key {row['key']}" if row["key"] else "")
            cards.append(make_card(run, row, group(row), pictures, values, judged[position_of(row)][1], name))
        shown_galleries.append(_gallery(run, line, cards))
    facts = {"galleries": shown_galleries, "left_out": len(lines) - len(shown)}
    return Section("samples", "Samples", facts=facts)


def _choose(run: OpenRun, limit: int) -> dict[str, list[Position]]:
    chosen: dict[str, list[Position]] = {}
    for line in run.report("choose_samples", most=3 * limit):
        first: dict[Any, Position] = {}
        for row in line["chosen"]:
            first.setdefault(row["uid"] or position_of(row), position_of(row))
        chosen[line["step"]] = list(first.values())[:limit]
    return chosen


def _entries(run: OpenRun, positions: Sequence[Position]) -> dict[Position, str]:
    texts = {}
    for row in run.report("sample_entries", most=ENTRIES, positions=at_positions(positions)):
        names = ", ".join(f"{clean(entry['entry'], 40)} ({count(entry['n'])})" for entry in row["entries"])
        texts[position_of(row)] = names + (f", {row['n'] - ENTRIES} more" if row["n"] > ENTRIES else "")
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


def make_card(
    run: OpenRun,
    row: Row,
    group: Sequence[tuple[str, Row]],
    pictures: Mapping[Position, Picture],
    values: Sequence[Value],
    verdict: Value,
    name: str,
) -> Card:
    """Return the card of a row, with a picture of each row of its group of duplicates, by role."""
    shots = [
        pictures[position_of(part)]._replace(label=_fate(role, part), uid=part["uid"] if role else "")
        for role, part in group
        if pictures
    ]
    texts = [] if row["caption"] is None else [("", clean(row["caption"]))]
    if len(group) == 2 and (other := group[1][1]["caption"]) != row["caption"]:
        texts.append((group[1][0], clean(other)))
    texts += [("url", clean(row["url"], 160))] if row["url"] else []
    names = [name for name in (*run.scores[:NUMBERS], *SIZES) if row.get(name) is not None]
    numbers = [make_value(name, row[name]) for name in names]
    shown = {value.name for value in values}
    folded = [value for value in numbers if value.name not in shown]
    return Card(shots, texts, values, clean(name, SHORT), verdict, verdict.name, folded)


def _fate(role: str, row: Row) -> str:
    """Return the label of a picture in a group of duplicates: the row's role, if any, and what became of it."""
    became = "kept" if row["kept"] else f"dropped by {row['rule']}"
    return role if not role or row["rule"] == stages.DUPLICATE else clean(f"{role}, {became}", SHORT)


def _values(run: OpenRun, row: Row) -> Iterator[tuple[str, Any]]:
    """Yield what a card shows besides the verdict: of a kept sample its size and scores."""
    if row["kept"]:
        if row["width"]:
            yield "size", f"{row['width']} × {row['height']}"
        yield from ((name, row[name]) for name in run.scores[:SCORES] if row[name] is not None)


def make_value(name: str, value: Any) -> Value:
    """Return a value for a card; numbers that are finite can be sorted and filtered by."""
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool) and math.isfinite(value)
    return Value(clean(name, 40), clean(value, SHORT), float(value) if is_number else None)


def judge(run: OpenRun, positions: Iterable[Position]) -> dict[Position, tuple[Row, Value]]:
    """Return rows, each with what became of it, and why, in short: the value and the threshold, where it is a rule."""
    judged = {}
    for row, results in evaluate_rows(run, positions):
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
        judged[position_of(row)] = row, Value(clean(row["rule"] or stages.KEPT, SHORT), clean(text))
    return judged
