"""Finds a given number of rows with the smallest keys in each group, exactly and for any sharding.

In: for each surviving row a key (uint64[3]: the order, and two numbers to break ties) and a group. Out: for each group
the first key that is not taken. Each round counts the next bits of the candidate keys; once few are left, one process
sorts them. Rounds that are not needed read nothing.
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

_COUNTERS = 22  # maximum bits for all counters of a round
_FEW = 1 << 20  # maximum keys to sort without another round


class Keys(NamedTuple):
    """The keys that order rows."""

    values: U64  # [n, 3]
    groups: I64  # [n], −1: the row is never taken


class Cut(NamedTuple):
    """The rows to take of each group."""

    wanted: I64  # [groups], rows to take
    rows: I64  # [groups], existing rows
    last: U64  # [groups, 3], the first key that is not taken, if there are more rows than wanted

    @classmethod
    def wanting(cls, wanted: I64) -> Self:
        """Return a cut before the search, with only the wanted sizes."""
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
        """The fraction of each group that is taken (float64[groups]); 0 for empty groups."""
        return self.taken / np.maximum(1, self.rows)

    def of_rows(self, of_groups: F64, groups: I64) -> F64:
        """Return for each row the number of its group in `of_groups`; 0 without a group (float64[n])."""
        return np.where(groups >= 0, np.append(of_groups, 0.0)[groups], 0.0)

    def draws(self, keys: Keys, values: F64) -> F64:
        """Return values as draws, below 1 if the row is taken; infinite if it never is."""
        last, is_cut = np.append(self.last, np.zeros((1, 3), np.uint64), axis=0)[keys.groups], self.is_cut
        order, high, low = keys.values.T
        is_ahead = (high < last[:, 1]) | ((high == last[:, 1]) & (low < last[:, 2]))
        is_taken = (order < last[:, 0]) | ((order == last[:, 0]) & is_ahead) | ~np.append(is_cut, True)[keys.groups]
        draws = np.where(is_taken, np.minimum(values, BELOW_ONE), np.maximum(values, 1.0))
        return np.where(keys.groups >= 0, draws, np.inf)


class Search(RadixSearch):
    """The search for a `Cut`; it ends when few enough keys are left that one process can sort them."""

    @classmethod
    def of(cls, cut: Cut) -> Self:
        groups = len(cut.wanted)
        return cls(cut.wanted, digit=max(4, min(DIGIT_BITS, _COUNTERS - (groups - 1).bit_length())))

    @property
    def solved(self) -> bool:
        """Whether few enough keys are left to sort, or all of them differ only in the tie-breaking numbers."""
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
    """Find the cut of a `CutChoice` that has only the wanted sizes (`Cut.wanting`).

    Each unit computes its `keys` once per round, in at most `rounds` rounds, and once at the end.
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
