"""Cells of embeddings against centroids chosen in integers, row by row."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.base.numeric import spherical
from curate.decide.dedup import cells
from tests.decide.dedup.naive import injected


def test_cells_are_the_nearest_centroids_in_exact_arithmetic():
    vectors = injected(300, 40, 3)
    vectors[::50] = np.nan
    centroids = cells.train(vectors[cells.usable(vectors)], 32)
    assert centroids.shape == (32, 40) and (centroids == np.rint(centroids)).all()
    centroids[10:30] = np.tile(centroids[:10], (2, 1))  # of equally near ones the first come first
    cell_of = cells.visits(vectors, centroids)
    for row, got in zip(vectors.astype(np.float64), cell_of, strict=True):
        if np.isnan(row).any():
            assert (got == -1).all()
            continue
        point = np.rint(row / math.sqrt(math.fsum(row * row)) * math.floor(4095 - math.sqrt(40) / 2))
        scores = centroids.astype(np.int64) @ point.astype(np.int64)
        assert got.tolist() == np.argsort(-scores, kind="stable")[:8].tolist()


@pytest.mark.parametrize("dimensions", [1, 2, 64, 512, 1024, 4096])
def test_products_of_rounded_rows_are_exact(dimensions):
    """The longest rows that rounding can make: every partial sum must fit into the 24 bits of a float32."""
    rng = np.random.default_rng(dimensions)
    rows = np.concatenate([rng.normal(size=(20, dimensions)), np.ones((1, dimensions)), np.eye(1, dimensions)])
    points = spherical.rounded(rows.astype(np.float32))
    assert (points.astype(np.int64) ** 2).sum(axis=1).max() < 1 << 24
    for block in (slice(0, 1), slice(None)):
        assert ((points[block] @ points.T) == points[block].astype(np.int64) @ points.astype(np.int64).T).all()


def test_centroids_do_not_depend_on_the_order_of_the_sample():
    vectors = injected(500, 12, 1)
    expected = cells.train(vectors, 16)
    order = np.random.default_rng(1).permutation(500)
    assert (cells.train(np.concatenate([vectors[order], vectors[:9]]), 16) == expected).all()
    assert cells.train(vectors[:0], 16).shape == cells.train(vectors, 1).shape == (1, 12)
    assert cells.train(np.repeat(vectors[:3], 9, axis=0), 16).shape == (3, 12)
    one_direction = np.array([[1, 0], [2, 0], [4, 0]], np.float16)
    assert (cells.train(one_direction, 2) == [4094, 0]).all()  # an empty cell keeps its centroid


def test_samples_are_of_content():
    vectors = np.random.default_rng(0).normal(size=(5000, 8)).astype(np.float16)
    chosen = cells.sample_rows(vectors, 5000, 16)
    assert 400 < len(chosen) < 600 and (np.diff(chosen) > 0).all()
    order = np.random.default_rng(1).permutation(5000)
    parts = [part[cells.sample_rows(vectors[part], 5000, 16)] for part in np.array_split(order, 7)]
    assert sorted(np.concatenate(parts)) == chosen.tolist()
    assert len(cells.sample_rows(np.repeat(vectors[:1], 100, axis=0), 100, 100)) == 1
    assert len(cells.sample_rows(vectors[:0], 0, 100)) == 0


def test_small_pools_are_one_cell():
    assert [cells.cell_count(n) for n in (0, 1, 32_768)] == [1, 1, 1]
    counts = [cells.cell_count(n) for n in (32_769, 200_000, 10**7, 10**10)]
    assert counts == sorted(counts) == [512, 1024, 8192, 16384]


@given(
    st.integers(1, 4).flatmap(
        lambda visited: st.lists(st.permutations(range(6)).map(lambda p: p[:visited]), max_size=30)
    ),
    st.sets(st.integers(0, 29)),
)
def test_cell_rows_by_definition(rows, unusable):
    """A cell has its own rows in ascending order, and then its visitors; a row without a direction is in no cell."""
    cells_of_rows = [[-1] * len(row) if i in unusable else row for i, row in enumerate(rows)]
    expected = []
    for cell in range(6):
        home = [i for i, row in enumerate(cells_of_rows) if row[0] == cell]
        visitors = [i for i, row in enumerate(cells_of_rows) if cell in row[1:]]
        if home or visitors:
            expected.append((cell, home + visitors, len(home)))
    cell_of = np.array(cells_of_rows, np.int16).reshape(len(rows), -1 if rows else 1)
    assert [(cell, ids.tolist(), at_home) for cell, ids, at_home in cells.cell_rows(cell_of)] == expected


def test_only_the_rows_asked_for_are_sent_to_cells():
    vectors = injected(50, 8, 0)
    centroids = cells.train(vectors, 4)
    everywhere = cells.visits(vectors, centroids)
    assert everywhere.shape == (50, 4) and (np.sort(everywhere, axis=1) == range(4)).all()  # each cell once
    among = np.arange(50) % 3 == 0
    assert (cells.visits(vectors, centroids, among) == np.where(among[:, None], everywhere, -1)).all()


def test_rows_that_are_too_short_or_too_long_are_not_usable():
    """A row has no direction if its squared length overflows or vanishes in float32."""
    lengths = np.array([0, 1e-38, 1e-16, 1e-14, 1, 1e14, 1e16, 3e38, np.inf, -np.inf, np.nan], np.float32)
    assert cells.usable(np.stack([np.zeros(11, np.float32), lengths], axis=1)).tolist() == [
        *[False] * 3, *[True] * 3, *[False] * 5,
    ]  # fmt: skip
    assert cells.usable(np.zeros((0, 4), np.float16)).shape == (0,)
