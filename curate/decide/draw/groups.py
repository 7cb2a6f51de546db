"""Groups of rows by the values of a column (clusters, sources, tags), and draws of given sizes from each group.

In: a column of integers, texts or booleans, compared as texts. Rows without a value are never drawn. A `Choice` takes a
given number of rows from each group: those with the smallest hash(seed, uid), so that larger draws contain smaller
ones, or those with the largest or smallest numbers in another column, with ties broken by that hash.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids
from curate.base.errors import RecipeError, RunError, UnknownColumn
from curate.base.numeric.arrays import F64, I64, whole
from curate.base.wording import did_you_mean
from curate.decide.draw.selection import Choice, RowsLeft, SelectionRun
from curate.decide.draw.smallest import Cut, Keys
from curate.match.unit import Entries
from curate.run.units import Answer, Fold, Units
from curate.store.tables import OpenTables

MAX_GROUPS = 1 << 20
Keep = Literal["random", "farthest", "nearest"]
_SCALE = float(1 << 28)  # sums are integers in units of 1 / _SCALE
_LARGEST = 2.0**63 / _SCALE  # the smallest sum that overflows


@dataclass(frozen=True)
class ColumnGroups:
    """The groups of a column."""

    column: str
    names: pa.Array  # string, ascending
    rows: I64  # of each
    sums: I64  # sum of another column in each group, in units of 2⁻²⁸; 0 without one
    measure: str | None = None  # that column; rows without a value in it are in no group
    largest: float = 0.0  # its largest value

    def __len__(self) -> int:
        return len(self.names)

    def numbers(self, rows: RowsLeft) -> I64:
        """Return the group of each row (int64[n]); −1 without a value, or with an unknown one."""
        index = pc.index_in(read_names(rows, self.column), self.names, skip_nulls=True)
        numbers = np.asarray(index.fill_null(-1).to_numpy(), np.int64)
        return numbers if self.measure is None else np.where(np.isfinite(read_numbers(rows, self.measure)), numbers, -1)

    @cached_property
    def entries(self) -> Entries:
        """The names as entries, for `balance`."""
        none = pa.nulls(len(self), pa.string())
        return Entries(pa.table({"entry": self.names, "source": none, "language": none}))

    def matches(self, rows: RowsLeft) -> pa.ListArray:
        """Return the group of each row as its only entry, or no entry (list<int32>)."""
        numbers = self.numbers(rows)
        ends = pa.array(np.concatenate([[0], np.cumsum(numbers >= 0)]), pa.int32())
        matches: pa.ListArray = pa.ListArray.from_arrays(ends, pa.array(numbers[numbers >= 0], pa.int32()))
        return matches

    @property
    def means(self) -> F64:
        return np.asarray(self.sums / _SCALE / np.maximum(1, self.rows))


def read_names(rows: RowsLeft, column: str) -> pa.Array:
    """Return the value of each row as text (string[n])."""
    return whole(rows.read([column])[column].cast(pa.string()))


def read_numbers(rows: RowsLeft, column: str) -> F64:
    """Return a column's numbers (float64[n]); NaN if a row has none. Negative ones, from rounding, become 0."""
    return np.asarray(np.maximum(0.0, rows.read([column])[column].cast(pa.float64()).to_numpy()))


def find_groups(units: Units, name: str, run: SelectionRun, column: str, measure: str | None = None) -> Answer:
    """Ask all units for the groups of rows that have a value, and one in `measure` if it is given. Raises RunError."""

    def count(tables: OpenTables, state: Any) -> list[pa.Table]:
        rows = run.rows_left(tables, state)
        names, numbers = read_names(rows, column), np.zeros(len(rows))
        is_in = names.is_valid().to_numpy(zero_copy_only=False)
        if measure is not None:
            numbers = read_numbers(rows, measure)
            is_in &= np.isfinite(numbers)
        parts = np.rint(np.where(is_in & (numbers < _LARGEST), numbers, 0) * _SCALE).astype(np.int64)
        columns: list[Any] = [names, np.ones(len(names), np.int64), parts, numbers]
        table = pa.table(columns, names=["name", "rows", "sum", "largest"])
        return [_summed(table.filter(pa.array(is_in)) if not is_in.all() else table)]

    def gather(table: pa.Table) -> ColumnGroups:
        table = table.sort_by("name")
        if len(table) > MAX_GROUPS:
            raise RunError(f"{name.lower()}: {column} has more than {MAX_GROUPS:,} values; accepted: at most that many")
        rows, sums = (table[name].to_numpy() for name in ("rows", "sum"))
        largest = float(table["largest"].to_numpy().max(initial=0))
        if largest * rows.max(initial=0) >= _LARGEST:
            size = f"{measure} has values up to {largest:g}, and the largest group has {rows.max():,} rows"
            raise RunError(f"{name.lower()}: {size}; accepted: numbers whose sum in a group is below {_LARGEST:.2g}")
        return ColumnGroups(column, whole(table["name"]), rows, sums, measure, largest)

    values = units.ask(f"{name}: values", count, combine=Fold(_add, large=True))
    return units.get(f"{name}: groups", gather, values)


