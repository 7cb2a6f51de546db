"""Text in drawn images, geometry against shapely, the networks' input against the package that ships them."""

import importlib.util
import io
import math
import sys
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from curate.base import process
from curate.base.errors import RecipeError
from curate.models import text_lines
from curate.models.text_lines import Line, find_lines, identify
from curate.signals import text_area
from curate.signals.text_area import MAX_CHARACTERS, MAX_LINES, TextObserver, overlap, words_of

pytest.importorskip("onnxruntime", reason="the extra ocr is not installed")
if importlib.util.find_spec("rapidocr") is None:  # not imported: it loads OpenCV, which may lack a library
    pytest.skip("the extra ocr is not installed", allow_module_level=True)
shapely = pytest.importorskip("shapely", reason="the extra ocr is not installed")

PAGE = ["Summer sale", "only today", "leather shoes"]


def page(lines, size=(480, 320), font=32, ink="black", ground="white"):
    """Lines one under another, and the box of each one's ink: left, top, right, bottom."""
    image = Image.new("RGB", size, ground)
    draw, face = ImageDraw.Draw(image), ImageFont.load_default(font)
    boxes = []
    for row, line in enumerate(lines):
        at = (font, font * (1 + 2 * row))
        draw.text(at, line, font=face, fill=ink)
        boxes.append(draw.textbbox(at, line, font=face))
    return image, boxes


look = TextObserver().observe


def columns(looked, captions):
    arrays = TextObserver().finish(looked, captions)
    assert [array.type for array in arrays] == TextObserver.columns.types
    return tuple(array.to_pylist() for array in arrays)


def rectangle(x, y, long, short, degrees):
    axis = np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])
    return Line(np.array([x, y], float), axis * long, np.array([-axis[1], axis[0]]) * short)


def polygon(line):
    corners = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return shapely.Polygon([line.center + a * line.along + b * line.across for a, b in corners])


LINES = st.builds(rectangle, st.floats(0, 90), st.floats(0, 60), st.floats(2, 50), st.floats(2, 20), st.floats(0, 180))


# ---- the whole signal


@pytest.mark.parametrize("font", [14, 48])
def test_the_area_is_that_of_the_ink_and_a_margin(font):
    image, boxes = page(PAGE, font=font)
    ink = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
    # The detector's margin on each side; it was trained to leave less than half a line's height.
    height = boxes[0][3] - boxes[0][1]
    most = sum((right - left + height) * (bottom - top + height) for left, top, right, bottom in boxes)
    area = look(image)[0] * image.width * image.height
    assert 0.95 * ink < area < most
    for line, box in zip(sorted(find_lines(image), key=lambda line: line.center[1]), boxes, strict=True):
        assert polygon(line).intersection(shapely.box(*box)).area > 0.9 * shapely.box(*box).area


def test_overlap_with_captions():
    seen = look(page(PAGE)[0])
    assert sorted("".join(seen[1])) == sorted("".join(PAGE).replace(" ", "").lower())
    captions = [" ".join(PAGE), "A SUMMER SALE, only today: leather shoes!", "a cat on a mat", "summer sale", "", None]
    areas, overlaps = columns([seen] * 6, captions)
    assert areas == [pytest.approx(seen[0])] * 6
    assert overlaps[:3] == [1, 1, 0]
    assert 0 < overlaps[3] < 1
    assert overlaps[4:] == [0, None]
    plain = look(Image.new("RGB", (200, 100), "white"))
    assert plain == (0.0, ())
    assert columns([plain, None, None], ["a house", "a house", None]) == ([0, None, None], [None, None, None])


def test_slanted_and_falling_text_is_read():
    upright = look(page(["Summer sale"])[0])[0] * 480 * 320
    for degrees in (-90, -60, -25, 10, 40):
        image = page(["Summer sale"])[0].rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor="white")
        area, words = look(image)
        assert overlap(words, "summer sale") == 1
        assert area * image.width * image.height == pytest.approx(upright, rel=0.4)


