"""Images against Pillow and imagehash themselves, and every kind of damage that we could think of."""

import hashlib
import io
import struct
import time
import tracemalloc
import warnings
import zlib

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageOps, features

from curate.base.schema import SAMPLE_REASONS
from curate.read.image import FORMATS, as_rgb, measure_image
from curate.read.phash import hash_small
from curate.recipe.measure import Image as ImageOptions
from tests import kit

FULL = ImageOptions(phash=True)
HEADER = ImageOptions(decode=False)


def scene(width=64, height=48, seed=0):
    """A smooth picture with some grain: textured, and of a stable hash."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return Image.fromarray((np.asarray(coarse) * 0.8 + rng.integers(0, 40, (height, width, 3))).astype(np.uint8))


def encode(picture, kind, **how):
    return kit.encode(picture.copy(), kind, **how)  # a copy: saving leaves an encoder's settings on the image


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(header, *chunks, pixels=bytes(20)):
    """A PNG of this IHDR; by default of 4 x 4 gray pixels."""
    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", *header)), *chunks, chunk(b"IDAT", zlib.compress(pixels))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


SMALL = (4, 4, 8, 0, 0, 0, 0)


def directory_bomb(tags, size):
    """A TIFF (or EXIF) directory whose entries all point at the same `size` bytes."""
    base = 8 + 2 + 12 * (tags + 4) + 4
    entries = [(256, 4, 1, 10), (257, 4, 1, 10), (259, 3, 1, 1), (262, 3, 1, 1)]
    entries += [(1_000 + i, 1, size, base) for i in range(tags)]
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + b"\0" * (4 + size)


def segment(marker, body):
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def phash(facts):
    return imagehash.hex_to_hash(f"{int(hash_small([facts.small or b''])[0]):016x}")


def check(data, options=FULL, observers=()):
    """Measure twice, and check the facts that hold for any bytes."""
    facts = measure_image(data, options, observers)
    assert facts == measure_image(memoryview(data), options, observers)
    assert facts.sha256 == hashlib.sha256(data).hexdigest()
    assert facts.format in (None, *FORMATS)
    assert all(side is None or 0 < side < 1 << 31 for side in facts[:2])
    assert (facts.status == "ok") == (facts.error is None)
    assert facts.status == "ok" or facts.status in SAMPLE_REASONS
    assert (facts.small is not None) == (facts.status == "ok" and options.phash)
    assert facts.error is None or (facts.error.isprintable() and 0 < len(facts.error) <= 160)
    assert facts.status != "ok" or (facts.width and facts.height and facts.format)
    return facts


PICTURE = scene()
ENCODED = {
    "jpeg": encode(PICTURE, "JPEG"), "progressive": encode(PICTURE, "JPEG", progressive=True),
    "jpeg_444": encode(PICTURE, "JPEG", subsampling=0), "jpeg_grey": encode(PICTURE.convert("L"), "JPEG"),
    "cmyk": encode(PICTURE.convert("CMYK"), "JPEG"), "png": encode(PICTURE, "PNG"), "webp": encode(PICTURE, "WEBP"),
    "webp_lossless": encode(PICTURE, "WEBP", lossless=True), "gif": encode(PICTURE.quantize(64), "GIF"),
    "bmp": encode(PICTURE, "BMP"), "tiff": encode(PICTURE, "TIFF"),
    "tiff_lzw": encode(PICTURE, "TIFF", compression="tiff_lzw"),
}  # fmt: skip
if features.check("avif"):
    ENCODED["avif"] = encode(PICTURE, "AVIF")


@pytest.mark.parametrize("name", ENCODED)
def test_good(name):
    data = ENCODED[name]
    facts = check(data)
    with Image.open(io.BytesIO(data)) as image:
        want = imagehash.phash(image.convert("RGB"))
    assert facts[:3] == (64, 48, {"progressive": "jpeg", "cmyk": "jpeg"}.get(name, name.split("_")[0]))
    assert facts.status == "ok"
    assert phash(facts) == want
    assert check(data, ImageOptions()) == facts._replace(small=None) == check(data, HEADER)


@pytest.mark.parametrize(
    ("side", "seen"),
    [(32, (38, 50)), (37, (38, 50)), (38, (75, 100)), (75, (75, 100)), (76, (150, 200)), (None, (300, 400))],
)
def test_scaled_jpegs(side, seen):
    """What looks at a JPEG sees it at the smallest of libjpeg's scales that leaves no side too short; facts stay."""
    picture = scene(400, 300, 1)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(picture, "JPEG", exif=exif)
    options, observers = ImageOptions(jpeg_side=side), (lambda image: (image.height, image.width),)
    facts = check(data, options, observers)
    assert facts.observed == (seen,)
    assert (facts.width, facts.height) == (300, 400)
    assert check(data[: len(data) // 2], options, observers).status == "truncated_image"
    assert check(encode(picture, "PNG"), options, observers).observed == ((300, 400),)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_upright(kind, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encode(PICTURE, kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
    facts = check(data)
    assert (facts.width, facts.height) == upright.size == ((48, 64) if turn >= 5 else (64, 48))
    assert phash(facts) == imagehash.phash(upright.convert("RGB"))
    assert check(data, HEADER) == facts._replace(small=None)


def test_a_png_may_state_its_orientation_after_its_pixels():
    exif = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + b"\0\0\0\0"
    data = ENCODED["png"][:-12] + chunk(b"eXIf", exif) + ENCODED["png"][-12:]
    assert check(data)[:2] == (48, 64)
    assert check(data, HEADER)[:2] == (64, 48)


@pytest.mark.parametrize("name", ENCODED)
def test_truncation_is_noticed_wherever_pixels_are_missing(name, capfd):
    data = ENCODED[name]
    whole = 0
    with Image.open(io.BytesIO(data)) as image:
        want = np.asarray(image.convert("RGB"))
    for cut in [*range(1, 200), *range(200, len(data) - 60, 61), *range(len(data) - 60, len(data))]:
        facts = check(data[:cut], ImageOptions())
        if facts.status == "ok":
            whole += 1
            with Image.open(io.BytesIO(data[:cut])) as image:
                assert np.array_equal(np.asarray(image.convert("RGB")), want)
        elif cut > 16:
            assert facts.status == "truncated_image", (cut, facts)
    # PNG may lack its end chunk, GIF its last bytes, a JPEG (by the luck of its last bits) its end marker.
    assert whole <= {"png": 12, "gif": 2, "jpeg": 2, "jpeg_444": 2, "jpeg_grey": 2, "cmyk": 2}.get(name, 0)


@pytest.mark.parametrize("name", ENCODED)
def test_flipped_bytes_never_raise(name, capfd):
    rng = np.random.default_rng(1)
    data = ENCODED[name]
    for trial in range(120):
        torn = bytearray(data)
        for at in rng.integers(0, min(len(data), 100 if trial % 2 else len(data)), 1 + trial % 4):
            torn[at] ^= int(rng.integers(1, 256))
        check(bytes(torn), FULL if trial % 5 == 0 else ImageOptions())


def test_every_flipped_bit_of_png_pixels_is_noticed():
    data = ENCODED["png"]
    for at in range(data.index(b"IDAT"), len(data) - 12, 3):
        torn = bytearray(data)
        torn[at] ^= 1 << at % 8
        assert check(bytes(torn), ImageOptions()).status in ("truncated_image", "not_an_image"), at


# The passes of an interlaced PNG: where they begin, and their steps
PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
KINDS_OF_PNG = [
    *((bits, 0, 1) for bits in (1, 2, 4, 8, 16)), *((bits, 3, 1) for bits in (1, 2, 4, 8)),
    *((bits, color, channels) for bits in (8, 16) for color, channels in ((2, 3), (4, 2), (6, 4))),
]  # fmt: skip


@pytest.mark.parametrize("is_interlaced", [False, True])
@pytest.mark.parametrize(("bits", "color", "channels"), KINDS_OF_PNG)
def test_a_png_lacks_rows(bits, color, channels, is_interlaced):
    """Pillow takes the end of the compressed pixels for the image's end, and fills it up with black."""
    palette = [chunk(b"PLTE", bytes(3))] if color == 3 else []
    for width, height in ((1, 1), (1, 9), (9, 1), (3, 2), (8, 8), (13, 21)):
        passes = PASSES if is_interlaced else [(0, 0, 1, 1)]
        sizes = [(len(range(x, width, a)), len(range(y, height, b))) for x, y, a, b in passes]
        rows = [1 + (columns * bits * channels + 7) // 8 for columns, count in sizes if columns for _ in range(count)]
        for kept, fill in ((len(rows), 0), (len(rows) - 1, 0), (len(rows) - 1, 1 - (color == 3)), (0, 0)):
            pixels = b"".join(b"\0" + bytes([fill]) * (size - 1) for size in rows[:kept])
            # In two chunks; the first has a few bytes of the compressed pixels
            whole = png((width, height, bits, color, 0, 0, is_interlaced), *palette, pixels=pixels)
            at, packed = whole.rindex(b"IDAT") - 4, zlib.compress(pixels)
            data = whole[:at] + chunk(b"IDAT", packed[:5]) + chunk(b"IDAT", packed[5:]) + whole[-12:]
            assert check(data).status == ("ok" if kept == len(rows) else "truncated_image"), (width, height, kept)


def test_a_cut_jpeg_with_an_end_marker_decodes():
    """With gray in place of pixels, as the module's docstring states."""
    assert check(ENCODED["jpeg"][:-300] + b"\xff\xd9").status == "ok"


# A 4 x 4 gray PNG in Adam7 order, which Pillow does not write: passes 1, 4, 5, 6, 7 have pixels
INTERLACED = b"".join(
    b"\0" + bytes([16 * w] * w) for w, h in ((1, 1), (1, 1), (2, 1), (2, 2), (4, 2)) for _ in range(h)
)
RAMP16 = np.linspace(0, 63_000, 64 * 48).reshape(48, 64).astype(np.uint16)
ODD = {
    "interlaced": (png((4, 4, 8, 0, 0, 0, 1), pixels=INTERLACED), "png", "ok"),
    "one_bit": (encode(PICTURE.convert("1"), "PNG"), "png", "ok"),
    "animated_png": (encode(PICTURE, "PNG", save_all=True, append_images=[scene(seed=1)]), "png", "ok"),
    "tiff_of_two_pages": (encode(PICTURE, "TIFF", save_all=True, append_images=[scene(32, 16)]), "tiff", "ok"),
    "tiff_16_bits": (encode(Image.fromarray(RAMP16), "TIFF"), "tiff", "ok"),
    "tiff_floats": (encode(Image.fromarray(RAMP16.astype(np.float32)), "TIFF"), "tiff", "ok"),
    "tiff_lab": (encode(PICTURE.convert("LAB"), "TIFF"), "tiff", "ok"),
    "mpo": (encode(PICTURE, "MPO", save_all=True, append_images=[scene(seed=1)]), "jpeg", "ok"),
    "webp_with_alpha": (encode(PICTURE.convert("RGBA"), "WEBP"), "webp", "ok"),
    "exif_damaged": (encode(PICTURE, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\xff" * 40), "jpeg", "ok"),
    "exif_huge": (encode(PICTURE, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08" + b"\x01" * 65_000), "jpeg", "ok"),
    "bytes_after_the_end": (ENCODED["jpeg"] + b"<script>" * 100, "jpeg", "ok"),
    "gif_of_no_frames": (ENCODED["gif"][: 13 + 3 * 64] + b";", "gif", "truncated_image"),
    "png_wrong_crc": (ENCODED["png"][:-14] + b"\0\0" + ENCODED["png"][-12:], "png", "truncated_image"),
    "png_wrong_header_crc": (ENCODED["png"][:29] + b"\0\0\0\0" + ENCODED["png"][33:], "png", "not_an_image"),
    "png_text_bomb": (png(SMALL, chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * 9_000_000))), "png", "not_an_image"),
    "png_profile_bomb": (png(SMALL, chunk(b"iCCP", b"a\0\0" + zlib.compress(b"a" * 9_000_000))), "png", "not_an_image"),
    "bmp_of_negative_width": (ENCODED["bmp"][:18] + b"\xc0\xff\xff\xff" + ENCODED["bmp"][22:], "bmp", "too_many_pixels"),
    "truncated_webp_header": (ENCODED["webp"][:25], "webp", "truncated_image"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_images(name):
    data, kind, status = ODD[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        facts = check(data)
    assert (facts.format, facts.status) == (kind, status), facts
    if status == "ok":
        assert (facts.width, facts.height) == ((4, 4) if name == "interlaced" else (64, 48))
        assert check(data, HEADER) == facts._replace(small=None)


FOREIGN = {
    "HEIF or another ISO media file": b"\0\0\0\x18ftypheic", "PDF": b"%PDF-1.7", "PostScript": b"%!PS-Adobe-3.0",
    "PSD": b"8BPS\0\1", "ICO": b"\0\0\1\0\1\0", "JPEG 2000": b"\xff\x4f\xff\x51", "JPEG XL": b"\xff\x0a\xfa",
    "QOI": b"qoif\0", "DDS": b"DDS |", "gzip": b"\x1f\x8b\x08", "zip": b"PK\3\4\x14", "SVG": b"\xef\xbb\xbf\n<SVG ",
    "XML or SVG": b" <?xml ", "HTML": b"<!DOCTYPE html>", "unknown bytes": b"pk\3\4\x14",
}  # fmt: skip
STARTS = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0+", b"\0\0\0\x18ftypavif"]


def test_what_a_file_is_instead_of_an_image(capfd):
    for size, start in [(size, start) for size in (0, 1, 7, 30, 2_000) for start in (*STARTS, b"")]:
        assert check(start + np.random.default_rng(2).bytes(size)).status != "ok"
    for name, start in FOREIGN.items():
        facts = check(start + bytes(50))
        assert facts.status == "not_an_image" and facts.error == f"{name}, not one of {', '.join(FORMATS)}"


def test_first_frame_is_the_one_measured():
    first, second = scene(seed=3), scene(seed=4)
    for kind in ("GIF", "PNG", "WEBP", "TIFF", "MPO"):
        both = check(encode(first, kind, save_all=True, append_images=[second.copy()]))
        alone = check(encode(first, "JPEG" if kind == "MPO" else kind))
        assert phash(both) - phash(alone) <= 2, kind
        assert phash(both) - phash(check(encode(second, "PNG"))) > 10, kind


def test_adobe_cmyk_is_not_inverted():
    with Image.open(io.BytesIO(ENCODED["cmyk"])) as image:
        shown = np.asarray(as_rgb(image), int)
    assert np.abs(shown - np.asarray(PICTURE, int)).mean() < 12


def test_transparency_lies_on_white():
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:, :4, 3] = 255
    rgba = Image.fromarray(clear)
    black_and_white = np.repeat(np.repeat([[0, 255]], 4, axis=1), 8, axis=0)
    for picture in (rgba, rgba.convert("LA"), rgba.quantize(4)):
        with Image.open(io.BytesIO(encode(picture, "PNG"))) as image:
            assert np.array_equal(np.asarray(as_rgb(image).convert("L")), black_and_white)
    gray = Image.new("L", (8, 8), 7)
    with Image.open(io.BytesIO(encode(gray, "PNG", transparency=7))) as image:
        assert np.asarray(as_rgb(image)).min() == 255


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_cut(kind):
    with Image.open(io.BytesIO(encode(Image.fromarray(RAMP16), kind))) as image:
        assert np.array_equal(np.asarray(as_rgb(image)), RAMP16 >> 8)


def test_floats_are_stretched():
    values = RAMP16.astype(np.float32) / 100 - 50
    values[0, 0] = np.nan
    with Image.open(io.BytesIO(encode(Image.fromarray(values), "TIFF"))) as image:
        shown = np.asarray(as_rgb(image), int)
    assert (shown.min(), shown.max()) == (0, 255)
    assert (np.diff(shown.reshape(-1)[1:]) >= 0).all()
    assert as_rgb(Image.new("F", (2, 2), 3.0)).getextrema() == (0, 0)


def test_too_many_pixels_are_refused_before_decoding():
    data = encode(scene(100, 90), "PNG")
    for options in (ImageOptions(max_pixels=8_999), ImageOptions(max_pixels=8_999, decode=False)):
        facts = check(data, options)
        assert (facts.width, facts.height, facts.status) == (100, 90, "too_many_pixels")
    assert check(data, ImageOptions(max_pixels=9_000)).status == "ok"


@pytest.mark.parametrize(("width", "height"), [(1, 89_000_000), (89_000_000, 1), (80, (1 << 20) + 1)])
def test_a_side_that_is_too_long(width, height):
    """Of 69 bytes, and few pixels: Pillow ran out of memory for the perceptual hash, and the kernel took 3 GB."""
    for options in (FULL, HEADER):
        facts = check(png((width, height, 1, 0, 0, 0, 0)), options)
        assert (facts.width, facts.height, facts.status) == (width, height, "too_many_pixels")
        assert facts.error == f"png: {width} x {height} pixels, more than 1048576 on a side"


def test_signals_do_not_look_at_lines():
    """An image of 1 x 65,000 pixels, brought to 224 on the short side, would take 13 GB."""
    for size in ((1, 1000), (1000, 1), (1, 1001), (1001, 1)):
        facts = check(encode(Image.new("RGB", size), "PNG"), observers=(lambda image: image.size,))
        assert (facts.status, facts.observed) == ("ok", (size if 1001 not in size else None,))


BOMB = directory_bomb(6_000, 120_000)
BOMB_PARTS = b"".join(segment(0xE1, b"Exif\0\0" + BOMB[at : at + 60_000]) for at in range(0, len(BOMB), 60_000))


def canvas(width, height):
    """An animated WebP of one small frame on a large canvas."""
    frame = b"\0" * 6 + struct.pack("<I", 63)[:3] + struct.pack("<I", 47)[:3] + b"\1\0\0\0" + ENCODED["webp"][12:]
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + size + b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    body += b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


WIDE = directory_bomb(10, 10)[:10] + struct.pack("<HHII", 256, 4, 1, 0xFFFFFFFF) + directory_bomb(10, 10)[22:]
BOMBS = {
    "png": png((0x7FFFFFFF, 0x7FFFFFFF, 8, 2, 0, 0, 0)), "webp": canvas(60_000, 60_000), "webp 2": canvas(16_384, 16_384),
    "gif": ENCODED["gif"][:6] + struct.pack("<HH", 60_000, 60_000) + ENCODED["gif"][10:], "tiff wide": WIDE,
    "bmp": ENCODED["bmp"][:18] + struct.pack("<ii", 100_000, 100_000) + ENCODED["bmp"][26:],
    "jpeg exif in parts": b"\xff\xd8" + BOMB_PARTS + ENCODED["jpeg"][2:],
    "jpeg exif": b"\xff\xd8" + segment(0xE1, b"Exif\0\0" + directory_bomb(2_000, 36_000)) + ENCODED["jpeg"][2:],
    "png exif": ENCODED["png"][:33] + chunk(b"eXIf", directory_bomb(3_000, 90_000)) + ENCODED["png"][33:],
    "png idat": ENCODED["png"][:33] + chunk(b"IDAT", b"")[:4] + b"IDAT", "tiff": directory_bomb(3_000, 40_000),
}  # fmt: skip


@pytest.mark.parametrize("case", BOMBS)
def test_bombs_stay_small(case):
    tracemalloc.start()
    check(BOMBS[case])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6


def many_scans(side, scans):
    data = encode(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + data[-2:]


def inserted(kind, piece, count):
    """An image with so many pieces behind its beginning."""
    data = encode(Image.new("L", (64, 64)), kind)
    at = {"JPEG": 2, "PNG": 33, "GIF": 13 + 3 * (2 << (data[10] & 7)) if data[10] & 128 else 13}[kind]
    return data[:at] + piece * count + data[at:]


COUNT = 300_000
SLOW = {
    "scans": many_scans(4096, 130), "empty PNG chunks": inserted("PNG", chunk(b"prVt", b""), COUNT),
    "GIF comments": inserted("GIF", b"!\xfe\xff" + b"c" * 255 + b"\0", COUNT // 10),
    "one GIF comment": inserted("GIF", b"!\xfe" + (b"\xff" + b"c" * 255) * (COUNT // 10) + b"\0", 1),
    "empty PNG pixels": inserted("PNG", chunk(b"IDAT", b""), COUNT), "JPEG filling": inserted("JPEG", b"\xff", 4 * COUNT),
    "JPEG comments": inserted("JPEG", b"\xff\xfe\0\2", COUNT), "JPEG profiles": inserted("JPEG", b"\xff\xe2\0\2", COUNT),
    "JPEG tables": inserted("JPEG", b"\xff\xdb\0\2", COUNT),
}  # fmt: skip


@pytest.mark.parametrize("case", SLOW)
def test_images_that_are_made_to_take_long(case):
    """They took 7 to 110 seconds each, of 20 MB and less."""
    began = time.process_time()
    facts = check(SLOW[case])
    assert facts.status == "too_slow" and time.process_time() - began < 5
    assert facts == check(SLOW[case])


def test_large_images_in_usual_pieces_are_read():
    assert check(many_scans(64, 500)).status == check(many_scans(2048, 10)).status == "ok"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8))
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"):
        facts = check(encode(noise, kind))
        assert (facts.status, facts.width) == ("ok", 500), kind


def test_an_image_of_too_many_bytes_is_not_copied(monkeypatch):
    data = b"\x89PNG\r\n\x1a\n" + bytes(2000)
    monkeypatch.setattr("curate.read.image.MAX_BYTES", 2000)
    monkeypatch.setattr("curate.read.image.io.BytesIO", None)
    facts = measure_image(data, FULL)
    assert (facts.status, facts.error, facts.sha256) == ("too_slow", "2008 bytes", "")  # nor read


def test_a_tiff_in_millions_of_strips_is_too_slow():
    """A byte each: Pillow would make a tile of each."""

    def tiff(strips, order, is_big):
        mark = b"II" if order == "<" else b"MM"
        tags = [(256, 3, 1, 64), (257, 3, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (278, 3, 1, 1)]
        tags += [(273, 1, strips, 4096), (279, 1, strips, 4096)]
        head = struct.pack(order + ("HHHQQ" if is_big else "HIH"), *((43, 8, 0, 16) if is_big else (42, 8)), len(tags))
        entry, wide = ("HHQ", "Q") if is_big else ("HHI", "I")
        rows = (struct.pack(order + entry, *tag[:3]) + struct.pack(order + wide, tag[3]) for tag in sorted(tags))
        return (mark + head + b"".join(rows)).ljust(4096, b"\0") + bytes(strips)

    for kind in (("<", False), ("<", True), (">", False), (">", True)):
        facts = measure_image(tiff(2_000_000, *kind), FULL)
        assert (facts.status, facts.error) == ("too_slow", "tiff: it has too many strips or tiles")
        assert measure_image(tiff(64, *kind), FULL).status != "too_slow"


def test_a_jpeg_of_exif_in_hundreds_of_pieces_is_too_slow():
    for pieces, expected in ((200, ("ok", None)), (201, ("too_slow", "jpeg: its EXIF has too many pieces"))):
        facts = check(inserted("JPEG", segment(0xE1, b"Exif\0\0" + bytes(6000)), pieces))
        assert (facts.status, facts.error) == expected
