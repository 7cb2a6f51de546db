"""Decide first, then download: a run over a list as text, and a second run that downloads the kept rows."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.ask.verify import verify_run
from curate.base.errors import RecipeError
from curate.recipe.recipe import parse_recipe
from pipelines.prepare import prepare
from tests import kit
from tests.kit.web import Web, running

pytestmark = pytest.mark.thorough

pytest.importorskip("img2dataset")

ROWS = 120


@pytest.fixture(scope="module")
def web():
    with running(Web({str(i): kit.encode(kit.picture(i, 240)) for i in range(ROWS)}, 4)) as servers:
        yield servers


def write_urls(web, path):
    """A list in which every seventh URL is gone, and captions are in a column with another name."""
    rows = range(ROWS)
    table = pa.table(
        {
            "URL": [web.url(f"{'image' if i % 7 else 'gone'}/{i}", i % 4) for i in rows],
            "ALT": [f"a {kit.METADATA[i % 9]} in the garden number {i}" if i % 11 else "no" for i in rows],
            "TEXT": ["not the caption" for _ in rows],
            "similarity": pa.array([i / ROWS for i in rows], pa.float32()),
            "NSFW": ["UNLIKELY" for _ in rows],
        }
    )
    pq.write_table(table, path)
    return path


def second(first, source=None, **sections):
    """A recipe that downloads the kept rows of a run."""
    network = {"contact": "me@example.org", "allow_networks": ["127.0.0.0/8"], "pause": 0.01}
    own = {"name": "web", "format": "urls", "from": str(first), "network": network, "number_sample_per_shard": 25}
    return parse_recipe({"input": own | (source or {}), "max_failed": 1.0, **sections})


@pytest.fixture(scope="module")
def stages(web, tmp_path_factory):
    """Both runs balance."""
    folder = tmp_path_factory.mktemp("stages")
    path = write_urls(web, folder / "list.parquet")
    match = {"metadata": kit.write_metadata(folder)}
    own = {"columns": {"caption": "ALT"}}
    first = kit.run_local(
        kit.recipe_of(str(path), "parquet", source=own, rules={"words": "words > 2"}, match=match, balance={"t": 60},
                  measure={"language": {}}, output={"rows_per_shard": 40}),
        folder / "first",
    )  # fmt: skip
    recipe = second(first.folder, match=match, balance={"t": 30}, rules={"wide": "min_side >= 100"}, seed=3)
    return first, kit.run_local(recipe, folder / "second"), path


def column(ran, name):
    """A column in the shards, by uid."""
    table = pa.concat_tables([pq.read_table(path) for path in sorted(ran.folder.glob("shards/*.parquet"))])
    return dict(zip(table["uid"].to_pylist(), table[name].to_pylist(), strict=True))


def decided(ran, name="probability"):
    """A column of decisions for kept rows, by uid."""
    table = ran.table("decisions").filter(ran.table("decisions")["kept"])
    return dict(zip(table["uid"].to_pylist(), table[name].to_pylist(), strict=True))


def test_the_pool_is_what_the_first_run_kept(stages):
    first, second, _ = stages
    pool, before = second.table("samples"), first.table("samples").filter(first.table("decisions")["kept"])
    same = ["uid", "url", "caption", "language"]
    assert sorted(pool.select(same).to_pylist(), key=str) == sorted(before.select(same).to_pylist(), key=str)
    assert 20 < second.counts["kept"] < first.counts["kept"] == sum(second.counts.values()) < ROWS
    missing = pool.filter(pa.compute.not_equal(pool["status"], "ok"))
    assert set(missing["status"].to_pylist()) == {"http_404"} and second.counts["failed"] == len(missing) > 3
    scores = dict(
        zip(second.table("scores")["uid"].to_pylist(), second.table("scores")["similarity"].to_pylist(), strict=True)
    )
    assert scores == column(first, "similarity")
    assert verify_run(str(second.folder))[1] == []


def test_weights_multiply(stages):
    """The first run's decisions are only in columns, so the image files depend on nothing but the set of rows."""
    first, second, _ = stages
    fields = [json.loads(data) for name, data in second.members if name.endswith(".json")]
    assert len(fields) == second.counts["kept"] and {one["NSFW"] for one in fields} == {"UNLIKELY"}
    assert not [one for one in fields if {"probability", "input_probability", "draw"} & one.keys()]
    earlier, own = decided(first), decided(second)
    assert min(earlier[uid] for uid in own) < 1 and min(own.values()) < 1
    assert column(second, "probability") == {uid: earlier[uid] * own[uid] for uid in own}
    assert column(second, "input_probability") == {uid: earlier[uid] for uid in own}


def test_a_copy_of_the_first_run_is_the_same_list(stages, web, tmp_path):
    """In another place and with other times: its downloads are found."""
    first, second_run, _ = stages
    shutil.copytree(first.folder, tmp_path / "copy", copy_function=shutil.copyfile)
    asked = len(web.log)
    run = kit.run_local(second(tmp_path / "copy"), tmp_path / "again", reuse=second_run.folder)
    assert len(web.log) == asked and run.counts["kept"] + run.counts["failed"] == first.counts["kept"]


BAD = {
    "both": ({"path": "a.parquet"}, r"give either path \(lists of URLs\) or from"),
    "neither": ({"from": None}, r"give either path \(lists of URLs\) or from"),
    "columns": ({"columns": {"url": "x"}}, "the run in `from` already names its columns"),
    "no run": ({"from": "nowhere"}, "nowhere"),
    "unfinished": ({"from": "{tmp}/unfinished"}, "this run is not finished"),
    "images": ({"from": "{second}"}, "the run has images; accepted: a run without images"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(stages, tmp_path, name):
    first, images, _ = stages
    shutil.copytree(first.folder, tmp_path / "unfinished")
    (tmp_path / "unfinished/_SUCCESS").unlink()
    source, message = BAD[name]
    source = {
        key: value.format(tmp=tmp_path, second=images.folder) if isinstance(value, str) else value
        for key, value in source.items()
    }
    with pytest.raises(RecipeError, match=message):
        prepare(second(first.folder, source), str(tmp_path / "run"))
