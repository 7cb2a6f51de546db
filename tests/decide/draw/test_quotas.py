"""Quotas of clusters: the quadratic program equals its exact solution in fractions, and runs keep what it gives."""

from contextlib import nullcontext
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.ask.query import asking
from curate.ask.whatif.answer import answer
from curate.ask.whatif.surviving import open_finished
from curate.base.errors import RunError
from curate.decide.draw.groups import ColumnGroups
from curate.decide.draw.quotas import Quotas, find_quotas, find_shares, inter_distances, solve_quotas
from curate.recipe.recipe import change_recipe, parse_recipe
from tests import kit
from tests.kit import embedded

CLUSTERS = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 60)), min_size=1, max_size=8)  # shares and sizes


def water_fill(wished, least, most, rows):
    """The exact solution: between two neighboring breakpoints of the level, the sum is linear."""

    def at(level):
        return [min(max(x + level, Fraction(a)), Fraction(b)) for x, a, b in zip(wished, least, most, strict=True)]

    ends = sorted({end - x for x, a, b in zip(wished, least, most, strict=True) for end in (a, b)})
    below = max(end for end in ends if sum(at(end)) <= rows)
    above = min((end for end in ends if sum(at(end)) > rows), default=below)
    start, end = sum(at(below)), sum(at(above))
    return at(below + (above - below) * (rows - start) / (end - start) if end > start else below)


