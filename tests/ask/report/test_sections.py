"""The report's parts by themselves: texts and shares, bins, ranks, thresholds read from rules, thumbnails."""

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from curate.ask.opened import connected
from curate.ask.report import galleries
from curate.ask.report.blocks import format_shares, number
from curate.ask.report.distributions import BINS, bin_edges, count_bins, drawn_thresholds, find_cuts
from curate.ask.report.galleries import SIDE, thumbnail
from curate.ask.report.sections import POINTS
from curate.base.wording import format_bytes, format_seconds
from tests.kit.pools import encode
from tests.kit.written_runs import RUN, SMALL, write_units


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=40))
def test_each_share_is_rounded_by_itself(counts):
    total = sum(counts) or 1
    texts = [text.removesuffix("%") for text in format_shares([n / total for n in counts])]
    digits = len(texts[0].partition(".")[2])
    assert texts == [f"{100 * (n / total):.{digits}f}" for n in counts] and 2 <= digits <= 4


def test_numbers():
    assert [number(v) for v in (0.275620818, 12345.678, math.nan)] == ["0.2756", "12,345.7", "nan"]
    assert (*format_shares([None]), format_seconds(31.67), format_seconds(252)) == ("–", "31.7 s", "4 min 12 s")
    sizes = [0, 999, 1000, 999_499, 999_999, 1_000_000, 12_345_678, 5_000_000_000_000]
    texts = ["0 B", "999 B", "1.0 kB", "999 kB", "1.0 MB", "1.0 MB", "12.3 MB", "5.0 TB"]
    assert [format_bytes(size) for size in sizes] == texts


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.booleans())
def test_bins_cover_the_range(low, width, whole):
    low, high = (float(round(low)), float(round(low + width) + 1)) if whole else (low, low + width)
    edges, log = bin_edges(low, low, high, whole)
    assert 2 <= len(edges) <= BINS + 1 and list(edges) == sorted(set(edges))
    assert edges[0] <= low * (1 + 1e-9 * (log or 0)) and edges[-1] >= high * (1 - 1e-9 * (log or 0)) - 1e-6
    if whole and not log:
        assert {edge % 1 for edge in edges} == {0.5}


def test_bins_count_every_row(small):
    with connected(small) as run:
        found = {histogram.name: histogram for histogram in count_bins(run)}
        assert drawn_thresholds(run)["clip_score"] == [("aligned", 0.25)]
    assert sum(found["clip_score"].pool) == 11 and sum(found["clip_score"].kept) == 4
    words = found["words"]
    lengths = [row[0]["words"] for rows in SMALL for row in rows if row[0]["status"] == "ok"]
    edges = zip(words.edges, words.edges[1:], strict=False)
    assert list(words.pool) == [sum(low < n <= high for n in lengths) for low, high in edges]


@pytest.mark.parametrize("length", [1, 2, 40, 3000])
def test_ranks(length, tmp_path):
    entries = [(i, f"e{i}", "w", "en", length - i, length - i, 1.0, 1.0, 0) for i in range(length)]
    write_units(str(tmp_path), SMALL, RUN, entries)
    with connected(str(tmp_path)) as run:
        rows = run.report("entry_ranks", balanced=True, points=POINTS)
    ranks = [row["rank"] for row in rows]
    assert len(ranks) <= POINTS + 2 and ranks == sorted(set(ranks)) and (ranks[0], ranks[-1]) == (1, length)
    assert all(row["rows"] == length + 1 - row["rank"] for row in rows)


CUTS = {
    "words > 2": {"words": 2}, "clip_score > -0.45 AND 3 <= words": {"clip_score": -0.45, "words": 3},
    "least(width, height) >= 200": {"width": 200, "height": 200, "min_side": 200},
    "200 <= LEAST(Height, width)": {"width": 200, "height": 200, "min_side": 200},
    "greatest(width, height) <= 2000": {"width": 2000, "height": 2000}, "words between 3 and 3": {"words": 3},
    "greatest(width, height) / least(width, height) <= 3.0": {"aspect": 3},
    "Words > 2 AND greatest(Width, HEIGHT) / least(WIDTH, height) < 3": {"words": 2, "aspect": 3},
    f"{' + '.join(['words'] * 400)} > 3 AND width > 2": {"width": 2}, "language = 'or' and (words > 2)": {"words": 2},
    '"clip_score" > .25 AND words >= 3e1': {"clip_score": 0.25, "words": 30},
}  # fmt: skip
NOT_CUTS = [
    "words > 2 OR width > 3", "NOT words > 2", "language = 'en'", "words > width", "caption > '5' -- words > 3",
    "not SQL at all >", "true) OR (words > 3", "(words > 3 AND width < 2) = false",
]  # fmt: skip


def test_thresholds_are_read_from_rules():
    assert {sql: dict(find_cuts(sql)) for sql in CUTS} == CUTS
    assert not [sql for sql in NOT_CUTS if dict(find_cuts(sql))]


def shown(data):
    jpeg = thumbnail(data)
    assert jpeg is not None and len(jpeg) < 20_000
    image = Image.open(io.BytesIO(jpeg))
    assert image.format == "JPEG" and max(image.size) <= SIDE and not image.getexif()
    return image


def test_thumbnails_of_all_kinds_of_images():
    noise = Image.effect_noise((900, 600), 90)
    assert shown(encode(noise, "JPEG")).size == (160, 107)
    assert shown(encode(noise.convert("CMYK"), "JPEG")).mode == "RGB"
    exif = Image.Exif()
    exif[0x0112] = 6
    assert shown(encode(noise, "JPEG", exif=exif)).size == (107, 160)
    clear = shown(encode(Image.new("RGBA", (40, 40), (255, 0, 0, 0)), "PNG"))
    assert clear.getpixel((20, 20)) == (255, 255, 255)
    frames = [Image.new("RGB", (30, 30), color) for color in ("red", "blue")]
    first = shown(encode(frames[0], "GIF", save_all=True, append_images=frames[1:])).getpixel((15, 15))
    assert isinstance(first, tuple) and first[0] > 200 > 60 > first[2]
    assert shown(encode(Image.new("I;16", (1600, 2), 40_000), "PNG")).size == (160, 1)
    for data in (b"", b"<html>", encode(Image.new("RGB", (9, 9)), "PNG")[:45]):
        assert thumbnail(data) is None


def test_unsafe_images_are_blurred(monkeypatch):
    jpeg = encode(Image.new("RGB", (20, 20), "red"), "JPEG")
    values = (None, 0.8, 0.81)
    rows = [{"unit": 0, "row": i, "status": "ok", "sha256": "", "nsfw": value} for i, value in enumerate(values)]
    monkeypatch.setattr(galleries, "read_originals", lambda _, rows: {(0, row["row"]): jpeg for row in rows})
    pictures = galleries.make_pictures(None, rows)
    assert [pictures[0, i].blurred for i in range(3)] == [False, False, True]
    assert all(picture.data.startswith("data:image/jpeg;base64,") for picture in pictures.values())
