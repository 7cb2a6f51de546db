"""What units report, combined two at a time, so that a worker holds one result and not the units' parts."""

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

import apache_beam as beam


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
        return reduce(self.add_input, (part for part in accumulators if part is not None), None)

    def extract_output(self, accumulator: Any) -> Any:
        """Return the result."""
        return accumulator


def fold_all(function: Callable[[Any, Any], Any]) -> beam.CombineGlobally:
    """Combine what all units report, of which there is at least one: a default for none would cost a stage."""
    return beam.CombineGlobally(Fold(function)).without_defaults()
