"""Galleries: a few kept samples, and a few that each step dropped, with the decisive values; thumbnails as data URIs.

A hash of the uid chooses samples, so they do not depend on shards or units. Images come from the input pool or, for
kept samples, from the published shards. If an image is missing, changed, unreadable or over the page's budget, its
sample shows a reason instead. Images are untrusted: they are decoded within the limits for measuring, and the page
holds a re-encoded JPEG.
"""

import base64
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby, zip_longest
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from curate.ask.explain import explain_verdict
from curate.ask.opened import OpenRun
from curate.ask.report.blocks import Card, Picture, Section, clean, count
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

SIDE = 160  # longer side of a thumbnail, pixels
BUDGET = 2_400_000  # total characters of all data URIs
BLURRED = 0.8  # images with `nsfw` above this are blurred until you point at them

Row = Mapping[str, Any]
MAX_GALLERIES = 30  # galleries
SAMPLES = 8  # in each; half as many if there are many galleries
SCORES = 6  # shown for a kept sample
ENTRIES = 5  # shown for a sample
NUMBERS = 16  # scores shown for any sample, collapsed, and these:
SIZES = ("words", "characters", "width", "height", "min_side", "aspect", "bytes")


def position_of(row: Row) -> Position:
    """Return a row's key in the tables."""
    return row["unit"], row["row"]


def make_pictures(run: OpenRun, rows: Sequence[Row]) -> dict[Position, Picture]:
    """Return a picture for each row of samples, scores and decisions. Earlier rows use the page's budget first."""
    images = read_originals(run, rows)
    rows = list({position_of(row): row for row in rows}.values())
    thumbnails = in_threads(thumbnail, (images.get(position_of(row)) or b"" for row in rows))
    pictures: dict[Position, Picture] = {}
    remaining = BUDGET
    for row, jpeg in zip(rows, thumbnails, strict=True):
        position = position_of(row)
        data = "data:image/jpeg;base64," + base64.b64encode(jpeg or b"").decode()
        if jpeg and len(data) > remaining:
            pictures[position] = Picture(missing="left out: the page's size limit is reached")
        elif jpeg:
            remaining -= len(data)
            pictures[position] = Picture(data, blurred=(row.get("nsfw") or 0) > BLURRED)
        elif row["status"] != OK:
            pictures[position] = Picture(missing=f"not shown: {row['status']}")
        elif position not in images:
            pictures[position] = Picture(missing="the input no longer exists")
        else:
            is_there = images[position] is not None
            pictures[position] = Picture(missing="cannot be shown" if is_there else "the input has changed")
    return pictures


def thumbnail(data: bytes) -> bytes | None:
    """Return the image as a small JPEG, after EXIF rotation, on white; None if it cannot be decoded."""
    facts = measure_image(data, ImageOptions(jpeg_side=2 * SIDE), [_shrink])
    return facts.observed[0] if facts.observed else None


def _shrink(image: Image.Image) -> bytes:
    small = as_rgb(rotate_by_exif(image)).copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.BOX if max(small.size) > 20 * SIDE else Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=78, optimize=True)
    return file.getvalue()


def read_originals(run: OpenRun, rows: Sequence[Row]) -> dict[Position, bytes | None]:
    """Return the images that can still be read; None if the input has changed."""
    sources: dict[str, Source] = {}
    for section in run.facts.recipe.get("input", ()):
        with suppress(ValidationError):  # a format that is not installed here
            source = TypeAdapter[Source](source_sections()).validate_python(section).placed_in(run.folder.url)
            sources[source.name] = source
    shards: dict[str, list[Row]] = {}
    for row in rows:
        if row["sha256"] is not None and row["source"] in sources:
            shards.setdefault(row["shard"], []).append(row)
    images: dict[Position, bytes | None] = {}
    unreachable: set[str] = set()
    for shard, of_shard in shards.items():
        source = sources[of_shard[0]["source"]]
        if source.name in unreachable:
            continue
        try:
            with errors_of(shard):  # replaced files raise many kinds of errors
                for row, data in _from_input(run, source, shard, of_shard):
                    images[position_of(row)] = data if _is_original(row, data) else None
        except (OSError, ImportError, CurateError) as error:
            if "://" in shard and not isinstance(error, FileNotFoundError):  # skip a store that does not answer
                unreachable.add(source.name)
    remaining = [row for row in rows if row["sha256"] is not None and row["kept"] and not images.get(position_of(row))]
    return images | _published(run, remaining)


