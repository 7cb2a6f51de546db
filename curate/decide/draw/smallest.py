"""The rows with the smallest keys, a number of each group, exactly, whatever the sharding.

In: of each row still in, a key (uint64[3]: what orders rows, and two numbers by which rows of equal order differ) and a
group. Out: of each group the first key that is not taken. A round counts the next bits of the keys that begin as that
one; the few keys that are left then meet in one process. Rounds that are not needed read nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np

from curate.base.numeric.arrays import F64, I64, U64, Mask
from curate.base.numeric.quantiles import DIGIT_BITS, RadixSearch
from curate.decide.draw.entry_sums import EntryVector
from curate.decide.draw.inclusion import BELOW_ONE
from curate.decide.draw.selection import SelectionRun
from curate.run.units import Answer, Fold, Units
from curate.store.tables import OpenTables

_COUNTERS = 22  # bits of all counters of a round, at most
_FEW = 1 << 20  # keys that meet without another round


class Keys(NamedTuple):
    """What some rows are ordered by."""

    values: U64  # [n, 3]
    groups: I64  # [n], −1: the row is never taken


class Cut(NamedTuple):
    """What is taken of each group."""

    wanted: I64  # [groups], rows to take
    rows: I64  # [groups], rows that there are
    last: U64  # [groups, 3], the first key that is not taken, where there are more rows than wanted

    @classmethod
    def wanting(cls, wanted: I64) -> Self:
        """Return a cut that is not searched yet: the wanted sizes alone."""
        return cls(wanted, np.zeros(0, np.int64), np.zeros((0, 3), np.uint64))

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


class Search(RadixSearch):
    """The search for a `Cut`; it ends once so few keys are left that one process can sort them."""

    @classmethod
    def of(cls, cut: Cut) -> Self:
        groups = len(cut.wanted)
        return cls(cut.wanted, digit=max(4, min(DIGIT_BITS, _COUNTERS - (groups - 1).bit_length())))

    @property
    def solved(self) -> bool:
        """Whether so few keys are left that they can meet, or all that are left are alike but for what follows."""
        return self.rows is not None and (self.left <= _FEW or self.bits == self.width)

    def inside(self, keys: Keys) -> Keys:
        is_left = self.may_be(keys.values[:, 0], keys.groups)
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


def find_cut(units: Units, name: str, run: SelectionRun, choice: Any, rounds: int = 1) -> Answer[Any]:
    """Return the `CutChoice` with its cut found; it comes with the wanted sizes alone (`Cut.wanting`).

    Each unit computes its `keys` once a round, in at most `rounds` rounds, and once at the end.
    """

    def count(tables: OpenTables, state: Any, at: Search, choice: Any) -> list[I64]:
        if at.solved:
            return [EntryVector.of(np.zeros(0, np.int64))]
        keys = choice.keys(run.rows_left(tables, state))
        return [EntryVector.of(at.count(keys.values[:, 0], keys.groups))]

    def inside(tables: OpenTables, state: Any, at: Search, choice: Any) -> list[Keys]:
        part = at.inside(choice.keys(run.rows_left(tables, state))) if at.left else None
        return [part] if part is not None and len(part.groups) else []

    search = units.get(f"{name}: begin", lambda choice: Search.of(choice.cut), choice)
    for n in range(rounds):
        counts = units.ask(f"{name}: count {n}", count, search, choice, combine=Fold[I64](large=True))
        search = units.get(f"{name}: narrow {n}", lambda at, new: at if at.solved else at.narrow(new), search, counts)
    kept = units.ask(f"{name}: inside", inside, search, choice)
    return units.get(f"{name}: cut", lambda choice, at, parts: replace(choice, cut=at.cut(parts)), choice, search, kept)
