"""Check captions and count their words and characters, in one pass over Arrow buffers.

`words` and `characters` (int32) are counted as in DataComp's basic filter: Python's `len(text.split())` and
`len(text)`. The checks are made in this order: a caption is `no_caption` if it is null, `caption_not_utf8` if it is not
UTF-8, `empty_caption` if it is only white space, `caption_nul` if it contains a NUL, and `caption_too_long` if it has
over 10,000 characters. A byte order mark at the beginning is removed. Rows that fail are checked again in Python.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.numeric.arrays import I32, I64, U8, string_buffers
from curate.base.schema import OK
from curate.read.columns import valid_text

MAX_CHARACTERS = 10_000
BOM = b"\xef\xbb\xbf"

_SPACE = np.array([chr(c).isspace() for c in range(0x3001)], np.uint8)  # the last character of white space is U+3000
_TYPES = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())


class Captions(NamedTuple):
    """A column of captions after the checks, row by row."""

    caption: pa.Array  # string; null unless the status is ok
    words: pa.Array  # int32; null if the caption is null
    characters: pa.Array  # int32; null if the caption is null
    status: pa.Array  # string, never null: `ok` or a reason code
    error: pa.Array  # string; null if ok


def caption_status(raw: bytes) -> tuple[str | None, str, str | None]:
    """Return a caption, decoded and checked (None unless ok), `ok` or a reason code, and the error (None if ok)."""
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
    """Check captions, and count their words and characters. Raises TypeError if they are neither text nor binary."""
    if column.type not in _TYPES:
        raise TypeError(f"captions are {column.type}, not string, large_string, binary or large_binary")
    text: Any = valid_text(column)
    if pc.any(pc.starts_with(text, BOM.decode())).as_py():
        text = pc.replace_substring_regex(text, f"^{BOM.decode()}", "")
    filled = text.fill_null("")
    data, offsets = string_buffers(filled)
    words, characters = np.zeros(len(text), np.int32), np.asarray(pc.utf8_length(filled))
    count_words(offsets, data, words)
    is_faulty = (words == 0) | (characters > MAX_CHARACTERS)
    if (data == 0).any():
        is_faulty |= np.asarray(pc.match_substring(filled, "\0"))
    status, error = pa.repeat(OK, len(column)), pa.nulls(len(column), pa.string())
    if not is_faulty.any():
        return Captions(text, pa.array(words), pa.array(characters), status, error)
    missing, mask = (None, "no_caption", "the caption is missing or null"), pa.array(is_faulty)
    faulty = column.filter(mask).cast(pa.large_binary()).to_pylist()
    checked = [missing if raw is None else caption_status(raw) for raw in faulty]
    _, codes, errors = (pa.array(values, pa.string()) for values in zip(*checked, strict=True))
    status, error = pc.replace_with_mask(status, mask, codes), pc.replace_with_mask(error, mask, errors)
    text = pc.if_else(mask, pa.scalar(None, pa.string()), text)
    return Captions(text, pa.array(words, mask=is_faulty), pa.array(characters, mask=is_faulty), status, error)


@numba.njit(nogil=True, cache=True)
def count_words(offsets: I64, data: U8, words: I32) -> None:
    """Add the number of words in each text, which must be UTF-8, to `words`."""
    for row in range(len(words)):
        i, end = offsets[row], offsets[row + 1]
        outside = 1  # 1 between words
        while i < end:
            c, size = int(data[i]), 1
            if c >= 0x80:
                size = 2 if c < 0xE0 else 3 if c < 0xF0 else 4
                c &= 0x7F >> size
                for k in range(1, size):
                    c = c << 6 | (int(data[i + k]) & 0x3F)
            space = int(_SPACE[c]) if c < len(_SPACE) else 0
            words[row] += outside & (1 - space)
            outside = space
            i += size
