"""Opens JPEGs as Pillow does, without its reading of what nobody needs. Pillow's private parts are used here alone.

There is no public way past `_read_dpi_from_exif`: all EXIF blocks would be parsed for a resolution.
"""

from struct import Struct

from PIL import ImageFile, JpegImagePlugin

_Frame = tuple[int, tuple[int, int]]  # components, 1 or 3, and width and height

_PLAIN_BYTES = 2048  # in which the header of a plain JPEG has its place
_SEGMENT, _FRAME = Struct(">BBH"), Struct(">BHHB")  # 0xFF, kind and length; bits, height, width and components
_SOI = b"\xff\xd8"
_APP0, _DQT, _SOS = 0xE0, 0xDB, 0xDA
_FRAMES = (0xC0, 0xC1, 0xC2)
_TABLES = (0xC4, 0xDD)


class PlainJpeg(JpegImagePlugin.JpegImageFile):
    """A JPEG's first picture, without Pillow's reading of all EXIF entries for a resolution, and of tables.

    Pillow's reading of a header holds Python's lock for as long as all else that is done for a small JPEG, hence a
    short way for the plainest ones, which most pools are full of.
    """

    def _open(self) -> None:
        assert self.fp is not None
        plain = plain_frame(self.fp.read(_PLAIN_BYTES))
        if plain is None:
            self.fp.seek(0)
            super()._open()
            return
        self.layers, self._size = plain
        self._mode = "L" if self.layers == 1 else "RGB"
        self.tile = [ImageFile._Tile("jpeg", (0, 0, *self._size), 0, (self._mode, ""))]

    def _read_dpi_from_exif(self) -> None:
        return


def plain_frame(head: bytes) -> _Frame | None:
    """Return the frame of a JPEG by its first bytes.

    None where there is anything but what has no influence on the picture's meaning (JFIF's resolution, whole tables,
    intervals) and one plain frame header (ITU T.81, annex B), in segments that are whole, up to the first scan.
    """
    at, frame = 2, None
    while at + 4 <= len(head) and head.startswith(_SOI):
        mark, kind, size = _SEGMENT.unpack_from(head, at)
        end = at + 2 + size
        if mark != 0xFF or size < 2 or end > len(head):
            return None
        if kind == _DQT:
            if size % 65 != 2 or any(head[table] > 15 for table in range(at + 4, end, 65)):
                return None  # not in bytes
        elif kind in _FRAMES:
            bits, height, width, layers = _FRAME.unpack_from(head, at + 4) if size >= 8 else (0, 0, 0, 0)
            if frame or bits != 8 or layers not in (1, 3) or size != 8 + 3 * layers or not width or not height:
                return None
            frame = layers, (width, height)
        elif kind == _SOS:
            return frame
        elif kind not in _TABLES and not (kind == _APP0 and size == 16 and head[at + 4 : at + 9] == b"JFIF\0"):
            return None
        at = end
    return None
