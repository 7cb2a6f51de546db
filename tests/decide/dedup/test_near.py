"""Near-duplicates against all pairs compared one by one, and groups against a search through a graph."""

import itertools
import math
import random
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.base.ids import hex_uids
from curate.decide.dedup import cells, cosine, hamming
from curate.decide.dedup import exact as dedup
from curate.decide.dedup.groups import Groups, forest, hash_keys, row_ids, row_keys, rows_of

FULL = (1 << 64) - 1


def naive_groups(nodes, pairs) -> set[frozenset[int]]:
    """The components with at least two nodes, by breadth."""
    beside: dict[int, set[int]] = {int(node): set() for node in nodes}
    for a, b in pairs:
        beside[int(a)].add(int(b))
        beside[int(b)].add(int(a))
    out, seen = set(), set()
    for node in beside:
        group, waiting = set(), [node]
        while waiting:
            here = waiting.pop()
            if here not in group:
                group.add(here)
                waiting.extend(beside[here])
        if node not in seen and len(group) > 1:
            out.add(frozenset(group))
        seen |= group
    return out


def groups_of(edges) -> set[frozenset[int]]:
    groups = edges if isinstance(edges, Groups) else Groups.of(edges)
    assert (np.diff(groups.nodes.astype(object)) > 0).all()
    out: dict[int, set[int]] = {}
    for node, label in zip(groups.nodes.tolist(), groups.labels.tolist(), strict=True):
        out.setdefault(label, set()).add(node)
    assert all(label == min(group) for label, group in out.items())
    return {frozenset(group) for group in out.values()}


def assert_forest(edges) -> None:
    """No cycles: one edge less than nodes in each group."""
    found = groups_of(edges)
    assert len(edges) == sum(map(len, found)) - len(found)


# Groups

EDGES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=20)


