"""img2dataset's resizer with its private class replaced, and EXIF within limits."""

import io

from PIL import Image

from curate.download.resize import HASH_MISMATCH, Resized, make_resizer, read_exif, reason_of
from curate.download.source import NetworkPolicy, UrlsSource
from tests.kit.packages import needs_img2dataset

pytestmark = needs_img2dataset

UNCHANGED = UrlsSource(name="web", format="urls", path="list.csv", network=NetworkPolicy(contact="me@example.org"))
RESIZED = UNCHANGED.model_copy(
    update={"image_size": 50, "resize_mode": "center_crop", "min_image_size": 60, "max_image_area": 8000.0}
)


def encoded(width, height, **options):
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).save(stream, "JPEG", **options)
    return stream.getvalue()


def test_sizes():
    """Without resizing, after EXIF rotation; a later step decodes the pixels, and finds damage."""
    resized = make_resizer(RESIZED)(encoded(80, 100))
    assert (resized.width, resized.height, resized.original_width, resized.original_height) == (50, 50, 80, 100)
    assert resized.data is not None and Image.open(io.BytesIO(resized.data)).size == (50, 50)
    resize, exif = make_resizer(UNCHANGED), Image.Exif()
    exif[274] = 6
    assert resize(encoded(80, 100)) == Resized(encoded(80, 100), 80, 100, 80, 100)
    assert resize(encoded(80, 100, exif=exif)) == Resized(encoded(80, 100, exif=exif), 100, 80, 100, 80)
    assert resize(encoded(80, 100)[:-99]) == Resized(encoded(80, 100)[:-99], 80, 100, 80, 100)


def test_reasons():
    def reason(source, data):
        return reason_of(make_resizer(source)(data).error)

    for data in (b"", b"nothing", encoded(80, 100)[:30], b"<html>", b"GIF89a" + bytes(5)):
        assert reason(UNCHANGED, data) == reason(RESIZED, data) == "served_no_image"
    assert [reason(RESIZED, encoded(*size)) for size in ((80, 55), (90, 90))] == ["too_small", "too_large_area"]
    assert reason_of(HASH_MISMATCH) == "hash_mismatch"
    assert reason_of("OpenCV(4.1): an assertion failed") == "not_resized"


def test_exif():
    exif = Image.Exif()
    exif[271] = "Maker "
    assert read_exif(encoded(80, 80, exif=exif)) == '{"Image Make": "Maker"}'
    assert read_exif(b"nothing") == "{}"
