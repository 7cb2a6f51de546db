"""JPEGs: the short way through plain headers gives what Pillow's gives; what is used of Pillow that is not public."""

import io
from typing import Any
from unittest.mock import Mock

import pytest
from PIL import JpegImagePlugin

from curate.read import jpeg
from curate.read.jpeg import PlainJpeg, plain_frame
from tests.read.test_image import ENCODED, PICTURE, encode, segment

PLAIN = {name: ENCODED[name] for name in ("jpeg", "progressive", "jpeg_444", "jpeg_grey")} | {
    "optimized": encode(PICTURE, "JPEG", optimize=True),
    "restarts": encode(PICTURE, "JPEG", restart_marker_blocks=2),
}


def open_jpeg(data: bytes) -> tuple[Any, ...]:
    """What a reader finds: mode, size, tiles and place, or an error."""
    source = io.BytesIO(data)
    try:
        image = PlainJpeg(source)
    except Exception as error:
        return type(error), str(error), source.tell() >= len(data)
    return image.mode, image.size, image.tile, image.layers


@pytest.mark.parametrize("name", PLAIN)
def test_plain_jpegs_are_read_as_pillow_does(name, monkeypatch):
    """Each byte of a header changed, and each length cut: by the short way as by Pillow's."""
    data = PLAIN[name]
    start = data.index(b"\xff\xda") + 20
    hostile = [
        data[:at] + bytes([value]) + data[at + 1 :] for at in range(start) for value in {0, 1, 0xFF, data[at] ^ 64}
    ]
    hostile += [data[:length] for length in range(3, start)]
    hostile += [
        data[:2] + segment(kind, b"JFIF\0" + bytes(size)) + data[2:] for kind in range(0xC0, 0xFF) for size in (9, 30)
    ]
    assert plain_frame(data)
    short = [open_jpeg(one) for one in hostile]
    assert sum(plain_frame(one[:2048]) is not None for one in hostile) > 100
    monkeypatch.setattr(jpeg, "plain_frame", lambda head: None)
    assert short == [open_jpeg(one) for one in hostile]


def test_pillow_reads_a_resolution_by_the_method_that_is_overridden(monkeypatch):
    """Else EXIF blocks are parsed again: `_read_dpi_from_exif` was renamed."""
    read = Mock()
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "_read_dpi_from_exif", read)
    JpegImagePlugin.JpegImageFile(io.BytesIO(ENCODED["jpeg"]))
    read.assert_called_once_with()
