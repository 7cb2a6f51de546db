"""Columns that need the whole pool equal their definitions in float64, and are identical however the pool is cut."""

import numpy as np
import pyarrow as pa
import pytest

from curate.api import Run
from curate.base import ids
from curate.recipe.recipe import parse_recipe
from curate.recipe.relate import RELATIONS
from curate.relate.relation import Reading
from curate.store.store import RunStore
from tests import kit
from tests.kit.embedded import make_embeddings, recipe_of, write_pool

pytestmark = pytest.mark.thorough

RELATE = {
    "negclip": {"s_clip": {"of": "l14", "references": 60, "batches": 2}},
    "clusters": {"topic": {"of": "l14", "k": 9}},
    "vas": {"pool_vas": {"of": "l14"}},
}
MISSING = (3, 50)


@pytest.fixture(scope="module")
def pool():
    return make_embeddings(400)


def run(out, path, relate=RELATE, reuse=None, **sections):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.pool.plan.UNIT_ROWS", (10, 10))
        return kit.run_local(parse_recipe(recipe_of(path, relate, **sections)), out, reuse=reuse).folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, pool):
    folder = tmp_path_factory.mktemp("relate")
    paths = {files: write_pool(folder / f"pool{files}", files, *pool, missing=MISSING) for files in (1, 7, 17)}
    return {files: run(folder / f"run{files}", path) for files, path in paths.items()}


def related(folder):
    query = "SELECT url, s_clip, topic, topic_distance, pool_vas FROM verdicts ORDER BY url"
    return Run(str(folder)).sql(query).to_pydict()


def test_the_same_to_the_bit_however_it_is_cut(runs):
    whole = related(runs[1])
    assert len(set(whole["topic"])) >= 5 and whole["s_clip"].count(None) == 2
    assert all(related(runs[files]) == whole for files in (7, 17))
    centroids = {(runs[files] / "models/topic.npy").read_bytes() for files in runs}
    assert len(centroids) == 1
    steps = [Run(str(runs[files])).sql("SELECT units FROM steps WHERE step = 'relate'") for files in (1, 7, 17)]
    assert [table["units"].to_pylist() for table in steps] == [[1], [7], [17]]


def by_row(folder):
    """Each row's values, by its number in the pool."""
    table = Run(str(folder)).sql("SELECT url, uid, s_clip, topic, topic_distance, pool_vas FROM verdicts")
    return {int(row["url"].rpartition("/")[2][:-4]): row for row in table.to_pylist()}


def test_each_is_its_definition_in_float64(runs, pool):
    rows = by_row(runs[7])
    usable = [i for i in sorted(rows) if i not in MISSING]
    images, texts = (side.astype(np.float64) for side in pool)
    images, texts = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (images, texts))

    uids = pa.array([rows[i]["uid"] for i in usable])
    scores = np.zeros(len(usable))
    for batch in range(2):
        hashes = ids.hash_uids(uids, seed_of("negclip", "s_clip", ["references", batch])).tolist()
        references = [usable[i] for i in sorted(range(len(usable)), key=hashes.__getitem__)[:60]]
        for place, i in enumerate(usable):
            beside = [*references, *([] if i in references else [i])]
            pairs = (texts[beside], images[i]), (images[beside], texts[i])
            sums = sum(np.log(np.exp(others @ one / 0.01).sum()) for others, one in pairs)
            scores[place] += (images[i] @ texts[i] - 0.01 / 2 * sums) / 2
    assert np.abs(np.array([rows[i]["s_clip"] for i in usable]) - scores).max() < 1e-5

    centroids = np.load(runs[7] / "models/topic.npy").astype(np.float64)
    cosines = images[usable] @ centroids.T
    assert [rows[i]["topic"] for i in usable] == cosines.argmax(axis=1).tolist()
    assert np.abs(np.array([rows[i]["topic_distance"] for i in usable]) - (1 - cosines.max(axis=1))).max() < 1e-6
    for cluster in range(len(centroids)):  # all rows are trained on: it has converged
        mean = images[usable][cosines.argmax(axis=1) == cluster].mean(axis=0)
        assert mean @ centroids[cluster] / np.linalg.norm(mean) > 0.99999

    sigma = images[usable].T @ images[usable] / len(usable)
    wanted = np.einsum("nd,de,ne->n", images[usable], sigma, images[usable])
    assert np.abs(np.array([rows[i]["pool_vas"] for i in usable]) - wanted).max() < 1e-4
    assert {rows[i][name] for i in MISSING for name in ("s_clip", "topic", "pool_vas")} == {None}


def seed_of(kind, name, what):
    return Reading(RunStore("."), RELATIONS.find(kind), name, "", 0).seed_of(what)


def test_centroids_of_a_run_are_taken_by_another(tmp_path, runs, pool):
    """`measure.clusters` assigns the rows to the same clusters as the run that made the centroids."""
    measure = {"clusters": {"again": {"of": "l14", "centroids": str(runs[1] / "models/topic.npy")}}}
    path = write_pool(tmp_path / "pool", 7, *pool, missing=MISSING)
    again = Run(str(run(tmp_path / "run", path, {}, measure=measure))).sql("SELECT again FROM verdicts ORDER BY url")
    assert again.column(0).to_pylist() == related(runs[1])["topic"]


def test_rules_see_them_and_they_are_reused(tmp_path, runs):
    rules = {"near": "topic_distance < 0.3", "best": {"top": 0.5, "of": "s_clip"}}
    out = run(tmp_path / "out", str(runs[7].parent / "pool7/*.parquet"), reuse=runs[7], rules=rules)
    one = Run(str(out))
    kept = one.sql("SELECT url FROM kept").num_rows
    assert 0 < kept < 250 and related(out) == related(runs[7])
    steps = one.sql("SELECT step FROM steps").column(0).to_pylist()
    assert "relate" not in steps, steps  # the run reused the columns and their model
    assert (out / "models/topic.npy").read_bytes() == (runs[7] / "models/topic.npy").read_bytes()
    kit.conserved(kit.Ran(out))
