"""Exact sums against fractions, numpy, and themselves in other orders and parts."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.decide.statistics.statistic import ExactSums

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=64)


@given(st.lists(NUMBERS, min_size=1, max_size=40), st.integers(0, 40), st.randoms())
def test_any_numbers_in_any_order_and_parts(values, at, random):
    whole = ExactSums.of(np.array(values))
    mixed = list(values)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert ExactSums.of(np.array(mixed[:at])) + ExactSums.of(np.array(mixed[at:])) == whole
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact)
    assert whole.mean == float(mean)
    variance = sum((value - mean) ** 2 for value in exact) / len(exact)
    if 1e-300 < variance < 1e300:
        assert whole.standard_deviation == pytest.approx(float(variance) ** 0.5, rel=1e-15)


def test_values_without_any_spread():
    assert ExactSums.of(np.full(1000, 0.1)).standard_deviation == 0 and ExactSums.of(np.zeros(3)).mean == 0
    assert ExactSums.of(np.zeros(0)) == ExactSums() + ExactSums()
