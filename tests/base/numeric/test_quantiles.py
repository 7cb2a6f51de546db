"""The threshold of a top rule, found by a radix search, against sorting, for every type, tie and split."""

import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.base.numeric.quantiles import RadixSearch, key_bits, order_keys, value_of
from curate.decide.rules.top import TopSearch, TopValues
from curate.recipe.deciding import Top

SPECIAL = [math.inf, -math.inf, 0.0, -0.0, 5e-324, -5e-324, 2.0**-149, 1.5, math.nextafter(1.5, 2), -1.0, 1.7e308]
FLOATS = st.sampled_from(SPECIAL) | st.floats(allow_nan=False) | st.integers(0, 4).map(float)


def integers(kind):
    low = 0 if str(kind).startswith("u") else -(1 << (kind.bit_width - 1))
    high = low + (1 << kind.bit_width) - 1
    return st.integers(low, high) | st.integers(high - 3, high) | st.integers(low, low + 3) | st.integers(0, 5)


TYPES = {
    pa.float64(): FLOATS,
    pa.float32(): st.floats(allow_nan=False, width=32) | st.sampled_from([-0.0, 1e-45, math.inf]),
    pa.float16(): st.floats(allow_nan=False, width=16),
    pa.bool_(): st.booleans(),
} | {
    kind: integers(kind) for kind in map(pa.type_for_alias, [f"{u}int{w}" for u in ("", "u") for w in (8, 16, 32, 64)])
}
COLUMNS = st.sampled_from(list(TYPES)).flatmap(
    lambda kind: st.lists(st.none() | TYPES[kind], max_size=40).map(lambda values: pa.array(values, kind))
)


def keyed(column):
    """Keys in as many bits as the column needs, as thresholds are searched with."""
    return order_keys(column, key_bits(column.type))


def values_of(column):
    return TopValues.of(*keyed(column), None)


def search(parts, fraction):
    state = TopSearch("best", Top(top=fraction, of="s"), parts[0].type)
    assert state.rounds == key_bits(parts[0].type) // 16
    for _ in range(state.rounds):
        counts = [state.count(values_of(part), np.ones(len(part), bool))[None] for part in parts]
        state = state.narrow({None: np.sum(counts, axis=0)})
    return state


def sign(a, b):
    return (a > b) - (a < b)


@given(COLUMNS)
@settings(max_examples=60)
def test_keys_order_as_values(column):
    keys, valid = keyed(column)
    assert keys.dtype == np.uint64 and (keys < 1 << key_bits(column.type)).all()
    in_64, _ = order_keys(column)
    # A null's key is 0, as the least number's may be.
    assert (np.argsort(in_64[valid], kind="stable") == np.argsort(keys[valid], kind="stable")).all()
    assert valid.tolist() == column.is_valid().to_pylist()
    numbers = [pair for pair in zip(keys.tolist(), column.to_pylist(), strict=True) if pair[1] is not None]
    for (key_a, a), (key_b, b) in itertools.product(numbers, repeat=2):
        assert sign(key_a, key_b) == sign(a, b)
    for key, number in numbers:
        assert value_of(key, column.type) == number
        assert type(value_of(key, column.type)) is type(number)


def test_keys_of_all_widths():
    for kind, top in ((pa.int64(), (1 << 63) - 1), (pa.uint64(), (1 << 64) - 1)):  # neighbors stay apart
        keys, valid = order_keys(pa.array([top - 1, None, top], kind))
        assert valid.tolist() == [True, False, True] and keys[2] - keys[0] == 1
    assert [key_bits(kind) for kind in (pa.float32(), pa.int32(), pa.bool_(), pa.uint8())] == [32] * 4
    assert [key_bits(kind) for kind in (pa.float64(), pa.int64(), pa.uint64())] == [64] * 3
    # parts may differ in width
    assert order_keys(pa.array([0.1], pa.float32()))[0][0] == order_keys(pa.array([float(np.float32(0.1))]))[0][0]
    assert order_keys(pa.array([-3], pa.int8()))[0][0] == order_keys(pa.array([-3], pa.int64()))[0][0]


def test_nan_is_no_value():
    column = pa.array([math.nan, 1.0, None, -math.nan, -math.inf])
    _, valid = order_keys(column)
    assert valid.tolist() == [False, True, False, False, True]
    found = search([column], 0.6)
    assert found.thresholds == {None: -math.inf}  # int(2 * 0.6) = 1: the second of two
    assert found.passing(values_of(column)).tolist() == valid.tolist()


@given(COLUMNS, st.floats(0, 1, exclude_min=True, exclude_max=True) | st.sampled_from([0.1, 0.3, 0.29, 0.5]), st.data())
@settings(max_examples=60)
def test_threshold_is_the_sorted_one(column, fraction, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(column)), max_size=4)))
    parts = [column[a:b] for a, b in itertools.pairwise([0, *cuts, len(column)])]
    found = search(parts, fraction)
    kept = found.passing(values_of(column))
    numbers = column.drop_null().to_numpy(zero_copy_only=False)
    if len(numbers) == 0:
        assert not found.thresholds and not kept.any()
        return
    expected = np.sort(numbers)[::-1][int(len(numbers) * fraction)]
    assert found.thresholds == {None: expected}
    assert kept.sum() == (numbers >= expected).sum() >= int(len(numbers) * fraction) + 1
    assert kept.tolist() == [x is not None and x >= expected for x in column.to_pylist()]


def test_ranks_are_truncated_float_products():
    """100 · 0.29 is 28.999… in floats, and DataComp truncates it. Without ties, int(n f) + 1 rows pass."""
    for size, fraction, rank in ((1, 0.999, 0), (2, 0.5, 1), (2, 0.49, 0), (100, 0.29, 28), (10, 0.3, 3)):
        assert search([pa.array(range(size))], fraction).thresholds == {None: size - 1 - rank}
    scores = np.random.default_rng(0).permutation(12_345).astype(np.float32)
    for fraction in (0.3, 0.2, 1e-9, 0.9999):
        parts = [pa.array(part) for part in np.array_split(scores, 7)]
        assert search(parts, fraction).passing(values_of(pa.array(scores))).sum() == int(12_345 * fraction) + 1


def test_wrong_use_is_refused():
    for column in (pa.array(["a"]), pa.nulls(2), pa.array([[1.0]])):
        with pytest.raises(TypeError, match="accepted: floating, integer and boolean"):
            order_keys(column)
    keys, _ = order_keys(pa.array([1.0, 2.0, 3.0]))
    state = RadixSearch(np.array([1]))
    state = state.narrow(state.count(keys, np.zeros(3, np.int64)))
    with pytest.raises(ValueError, match="the data changed"):
        state.narrow(np.zeros(1 << 16, np.int64))
