"""Products reduced to one number per row by numpy and torch, compared with their definitions in float64."""

import numpy as np
import pytest

from curate.base.numeric.vectors import normalized
from curate.models.products import Products, TorchProducts

RNG = np.random.default_rng(0)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_both_are_their_definition(kind):
    rows, others = RNG.normal(size=(200, 24)).astype(np.float32), RNG.normal(size=(24, 9000)).astype(np.float32)
    made = Products(others) if kind == "numpy" else TorchProducts(others, 1.0, "cpu")
    exact = rows.astype(np.float64) @ others.astype(np.float64)
    assert np.abs(made.largest(rows) - np.abs(exact).max(axis=1)).max() < 1e-5
    logit, place = RNG.normal(size=200) * 10, np.where(RNG.random(200) < 0.5, RNG.integers(0, 9000, 200), -1)
    for row in range(200):
        if place[row] >= 0:
            exact[row, place[row]] = logit[row]
    beside = np.where(place < 0, np.exp(logit), 0)
    assert np.abs(made.log_sums(rows, logit, place) - np.log(np.exp(exact).sum(axis=1) + beside)).max() < 1e-5


def test_a_rows_number_does_not_depend_on_its_position():
    """A library may sum the first rows of a block in a different order than the last rows."""
    rows, others = (normalized(RNG.normal(size=(n, 24)).astype(np.float32)) for n in (64, 900))
    logit, column = RNG.normal(size=64), np.full(64, -1)
    made = Products(others.T, 100.0)
    for shift in (1, 5, 12, 40):
        moved = np.roll(rows, shift, axis=0)
        assert (np.roll(made.largest(moved), -shift) == made.largest(rows)).all()
        sums = made.log_sums(moved, np.roll(logit, shift), column)
        assert (np.roll(sums, -shift) == made.log_sums(rows, logit, column)).all()
