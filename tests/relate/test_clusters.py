"""Clusters are trained on at most 256 rows for each centroid, chosen by hash, or on a share of them for part of a pool."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.base import process as base_process
from curate.relate.clusters import ClustersRelation, Training, _move, add_sums, count_alike, training_cut
from curate.relate.relation import Reading, _put_together
from curate.run.units import Fold
from curate.store.store import RunStore


@given(st.integers(1, 3000), st.integers(1, 400), st.integers(0, 2**32))
def test_at_most_256_rows_a_centroid_are_trained_on(clusters, times, seed):
    """And on nearly as many, or on all rows of a smaller pool."""
    total = clusters * times
    hashes = np.random.default_rng(seed).integers(0, 2**64, min(total, 200_000), np.uint64)
    share = (hashes < training_cut(total, clusters)).mean()
    if total <= 256 * clusters:
        assert share == 1
    else:
        wanted = int(training_cut(total, clusters)) / 2**64 * total
        assert wanted + 3.9 * wanted**0.5 <= max(256, 256 * clusters) and wanted >= 0.74 * 256 * clusters
        assert abs(share - wanted / total) <= 5 * (wanted / total / len(hashes)) ** 0.5


@pytest.mark.parametrize("share", [0.5, 0.01, 1e-6])
def test_of_a_part_of_the_pool_that_part_is_trained_on(share):
    clusters, total = 1000, 100_000_000
    whole = int(training_cut(total, clusters)) / 2**64
    part = int(training_cut(round(total * share), clusters, share)) / 2**64
    assert part == pytest.approx(whole, rel=0.1) or part == pytest.approx(min(1, clusters / (total * share)))


def test_sums_of_small_integers_do_not_overflow():
    combine = Fold(add_sums)
    accumulator = combine.create()
    for _ in range(3):
        accumulator = combine.add(accumulator, {4: np.full(2, 32_767, np.int16)})
    whole = combine.merge([accumulator, combine.add(combine.create(), {4: np.full(2, -3, np.int8)})])
    assert whole[4].tolist() == [3 * 32_767 - 3] * 2


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=40))
def test_rows_that_are_alike_are_gathered_once_and_counted(rows):
    """Rows with one uid and different embeddings are different rows."""
    hashes = np.array([row[0] for row in rows], np.uint64)
    images = np.array([[0.5, row[1]] for row in rows], np.float16).reshape(-1, 2)
    counted = count_alike(hashes, images)
    assert Counter({(int(row["hash"]), int(row["image"][1])): int(row["times"]) for row in counted}) == Counter(rows)
    assert len(counted) == len(set(rows))


def test_a_second_attempt_at_a_step_changes_nothing(tmp_path):
    """Either the first attempt's result was lost after it wrote its file, or a late attempt has its rows in another order."""
    reading = Reading(RunStore(str(tmp_path)), ClustersRelation(), "topic", "l14_", 0)
    begun = Training(reading.save(centroids=np.eye(2, 4, dtype=np.float32) * 100))
    sums = {0: np.array([9.0, 9, 0, 0])}

    def move():
        base_process._shared._kept.clear()  # as in another process
        moved = _move(reading, begun, sums)
        assert moved
        return moved.is_done, moved.model.load()["centroids"].tolist()

    assert move() == move() and not move()[0]
    rows = [np.full((3, 2), number, np.float16) for number in range(2)]
    [first], [late] = _put_together(7, rows, reading), _put_together(7, rows[::-1], reading)
    assert np.array_equal(np.load(tmp_path / first.value), np.concatenate(rows))
    assert np.array_equal(np.load(tmp_path / late.value), np.concatenate(rows[::-1]))
