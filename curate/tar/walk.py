"""The walk over a tar's headers, compiled: from a window of bytes to rows of offset, size, type, and where the name is.

Whatever the headers claim, the walk moves forward and writes within its array.
"""

from typing import Any

import numpy as np
from numba import njit

BLOCK, PREFIX = 512, 345
REGULAR, FOLDER = ord("0"), ord("5")
_LINK, _FIFO = ord("1"), ord("6")
_CONTIGUOUS, _LONG_NAME, _GLOBAL, _SLASH = ord("7"), ord("L"), ord("g"), ord("/")
_PAX = (ord("x"), ord("X"))
_EXTENSIONS = (*_PAX, _GLOBAL, _LONG_NAME, ord("K"))

MAX_EXTENSION = 1 << 20  # bytes of one PAX or long-name header: a path is at most some kilobytes anywhere
_MAX_CHAIN = 16  # extension headers before one member: writers need three

# What ended a call.
FULL, MORE, END, CUT_HEADER, CUT_EXTENSION, CUT_BODY, CUT_PADDING = range(7)
BAD_CHECKSUM, BAD_SIZE, BAD_EXTENSION = range(7, 10)


@njit(nogil=True, cache=True)
def _number(field: Any, base: int = 8) -> Any:
    """Return a header's number, text or base-256 behind 0x80; -1 where it is neither, negative or over 2**55."""
    value: Any = 0
    if base == 8 and field[0] >= 0x80:
        if field[0] != 0x80:
            return -1
        for digit in field[1:]:
            if value >= 1 << 47:
                return -1
            value = value * 256 + np.int64(digit)
        return value
    i, end = 0, len(field)
    while i < end and field[i] == 32:
        i += 1
    while i < end and 48 <= field[i] < 48 + base and value < 1 << 51:
        value = value * base + np.int64(field[i]) - 48
        i += 1
    while i < end and field[i] == 32:
        i += 1
    return value if i == end or (base == 8 and field[i] == 0) else -1


@njit(nogil=True, cache=True)
def checksum_ok(block: Any) -> bool:
    """Return whether the stored checksum is the sum of the header's bytes, with spaces in its own place."""
    before, stored, after = block[:148], _number(block[148:156]), block[156:]
    total = np.int64(before.sum()) + np.int64(after.sum()) + 8 * 32
    if stored == total:
        return True
    high = np.count_nonzero(before >= 128) + np.count_nonzero(after >= 128)
    return bool(stored == total - 256 * high)  # some old writers added signed bytes


@njit(nogil=True, cache=True)
def _until_nul(field: Any) -> int:
    for i in range(len(field)):
        if field[i] == 0:
            return i
    return len(field)


_PATH, _SIZE = np.frombuffer(b"path=", np.uint8), np.frombuffer(b"size=", np.uint8)


@njit(nogil=True, cache=True)
def _pax_records(body: Any) -> tuple[bool, int, int, int]:
    """Read PAX records, `LENGTH KEY=VALUE NEWLINE`: sound, start and length of the path (-1: none), size (-1: none)."""
    start, length, size, i = -1, 0, -1, 0
    while i < len(body) and body[i] != 0:
        space = i
        while space < len(body) and space - i < 9 and body[space] != 32:
            space += 1
        end = i + _number(body[i:space], 10) if space > i else 0
        if space == len(body) or body[space] != 32 or end > len(body) or end < space + 3 or body[end - 1] != 10:
            return False, -1, 0, -1
        record = body[space + 1 : end - 1]
        if len(record) > 5 and (record[:5] == _PATH).all():
            start, length = space + 6, len(record) - 5
        elif len(record) > 5 and (record[:5] == _SIZE).all():
            size = _number(record[5:], 10)
            if size < 0:
                return False, -1, 0, -1
        i = end
    return True, start, length, size


@njit(nogil=True, cache=True)
def _next_header(view: Any, base: int, at: int, size: int) -> tuple[int, int, int, int, int]:
    """Pass the extension headers from `at` on, to the header that they describe.

    Returns:
        status (FULL: found) and its position (MORE: the position that the view must reach), and from the extensions:
        start and length of the name in `view` (-1: none), size (-1: none).
    """
    name, length, long_size, pending, status = -1, 0, -1, False, BAD_EXTENSION
    for chain in range(_MAX_CHAIN + 1):
        head = at - base
        if size - at < BLOCK:
            status = CUT_EXTENSION if pending else (END if size == at else CUT_HEADER)
            break
        if head + BLOCK > len(view):
            status, at = MORE, at + BLOCK
            break
        block = view[head : head + BLOCK]
        if not block.any():
            status = BAD_EXTENSION if pending else END
            break
        if not checksum_ok(block):
            status = BAD_CHECKSUM
            break
        kind = block[156]
        if kind not in _EXTENSIONS:
            status = FULL
            break
        body, start = _number(block[124:136]), head + BLOCK
        if body < 0 or body > MAX_EXTENSION or chain == _MAX_CHAIN:
            break
        if at + BLOCK + body > size:
            status = CUT_EXTENSION
            break
        if start + body > len(view):
            status, at = MORE, at + BLOCK + body
            break
        if kind in _PAX:
            sound, path, count, long_size = _pax_records(view[start : start + body])
            if not sound:
                break
            if path >= 0:
                name, length = start + path, count
        elif kind == _LONG_NAME:
            name, length = start, _until_nul(view[start : start + body])
        pending = pending or kind != _GLOBAL
        at += BLOCK + (body + BLOCK - 1) // BLOCK * BLOCK
    return status, at, name, length, long_size


@njit(nogil=True, cache=True)
def walk(view: Any, base: int, size: int, rows: Any) -> tuple[int, int, int, int]:
    """Index the members whose headers lie in `view`, the bytes from `base` (a header's position) of a file of `size`.

    Writes rows of data offset, size, type, complete, and of the name its start in `view`, its length, and the length of
    the prefix (of POSIX ustar; GNU keeps times there) that is PREFIX bytes behind its start.

    Returns:
        What ended the walk, where (FULL and MORE: where to go on), the bytes needed there, and the rows written.
    """
    at = base
    for count in range(len(rows)):
        status, head, name, length, body = _next_header(view, base, at, size)
        if status == MORE:
            return MORE, at, head - at, count
        if status != FULL:
            return status, head, 0, count
        block, data, prefix = view[head - base : head - base + BLOCK], head + BLOCK, 0
        if body < 0:
            body = _number(block[124:136])
        if body < 0:
            return BAD_SIZE, head, 0, count
        if name < 0:
            name, length = head - base, _until_nul(block[:100])
            if block[257] == 117 and block[261] == 114 and block[262] == 0:
                prefix = _until_nul(block[PREFIX:500])
        kind: Any = np.int64(block[156])
        if kind == 0 and length + prefix > 0 and (length == 0 or view[name + length - 1] == _SLASH):
            kind = FOLDER
        elif kind in (0, _CONTIGUOUS):
            kind = REGULAR
        if _LINK <= kind <= _FIFO:
            body = 0  # links, devices, folders: some writers give a size, none gives data
        complete = body <= size - data
        row = rows[count]
        row[0], row[1], row[2], row[3] = data, body, kind, np.int64(complete)
        row[4], row[5], row[6] = name, length, prefix
        if not complete:
            return CUT_BODY, head, 0, count + 1
        at = data + (body + BLOCK - 1) // BLOCK * BLOCK
        if at > size:
            return CUT_PADDING, head, 0, count + 1
    return FULL, at, BLOCK, len(rows)