def _summed(table: pa.Table) -> pa.Table:
    sums = table.group_by("name", use_threads=False).aggregate([("rows", "sum"), ("sum", "sum"), ("largest", "max")])
    return sums.rename_columns(table.column_names).combine_chunks()


def _add(left: pa.Table, right: pa.Table) -> pa.Table:
    return _summed(pa.concat_tables([left, right])).slice(0, MAX_GROUPS + 1)


@dataclass(frozen=True)
class CutChoice(Choice):
    """Takes rows in the order of their keys."""

    cut: Cut

    @abstractmethod
    def keys(self, rows: RowsLeft) -> Keys:
        """Return the keys that order rows."""

    def draws(self, rows: RowsLeft) -> F64:
        """Return each row's key divided by that of its group's first row that is not taken: below 1 if it is taken."""
        keys = self.keys(rows)
        ends = np.where(self.cut.is_cut, np.maximum(1.0, self.cut.last[:, 0].astype(np.float64)), 2.0**64)
        return self.cut.draws(keys, keys.values[:, 0] / np.maximum(1.0, self.cut.of_rows(ends, keys.groups)))

    def expected(self, inclusion: Sequence[F64]) -> tuple[float, float]:
        return float(self.cut.taken.sum()), 0.0


def random_keys(uids: pa.Array, seed: int, groups: I64) -> Keys:
    """Return keys that order rows by a hash of the uid (32 hex digits) and seed, and by the uid's halves."""
    return Keys(np.stack([ids.hash_uids(uids, seed), *ids.uid_halves(uids)], axis=1), groups)


@dataclass(frozen=True)
class GroupsChoice(CutChoice):
    """Takes rows of each group."""

    groups: ColumnGroups
    keep: Keep = "random"

    def keys(self, rows: RowsLeft) -> Keys:
        """Return a hash of uid and seed for each row, or the groups' other column followed by that hash."""
        numbers = self.groups.numbers(rows)  # opens a table that also has the uids
        keys = random_keys(rows.uids, rows.seed, numbers)
        if self.groups.measure is None or self.keep == "random":
            return keys
        hashes, _, low = keys.values.T
        values = np.where(numbers >= 0, read_numbers(rows, self.groups.measure), 0)
        order = (np.minimum(1.0, values / (self.groups.largest or 1.0)) * 2.0**63).astype(np.uint64)
        order = np.uint64(1 << 63) - order if self.keep == "farthest" else order
        return Keys(np.stack([order, hashes, low], axis=1), numbers)

    @property
    def is_random(self) -> bool:
        return self.keep == "random"

    def inclusion(self, rows: RowsLeft) -> F64:
        """Return the fraction of the group that is taken; or 1 or 0 for each row if the order is not random."""
        if not self.is_random:
            return (self.draws(rows) < 1).astype(np.float64)
        return self.cut.of_rows(self.cut.shares, self.groups.numbers(rows))


def check_groups(key: str, name: str, columns: pa.Schema) -> None:
    """Check that a column can define groups. Raises RecipeError, which names the recipe's `key`."""
    kind = find_field(key, name, columns).type
    is_name = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind)
    if not (is_name or pa.types.is_integer(kind)):
        raise RecipeError(f"{key}: column {name!r} is {kind}; accepted: integers, text, or booleans")


def check_numbers(key: str, name: str, columns: pa.Schema) -> None:
    """Check that a column is numeric. Raises RecipeError, which names the recipe's `key`."""
    kind = find_field(key, name, columns).type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise RecipeError(f"{key}: column {name!r} is {kind}; accepted: numbers")


def find_field(key: str, name: str, columns: pa.Schema) -> pa.Field:
    """Return a column that rules see. Raises UnknownColumn, which names the recipe's `key`."""
    if name not in columns.names:
        hint = did_you_mean(name, columns.names)
        raise UnknownColumn(f"{key}: no column {name!r}; {hint}columns: {', '.join(columns.names)}", name)
    return columns.field(name)
