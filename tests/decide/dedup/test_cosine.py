"""Groups of close embeddings equal those of all pairs compared in float64, in one cell and in many."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.base.numeric import spherical
from curate.decide.dedup import cells, cosine
from curate.decide.dedup.groups import Groups
from tests.decide.dedup.naive import cosine_groups, groups_of, ids, injected, naive_cosine, naive_groups, naive_near


@pytest.fixture
def small_cells(monkeypatch):
    monkeypatch.setattr(cells, "WHOLE", 0)


@given(st.integers(0, 40), st.sampled_from([1, 2, 8, 33]), st.integers(0, 99), st.sampled_from([2048, 3]), st.data())
@settings(max_examples=50)
def test_all_close_rows_of_a_small_pool_are_found(n, d, seed, block, data):
    """x is the exact cosine of a pair, so that the test notices a rounding."""
    vectors = injected(n, d, seed)
    known = [c for a, b in itertools.combinations(vectors, 2) if 0 < (c := naive_cosine(a, b)) <= 1]
    x = data.draw(st.sampled_from(known)) if known else 0.9
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spherical, "_BLOCK", block)
        found = cosine_groups(ids(n), vectors, x)
    near = naive_near(vectors, x)
    assert groups_of(found) == naive_groups(range(n), near)
    assert nearest_of(found) == naive_nearest(vectors, near)


def nearest_of(groups):
    return dict(zip(groups.nodes.tolist(), groups.nearest.tolist(), strict=True))


def naive_nearest(vectors, pairs):
    """The largest cosine among each row's pairs."""
    best = {}
    for a, b in pairs:
        found = naive_cosine(vectors[a], vectors[b])
        for row in (int(a), int(b)):
            best[row] = max(best.get(row, 0), found)
    return {row: float(np.float32(1 if found >= cosine.ALIKE else found)) for row, found in best.items()}


@pytest.mark.thorough
@pytest.mark.parametrize(("visited", "count", "x", "kind"), [(8, 64, 0.96, np.float32), (2, 256, 0.8, np.float16)])
def test_of_what_meets_in_cells_nothing_is_missed(visited, count, x, kind, monkeypatch):
    vectors = injected(600, 16, visited, kind)
    monkeypatch.setattr(cells, "VISITS", visited)
    monkeypatch.setattr(cells, "cell_count", lambda rows: count)
    rows = cells.sample_rows(vectors, len(vectors), count)
    cell_of = cells.visits(vectors, cells.train(vectors[rows], count))
    everything = naive_near(vectors, x)
    met = [(a, b) for a, b in everything if cell_of[a, 0] in cell_of[b] or cell_of[b, 0] in cell_of[a]]
    assert len(met) > (0.98 if visited == 8 else 0.5) * len(everything)
    found = cosine_groups(ids(len(vectors)), vectors, x)
    assert groups_of(found) == naive_groups(range(len(vectors)), met)
    assert nearest_of(found) == naive_nearest(vectors, met)


def test_rows_in_any_order_blocks_and_units_give_the_same_groups(monkeypatch, small_cells):
    vectors, x = injected(900, 24, 7), 0.9
    found = cosine_groups(ids(900), vectors, x)
    expected = groups_of(found)
    assert 100 < sum(map(len, expected)) < 800
    rng = np.random.default_rng(0)
    for block in (2048, 100, 7):
        monkeypatch.setattr(spherical, "_BLOCK", block)
        order = rng.permutation(900)
        for other in (
            cosine_groups(ids(900)[order], vectors[order], x),
            distributed(vectors, order, x, n_units=block % 8 + 1),
        ):
            assert groups_of(other) == expected
            assert nearest_of(other) == nearest_of(found)


def distributed(vectors, order, x, n_units):
    """As workers run it: units send sample rows, and then rows to cells; cells send edges in any order."""
    units = [(part, vectors[part]) for part in np.array_split(order, n_units)]
    total = sum(int(cells.usable(own).sum()) for _, own in units)
    count = cells.cell_count(total)
    sample = [own[cells.sample_rows(own, total, count)] for _, own in units]
    centroids = cells.train(np.concatenate(sample[::-1]), count)
    by_cell = {}
    for part, own in units:
        for cell, rows, at_home in cells.cell_rows(cells.visits(own, centroids)):
            home = np.arange(len(rows)) < at_home
            by_cell.setdefault(cell, []).append((part[rows].astype(np.uint64), own[rows], home))
    found = [cosine.groups_in_cell(*map(np.concatenate, zip(*parts, strict=True)), x) for parts in by_cell.values()]
    random.Random(0).shuffle(found)
    return Groups.join(Groups.join(part) for part in (found[::2], found[1::2]))


