"""The interface of selections: the last choice among the rows that remain after rules and deduplication.

A selection asks all units what it needs (`choose`), and returns a `Choice` for every unit: the probability of each
remaining row, and its draw. Draws are hashes of uid and seed, so they do not depend on sharding, order, workers or
retries. Explain, card, report, summaries and what-if use its `words`, so formulas are only stated here.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids, schema
from curate.base.errors import RunError
from curate.base.ids import hash_uids
from curate.base.numeric.arrays import F64, I32, I64, U64, Mask, whole
from curate.base.process import in_threads
from curate.decide.draw.inclusion import ONE, fixed_point
from curate.match.unit import Entries, MatchSettings, load_entries, read_matches
from curate.recipe.section import Section
from curate.run.units import Answer, Units
from curate.store.facts import RunFacts, SelectionWords
from curate.store.store import RunStore
from curate.store.tables import UnitTables

V = TypeVar("V")


@dataclass(frozen=True)
class RowsLeft:
    """The eligible rows of a unit, with the columns that a choice may read."""

    tables: UnitTables  # the unit's tables, with all its rows
    source: str  # the name of the unit's source
    seed: int  # of draws
    eligible: Mask  # bool[rows], the eligible rows of the unit
    entries: Entries | None  # of the metadata; None without `match`
    columns: Callable[[list[str]], pa.Table]  # names of columns that rules see → table of all rows
    one_caption_per: str | None = None  # the column of images (`balance.one_per`)
    texts: F64 | None = None  # number of remaining rows with each row's image (float64[rows]); one of them may be drawn
    find_matches: Callable[["RowsLeft"], pa.ListArray] | None = None  # if entries are not the metadata's

    def __len__(self) -> int:
        return int(self.eligible.sum())

    def with_values(self, groups: Any) -> Self:
        """Return these rows with the values of ColumnGroups as entries, or unchanged without groups."""
        return self if groups is None else replace(self, entries=groups.entries, find_matches=groups.matches)

    def _left(self, values: Any) -> Any:
        return values if self.eligible.all() else values.filter(pa.array(self.eligible))

    def read(self, names: list[str]) -> pa.Table:
        table: pa.Table = self._left(self.columns(names))
        return table

    @cached_property
    def uids(self) -> pa.Array:
        """Each row's uid (string of 32 hex digits)."""
        return whole(self._left(self.tables.read_uids()))

    @cached_property
    def matches(self) -> pa.ListArray:
        """The ids of the entries in each caption (list<int32>)."""
        if self.find_matches:
            return self.find_matches(self)
        matches: pa.ListArray = self._left(read_matches(self.tables))
        return matches

    @cached_property
    def shared_images(self) -> tuple[Mask, U64]:
        """The rows that share their image with others, and hashes of these images (uint64)."""
        assert self.one_caption_per is not None and self.texts is not None
        is_shared = self.texts > 1
        column = self._left(self.tables.read("samples", [self.one_caption_per])[self.one_caption_per])
        return is_shared, ids.entry_keys(whole(column.filter(pa.array(is_shared))))

    @cached_property
    def earlier(self) -> F64 | None:
        """The probability with which an earlier stage kept each row (float64, NaN without one); None: none has one."""
        name = schema.INPUT_PROBABILITY
        if not self.tables.exists("scores") or name not in self.tables.column_names("scores"):
            return None
        column = pc.cast(self._left(self.tables.read("scores", [name])[name]), pa.float64())
        return np.asarray(column.to_numpy(), np.float64)


def texts_error(rows: Sequence[RowsLeft], inclusion: Sequence[F64]) -> float:
    """Return the standard error of the number of drawn rows, if at most one text per image is drawn, from their π."""
    shared = [part.shared_images for part in rows]
    alone = [pi[~is_shared] for pi, (is_shared, _) in zip(inclusion, shared, strict=True)]
    images = np.concatenate([np.zeros(0, np.uint64), *(images for _, images in shared)])
    of_texts = [pi[is_shared] for pi, (is_shared, _) in zip(inclusion, shared, strict=True)]
    sums = np.bincount(np.unique(images, return_inverse=True)[1], np.concatenate([np.zeros(0), *of_texts]))
    return float(np.sqrt(sum(float((pi * (1 - pi)).sum()) for pi in [*alone, np.minimum(sums, 1)])))


FindRows = Callable[[UnitTables, Any], RowsLeft]
"""Takes a unit's tables and state, and returns its remaining rows."""


@dataclass(frozen=True)
class SelectionRun:
    """The parts of a run that a selection may use."""

    seed: int  # of draws
    matching: MatchSettings | None  # for the metadata's entries; None without `match`
    place: str  # the run folder, for messages; empty in what-if
    rows_left: FindRows
    columns: pa.Schema  # the columns that rules see
    store: RunStore  # the run folder
    fraction: float = 1.0  # of the pool's rows in these units: less than 1 for an estimate from a part
    groups: Any = None  # the ColumnGroups that are the entries; None: metadata entries

    @property
    def metadata_key(self) -> str:
        return self.matching.metadata_key if self.matching else ""

    @property
    def entries(self) -> Entries:
        entries: Entries = self.groups.entries if self.groups is not None else load_entries(required(self.matching))
        return entries


