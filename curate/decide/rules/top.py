"""Searches the thresholds of a top rule: a single one, or one per group of rows with the same value in a column.

In each round, units count digits of keys by group, the counts are summed (`add_counts`), and `TopSearch.narrow` takes
the next digit of every group's threshold (see `quantiles.RadixSearch`). With groups a digit has 11 bits instead of 16,
so that a unit's counts take 16 KiB per group.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa

from curate.base.errors import RunError
from curate.base.numeric.arrays import I64, U64, Mask, split_by
from curate.base.numeric.quantiles import DIGIT_BITS, RadixSearch, key_bits, value_of
from curate.recipe.deciding import Top

MAX_GROUPS = 1000
Group = str | int | bool | None
Counts = dict[Group, I64]
"""For each group, the number of rows by the next digit of their keys, then the rows that a fraction refers to."""

_GROUP_DIGIT_BITS = 11


class TopValues(NamedTuple):
    """A unit's values of a top rule's column."""

    keys: U64  # [rows], from `quantiles.order_keys`
    valid: Mask  # [rows], whether a row has a value
    groups: Mapping[Group, slice | I64]  # the rows of each group; null is a group

    @classmethod
    def of(cls, keys: U64, valid: Mask, groups: pa.ChunkedArray | None) -> Self:
        if groups is None:
            return cls(keys, valid, {None: slice(None)})
        codes = groups.combine_chunks().dictionary_encode(null_encoding="encode")
        names = codes.dictionary.to_pylist()
        rows = split_by(np.arange(len(keys)), codes.indices.to_numpy(), len(names))
        return cls(keys, valid, dict(zip(names, rows, strict=True)) if names else {})


@dataclass(frozen=True)
class TopSearch:
    """The state of the search between passes."""

    rule: str
    spec: Top
    kind: pa.DataType  # of the rule's column
    searches: Mapping[Group, RadixSearch] | None = None  # by group, with descending keys; None before the first pass

    @property
    def single(self) -> bool:
        return bool(pa.types.is_float32(self.kind) or pa.types.is_float16(self.kind))

    @property
    def digit_bits(self) -> int:
        return DIGIT_BITS if self.spec.by is None else _GROUP_DIGIT_BITS

    @property
    def rounds(self) -> int:
        return -(-key_bits(self.kind) // self.digit_bits)

    def count(self, values: TopValues, surviving: Mask) -> Counts:
        """Count a unit's rows. `surviving` (bool[rows]) are those that reached the rule. Raises RunError."""
        if len(values.groups) > MAX_GROUPS:
            raise self._too_many()
        of_pool = self.spec.over == "pool"
        counts: Counts = {}
        for name, rows in values.groups.items():
            counted = values.valid[rows] if of_pool else values.valid[rows] & surviving[rows]
            base = int(counted.sum()) if self.spec.over == "reached" else len(counted)
            keys = self._largest_key - values.keys[rows][counted]
            digits = self._search(name).count(keys, np.zeros(len(keys), np.int64))
            counts[name] = np.append(digits, np.int64(base))
        return counts

    def narrow(self, counts: Counts) -> Self:
        if len(counts) > MAX_GROUPS:
            raise self._too_many()
        searches: dict[Group, RadixSearch] = {}
        for name, part in counts.items():
            search = self._search(name)
            if search.rows is None:
                rank = min(self._rank(int(part[-1])), int(part[:-1].sum()) - 1)
                search = replace(search, wanted=np.array([max(0, rank)]))
            searches[name] = search.narrow(part[:-1])
        return replace(self, searches=searches)

    def _rank(self, base: int) -> int:
        """Return the number of rows above the last one that passes; a fraction refers to `base`."""
        if self.spec.top is None:
            return (self.spec.rows or 0) - 1
        rank = int(base * self.spec.top)  # truncated float product, as DataComp's `int(len(x) * f)`
        return rank - 1 if self.spec.over == "budget" else rank

    def passing(self, values: TopValues) -> Mask:
        passing = np.zeros(len(values.keys), bool)
        for name, rows in values.groups.items():
            key = self._threshold(self._search(name))
            if key is not None:
                passing[rows] = values.valid[rows] & (values.keys[rows] >= np.uint64(key))
        return passing

    @property
    def thresholds(self) -> dict[Group, float | int | bool]:
        """The smallest value that passes, by group in order; groups without values are left out."""
        keys = {name: self._threshold(search) for name, search in (self.searches or {}).items()}
        names = sorted(keys, key=lambda name: (name is None, name))
        return {name: value_of(key, self.kind) for name in names if (key := keys[name]) is not None}

    def _search(self, name: Group) -> RadixSearch:
        if self.searches is not None:
            return self.searches[name]
        return RadixSearch(np.zeros(1, np.int64), key_bits(self.kind), self.digit_bits)

    def _threshold(self, search: RadixSearch) -> int | None:
        """Return the key of the last row that passes; None without a value."""
        return int(self._largest_key - search.prefix[0]) if search.rows is not None and search.rows[0] else None

    @property
    def _largest_key(self) -> np.uint64:
        return np.uint64((1 << key_bits(self.kind)) - 1)

    def _too_many(self) -> RunError:
        accepted = "accepted: a column with at most that many values"
        return RunError(f"rules.{self.rule}: {self.spec.by} has more than {MAX_GROUPS:,} values; {accepted}")


def add_counts(left: Counts, right: Counts) -> Counts:
    """Add counts. If there are too many groups, keep only one more than the limit."""
    total = dict(left)
    for name, counts in right.items():
        if name in total:
            total[name] = total[name] + counts
        elif len(total) <= MAX_GROUPS:
            total[name] = counts
    return total
