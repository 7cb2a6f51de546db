"""Check captions and count their words and characters, in one pass over Arrow buffers.

`words` and `characters` (int32) are as in DataComp's basic filter: Python's `len(text.split())` and `len(text)`. In
this order, a caption that is null is `no_caption`, not UTF-8 `caption_not_utf8`, only white space `empty_caption`, with
a NUL `caption_nul`, longer than 10,000 characters `caption_too_long`. A byte order mark at the beginning is dropped. A
kernel decides for all rows; rows that it objects to are looked at in Python.
"""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.numeric.arrays import I32, U8, Mask, string_buffers
from curate.base.schema import OK

MAX_CHARACTERS = 10_000
BOM = b"\xef\xbb\xbf"

_NOT_UTF8, _NUL, _BOM = 1, 2, 4
_ASCII_SPACE = np.array([int(chr(c).isspace()) for c in range(128)], np.int64)
_TYPES = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())


class Captions(NamedTuple):
    """A checked column of captions, row by row."""

    caption: pa.Array  # string; null where the status is not ok
    words: pa.Array  # int32; null where the caption is
    characters: pa.Array  # int32; likewise
    status: pa.Array  # string, never null: `ok` or a reason code
    error: pa.Array  # string; null where ok


def caption_status(raw: bytes) -> tuple[str | None, str, str | None]:
    """Return a caption, decoded and checked (None unless ok), `ok` or a reason code, and what is wrong (None if ok)."""
    try:
        text = raw.removeprefix(BOM).decode()
    except UnicodeDecodeError as error:
        at = error.start + (len(BOM) if raw.startswith(BOM) else 0)
        return None, "caption_not_utf8", f"byte {raw[at]:#04x} at {at}: {error.reason}"
    if not text or text.isspace():
        return None, "empty_caption", f"{len(text)} characters of white space"
    if "\0" in text:
        return None, "caption_nul", f"NUL at character {text.index(chr(0))}"
    if len(text) > MAX_CHARACTERS:
        return None, "caption_too_long", f"{len(text)} characters"
    return text, OK, None


def check_captions(column: pa.Array) -> Captions:
    """Check captions, and count their words and characters. Raises TypeError where they are neither text nor binary."""
    if column.type not in _TYPES:
        raise TypeError(f"captions are {column.type}, not string, large_string, binary or large_binary")
    n = len(column)
    # Of each row; a null row counts 0 and 0
    words, characters, flags = np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros(n, np.uint8)
    if n and column.buffers()[1] is not None:
        data, offsets = string_buffers(column)
        # A null row may own bytes: they are not to be looked at.
        valid = np.asarray(column.is_valid()) if column.null_count else np.ones(0, np.bool_)
        scan(offsets, data, valid, (words, characters, flags))
    status, error = pa.repeat(OK, len(column)), pa.nulls(len(column), pa.string())
    fault = (flags & (_NOT_UTF8 | _NUL) != 0) | (words == 0) | (characters > MAX_CHARACTERS)
    mask = fault | (flags & _BOM != 0)
    if not mask.any():
        return Captions(_as_string(column), pa.array(words), pa.array(characters), status, error)
    odd = column.filter(pa.array(mask)).cast(pa.large_binary()).to_pylist()
    missing = (None, "no_caption", "the caption is missing or null")
    checked = [missing if raw is None else caption_status(raw) for raw in odd]
    texts, codes, errors = (pa.array(values, pa.string()) for values in zip(*checked, strict=True))
    # Nulls first, so that what is viewed as string is valid; then the captions that only lost their mark come back.
    caption = _as_string(pc.if_else(pa.array(mask), pa.scalar(None, column.type), column))
    if texts.null_count < len(texts):
        caption = pc.replace_with_mask(caption, mask, texts)
    status, error = pc.replace_with_mask(status, mask, codes), pc.replace_with_mask(error, mask, errors)
    return Captions(caption, pa.array(words, mask=fault), pa.array(characters, mask=fault), status, error)


def _as_string(column: pa.Array) -> pa.Array:
    if pa.types.is_large_binary(column.type):
        column = column.view(pa.large_string())
    elif pa.types.is_binary(column.type):
        column = column.view(pa.string())
    return column.cast(pa.string())


@numba.njit(nogil=True, cache=True)
def _is_space(c: int) -> bool:
    """Return str.isspace() of a code point from 0x80 on: what str.split() splits on."""
    if c < 0x1680:
        return c in (0x85, 0xA0)
    return (0x2000 <= c <= 0x200A) or c in (0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)


@numba.njit(nogil=True, cache=True)
def _decode(data: U8, i: int, end: int) -> tuple[int, int]:
    """Return the code point at a lead byte >= 0x80 and its length in bytes, 0 if invalid (Unicode 15, table 3-7)."""
    lead = int(data[i])
    size = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    if lead < 0xC2 or lead > 0xF4 or i + size > end:
        return 0, 0
    c = lead & (0xFF >> (size + 1))
    for k in range(1, size):
        b = int(data[i + k])
        if b & 0xC0 != 0x80:
            return 0, 0
        c = c << 6 | (b & 0x3F)
    if size == 3 and (c < 0x800 or 0xD800 <= c <= 0xDFFF):
        return 0, 0
    if size == 4 and (c < 0x10000 or c > 0x10FFFF):
        return 0, 0
    return c, size


@numba.njit(nogil=True, cache=True)
def scan(offsets: npt.NDArray[np.signedinteger], data: U8, valid: Mask, out: tuple[I32, I32, U8]) -> None:
    """Fill words, characters and flags; `valid` is empty where no row is null."""
    words, characters, flags = out
    for row in range(len(words)):
        if len(valid) and not valid[row]:
            continue
        i, end = int(offsets[row]), int(offsets[row + 1])
        flag = 0
        if end - i >= 3 and data[i] == 0xEF and data[i + 1] == 0xBB and data[i + 2] == 0xBF:
            flag |= _BOM
            i += 3
        count, starts = 0, 0
        outside = 1  # whether no word goes on here
        while i < end:
            c, size = int(data[i]), 1
            if c < 0x80:  # without a branch: where words end nobody can predict
                space = _ASCII_SPACE[c]
                flag |= _NUL * (c == 0)
            else:
                c, size = _decode(data, i, end)
                if size == 0:
                    flag |= _NOT_UTF8
                    break
                space = int(_is_space(c))
            starts += outside & (1 - space)
            outside = space
            count += 1
            i += size
        words[row], characters[row], flags[row] = starts, count, flag