@given(EDGES, st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_groups_are_components_in_any_order(pairs, rng):
    edges = np.array(pairs, np.uint64).reshape(-1, 2)
    expected = naive_groups(range(13), pairs)
    assert groups_of(edges) == expected
    turned = [pair if rng.random() < 0.5 else pair[::-1] for pair in pairs for _ in range(rng.choice([1, 2]))]
    rng.shuffle(turned)
    assert groups_of(np.array(turned, np.uint64).reshape(-1, 2)) == expected


@given(EDGES, st.integers(1, 4), st.sampled_from([0, 3, 1 << 20]))
@settings(max_examples=100, deadline=None)
def test_forests_of_parts_have_the_same_groups(pairs, n_parts, merge):
    edges = np.array(pairs, np.uint64).reshape(-1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.decide.dedup.groups._MERGE", merge)
        got = forest(forest([part]) for part in np.array_split(edges, n_parts))
    assert_forest(got)
    assert groups_of(got) == groups_of(edges)


def test_labels_of_nodes_in_and_out_of_groups():
    groups = Groups.of(np.array([[9, FULL], [5, 9], [3, 3]], np.uint64))
    asked = np.array([0, 3, 5, 6, 9, FULL, FULL - 1], np.uint64)
    assert groups.label(asked).tolist() == [0, 3, 5, 6, 5, 5, FULL - 1]
    assert Groups.of(np.zeros((0, 2), np.uint64)).label(asked).tolist() == asked.tolist()


def test_row_ids_are_inverted_and_order_as_rows():
    units = [0, 1, 2**31 - 1]
    nodes = np.concatenate([row_ids(unit, np.array([0, 7, 2**31 - 1])) for unit in units])
    got = rows_of(nodes)
    assert got[0].tolist() == [unit for unit in units for _ in range(3)] and got[1].tolist() == [0, 7, 2**31 - 1] * 3
    assert (np.diff(nodes.astype(object)) > 0).all()


def test_key_columns():
    groups = Groups.of(np.array([[8, 12]], np.uint64))
    column = pa.chunked_array([pa.array([12, None], pa.uint64()), pa.array([8, FULL], pa.uint64())])
    assert hash_keys(column, groups).to_pylist() == [8, None, 8, FULL]
    assert hash_keys(pa.array([], pa.uint64()), groups).to_pylist() == []
    nodes = np.concatenate([row_ids(1, np.array([0, 3])), row_ids(2, np.array([3]))])
    groups = Groups.of(np.array([[nodes[0], nodes[2]], [nodes[2], nodes[1]]]))
    assert row_keys(1, 4, groups).to_pylist() == [1 << 32, None, None, 1 << 32]
    assert row_keys(2, 4, groups).to_pylist() == [None, None, None, 1 << 32]
    assert row_keys(0, 2, groups).to_pylist() == [None, None]


# Winners, by way of `dedup`


@dataclass(frozen=True)
class Row:
    uid: str
    sha256: str
    phash: int | None
    prefer: float | None = None


def survivors(rows: list[Row], distance: int) -> list[str | None]:
    """The uid that stands for each row after passes by uid, sha256 and close phash."""
    column = pa.array([row.phash for row in rows], pa.uint64())
    groups = Groups.of(hamming.edges(column.drop_null().to_numpy(), distance))
    columns = [pa.array([r.uid for r in rows]), pa.array([r.sha256 for r in rows]), hash_keys(column, groups)]
    prefer = dedup.preferences(pa.array([row.prefer for row in rows], pa.float32()))
    content = np.zeros(len(rows), np.uint64)
    records = dedup.make_records(0, np.arange(len(rows)), columns[0], columns, content, prefer)
    for i in range(len(columns)):
        records = dedup.resolve(records, i)
    uids = hex_uids(records["rep_hi"], records["rep_lo"]).to_pylist()
    return [uid if dead else None for uid, dead in zip(uids, records["dead"], strict=True)]


def uid(number: int) -> str:
    return f"{number:032x}"


def test_the_smallest_uid_stays_and_null_takes_no_part():
    rows = [
        Row(uid(3 << 64), "a", 0b0), Row(uid(1), "b", 0b11), Row(uid(2), "c", 0b1111), Row(uid(0), "d", None),
        Row(uid(9), "e", FULL),
    ]  # fmt: skip
    assert survivors(rows, 2) == [uid(1), None, uid(1), None, None]
    assert survivors(rows, 1) == [None] * 5


def test_prefer_decides_and_ties_go_to_the_smallest_uid():
    rows = [Row(uid(1), "a", 0, 0.5), Row(uid(3), "b", 1, 0.9), Row(uid(2), "c", 3, 0.9), Row(uid(0), "d", 2, None)]
    assert survivors(rows, 1) == [uid(2), uid(2), None, uid(2)]


def test_a_loser_of_an_earlier_pass_follows_its_survivor():
    rows = [Row(uid(5), "a", 1 << 40), Row(uid(4), "a", 1 << 40), Row(uid(1), "b", 3 << 40)]
    assert survivors(rows, 1) == [uid(1), uid(1), None]


# Hamming distance


def naive_close(hashes, distance: int) -> list[tuple[int, int]]:
    return [(a, b) for a, b in itertools.combinations(map(int, hashes), 2) if 0 < (a ^ b).bit_count() <= distance]


@st.composite
def hash_pools(draw) -> list[int]:
    """A few centres and hashes some bits from them, so that chains and distances around k are common."""
    centres = draw(st.lists(st.integers(0, FULL) | st.sampled_from([0, FULL]), min_size=1, max_size=4))
    flips = st.lists(st.integers(0, 63), max_size=12).map(lambda bits: sum(1 << bit for bit in set(bits)))
    return draw(st.lists(st.builds(lambda c, f: c ^ f, st.sampled_from(centres), flips), max_size=25))


ROWS = st.sampled_from([1, 300, 3_000, 10**6, 10**9])  # bands for so many: other schemes, the same result


@given(hash_pools(), st.integers(0, 16), ROWS, st.sampled_from([1 << 20, 4]))
@settings(max_examples=200, deadline=None)
def test_all_close_hashes_are_found(pool, distance, rows, bucket):
    hashes = np.array(pool, np.uint64)
    masks = hamming.bands(distance, rows)
    parts = [hamming.edges_in_bucket(hashes, mask, distance) for mask in masks]
    for part in parts:
        assert_forest(part)
        assert all(0 < (int(a) ^ int(b)).bit_count() <= distance for a, b in part)
    expected = naive_groups(hashes, naive_close(set(pool), distance))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hamming, "_BUCKET", bucket)
        assert groups_of(forest(parts)) == groups_of(hamming.edges(hashes, distance)) == expected


@given(hash_pools(), st.integers(1, 10), st.integers(1, 5), st.integers(1, 7), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_units_buckets_and_order_change_nothing(pool, distance, n_units, n_buckets, rng):
    shuffled = np.array(rng.sample(pool, len(pool)), np.uint64)
    masks = hamming.bands(distance, 10**6)
    buckets: dict[tuple[int, int], list[np.ndarray]] = {}
    for unit in np.array_split(shuffled, n_units):
        for key, hashes in hamming.split_bands(unit, masks, n_buckets):
            assert 0 <= key[1] < n_buckets
            buckets.setdefault(key, []).append(hashes)
    found = [hamming.edges_in_bucket(np.concatenate(h), masks[band], distance) for (band, _), h in buckets.items()]
    rng.shuffle(found)
    assert groups_of(forest(found)) == groups_of(hamming.edges(np.array(pool, np.uint64), distance))


@pytest.mark.parametrize("rows", [1, 10**3, 10**6, 10**9])
@pytest.mark.parametrize("distance", [0, 1, 2, 3, 5, 8, 12, 16, 40, 63])
def test_bands_are_complete_and_affordable(distance, rows):
    """Whatever k bits differ, some band does not look at them; the bands of one scheme are choices of equal blocks."""
    masks = [int(mask) for mask in hamming.bands(distance, rows)]
    rng = random.Random(rows + distance)
    for _ in range(300):
        differ = sum(1 << bit for bit in rng.sample(range(64), distance))
        assert any(mask & differ == 0 for mask in masks)
    assert len(set(masks)) == len(masks) <= 500


def test_more_rows_get_longer_bands():
    bits = [min(int(mask).bit_count() for mask in hamming.bands(4, rows)) for rows in (10, 10**4, 10**6, 10**9)]
    assert bits == sorted(bits) and bits[0] == 0 and bits[-1] > 20


def test_hashes_that_are_all_alike():
    """Blank images: one hash many times, all hashes within k of each other, and a chain without close ends."""
    assert len(hamming.edges(np.full(100_000, 7, np.uint64), 4)) == 0
    ball = np.array([sum(1 << b for b in c) for n in range(4) for c in itertools.combinations(range(64), n)], np.uint64)
    edges = hamming.edges(np.repeat(ball, 2), 6)
    assert groups_of(edges) == {frozenset(ball.tolist())}
    assert len(edges) == len(ball) - 1
    chain = np.array([(1 << i) - 1 for i in range(65)], np.uint64)
    assert groups_of(hamming.edges(chain[::-1], 1)) == {frozenset(chain.tolist())}
    assert len(hamming.edges(chain, 0)) == 0


@pytest.mark.parametrize("hashes", [[], [5], [0, FULL]])
def test_few_hashes(hashes):
    hashes = np.array(hashes, np.uint64)
    assert hamming.edges(hashes, 8).shape == (0, 2)
    assert hamming.nearest(hashes, np.zeros(0, np.uint64), 8).tolist() == [-1] * len(hashes)
    assert hamming.nearest(np.zeros(0, np.uint64), hashes, 8).tolist() == []


@given(hash_pools(), hash_pools(), st.integers(0, 16), st.sampled_from([0.0, 60.0]))
@example([0b111, 1, 0], [0b110, 0b11, 0b11, FULL], 2, 60.0)
@settings(max_examples=200, deadline=None)
def test_nearest_hash(pool, evaluation, distance, sort_cost):
    evaluation = [*evaluation, *[hash_ ^ 1 for hash_ in pool[:3]]]

    def naive(hash_: int) -> int:
        near_ones = [(d, i) for i, e in enumerate(evaluation) if (d := (hash_ ^ e).bit_count()) <= distance]
        return min(near_ones)[1] if near_ones else -1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hamming, "_SORT", sort_cost)  # where sorting costs nothing, many bands
        got = hamming.nearest(np.array(pool, np.uint64), np.array(evaluation, np.uint64), distance)
    assert got.tolist() == [naive(hash_) for hash_ in pool]


# Cosine


def naive_cosine(a, b) -> float:
    """In float64, which holds all products and sums of float16 values near length 1."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))


def naive_near(vectors, x: float) -> list[tuple[int, int]]:
    good = [i for i, v in enumerate(vectors) if np.isfinite(v).all() and v.any()]
    return [(a, b) for a, b in itertools.combinations(good, 2) if naive_cosine(vectors[a], vectors[b]) >= x]


def injected(n: int, d: int, seed: int, kind=np.float16) -> np.ndarray:
    """Rows of which a third is a copy of an earlier one, turned by some angle; a few are equal."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d)) * (1 + np.arange(d)) ** -0.3
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    copies, originals = rng.choice(n, n // 3, replace=False), rng.integers(0, n, n // 3)
    rows[copies] = rows[originals] + rng.normal(size=(n // 3, d)) * rng.choice([0, 0.1, 0.4], (n // 3, 1)) / d**0.5
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(kind)


def ids(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.uint64)


@pytest.fixture
def small_cells(monkeypatch):
    monkeypatch.setattr(cells, "WHOLE", 0)


@given(st.integers(0, 40), st.sampled_from([1, 2, 8, 33]), st.integers(0, 99), st.sampled_from([2048, 3]), st.data())
@settings(max_examples=150, deadline=None)
def test_all_close_rows_of_a_small_pool_are_found(n, d, seed, block, data):
    """x is the very cosine of some pair, so that a rounding would be seen."""
    vectors = injected(n, d, seed)
    known = [c for a, b in itertools.combinations(vectors, 2) if 0 < (c := naive_cosine(a, b)) <= 1]
    x = data.draw(st.sampled_from(known)) if known else 0.9
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "_BLOCK", block)
        found, _ = cosine.groups(ids(n), vectors, x)
    near = naive_near(vectors, x)
    assert groups_of(found) == naive_groups(range(n), near)
    assert nearest_of(found) == naive_nearest(vectors, near)


def nearest_of(groups: Groups) -> dict[int, float]:
    return dict(zip(groups.nodes.tolist(), groups.nearest.tolist(), strict=True))


def naive_nearest(vectors, pairs) -> dict[int, float]:
    """Of each row the largest cosine of its pairs."""
    best: dict[int, float] = {}
    for a, b in pairs:
        found = naive_cosine(vectors[a], vectors[b])
        for row in (int(a), int(b)):
            best[row] = max(best.get(row, 0), found)
    return {row: float(np.float32(1 if found >= cosine.ALIKE else found)) for row, found in best.items()}


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("visited", "count", "x"), [(8, 64, 0.96), (2, 256, 0.8)])
def test_of_what_meets_in_cells_nothing_is_missed(visited, count, x, seed, kind, monkeypatch):
    vectors = injected(600, 16, seed, kind)
    monkeypatch.setattr(cells, "VISITS", visited)
    monkeypatch.setattr(cells, "cell_count", lambda rows: count)
    rows = cells.sample_rows(vectors, len(vectors), count)
    cell_of = cells.visits(vectors, cells.train(vectors[rows], count))
    everything = naive_near(vectors, x)
    met = [(a, b) for a, b in everything if cell_of[a, 0] in cell_of[b] or cell_of[b, 0] in cell_of[a]]
    assert len(met) > (0.98 if visited == 8 else 0.5) * len(everything)
    found, _ = cosine.groups(ids(len(vectors)), vectors, x)
    assert groups_of(found) == naive_groups(range(len(vectors)), met)
    assert nearest_of(found) == naive_nearest(vectors, met)


def test_rows_in_any_order_blocks_and_units_give_the_same_groups(monkeypatch, small_cells):
    vectors, x = injected(900, 24, 7), 0.9
    found = cosine.groups(ids(900), vectors, x)[0]
    expected = groups_of(found)
    assert 100 < sum(map(len, expected)) < 800
    rng = np.random.default_rng(0)
    for block in (2048, 100, 7):
        monkeypatch.setattr(cells, "_BLOCK", block)
        order = rng.permutation(900)
        for other in (
            cosine.groups(ids(900)[order], vectors[order], x)[0],
            distributed(vectors, order, x, n_units=block % 8 + 1),
        ):
            assert groups_of(other) == expected
            assert nearest_of(other) == nearest_of(found)


def distributed(vectors, order, x: float, n_units: int):
    """As workers run it: units give sample rows, then rows to cells; cells give edges, and come in any order."""
    units = [(part, vectors[part]) for part in np.array_split(order, n_units)]
    total = sum(int(cells.usable(own).sum()) for _, own in units)
    count = cells.cell_count(total)
    sample = [own[cells.sample_rows(own, total, count)] for _, own in units]
    centroids = cells.train(np.concatenate(sample[::-1]), count)
    by_cell: dict[int, list] = {}
    for part, own in units:
        for cell, rows, at_home in cells.cell_rows(cells.visits(own, centroids)):
            home = np.arange(len(rows)) < at_home
            by_cell.setdefault(cell, []).append((part[rows].astype(np.uint64), own[rows], home))
    found = [cosine.groups_in_cell(*map(np.concatenate, zip(*parts, strict=True)), x) for parts in by_cell.values()]
    random.Random(0).shuffle(found)
    return Groups.join(Groups.join(part) for part in (found[::2], found[1::2]))


def test_cells_are_the_nearest_centroids_in_exact_arithmetic(small_cells):
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
    """The longest rows that rounding can make: every partial sum must fit the 24 bits of a float32."""
    rng = np.random.default_rng(dimensions)
    rows = np.concatenate([rng.normal(size=(20, dimensions)), np.ones((1, dimensions)), np.eye(1, dimensions)])
    points = cells._rounded(rows.astype(np.float32))
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


def test_cell_rows_are_each_cells_visitors():
    cell_of = np.array([[2, 0], [-1, -1], [0, 2], [2, 4]], np.int16)
    got = [(cell, rows.tolist(), at_home) for cell, rows, at_home in cells.cell_rows(cell_of)]
    assert got == [(0, [2, 0], 1), (2, [0, 3, 2], 2), (4, [3], 0)]
    assert list(cells.cell_rows(cell_of[:0])) == list(cells.cell_rows(cell_of[1:2])) == []


def test_a_row_is_compared_with_visitors_and_visitors_not_with_each_other():
    vectors = np.array([[1, 0], [1, 0.1], [1, 0.2], [0, 1]], np.float16)
    found = cosine.groups_in_cell(ids(4), vectors, np.array([False, False, True, False]), 0.994)
    assert groups_of(found) == {frozenset({1, 2})}
    found = cosine.groups_in_cell(ids(4), vectors, np.array([False, True, False, False]), 0.994)
    assert groups_of(found) == {frozenset({0, 1, 2})}
    assert len(cosine.groups_in_cell(ids(4), vectors, np.zeros(4, bool), 0.9).nodes) == 0


STRANGE = np.array([[np.nan, 1], [np.inf, 1], [0, 0], [-0.0, 0], [1, 0], [np.nan, 1], [0, 0], [np.inf, 1]], np.float16)


def test_rows_without_a_direction_have_no_edge(small_cells):
    assert cells.usable(STRANGE).tolist() == [False] * 4 + [True] + [False] * 3
    assert len(cosine.groups(ids(8), STRANGE, 0.5)[0].nodes) == 0
    assert cosine.nearest(STRANGE, STRANGE, 0.5).tolist() == [-1] * 4 + [4] + [-1] * 3
    vectors = np.concatenate([STRANGE, STRANGE[4:5]])
    assert groups_of(cosine.groups(ids(9), vectors, 1.0)[0]) == {frozenset({4, 8})}
    smallest = np.full((2, 3), 2.0**-24, np.float16)
    assert groups_of(cosine.groups(ids(2), smallest, 1.0)[0]) == {frozenset({0, 1})}


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("whole", [0, 100])
def test_no_row_and_one(n, whole, monkeypatch):
    monkeypatch.setattr(cells, "WHOLE", whole)
    vectors = np.ones((n, 4), np.float16)
    assert len(cosine.groups(ids(n), vectors, 0.9)[0].nodes) == 0
    assert cosine.nearest(vectors, vectors[:0], 0.9).tolist() == [-1] * n
    assert (
        cosine.recall_counts(vectors, np.zeros((n, 1), np.int16), vectors, np.zeros((n, 1), np.int16), 0.9).sum() == 0
    )


def test_rows_that_are_all_alike(small_cells):
    """Equal rows in one go; of rows all near each other, and alike up to roundings, few pairs are compared exactly."""
    vectors = np.repeat(injected(3, 16, 0), 700, axis=0)
    assert groups_of(cosine.groups(ids(2100), vectors, 1.0)[0]) == {
        frozenset(range(i, i + 700)) for i in (0, 700, 1400)
    }
    alike = (1 + np.random.default_rng(0).normal(size=(2500, 16)) / 100).astype(np.float16) / np.float16(4)
    found, _ = cosine.groups(ids(2500), alike, 0.99)
    assert groups_of(found) == {frozenset(range(2500))} and found.nearest.min() > 0.99
    rounded = (1 + np.random.default_rng(0).normal(size=(2500, 16)) / 1000).astype(np.float16) / np.float16(4)
    found, _ = cosine.groups(ids(2500), rounded, 0.99)
    assert len(np.unique(rounded, axis=0)) == 2500 and (found.nearest == 1).all()


def test_colliding_row_hashes_do_no_harm(monkeypatch):
    vectors = injected(200, 8, 5)
    expected = groups_of(cosine.groups(ids(200), vectors, 0.97)[0])
    assert len(expected) > 10
    monkeypatch.setattr(cells, "row_hashes", lambda rows: np.zeros(len(rows), np.uint64))
    assert groups_of(cosine.groups(ids(200), vectors, 0.97)[0]) == expected


def test_vectors_may_lie_in_a_file(tmp_path, small_cells):
    vectors = injected(400, 16, 2)
    vectors.tofile(tmp_path / "vectors")
    mapped = np.memmap(tmp_path / "vectors", np.float16, "r", shape=vectors.shape)
    found, expected = (cosine.groups(ids(400), rows, 0.95)[0] for rows in (mapped, vectors))
    assert (found.nodes == expected.nodes).all() and (found.labels == expected.labels).all()
    assert (found.nearest == expected.nearest).all()


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 99), st.sampled_from([2048, 4]), st.data())
@settings(max_examples=100, deadline=None)
def test_nearest_row(n, m, seed, block, data):
    rows = injected(n + m, 6, seed)
    vectors, evaluation = rows[:n], np.concatenate([rows[n:], rows[n : n + 3], rows[:2]])
    known = [c for a, b in itertools.product(vectors, evaluation) if 0 < (c := naive_cosine(a, b)) <= 1]
    x = data.draw(st.sampled_from(known)) if known else 0.9

    def naive(vector) -> int:
        near_ones = [(-c, i) for i, e in enumerate(evaluation) if (c := naive_cosine(vector, e)) >= x]
        return min(near_ones)[1] if near_ones else -1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "_BLOCK", block)
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
    monkeypatch.setattr(cells, "_BLOCK", 64)
    parts = np.array_split(np.arange(300), 5)
    counts = [cosine.recall_counts(vectors[p], cell_of[p], vectors[sample], cell_of[sample], x) for p in parts]
    assert np.sum(counts, axis=0).tolist() == expected.tolist()
