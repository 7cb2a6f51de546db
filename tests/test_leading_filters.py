"""Filters that lead DataComp since its baselines: their recipes follow the published definitions in float64."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.sparse.csgraph import connected_components

from curate.base.errors import RecipeError
from curate.recipe.recipe import load_recipe
from tests import kit
from tests.kit.datacomp import RECIPES, make_pool

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pool of DataComp's layout with hostile rows, and the recipes beside it."""
    folder = tmp_path_factory.mktemp("leading")
    make_pool(folder / "metadata", ["a photo of a house", "a book on a box", "art of a woman in a dress"])
    for path in RECIPES.glob("*.yaml"):
        (folder / path.name).write_text(path.read_text())
    return folder


@pytest.fixture(scope="module")
def pool(folder):
    """How many rows it has, the embeddings of each, and those of ImageNet."""
    files = sorted((folder / "metadata").glob("*.parquet"))
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    arrays = [np.load(file.with_suffix(".npz")) for file in files]
    images, texts = (
        np.concatenate([part[f"l14_{side}"] for part in arrays]).astype(np.float64) for side in ("img", "txt")
    )
    saved = [torch.load(path)["image_features"] for path in sorted(folder.glob("in1k_clip_vit_l14_*.pt"))]
    return {"rows": rows, "img": images, "txt": texts, "targets": torch.cat(saved).numpy().astype(np.float64)}


def run(folder, name, out, *overrides):
    recipe = load_recipe(str(folder / f"{name}.yaml"), ["max_failed=1", "max_failed_files=1", *overrides])
    return kit.run_local(recipe, out)


def columns(ran, table, *names):
    samples, values = ran.table("samples"), ran.table(table)
    is_ok = np.array([status == "ok" for status in samples["status"].to_pylist()])
    kept = np.array(ran.table("decisions")["kept"].to_pylist())
    found = {name: np.array(values[name].to_pylist(), np.float64) for name in names}
    return {"uid": samples["uid"].to_pylist(), "ok": is_ok, "kept": kept} | found


def usable(pool, ran):
    """Rows that can be read and have embeddings of both sides."""
    sides = [pool["img"], pool["txt"]]
    return ran["ok"] & np.logical_and.reduce([np.isfinite(side).all(axis=1) & side.any(axis=1) for side in sides])


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_s_cliploss_and_normsim(folder, pool, tmp_path):
    """Each row is compared with all others, because there are fewer than references; the second cut is of the first one's rows."""
    ran = run(folder, "s_cliploss_normsim", tmp_path / "run")
    found = columns(ran, "related", "s_clip") | {"imagenet": columns(ran, "scores", "imagenet")["imagenet"]}
    rows = np.flatnonzero(usable(pool, found))
    sides = np.concatenate([pool["img"], pool["txt"]], axis=1).astype(np.float16)
    order = sorted(rows, key=lambda row: sides[row].tobytes())  # of a uid's rows the one with the smallest bytes counts
    distinct = [order[i] for i in np.unique([found["uid"][row] for row in order], return_index=True)[1]]
    images, texts = (unit(pool[side][rows].astype(np.float16).astype(np.float64)) for side in ("img", "txt"))
    at = {row: place for place, row in enumerate(rows)}
    others = [at[row] for row in distinct]
    for place in range(0, len(rows), 37):
        row = rows[place]
        beside = [other for other in others if found["uid"][rows[other]] != found["uid"][row]] + [place]
        sums = [np.log(np.exp(b[beside] @ a[place] / 0.01).sum()) for a, b in ((images, texts), (texts, images))]
        expected = images[place] @ texts[place] - 0.01 / 2 * sum(sums)
        assert abs(found["s_clip"][row] - expected) < 1e-4
    targets = unit(pool["targets"])
    assert np.abs(found["imagenet"][rows] - np.abs(images @ targets.T).max(axis=1)).max() < 1e-4
    first = np.argsort(-np.nan_to_num(found["s_clip"], nan=-np.inf), kind="stable")[: int(0.3 * pool["rows"])]
    second = first[np.argsort(-found["imagenet"][first], kind="stable")[: int(0.2 * pool["rows"])]]
    kept = {found["uid"][row] for row in np.flatnonzero(found["kept"])}
    assert kept == {found["uid"][row] for row in second}


def test_vas(folder, pool, tmp_path):
    found = columns(run(folder, "vas", tmp_path / "run"), "scores", "imagenet_vas")
    rows = np.flatnonzero(usable(pool, found))
    targets, images = unit(pool["targets"]), unit(pool["img"][rows].astype(np.float16).astype(np.float64))
    expected = ((images @ targets.T) ** 2).mean(axis=1)
    assert np.abs(found["imagenet_vas"][rows] - expected).max() < 1e-4


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("s_cliploss_top30", []),
        ("density_pruning", ["relate.clusters.topic.k=20", "sample.quotas.rows=500", "rules={}"]),
        ("soft_cap", ["sample.soft_cap.draws=3000", "sample.soft_cap.batch=100"]),
    ],
)
def test_recipes_that_need_no_weights(name, overrides, folder, tmp_path):
    ran = run(folder, name, tmp_path / "run", *overrides)
    kit.conserved(ran)
    assert ran.counts["kept"] == 500 if name == "density_pruning" else ran.counts["kept"] > 100
    if name == "soft_cap":
        repeats = ran.table("decisions")["repeats"].to_pylist()
        assert sum(repeats) == 3000 and max(repeats) > 1


@pytest.mark.slow
def test_semdedup_compares_within_a_cluster(folder, pool, tmp_path):
    """Groups are the components of near pairs within a cluster; near pairs across clusters do not count."""
    cosine = 0.5  # so that some rows are near others of another cluster
    changes = ["relate.clusters.topic.k=5", "rules={}", f"dedup.by.1.embedding.cosine={cosine}"]
    ran = run(folder, "semdedup", tmp_path / "run", *changes)
    kit.conserved(ran)
    found = columns(ran, "related", "topic", "topic_distance")
    rows = np.flatnonzero(usable(pool, found))
    vectors = unit(pool["img"][rows].astype(np.float16).astype(np.float64))
    near, same = vectors @ vectors.T >= cosine, np.equal.outer(found["topic"][rows], found["topic"][rows])
    assert (near & ~same).any()
    groups = connected_components(near & same)[1]
    farthest = {group: found["topic_distance"][rows][groups == group].max() for group in groups.tolist()}
    kept = found["kept"][rows]
    assert all(found["topic_distance"][rows][k] == farthest[groups[k]] for k in np.flatnonzero(kept))
    assert len(set(groups[kept].tolist())) == len(farthest)
    recipe = load_recipe(str(folder / "semdedup.yaml"), ["max_failed=1", "max_failed_files=1", *changes])
    many = kit.run_beam(recipe, tmp_path / "many", here=False)
    assert many.table("decisions").equals(ran.table("decisions"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["dedup.by.1.embedding.within=topics"], "dedup.by.within: no column 'topics'"),
        (["dedup.by.1.embedding.within=topic_distance"], "dedup.by.within: .*accepted: integers, text, or booleans"),
        (
            ["derive.half='topic < 3'", "dedup.by.1.embedding.within=half"],
            "dedup.by.within: 'half' is a column of derive",
        ),
    ],
)
def test_within_needs_groups(changes, message, folder, tmp_path):
    with pytest.raises(RecipeError, match=message):
        run(folder, "semdedup", tmp_path / "run", *changes)
