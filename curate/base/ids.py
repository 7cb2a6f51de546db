"""Identities and hashes: uids, keys of entries, digests of tables and recipes.

A uid has 32 hex digits and identifies a sample by its content, never by its position. It is the xxh3-128 of URL, NUL,
caption. If there is no URL, it is the xxh3-128 of the image's sha256, NUL, caption. All hashes are computed from UTF-8
bytes, and are the same on every machine and in every version.
"""

import binascii
import hashlib
import json
import re
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curate.base.numeric.arrays import U64, string_buffers
from curate.base.numeric.elementary import GOLDEN, mix64
from curate.base.numeric.text_hash import LONGEST, SHORTEST, hash_texts

_UID = "[0-9a-fA-F]{32}"
_WHOLE_UID = rf"\A{_UID}\z"


def own_uid(value: object) -> str | None:
    """Return `value` in lower case if it is a uid (32 hex digits); otherwise, return None."""
    return value.lower() if isinstance(value, str) and re.fullmatch(_UID, value) else None


def make_uids(supplied: pa.Array | None, url: pa.Array | None, sha256: pa.Array | None, caption: pa.Array) -> pa.Array:
    """Return each row's uid: its own (`own_uid`), or, if it has a caption, computed from the other columns."""
    none = pa.nulls(len(caption), pa.string())
    url, sha256 = (none if column is None else column for column in (url, sha256))
    is_missing: Any = pc.equal(url, pa.scalar("", url.type)).fill_null(True)
    uids = hash_pairs(pc.if_else(is_missing, sha256, url) if pc.any(is_missing).as_py() else url, caption)
    if supplied is None or supplied.null_count == len(supplied):
        return uids
    is_uid = pc.match_substring_regex(supplied, _WHOLE_UID).fill_null(False)
    chosen: pa.Array = pc.if_else(is_uid, pc.ascii_lower(supplied), uids)
    return chosen


def hash_pairs(first: pa.Array, second: pa.Array) -> pa.Array:
    """Return the xxh3-128 of `first NUL second` (string[rows], 32 hex digits); null if the second is null."""
    wide = pa.large_string()
    sides: list[Any] = [first.fill_null("").cast(wide), second.cast(wide), pa.scalar("\0", wide)]  # the last joins
    joined: pa.Array = pc.binary_join_element_wise(*sides)
    uids = hex_uids(*hash_halves(joined))
    return pc.if_else(joined.is_valid(), uids, None) if joined.null_count else uids


def hash_halves(texts: pa.Array) -> tuple[U64, U64]:
    """Return the high and low 64 bits (uint64) of each text's xxh3-128. The result for nulls is arbitrary."""
    data, ends = string_buffers(texts)
    halves = np.empty((len(texts), 2), np.uint64)
    hash_texts(data, ends, halves)
    lengths, octets = np.diff(ends), data.data
    others = np.flatnonzero((lengths < SHORTEST) | (lengths > LONGEST))
    spans = zip(ends[others].tolist(), ends[others + 1].tolist(), strict=True)
    digests = b"".join(xxhash.xxh3_128_digest(octets[start:end]) for start, end in spans)
    halves[others] = np.frombuffer(digests, ">u8").reshape(-1, 2)
    return halves[:, 0], halves[:, 1]


def hex_uids(high: U64, low: U64) -> pa.Array:
    """Join the halves of uids (string[rows], 32 hex digits): the inverse of `uid_halves`."""
    octets = np.empty((len(high), 2), ">u8")
    octets[:, 0], octets[:, 1] = high, low
    return hex_strings(octets.data, 16)


def hex_strings(octets: Any, width: int) -> pa.Array:
    """Return each group of `width` bytes as hex digits (strings)."""
    digits = binascii.hexlify(octets)
    offsets = np.arange(0, len(digits) + 1, 2 * width, dtype=np.int64)
    buffers = [None, pa.py_buffer(offsets.data), pa.py_buffer(digits)]
    return pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers).cast(pa.string())


def uid_halves(uids: pa.Array | pa.ChunkedArray) -> tuple[U64, U64]:
    """Return the high and low 64 bits (uint64) of each uid; 0, 0 for nulls. Raises ValueError if one is not a uid."""
    text: Any = uids.combine_chunks() if isinstance(uids, pa.ChunkedArray) else uids
    text = text.fill_null("0" * 32) if text.null_count else text
    try:
        octets = binascii.unhexlify(text.cast(pa.binary(32)).buffers()[1] or b"")
    except (pa.ArrowInvalid, binascii.Error):
        bad = pc.index(pc.match_substring_regex(text, _WHOLE_UID), False).as_py()
        raise ValueError(f"uid {text[bad].as_py()!r} is not 32 hex digits") from None
    high, low = np.frombuffer(octets, ">u8").reshape(-1, 2).T.astype(np.uint64, order="C")
    return high, low


def hash_uids(uids: pa.Array, seed: int) -> U64:
    """Return a hash of each uid and the seed (uint64[n]), computed from both halves of the uid."""
    high, low = uid_halves(uids)
    seeded = mix64(np.array([(seed + 1) * int(GOLDEN) % (1 << 64)], np.uint64))
    return np.asarray(mix64(mix64(low ^ mix64(high + GOLDEN)) ^ seeded))


def hash64(text: str) -> int:
    """Return the xxh3-64 of the UTF-8 of `text`."""
    return xxhash.xxh3_64_intdigest(text.encode())


def entry_keys(entries: pa.Array) -> U64:
    """Return the xxh3-64 of each entry's UTF-8 (uint64). Random draws use this hash, so ids of entries may change."""
    parts: Any = (entries.slice(at, 1 << 16).cast(pa.binary()).to_pylist() for at in range(0, len(entries), 1 << 16))
    return np.fromiter(map(xxhash.xxh3_64_intdigest, chain.from_iterable(parts)), np.uint64, len(entries))


def table_digest(table: pa.Table) -> str:
    """Return a digest (32 hex digits) of a table with strings and integers. It does not depend on the chunks."""
    state = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        text: Any = column.cast(pa.large_string()).combine_chunks()
        lengths = pc.fill_null(pc.binary_length(text), -1).to_numpy()
        state.update(f"{name} {len(text)}".encode())
        state.update(lengths.astype("<i8").tobytes())
        if len(text):
            data, offsets = string_buffers(text.fill_null(""))  # nulls may have bytes in the buffer
            state.update(data[offsets[0] : offsets[-1]].data)
    return state.hexdigest()[:32]


def digest(value: Any) -> str:
    """Return a digest (32 hex digits) of a value that JSON can represent. It does not depend on the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
