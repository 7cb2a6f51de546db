"""Logarithm and exponential against numpy's."""

import numpy as np

from curate.base.numeric.elementary import exp, exponentials, log, one_minus_exp, unit


def test_they_are_numpys_to_the_last_digits():
    rng = np.random.default_rng(0)
    wide = np.exp(rng.uniform(-700, 700, 20_000))
    near_one = 1 - 10 ** -rng.uniform(0.5, 15, 20_000)
    for values in (wide, near_one):
        np.testing.assert_allclose([log(x) for x in values], np.log(values), rtol=1e-15)
    powers = rng.uniform(-690, 690, 20_000)
    np.testing.assert_allclose([exp(x) for x in powers], np.exp(powers), rtol=1e-15)
    assert exp(-800.0) == 0 and exp(800.0) == np.inf and exp(0.0) == 1 and log(1.0) == 0
    small = 10 ** rng.uniform(-20, 2.8, 20_000)
    np.testing.assert_allclose(one_minus_exp(small), -np.expm1(-small), rtol=1e-15)


def test_random_bits_are_numbers_between_0_and_1():
    ends = np.array([0, 2**64 - 1], np.uint64)
    assert [unit(bits) for bits in ends] == [2.0**-53, 1 - 2.0**-53]
    rng = np.random.default_rng(1)
    values = exponentials(rng.integers(0, 2**64, 100_000, np.uint64))
    assert abs(values.mean() - 1) < 4 / np.sqrt(len(values)) and values.min() > 0
    assert exponentials(ends).min() > 0