@given(CLUSTERS, st.integers(1, 200), st.integers(0, 12), st.integers(1, 60))
def test_quotas_are_the_exact_solution_rounded(clusters, rows, low, high):
    shares, sizes = zip(*clusters, strict=True)
    p = np.array(shares) / max(1e-9, sum(shares))
    least, most = [min(low, high, size) for size in sizes], [min(high, size) for size in sizes]
    arguments = p, np.array(sizes), rows, np.full(len(p), low), np.full(len(p), high)
    if sum(least) > rows:
        with pytest.raises(ValueError, match="at least"):
            solve_quotas(*arguments)
        return
    x = solve_quotas(*arguments)
    assert x.sum() == min(rows, sum(most)) and (x >= least).all() and (x <= most).all()
    if sum(most) > rows:
        wished = [Fraction(int(np.rint(share * (rows * 65536.0))), 65536) for share in p.tolist()]
        exact = water_fill(wished, least, most, rows)
        assert sum(exact) == rows
        assert all(int(y) <= n <= -int(-y // 1) for n, y in zip(x.tolist(), exact, strict=True))
        up = [y % 1 for n, y in zip(x.tolist(), exact, strict=True) if n > y]
        assert all(y % 1 <= min(up) for n, y in zip(x.tolist(), exact, strict=True) if n < y and up)


def test_distances_between_centroids_are_those_of_the_definition():
    rng = np.random.default_rng(1)
    centroids = rng.normal(size=(70, 24)).astype(np.float32)
    directions = centroids.astype(np.float64) / np.linalg.norm(centroids.astype(np.float64), axis=1, keepdims=True)
    distances = 1 - directions @ directions.T
    np.fill_diagonal(distances, np.inf)
    for nearest in (1, 20, 100):
        expected = np.sort(distances, axis=1)[:, : min(nearest, 69)].mean(axis=1)
        np.testing.assert_allclose(inter_distances(centroids, nearest), expected, atol=2e-5)
    assert inter_distances(centroids[:1]).tolist() == [0.0]


def groups_of(names, rows, means):
    sums = np.rint(np.array(means) * rows * 2.0**28).astype(np.int64)
    return ColumnGroups("cluster", pa.array(names), np.array(rows), sums, "cluster_distance", 1.0)


def test_shares_are_softmax_of_complexity():
    inter = np.array([0.2, 0.5, 0.9])
    section = Quotas(of="cluster", rows=60, by="complexity", keep="farthest")
    groups = groups_of(["0", "2"], [100, 50], [0.3, 0.6])
    scaled = np.exp(np.array([0.2 * 0.3, 0.9 * 0.6]) / 0.5)
    np.testing.assert_allclose(find_shares(groups, section, inter), scaled / scaled.sum(), rtol=1e-7)
    assert find_shares(groups, section.model_copy(update={"by": "size"}), None).tolist() == [2 / 3, 1 / 3]
    with pytest.raises(RunError, match="a row has cluster = '7', but there are 3 centroids"):
        find_shares(groups_of(["0", "7"], [1, 1], [0, 0]), section, inter)
    # By default at least half an equal share, but one row of a small cluster may go.
    few = find_quotas(groups_of(["0", "1", "2"], [100, 9, 1], [0.9, 0, 0]), section, inter)
    assert few.sum() == 60 and few[1] >= 8 and few[2] in (0, 1)
    with pytest.raises(RunError, match=r"least is 31, which needs at least 62 rows, but rows is 60; accepted: .* 30"):
        find_quotas(groups, section.model_copy(update={"least": 31}), inter)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A pool with clusters, of which some rows have none."""
    rng = np.random.default_rng(4)
    rows = kit.make_rows(600)
    cluster = rng.choice(5, len(rows), p=[0.5, 0.2, 0.15, 0.1, 0.05])
    distance = np.round(rng.random(len(rows)), 2).astype(np.float32)  # with ties
    rows = rows.append_column("cluster", pa.array(cluster, pa.int32(), mask=rng.random(len(rows)) < 0.05))
    rows = rows.append_column("cluster_distance", pa.array(distance, mask=rng.random(len(rows)) < 0.05))
    return kit.write_parquets(tmp_path_factory.mktemp("quotas") / "pool", rows, 3, 100)


@pytest.fixture(scope="module")
def run(path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    np.save(folder / "centroids.npy", np.random.default_rng(2).normal(size=(5, 8)).astype(np.float32))
    quotas = {
        "of": "cluster",
        "rows": 200,
        "by": "complexity",
        "keep": "farthest",
        "centroids": f"{folder}/centroids.npy",
    }
    return kit.run_local(kit.recipe_of(path, "parquet", sample={"quotas": quotas}), folder / "run")


def left(run):
    """By cluster, the distance of each remaining row, and whether the run keeps it."""
    scores, found = run.table("scores").to_pylist(), {}
    for row, decided in zip(scores, run.table("decisions").to_pylist(), strict=True):
        if decided["kept"] or decided["rule"] == "sample":
            assert decided["probability"] is None and decided["kept"] == (decided["draw"] < 1)
            found.setdefault(row["cluster"], []).append((row["cluster_distance"], decided["kept"]))
    return found


def test_the_farthest_of_each_cluster_are_kept(run):
    kit.conserved(run)
    rows = left(run)
    assert not any(kept for _, kept in rows.pop(None))
    known = {n: [(d, kept) for d, kept in of if d is not None] for n, of in sorted(rows.items())}
    assert not any(kept for of in rows.values() for distance, kept in of if distance is None)
    inter = inter_distances(np.load(run.folder.parent / "centroids.npy"))
    means = np.array([np.mean([d for d, _ in of]) for of in known.values()])
    weights = np.exp(inter * means / 0.5)
    sizes = np.array(list(map(len, known.values())))
    least = np.minimum(int(200 / 5 * 0.5), sizes - 1)
    expected = solve_quotas(weights / weights.sum(), sizes, 200, least, sizes)
    kept = [sum(is_kept for _, is_kept in of) for of in known.values()]
    assert kept == expected.tolist() and sum(kept) == run.counts["kept"] == 200
    for of in known.values():
        assert min(d for d, is_kept in of if is_kept) >= max((d for d, is_kept in of if not is_kept), default=0)


def test_there_is_no_estimate_without_probability(run):
    assert run.run["selection"]["is_random"] is False
    for query, parameters, column in (
        ("estimate", {}, "estimate"), ("estimate_by", {"by": "source"}, "estimate"), ("probabilities", {}, "from"),
    ):  # fmt: skip
        with asking(str(run.folder), query, parameters) as found:
            [row] = found.rows
            assert dict(zip(found.names, row, strict=True))[column] is None


def test_a_file_of_centroids_is_part_of_the_key(run, path, tmp_path):
    recipe = open_finished(str(run.folder)).recipe
    again = kit.run_local(recipe, tmp_path / "again", reuse=run.folder)
    assert again.kept == run.kept and again.run["keys"]["decisions"] == run.run["keys"]["decisions"]
    np.save(run.folder.parent / "centroids.npy", np.random.default_rng(3).normal(size=(5, 8)).astype(np.float32))
    other = kit.run_local(recipe, tmp_path / "other")
    assert other.run["keys"]["decisions"] != run.run["keys"]["decisions"]


def test_clusters_made_by_the_run_have_their_centroids(tmp_path):
    """What-if and a run that reuses its tables use the same centroids."""
    images, texts = embedded.make_embeddings(400)
    where = embedded.write_pool(tmp_path / "pool", 2, images, texts)
    quotas = {"of": "topic", "rows": 100, "by": "complexity", "keep": "farthest"}
    relate = {"clusters": {"topic": {"of": "l14", "k": 6}}}
    recipe = parse_recipe(embedded.recipe_of(where, relate, sample={"quotas": quotas}))
    first = kit.run_local(recipe, tmp_path / "first")
    kit.conserved(first)
    found = answer(open_finished(str(first.folder)), ["sample.quotas.rows=50"])
    assert first.counts["kept"] == 100 and found.expected == 50
    smaller = change_recipe(recipe, ["sample.quotas.rows=50"])
    again = kit.run_local(smaller, tmp_path / "again", reuse=first.folder)
    assert again.counts["kept"] == 50
    inter = inter_distances(np.load(first.folder / "models/topic.npy"))
    related = first.table("related").to_pandas().groupby("topic")["topic_distance"].agg(["mean", "size"])
    weights = np.exp(inter * related["mean"].to_numpy() / 0.5)
    sizes = related["size"].to_numpy()
    expected = solve_quotas(weights / weights.sum(), sizes, 50, np.minimum(int(50 / 6 * 0.5), sizes - 1), sizes)
    decided = again.table("decisions").filter(again.table("decisions")["kept"])["uid"].to_pylist()
    topics = dict(zip(*(first.table("related").column(name).to_pylist() for name in ("uid", "topic")), strict=True))
    assert [sum(topics[uid] == topic for uid in decided) for topic in range(6)] == expected.tolist()


def test_no_row_has_a_cluster(path, tmp_path):
    quotas = {"of": "cluster", "rows": 3, "keep": "farthest"}
    recipe = kit.recipe_of(path, "parquet", rules={"none": "cluster is null"}, sample={"quotas": quotas})
    assert not any(kit.run_local(recipe, tmp_path / "run").table("decisions")["kept"].to_pylist())


def test_a_sum_that_has_no_room_is_refused(tmp_path):
    """It would silently become another number."""
    for largest in (1e10, 4e10, 1e300):
        rows, distances = kit.make_rows(20).slice(0, 20), [0.5] * 20
        distances[3] = largest
        rows = rows.append_column("cluster", pa.array(range(20), pa.int32()))
        rows = rows.append_column("cluster_distance", pa.array(distances, pa.float64()))
        sections = {"sample": {"quotas": {"of": "cluster", "rows": 5, "keep": "farthest"}}}
        message = r"cluster_distance has values up to \S+e\+\d+, and the largest group has 1 rows; accepted: "
        with nullcontext() if largest == 1e10 else pytest.raises(RunError, match=message):
            kit.curate(tmp_path / f"{largest}", rows, **sections)
