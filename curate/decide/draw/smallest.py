"""The rows with the smallest keys, a number of each group, exactly, whatever the sharding.

In: of each row still in, a key (uint64[3]: what orders rows, and two numbers by which rows of equal order differ) and a
group. Out: of each group the first key that is not taken. A round counts the next bits of the keys that begin as that
one; the few keys that are left then meet in one process. Rounds that are not needed read nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np

from curate.base.numeric.arrays import F64, I64, U64, Mask
from curate.decide.draw.entry_sums import EntryVector
from curate.run.units import Answer, Fold, Units
from curate.store.tables import OpenTables

_BITS, _COUNTERS = 16, 22  # of a round at most, and of all of its counters
_FEW = 1 << 20  # keys that meet without another round
BELOW_ONE = float(np.nextafter(1.0, 0.0))


class Keys(NamedTuple):
    """What some rows are ordered by."""

    values: U64  # [n, 3]
    groups: I64  # [n], −1: the row is never taken


@dataclass(frozen=True)
class Cut:
    """What is taken of each group."""

    wanted: I64  # [groups], rows to take
    rows: I64  # [groups], rows that there are
    last: U64  # [groups, 3], the first key that is not taken, where there are more rows than wanted

    @property
    def is_cut(self) -> Mask:
        """Whether there are more rows than wanted (bool[groups])."""
        return np.asarray(self.rows > self.wanted)

    @property
    def taken(self) -> I64:
        return np.minimum(self.wanted, self.rows)

    @property
    def shares(self) -> F64:
        """The part of each group that is taken (float64[groups]); 0 where it has no row."""
        return self.taken / np.maximum(1, self.rows)

    def of_rows(self, of_groups: F64, groups: I64) -> F64:
        """Return each row's number of its group, 0 where it is in none (float64[n])."""
        return np.where(groups >= 0, np.append(of_groups, 0.0)[groups], 0.0)

    def draws(self, keys: Keys, values: F64) -> F64:
        """Return values as draws, which are below 1 iff the row is taken; infinite where it never is."""
        last, is_cut = np.append(self.last, np.zeros((1, 3), np.uint64), axis=0)[keys.groups], self.is_cut
        order, high, low = keys.values.T
        is_ahead = (high < last[:, 1]) | ((high == last[:, 1]) & (low < last[:, 2]))
        is_taken = (order < last[:, 0]) | ((order == last[:, 0]) & is_ahead) | ~np.append(is_cut, True)[keys.groups]
        draws = np.where(is_taken, np.minimum(values, BELOW_ONE), np.maximum(values, 1.0))
        return np.where(keys.groups >= 0, draws, np.inf)


@dataclass(frozen=True)
class Search:
    """The search for a `Cut`, between rounds."""

    wanted: I64  # [groups]
    rows: I64 | None = None  # as of `Cut`; None before the first round
    width: int = 0  # how many bits of the keys are known
    prefix: Any = 0  # uint64[groups], these bits
    before: Any = 0  # int64[groups], rows whose first bits are smaller
    left: int = 0  # keys that begin with them

    @property
    def bits(self) -> int:
        return min(64 - self.width, max(4, min(_BITS, _COUNTERS - (len(self.wanted) - 1).bit_length())))

    @property
    def solved(self) -> bool:
        """Whether so few keys are left that they can meet, or all that are left are alike but for what follows."""
        return self.rows is not None and (self.left <= _FEW or self.width == 64)

    def _left(self, keys: Keys) -> Mask:
        """Return which keys are still to be told apart from the last one (bool[n])."""
        if self.rows is None:
            return np.asarray(keys.groups >= 0)
        begins = keys.values[:, 0] >> np.uint64(64 - self.width) == np.append(self.prefix, np.uint64(0))[keys.groups]
        return np.asarray(begins & np.append(self.rows > self.wanted, False)[keys.groups])

    def count(self, keys: Keys) -> I64:
        is_left = self._left(keys)
        digits = keys.values[is_left, 0] >> np.uint64(64 - self.width - self.bits) & np.uint64((1 << self.bits) - 1)
        counters = (keys.groups[is_left] << self.bits) + digits.astype(np.int64)
        return EntryVector.of(np.bincount(counters, minlength=len(self.wanted) << self.bits).astype(np.int64))

    def narrow(self, counts: I64) -> Self:
        if self.solved:
            return self
        table = np.asarray(counts).reshape(len(self.wanted), 1 << self.bits)
        rows = table.sum(axis=1) if self.rows is None else self.rows
        up_to = np.reshape(self.before, (-1, 1)) + np.cumsum(table, axis=1)
        digit = np.argmax(up_to > self.wanted[:, np.newaxis], axis=1)
        at = np.arange(len(rows)), digit
        return replace(
            self,
            rows=rows,
            width=self.width + self.bits,
            prefix=self.prefix << np.uint64(self.bits) | digit.astype(np.uint64),
            before=up_to[at] - table[at],
            left=int(table[at][rows > self.wanted].sum()),
        )

    def inside(self, keys: Keys) -> Keys:
        is_left = self._left(keys)
        return Keys(keys.values[is_left], keys.groups[is_left])

    def cut(self, parts: Sequence[Keys]) -> Cut:
        assert self.rows is not None
        last, is_cut = np.zeros((len(self.rows), 3), np.uint64), np.flatnonzero(self.rows > self.wanted)
        if len(is_cut):
            values, groups = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            order = np.lexsort((*values.T[::-1], groups))
            first = np.searchsorted(groups[order], is_cut)
            last[is_cut] = values[order[first + (self.wanted - self.before)[is_cut]]]
        return Cut(self.wanted, self.rows, last)


def find_cut(
    units: Units, name: str, search: Any, keys: Callable[..., Keys], *values: Any, rounds: int = 1
) -> Answer[Cut]:
    """Ask all units for the cut of a search, in at most `rounds` and one more, by `keys(tables, state, *values)`."""

    def count(tables: OpenTables, state: Any, at: Search, *values: Any) -> list[I64]:
        return [EntryVector.of(np.zeros(0, np.int64)) if at.solved else at.count(keys(tables, state, *values))]

    def inside(tables: OpenTables, state: Any, at: Search, *values: Any) -> list[Keys]:
        part = at.inside(keys(tables, state, *values)) if at.left else None
        return [part] if part is not None and len(part.groups) else []

    for n in range(rounds):
        counts = units.ask(f"{name}: count {n}", count, search, *values, combine=Fold[I64](large=True))
        search = units.get(f"{name}: narrow {n}", lambda at, counts: at.narrow(counts), search, counts)
    kept = units.ask(f"{name}: inside", inside, search, *values)
    return units.get(f"{name}: cut", lambda at, parts: at.cut(parts), search, kept)
