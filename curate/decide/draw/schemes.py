"""Balancing schemes: how limits, the rows that each entry may have, follow from a number t. See `inclusion`."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import pyarrow as pa

from curate.base.numeric.arrays import I64

STACK = 1 << 22  # limits at a time: 32 MB


class Scheme(ABC):
    """One scheme; it has no state. Limits are at least 1 and never fall as t grows: searches for t rely on it."""

    key: ClassVar[str]  # its name in `balance.scheme`

    @abstractmethod
    def limits(self, t: int, counts: I64, entries: pa.Table) -> I64:
        """Return the rows that each entry may have: int64[n], or int64[1] where it is the same for all entries.

        t is at least 1; `counts` (int64[n]) are the survivors' by entry; `entries` has n rows: entry, source, language.
        """

    def stack(self, ts: Sequence[int] | I64, counts: I64, entries: pa.Table) -> I64:
        """Return `limits` of each t, int64[k, n] or [k, 1]."""
        return np.stack([self.limits(int(t), counts, entries) for t in ts])

    def highest(self, counts: I64, entries: pa.Table) -> int:
        """Return a t from which on every entry may have all of its rows; here the largest count."""
        return int(np.max(counts, initial=0))


class OneLimit(Scheme):
    """Every entry may have t rows ("Demystifying CLIP Data", arXiv 2309.16671, section 3.3)."""

    key = "metaclip"

    def limits(self, t: int, counts: I64, entries: pa.Table) -> I64:
        """Return t."""
        return np.array([t], np.int64)

    def stack(self, ts: Sequence[int] | I64, counts: I64, entries: pa.Table) -> I64:
        """Return ts, without a call for each: units ask for some 64 at a time."""
        return np.asarray(ts, np.int64)[:, np.newaxis]


KINDS: tuple[Scheme, ...] = (OneLimit(),)


def stack_limits(scheme: Scheme, ts: Sequence[int] | I64, counts: I64, entries: pa.Table) -> Iterator[I64]:
    """Yield the limits of each t in order, as int64[k, n] or [k, 1], of at most some STACK of them at a time."""
    if not len(ts):
        return
    some = max(1, STACK // len(scheme.limits(int(ts[0]), counts, entries)))
    for start in range(0, len(ts), some):
        yield scheme.stack(ts[start : start + some], counts, entries)
