"""Groups of perceptual hashes within a Hamming distance equal those of all pairs compared bit by bit."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.decide.dedup import hamming
from curate.decide.dedup.groups import Groups
from curate.decide.dedup.passes import dedup_pass
from tests.decide.dedup.naive import FULL, assert_forest, groups_of, hamming_groups, naive_groups


def naive_close(hashes, distance):
    return [(a, b) for a, b in itertools.combinations(map(int, hashes), 2) if 0 < (a ^ b).bit_count() <= distance]


@st.composite
def hash_pools(draw):
    """A few centers, and hashes that differ from them in some bits, so that chains and distances around k are common."""
    centers = draw(st.lists(st.integers(0, FULL) | st.sampled_from([0, FULL]), min_size=1, max_size=4))
    flips = st.lists(st.integers(0, 63), max_size=12).map(lambda bits: sum(1 << bit for bit in set(bits)))
    return draw(st.lists(st.builds(lambda c, f: c ^ f, st.sampled_from(centers), flips), max_size=25))


ROWS = st.sampled_from([1, 300, 3_000, 10**6, 10**9])  # bands for so many: other schemes, the same result


@pytest.mark.thorough
@given(hash_pools(), st.integers(0, 16), ROWS, st.sampled_from([1 << 20, 4]))
@settings(max_examples=60)
def test_all_close_hashes_are_found(pool, distance, rows, bucket):
    hashes = np.array(pool, np.uint64)
    masks = hamming.bands(distance, rows)
    parts = [hamming.edges_in_bucket(hashes, mask, distance) for mask in masks]
    for part in parts:
        assert_forest(part)
        assert all(0 < (int(a) ^ int(b)).bit_count() <= distance for a, b in part)
    expected = naive_groups(hashes, naive_close(set(pool), distance))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dedup_pass, "_BUCKET", bucket)
        assert groups_of(Groups.join(map(Groups.of, parts))) == groups_of(hamming_groups(hashes, distance)) == expected


@pytest.mark.thorough
@given(hash_pools(), st.integers(1, 10), st.integers(1, 5), st.integers(1, 7), st.randoms(use_true_random=False))
def test_units_buckets_and_order_change_nothing(pool, distance, n_units, n_buckets, rng):
    shuffled = np.array(rng.sample(pool, len(pool)), np.uint64)
    masks = hamming.bands(distance, 10**6)
    buckets = {}
    for unit in np.array_split(shuffled, n_units):
        for key, hashes in hamming.split_bands(unit, masks, n_buckets):
            assert 0 <= key[1] < n_buckets
            buckets.setdefault(key, []).append(hashes)
    found = [hamming.edges_in_bucket(np.concatenate(h), masks[band], distance) for (band, _), h in buckets.items()]
    rng.shuffle(found)
    assert groups_of(Groups.join(map(Groups.of, found))) == groups_of(
        hamming_groups(np.array(pool, np.uint64), distance)
    )


@pytest.mark.parametrize("rows", [1, 10**3, 10**6, 10**9])
def test_bands_are_complete_and_affordable(rows):
    """For any k bits that differ, a band leaves them out."""
    for distance in (0, 1, 2, 3, 5, 8, 12, 16, 40, 63):
        masks, rng = [int(mask) for mask in hamming.bands(distance, rows)], random.Random(rows + distance)
        for _ in range(100):
            differ = sum(1 << bit for bit in rng.sample(range(64), distance))
            assert any(mask & differ == 0 for mask in masks)
        assert len(set(masks)) == len(masks) <= 500


def test_hashes_that_are_all_alike():
    """One hash many times, as of blank images; hashes within k of each other; and a chain whose ends are not close."""
    assert len(hamming_groups(np.full(100_000, 7, np.uint64), 4).nodes) == 0
    ball = np.array([sum(1 << b for b in c) for n in range(4) for c in itertools.combinations(range(64), n)], np.uint64)
    groups = hamming_groups(np.repeat(ball, 2), 6)
    assert groups_of(groups) == {frozenset(ball.tolist())}
    assert len(groups.edges) == len(ball) - 1
    chain = np.array([(1 << i) - 1 for i in range(65)], np.uint64)
    assert groups_of(hamming_groups(chain[::-1], 1)) == {frozenset(chain.tolist())}
    assert len(hamming_groups(chain, 0).nodes) == 0


@pytest.mark.parametrize("hashes", [[], [5], [0, FULL]])
def test_few_hashes(hashes):
    hashes = np.array(hashes, np.uint64)
    assert hamming_groups(hashes, 8).nodes.shape == (0,)
    assert hamming.nearest(hashes, np.zeros(0, np.uint64), 8).tolist() == [-1] * len(hashes)
    assert hamming.nearest(np.zeros(0, np.uint64), hashes, 8).tolist() == []


@pytest.mark.thorough
@given(hash_pools(), hash_pools(), st.integers(0, 16), st.sampled_from([0.0, 60.0]))
@example([0b111, 1, 0], [0b110, 0b11, 0b11, FULL], 2, 60.0)
@settings(max_examples=60)
def test_nearest_hash(pool, evaluation, distance, sort_cost):
    evaluation = [*evaluation, *[hash_ ^ 1 for hash_ in pool[:3]]]

    def naive(hash_):
        near_ones = [(d, i) for i, e in enumerate(evaluation) if (d := (hash_ ^ e).bit_count()) <= distance]
        return min(near_ones)[1] if near_ones else -1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hamming, "_SORT", sort_cost)  # where sorting costs nothing, many bands
        got = hamming.nearest(np.array(pool, np.uint64), np.array(evaluation, np.uint64), distance)
    assert got.tolist() == [naive(hash_) for hash_ in pool]
