"""Identities and hashes: uids, entry keys, the mixing function of the draws, digests of recipes.

uid: 32 hex digits, a sample's content address: xxh3-128 of URL, NUL, caption, or of sha256(image), NUL, caption where
there is no URL; never a position. All hashes are of UTF-8 bytes and the same on every machine and in every version.
"""

import hashlib
import json
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

U64 = npt.NDArray[np.uint64]

_OWN_UID = re.compile(r"[0-9a-fA-F]{32}\Z")
_NIBBLE = np.zeros(256, np.uint64)
for _digit in "0123456789abcdef":
    _NIBBLE[ord(_digit)] = _NIBBLE[ord(_digit.upper())] = int(_digit, 16)


def own_uid(value: object) -> str | None:
    """The uid that an input brings, in lower case, where `value` is one (32 hex digits); else None."""
    return value.lower() if isinstance(value, str) and _OWN_UID.match(value) else None


def content_uid(url: str | None, sha256: str | None, caption: str) -> str:
    """The uid made from content: xxh3-128 of `URL NUL caption`, or of `sha256 NUL caption` (sha256 as hex digits)."""
    return xxhash.xxh3_128_hexdigest(f"{url or sha256 or ''}\0{caption}".encode())


def uid_halves(uids: pa.Array) -> tuple[U64, U64]:
    """The high and the low 64 bits of each uid.

    Args:
        uids: string array of 32 hex digits; nulls give 0, 0.

    Returns:
        Two uint64 arrays of len(uids).
    """
    if isinstance(uids, pa.ChunkedArray):
        uids = uids.combine_chunks()
    if uids.null_count:
        uids = uids.fill_null("0" * 32)
    if len(uids) == 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.uint64)
    text = uids.cast(pa.large_string())
    offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
    if offsets[-1] - offsets[0] != 32 * len(text) or (np.diff(offsets) != 32).any():
        raise ValueError("a uid is not 32 hex digits")
    digits = np.frombuffer(text.buffers()[2], np.uint8)[offsets[0] : offsets[-1]].reshape(-1, 32)
    halves = np.zeros((2, len(text)), np.uint64)
    for i in range(32):
        half = halves[i // 16]
        half <<= np.uint64(4)
        half |= _NIBBLE[digits[:, i]]
    return halves[0], halves[1]


def hash64(text: str) -> int:
    """xxh3-64 of the UTF-8 of `text`."""
    return xxhash.xxh3_64_intdigest(text.encode())


def entry_keys(entries: pa.Array) -> U64:
    """xxh3-64 of each entry's UTF-8 (uint64): randomness is keyed by the string, so ids may change freely."""
    h = xxhash.xxh3_64_intdigest
    return np.fromiter((h(e.encode()) for e in entries.to_pylist()), np.uint64, len(entries))


def digest(value: Any) -> str:
    """32 hex digits that name a JSON-able value; equal values give equal digests, whatever the order of their keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
