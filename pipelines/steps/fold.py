"""What units report, combined as it comes, so that a worker holds one result and not the units' parts."""

import operator
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

import apache_beam as beam

from curate.base.numeric.arrays import I64
from curate.decide.draw.balance import EntryVector, SparseSums
from curate.decide.settings import DecideSettings
from pipelines.steps.functions import Map


class Fold(beam.CombineFn):
    """Combine by an associative function of two; None over nothing. Sums that decide are of integers, so exact."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self._function = function

    def create_accumulator(self) -> None:
        """Return nothing yet."""

    def add_input(self, accumulator: Any, element: Any) -> Any:
        """Combine an element with what there is."""
        return element if accumulator is None else self._function(accumulator, element)

    def merge_accumulators(self, accumulators: Iterable[Any]) -> Any:
        """Combine those that hold something."""
        parts = [part for part in accumulators if part is not None]
        return reduce(self._function, parts) if parts else None

    def extract_output(self, accumulator: Any) -> Any:
        """Return the result."""
        return accumulator


class Total(beam.CombineFn):
    """Combine into an object of a class, which has `add`, for an element, and `merge`, for another total."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.create_accumulator = make

    def add_input(self, accumulator: Any, element: Any) -> Any:
        """Add an element."""
        accumulator.add(element)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Any]) -> Any:
        """Add up totals."""
        total = self.create_accumulator()
        for accumulator in accumulators:
            total.merge(accumulator)
        return total

    def extract_output(self, accumulator: Any) -> Any:
        """Return the total."""
        return accumulator


class _AddEntries(Fold):
    """Add up sums by entry: sparse ones of units to a vector of all entries."""

    def __init__(self, settings: DecideSettings) -> None:
        super().__init__(operator.add)
        self._settings = settings

    def add_input(self, accumulator: I64 | None, element: SparseSums) -> I64:
        """Add a unit's."""
        if accumulator is None:
            return element.dense(len(self._settings.entries.table)).view(EntryVector)
        accumulator[..., element.entries] += element.values
        return accumulator

    def extract_output(self, accumulator: I64) -> I64:
        """Return the sums."""
        return accumulator.view(EntryVector)


class _All(beam.PTransform):
    """Combine all elements; nothing where there are none: a default would cost a stage. As Beam's own, of steps that start faster."""

    def __init__(self, function: beam.CombineFn) -> None:
        super().__init__()
        self._function = function

    def expand(self, elements: beam.PCollection[Any]) -> beam.PCollection[Any]:
        keyed = elements | "Key" >> Map(_with_key).with_output_types(tuple[None, Any])
        return keyed | "Combine" >> beam.CombinePerKey(self._function) | "Value" >> Map(_value)


def _with_key(element: Any) -> tuple[None, Any]:
    return None, element


def _value(keyed: tuple[None, Any]) -> Any:
    return keyed[1]


def fold_all(function: Callable[[Any, Any], Any]) -> beam.PTransform:
    """Combine what all units report, of which there is at least one."""
    return _All(Fold(function))


def total_all(make: Callable[[], Any]) -> beam.PTransform:
    """Combine what all units report into an object that `make` makes, with `add` and `merge`."""
    return _All(Total(make))


def add_entries(settings: DecideSettings) -> beam.PTransform:
    """Add up SparseSums of all units to int64[entries], or [sums, entries] where there are several."""
    return _All(_AddEntries(settings))