class Choice(ABC):
    """The choice for the whole pool. It is sent to each unit, so it must be small, without values for each row."""

    is_uniform: ClassVar[bool] = False
    """Whether each row left has the same probability, and the number of rows is exact."""

    @property
    def is_random(self) -> bool:
        """Whether it is random. Otherwise `inclusion` is 1 for kept and 0 for other rows, and not a probability."""
        return True

    @abstractmethod
    def inclusion(self, rows: RowsLeft) -> F64:
        """Return the probability π that each row is kept (float64[n])."""

    def draws(self, rows: RowsLeft) -> F64:
        """Return the draw of each row (float64[n]), below 1 if it is kept; by default u/π, with u a hash in [0, 1)."""
        pi = self.inclusion(rows)
        units = (hash_uids(rows.uids, rows.seed) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return np.asarray(np.divide(units, pi, out=np.full(len(pi), np.inf), where=pi > 0), np.float64)

    def repeats(self, draws: F64) -> I32 | None:
        """Return how often rows with these draws are in the curated set (int32[n]); None: once if kept."""
        return None

    def expected(self, inclusion: Sequence[F64]) -> tuple[float, float]:
        """Return the expected number of rows from the π of all units, and the standard error of the drawn number."""
        rows = sum(int(fixed_point(pi).sum()) for pi in inclusion) / ONE
        return rows, float(np.sqrt(sum(float((pi * (1 - pi)).sum()) for pi in inclusion)))

    def entry_probabilities(self) -> F64 | None:
        """Return the probability with which each entry draws its rows (float64[entries]); None if they do not draw."""
        return None

    @property
    def values(self) -> Mapping[str, Any]:
        """Numbers for run.json, by name, such as `t`, `expected` and `expected_above` of balance."""
        return {}

    @property
    def label(self) -> str:
        """A short label, such as t = 20,000; may be empty."""
        return ""

    def say(self, section: Any, fraction: float) -> str:
        """Return the label for a choice that was made on a part (`fraction`) of the pool."""
        return self.label

    def shortfall(self, section: Any) -> str:
        """Return a warning if the choice misses what the section asks for, with what is reachable; otherwise empty."""
        return ""

    def shares(self, survivors: I64, kept: I64 | F64) -> Mapping[str, float | None]:
        """Return numbers for `whatif`, by name, from the remaining and kept rows that match each entry."""
        return {}


class Outcome(NamedTuple):
    """The outcome of a choice in a finished run."""

    section: Any  # its section in the recipe
    choice: Any  # the choice for all units
    seed: int  # of draws
    kept: int  # rows
    dropped: int  # rows
    entries: pa.Table  # entries.parquet, empty without `match`


class Selection(ABC):
    """A selection; it has no state."""

    key: ClassVar[str]  # its section in a recipe, and the rule of rows that it drops in `decisions.rule`
    section: ClassVar[type[Section]]  # its class; the reference is made from its docstring and fields
    meaning: ClassVar[str]  # why rows are dropped
    needs_match: ClassVar[bool] = False  # whether it needs entries
    # The section's dotted keys with numbers of rows, the size first: `plan` scales them, `whatif` sweeps them.
    sizes_of: ClassVar[tuple[str, ...]] = ()
    has_repeats: ClassVar[bool] = False  # whether a row may be in the curated set several times

    @property
    def forms(self) -> Mapping[str, "Selection"]:
        """Other forms, by the section's key that selects them."""
        return {}

    @abstractmethod
    def words(self, outcome: Outcome) -> SelectionWords:
        """Return its texts for readers, see `SelectionWords`."""

    @abstractmethod
    def choose(self, units: Units, section: Any, run: SelectionRun, counts: Answer[I64] | None) -> Answer[Any]:
        """Ask all units for what is needed, and return a Choice.

        `counts` (int64[entries]) are the remaining rows that match each entry; None without `match`. A step raises
        RunError if the recipe asks for something impossible.
        """

    def form(self, section: Any) -> "Selection":
        """Return the selection for a section, if it has several forms."""
        return self

    def sizes_in(self, section: Any) -> dict[str, int]:
        """Return the numbers of rows in a section of this form, by key."""
        sizes = {name: attrgetter(name)(section) for name in self.sizes_of}
        return {name: rows for name, rows in sizes.items() if rows is not None}

    def columns(self, section: Any) -> Sequence[str]:
        """Return the columns that the section names besides those in its SQL, so that the pool is read with them."""
        return ()

    def check(self, section: Any, columns: pa.Schema, recipe: Any) -> None:
        """Check the section against the columns that rules see, and the recipe. Raises RecipeError."""
        return None

    def check_entries(self, section: Any, entries: Entries) -> None:
        """Check the section against the metadata's entries. Raises RecipeError."""
        return None

    def files_key(self, section: Any, metadata_key: str) -> str:
        """Return a digest of the files that the section names; empty without files. Raises RecipeError."""
        return ""

    def recorded(self, section: Any, facts: RunFacts, run: SelectionRun, counts: I64) -> Choice | None:
        """Return the choice of a finished run, from its remaining `counts`, for `Choice.shares`; None if not needed."""
        return None

    def sizes(self, choices: Sequence[Any], rows: Sequence[RowsLeft]) -> list[tuple[float, float]]:
        """Return `Choice.expected` for several choices among the same rows; override it with a single pass."""
        return [choice.expected(list(in_threads(choice.inclusion, rows))) for choice in choices]


class SampleForm(NamedTuple):
    """A form of section `sample`: its `key` selects it, and has the form's own section."""

    key: str
    section: type[Section]
    selection: Selection


def required(value: V | None) -> V:
    """Return a value that must not be None, such as a form's own section."""
    assert value is not None
    return value


class OutOfReach(RunError):
    """A selection cannot reach its target; `choice` comes nearest."""

    def __init__(self, message: str, choice: Choice, nearest: str) -> None:
        super().__init__(message)
        self.choice, self.nearest = choice, nearest  # as text: t = 1, the smallest