STRANGE = np.array([[np.nan, 1], [np.inf, 1], [0, 0], [-0.0, 0], [1, 0], [np.nan, 1], [0, 0], [np.inf, 1]], np.float16)


def test_rows_without_a_direction_have_no_edge(small_cells):
    assert cells.usable(STRANGE).tolist() == [False] * 4 + [True] + [False] * 3
    assert len(cosine_groups(ids(8), STRANGE, 0.5).nodes) == 0
    assert cosine.nearest(STRANGE, STRANGE, 0.5).tolist() == [-1] * 4 + [4] + [-1] * 3
    vectors = np.concatenate([STRANGE, STRANGE[4:5]])
    assert groups_of(cosine_groups(ids(9), vectors, 1.0)) == {frozenset({4, 8})}
    smallest = np.full((2, 3), 2.0**-24, np.float16)
    assert groups_of(cosine_groups(ids(2), smallest, 1.0)) == {frozenset({0, 1})}


def test_no_row_and_one(monkeypatch):
    for n, whole in itertools.product((0, 1), (0, 100)):
        monkeypatch.setattr(cells, "WHOLE", whole)
        vectors, visits = np.ones((n, 4), np.float16), np.zeros((n, 1), np.int16)
        assert len(cosine_groups(ids(n), vectors, 0.9).nodes) == 0
        assert cosine.nearest(vectors, vectors[:0], 0.9).tolist() == [-1] * n
        assert cosine.recall_counts(vectors, visits, vectors, visits, 0.9).sum() == 0


def test_rows_that_are_all_alike(small_cells):
    """Rows that are equal, close to each other, or equal up to rounding."""
    vectors = np.repeat(injected(3, 16, 0), 700, axis=0)
    assert groups_of(cosine_groups(ids(2100), vectors, 1.0)) == {frozenset(range(i, i + 700)) for i in (0, 700, 1400)}
    alike = (1 + np.random.default_rng(0).normal(size=(2500, 16)) / 100).astype(np.float16) / np.float16(4)
    found = cosine_groups(ids(2500), alike, 0.99)
    assert groups_of(found) == {frozenset(range(2500))} and found.nearest.min() > 0.99
    rounded = (1 + np.random.default_rng(0).normal(size=(2500, 16)) / 1000).astype(np.float16) / np.float16(4)
    found = cosine_groups(ids(2500), rounded, 0.99)
    assert len(np.unique(rounded, axis=0)) == 2500 and (found.nearest == 1).all()


def test_colliding_row_hashes_do_no_harm(monkeypatch):
    vectors = injected(200, 8, 5)
    expected = groups_of(cosine_groups(ids(200), vectors, 0.97))
    assert len(expected) > 10
    monkeypatch.setattr(cells, "row_hashes", lambda rows: np.zeros(len(rows), np.uint64))
    assert groups_of(cosine_groups(ids(200), vectors, 0.97)) == expected


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 99), st.sampled_from([2048, 4]), st.data())
def test_nearest_row(n, m, seed, block, data):
    rows = injected(n + m, 6, seed)
    vectors, evaluation = rows[:n], np.concatenate([rows[n:], rows[n : n + 3], rows[:2]])
    known = [c for a, b in itertools.product(vectors, evaluation) if 0 < (c := naive_cosine(a, b)) <= 1]
    x = data.draw(st.sampled_from(known)) if known else 0.9

    def naive(vector):
        near_ones = [(-c, i) for i, e in enumerate(evaluation) if (c := naive_cosine(vector, e)) >= x]
        return min(near_ones)[1] if near_ones else -1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spherical, "_BLOCK", block)
        assert cosine.nearest(vectors, evaluation, x).tolist() == [naive(vector) for vector in vectors]


def test_recall_counts_pairs_that_meet(monkeypatch):
    vectors, x = injected(300, 8, 4), 0.9
    monkeypatch.setattr(cells, "VISITS", 2)  # so that some are missed
    cell_of = cells.visits(vectors, cells.train(vectors, 64))
    sample = np.arange(0, 300, 3)
    expected = np.zeros(2, int)
    for a, b in itertools.product(range(300), sample):
        if (vectors[a] != vectors[b]).any() and naive_cosine(vectors[a], vectors[b]) >= x:
            expected += [1, cell_of[a, 0] in cell_of[b] or cell_of[b, 0] in cell_of[a]]
    assert 0 < expected[1] < expected[0]
    monkeypatch.setattr(spherical, "_BLOCK", 64)
    parts = np.array_split(np.arange(300), 5)
    counts = [cosine.recall_counts(vectors[p], cell_of[p], vectors[sample], cell_of[sample], x) for p in parts]
    assert np.sum(counts, axis=0).tolist() == expected.tolist()
