"""Sums of integer vectors over units: what decides, decides on exact sums, whatever the order they are added in."""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[Any]


class VectorSum(beam.CombineFn):
    """Add arrays of one shape and an integer type; a worker holds one sum, not the units' vectors."""

    def create_accumulator(self) -> Vector | None:
        """Return nothing yet: the shape comes with the first vector."""
        return None

    def add_input(self, accumulator: Vector | None, element: Vector) -> Vector:
        """Add in place, into a copy of the first."""
        if accumulator is None:
            return np.array(element)
        accumulator += element
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Vector | None]) -> Vector | None:
        """Return the sum of all parts."""
        total = None
        for part in accumulators:
            if part is not None:
                total = self.add_input(total, part)
        return total

    def extract_output(self, accumulator: Vector | None) -> Vector | None:
        """Return the sum; None over nothing."""
        return accumulator
