"""Items to forget: uids, URLs and images, as hashes in sorted arrays for fast lookup.

In: names of samples. Out: `Items`, with an ascending array of byte strings for each kind: a uid as its 16 bytes, an
image as its sha256, a URL as the sha256 of its UTF-8. So no file has the URL itself.

Trade-offs: hashes of URLs have no secret salt, because later runs, perhaps on other machines, must recognize a URL. So
anyone with a list of URLs can test which of them were removed. A bisection looks up millions of items without Python
objects.
"""

import hashlib
from binascii import unhexlify
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import or_
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.ids import hex_strings
from curate.base.numeric.arrays import I64, string_buffers, whole

Hashes = npt.NDArray[np.bytes_]

WIDTHS = {"uid": 16, "url": 32, "sha256": 32}
KINDS = tuple(WIDTHS)


def hash_url(url: bytes) -> bytes:
    """Return the hash of a URL for recording and lookup."""
    return hashlib.sha256(url).digest()


def as_hashes(values: Iterable[bytes], kind: str) -> Hashes:
    """Return the distinct values, in ascending order."""
    data = b"".join(values)
    hashes = np.frombuffer(data, f"S{WIDTHS[kind]}")
    heads = np.frombuffer(data, ">u8")[:: WIDTHS[kind] // 8].astype(np.uint64)
    hashes = np.sort(hashes[np.argsort(heads)], kind="stable")  # values that are already sorted need no time
    return np.asarray(hashes[np.append(np.ones(min(1, len(hashes)), bool), hashes[1:] != hashes[:-1])])


def hex_of(hashes: Hashes) -> list[str]:
    """Return the values as hex digits."""
    return cast(list[str], hex_strings(hashes.tobytes(), hashes.dtype.itemsize).to_pylist())


def column_hashes(column: pa.ChunkedArray | pa.Array, kind: str) -> tuple[Hashes, npt.NDArray[np.bool_]]:
    """Return the hash of each value in a column of `samples`, and which rows have one: nulls and empty URLs do not."""
    array = whole(column) if isinstance(column, pa.ChunkedArray) else column
    has_value = pc.and_kleene(array.is_valid(), pc.not_equal(array, pa.scalar("")))
    width = WIDTHS[kind]
    text = pc.if_else(has_value, array, pa.scalar("" if kind == "url" else "0" * 2 * width))
    data, offsets = string_buffers(text.cast(pa.large_string()))
    if kind == "url":
        octets, digest = data.data, hashlib.sha256  # the same hash as `hash_url`, without a function call per row
        digests = (digest(octets[a:b]).digest() for a, b in pairwise(offsets.tolist()))
        hashes = np.fromiter(digests, f"S{width}", len(text))
    else:
        hashes = np.frombuffer(unhexlify(data[offsets[0] : offsets[-1]].data), f"S{width}")
    return hashes, has_value.to_numpy(zero_copy_only=False)


@dataclass(frozen=True)
class Items:
    """Items to forget: the distinct values of each kind, in ascending order."""

    uid: Hashes
    url: Hashes
    sha256: Hashes

    @classmethod
    def of(cls, values: Mapping[str, Iterable[bytes]]) -> "Items":
        """Return items from the values of each kind, which may be in any order."""
        return cls(**{kind: as_hashes(values.get(kind, ()), kind) for kind in KINDS})

    def __len__(self) -> int:
        return sum(len(self[kind]) for kind in KINDS)

    def __getitem__(self, kind: str) -> Hashes:
        return cast(Hashes, getattr(self, kind))

    def __or__(self, other: "Items") -> "Items":
        if not len(self) or not len(other):
            return self if len(self) else other
        return Items.of({kind: [self[kind].tobytes(), other[kind].tobytes()] for kind in KINDS})

    def __sub__(self, other: "Items") -> "Items":
        return Items(**{kind: self[kind][~other.holds(kind, self[kind])] for kind in KINDS})

    def holds(self, kind: str, values: Hashes) -> npt.NDArray[np.bool_]:
        """Return which of the values are items."""
        hashes = self[kind]
        if not len(hashes):
            return np.zeros(len(values), bool)
        return np.asarray(hashes[np.minimum(np.searchsorted(hashes, values), len(hashes) - 1)] == values)

    def count(self, kind: str, values: Hashes) -> I64:
        """Return how often each item occurs in the values, in any order (int64[items])."""
        hashes = self[kind]
        return np.bincount(np.searchsorted(hashes, values[self.holds(kind, values)]), minlength=len(hashes))

    def has_image(self, digest: bytes) -> bool:
        return bool(self.holds("sha256", as_hashes([digest], "sha256"))[0])

    def find(self, kind: str, column: Any) -> npt.NDArray[np.bool_]:
        """Return which rows of a column of `samples` have one of the items."""
        if not len(self[kind]):
            return np.zeros(len(column), bool)
        values, has_value = column_hashes(column, kind)
        return self.holds(kind, values) & has_value


NOTHING = Items.of({})


def unite(parts: Iterable[Items]) -> Items:
    """Return all items of several `Items`."""
    return reduce(or_, parts, NOTHING)