def _is_original(row: Row, data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == str(row["sha256"])


def _from_input(run: OpenRun, source: Source, path: str, rows: Sequence[Row]) -> Iterator[tuple[Row, bytes]]:
    """Yield images from an input file: its n-th row is the n-th row of the file in the run, unless it is damaged."""
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
        with suppress(OSError, ImportError, CurateError), errors_of(shard):  # a shard may have been moved
            for member, data in kind.members(run.folder, shard.partition(".")[0], wanted.keys()):
                row = wanted[split_name(member)[0]]
                if _is_original(row, data):
                    images[position_of(row)] = data
    return images


def galleries_section(run: OpenRun) -> Section:
    """Return kept samples, and then the samples that each step dropped, in the order of the steps."""
    lines = [row for row in run.funnel if row["kind"] != "pool" and row["rows"] and row["rule"] != stages.FORGOTTEN]
    largest = sorted(lines, key=lambda line: (line["kind"] != "kept", -line["rows"]))[:MAX_GALLERIES]
    shown = sorted(
        ({**line, "cards": []} for line in lines if line in largest), key=lambda line: line["kind"] != "kept"
    )
    limit = SAMPLES if len(shown) <= MAX_GALLERIES // 2 else SAMPLES // 2
    chosen = {line["step"]: list(map(position_of, line["chosen"])) for line in run.report("choose_samples", most=limit)}
    judged = judge(run, [position for line in shown for position in chosen[line["rule"]]])
    uids = {row["duplicate_of"] for row, _ in judged.values() if row["rule"] == stages.DUPLICATE} - {None}
    partners = {row["uid"]: row for row in run.report("representatives", uids=sorted(uids))}
    entries = _entries(run, list(judged))
    for line in shown:
        has_entries = line["rule"] in (stages.KEPT, run.drawn)
        for position in chosen[line["rule"]]:
            row, verdict = judged[position]
            values = _values(run, row)
            if has_entries and position in entries:
                values.append(("entries", entries[position]))
            partner = partners.get(row["duplicate_of"]) if row["rule"] == stages.DUPLICATE else None
            group = [("duplicate", row), ("representative", partner)] if partner else [("", row)]
            name = row["uid"] or (f"key {row['key']}" if row["key"] else "")
            line["cards"].append(Card(group, values, name, verdict, verdict[0]))
    # The page's budget goes to the first sample of each step, then to the second.
    in_turn = [card for rank in zip_longest(*(line["cards"] for line in shown)) for card in rank if card is not None]
    facts = {"lines": shown, "left_out": len(lines) - len(shown), **of_cards(run, in_turn)}
    return Section("samples", "Samples", facts)


def of_cards(run: OpenRun, cards: Iterable[Card]) -> dict[str, Any]:
    """Return the facts that all cards share: pictures by position, and each card's collapsed columns."""
    rows = [row for card in cards for _, row in card.group]
    pictures = make_pictures(run, rows) if run.facts.pool.images else {}
    return {"pictures": pictures, "folded": [*run.scores[:NUMBERS], *SIZES]}


def _entries(run: OpenRun, positions: Sequence[Position]) -> dict[Position, str]:
    texts = {}
    for row in run.report("sample_entries", most=ENTRIES, positions=at_positions(positions)):
        names = ", ".join(f"{clean(entry['entry'], 40)} ({count(entry['n'])})" for entry in row["entries"])
        texts[position_of(row)] = names + (f", {row['n'] - ENTRIES} more" if row["n"] > ENTRIES else "")
    return texts


def _values(run: OpenRun, row: Row) -> list[tuple[str, Any]]:
    """Return the values that a card shows besides the verdict: for a kept sample, its size and scores."""
    if not row["kept"]:
        return []
    size = [("size", f"{row['width']} × {row['height']}")] if row["width"] else []
    return size + [(name, row[name]) for name in run.scores[:SCORES] if row[name] is not None]


def judge(run: OpenRun, positions: Iterable[Position]) -> dict[Position, tuple[Row, tuple[str, str]]]:
    """Return rows, each with its rule and a short reason, such as the value and the threshold of a rule."""
    judged: dict[Position, tuple[Row, tuple[str, str]]] = {}
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
        judged[position_of(row)] = row, (row["rule"] or stages.KEPT, text)
    return judged