def test_sizes_agree():
    """The same page large and small: found on at most 640 pixels, read from at most 2000."""
    for size, font in (((1_600, 1_200), 90), ((4_000, 3_000), 220)):
        area, words = look(page(PAGE, size, font)[0])
        assert overlap(words, " ".join(PAGE)) == 1
        assert area == pytest.approx(look(page(PAGE, (640, 480), font * 640 // size[0])[0])[0], rel=0.1)


def test_small_type_is_read_down_to_some_ten_pixels():
    assert overlap(look(page(PAGE, (160, 120), 12)[0])[1], " ".join(PAGE)) == 1
    assert overlap(look(page(PAGE, (160, 120), 5)[0])[1], " ".join(PAGE)) in (0, None)
    image, _ = page(["The quick brown fox", "jumps over the lazy dog"], (1_280, 640), 26)  # read from the large image
    assert overlap(look(image)[1], "the quick brown fox jumps over the lazy dog") == 1


def test_at_most_so_many_lines_are_read(monkeypatch):
    image = Image.new("RGB", (640, 640), "white")
    draw = ImageDraw.Draw(image)
    for row in range(24):
        for column in range(3):
            draw.text((20 + 210 * column, 10 + 26 * row), "summer", font=ImageFont.load_default(16), fill="black")
    found = find_lines(image)
    assert len(found) > MAX_LINES
    read = []
    monkeypatch.setattr(text_area, "read_line", lambda _, line: read.append(line) or "word")
    assert look(image)[1] == ("word",) * MAX_LINES
    sizes = sorted((text_lines.area(line) for line in found), reverse=True)
    assert [text_lines.area(line) for line in read] == pytest.approx(sizes[:MAX_LINES])


# ---- words


def test_words_are_folded():
    folded = words_of("Crème-BRÛLÉE №5, don't; x_y ½ 50% ＡＢＣ straße")
    assert " ".join(folded) == "creme brulee no5 don t x y 1 2 50 abc strasse"
    assert words_of("福 road 大小") == ["福", "road", "大", "小"]
    assert words_of(" \n\0-_") == []


WORDS = st.lists(st.text("abA1", min_size=1, max_size=3), max_size=7)


@given(WORDS, WORDS)
def test_overlap_by_definition(words, said):
    folded = [word.lower() for word in said]
    runs = {"".join(folded[i:j]) for i in range(len(said)) for j in range(i + 1, len(said) + 1)}
    words = [word.lower() for word in words]
    expected = sum(word in runs for word in words) / len(words) if words else None
    assert overlap(words, " ".join(said)) == expected


def test_words_that_lost_their_space_and_long_captions():
    assert overlap(["summersale"], "The SUMMER sale!") == 1
    assert overlap(["summers"], "The summer sale") == 0
    assert overlap(["sale", "sale", "x", "y"], "a sale") == 0.5
    # Long captions are cut
    assert overlap(["end"], "a " * (MAX_CHARACTERS // 2 - 2) + "end") == 1
    assert overlap(["end"], "a " * (MAX_CHARACTERS // 2) + "end") == 0
    assert overlap(["a" * 500], "a" * 1_000_000) == 0


# ---- geometry


@settings(deadline=None)
@given(st.lists(LINES, min_size=1, max_size=6))
def test_the_union_is_shapelys(lines):
    """A rectangle's border passes through about as many pixels as it is long: half of them is room enough."""
    area = shapely.union_all([polygon(line) for line in lines]).intersection(shapely.box(0, 0, 90, 60)).area
    border = sum(polygon(line).length for line in lines)
    assert abs(text_lines.covered_share(lines, (90, 60)) * 90 * 60 - area) <= 4 + border / 2


# ---- the package


@pytest.fixture(scope="module")
def package():
    try:
        from rapidocr import RapidOCR
    except ImportError as error:  # OpenCV's libraries
        pytest.skip(f"rapidocr cannot be imported: {error}")
    threads = {"EngineConfig.onnxruntime.intra_op_num_threads": 1}
    return RapidOCR(params={"Det.limit_type": "max", "Det.limit_side_len": 640, "Global.use_cls": False, **threads})


@pytest.mark.parametrize("size", [(640, 480), (320, 256)])
def test_the_detector_sees_what_the_package_shows_it(package, size):
    image, _ = page(PAGE, size, 28, "navy", "orange")
    shown = package.text_det.get_preprocess(640)(np.asarray(image)[:, :, ::-1])
    pixels = np.asarray(image)
    assert shown.shape[2:] == pixels.shape[:2]  # neither resizes
    assert np.abs(text_lines._scaled(pixels) - shown[0]).max() < 1e-6
    assert np.abs(text_lines._text_map(image) - package.text_det.session(shown)[0, 0]).max() < 1e-3


def test_lines_are_the_packages_on_any_map(package, monkeypatch):
    """Thresholds, gaps of a pixel, thin parts, slants and margins; its corners are whole pixels and lie half one off."""
    rng, found = np.random.default_rng(0), []
    for _ in range(60):
        seen = np.zeros((256, 320), np.float32)
        for _ in range(5):
            degrees = rng.choice([0, 0, 20, 90, 160])
            patch = rectangle(*rng.uniform((60, 60), (260, 196)), rng.uniform(4, 40), rng.choice([0.8, 3, 6]), degrees)
            where, inside = text_lines._pixels(patch, (320, 256))
            seen[where][inside] = rng.choice([0.2, 0.4, 0.9, 1.0])
        seen[:, 150] = 0  # some are cut in two, which grow together again
        filled = ndimage.binary_fill_holes(seen > 0.3)  # the package makes lines of holes, too
        seen[filled & (seen <= 0.3)] = 0.9
        theirs, _ = package.text_det.postprocess_op(seen[None, None], (256, 320))
        boxes = [shapely.Polygon(box) for box in theirs]
        monkeypatch.setattr(text_lines, "_text_map", lambda _, seen=seen: seen)
        ours = [polygon(line) for line in find_lines(Image.new("RGB", (320, 256)))]
        assert len(ours) == len(boxes)
        for line in ours:
            assert max(line.intersection(box).area / line.union(box).area for box in boxes) > 0.75
        found += ours
    assert len(found) > 80


def test_lines_and_words_are_the_packages(package, shared):
    with tarfile.open(shared / "photos.tar") as tar:
        photo = Image.open(io.BytesIO(tar.extractfile("tuxpaint_00216.jpg").read())).convert("RGB")
    for image in (page(PAGE)[0], page(PAGE, (640, 480), 40)[0], photo.resize((416, 256))):
        pixels = np.asarray(image)[:, :, ::-1]
        area, words = look(image)
        boxes = shapely.union_all([shapely.Polygon(box) for box in package.text_det(pixels).boxes])
        assert area == pytest.approx(boxes.area / (image.width * image.height), rel=0.1)
        ours = shapely.union_all([polygon(line) for line in find_lines(image)])
        assert ours.intersection(boxes).area > 0.85 * ours.union(boxes).area
        letters = "".join(word for text in package(pixels).txts for word in words_of(text))
        assert sorted("".join(words)) == sorted(letters)


# ---- other images


def test_modes_agree_on_text():
    image, _ = page(PAGE)
    alpha = Image.eval(image.convert("L"), lambda value: 255 - value)
    see_through = Image.merge("RGBA", [*Image.new("RGB", image.size).split(), alpha])
    wide = Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)
    seen = look(image)[0]
    for other in (image.convert("L"), image.convert("CMYK"), image.convert("P"), image.convert("1"), see_through, wide):
        area, words = look(other)
        assert overlap(words, " ".join(PAGE)) == 1, other.mode
        assert area == pytest.approx(seen, rel=0.1), other.mode


def test_a_version_with_other_weights_is_named(monkeypatch):
    monkeypatch.setattr(text_lines, "_MODELS", ("other.onnx",))
    with pytest.raises(RecipeError, match=r"rapidocr \S+ does not contain other.onnx"):
        identify()


def test_opencv_is_not_loaded(monkeypatch):
    """Its system libraries may be missing."""
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setattr(process, "_shared", process.Cache())
    assert look(Image.new("L", (9, 9))) == (0.0, ())
