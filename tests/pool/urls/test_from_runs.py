"""Decide first, then download: a run over a list as text, and a second run that downloads the kept rows."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.api import Run
from curate.ask.report.page import write_report
from curate.ask.verify import verify_run
from curate.base.errors import RecipeError
from curate.recipe.recipe import parse_recipe
from pipelines.prepare import prepare
from tests import kit
from tests.kit import forked
from tests.kit.web import Web, running

pytestmark = pytest.mark.thorough

pytest.importorskip("img2dataset")

PAGE = Path(__file__).parents[3] / "curate/pool/urls/README.md"
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


class Stages(NamedTuple):
    """A run over a list, and one that downloads its kept rows."""

    first: kit.Ran
    second: kit.Ran
    list: Path


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
    return Stages(first, kit.run_beam(recipe, folder / "second"), path)


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
    first, second, _ = stages
    earlier, own = decided(first), decided(second)
    assert min(earlier[uid] for uid in own) < 1 and min(own.values()) < 1
    assert column(second, "probability") == {uid: earlier[uid] * own[uid] for uid in own}
    assert column(second, "input_probability") == {uid: earlier[uid] for uid in own}


def test_a_third_stage(stages, tmp_path):
    """Over the images, after the run over the list has moved away."""
    first, second, _ = stages
    away = first.folder.rename(tmp_path / "away")
    third = kit.run_local(kit.recipe_of(str(second.folder), "run", sample={"rows": 12}), tmp_path / "third")
    away.rename(first.folder)
    weights = column(second, "probability")
    assert column(third, "input_probability") == {uid: weights[uid] for uid in column(third, "uid")}


def test_samples_say_what_the_list_says(stages):
    """The first run's decisions are only in columns, so the image files depend on nothing but the set of rows."""
    names = {name: data for name, data in stages.second.members if name.endswith(".json")}
    for data in names.values():
        fields = json.loads(data)
        assert fields["NSFW"] == "UNLIKELY" and not {"probability", "input_probability", "draw"} & fields.keys()
    assert len(names) == stages.second.counts["kept"]


def test_explain_tells_both_stages(stages):
    first, second, _ = stages
    run = Run(str(second.folder))
    uid = next(iter(decided(second)))
    page = str(run.explain(uid))
    assert "stage before" in page and str(first.folder) in page
    assert page.count("verdict: kept") == 2 and page.count("probability of both stages ") == 1
    dropped = first.table("decisions").filter(pa.compute.equal(first.table("decisions")["rule"], "words"))
    assert "verdict: dropped by words" in str(run.explain(dropped["uid"][0].as_py()))
    missing = second.table("samples").filter(pa.compute.equal(second.table("samples")["status"], "http_404"))
    page = str(run.explain(missing["uid"][0].as_py()))
    assert "verdict: failed" in page and "verdict: kept" in page


def test_the_run_is_named(stages):
    first, second, _ = stages
    facts = second.run["input_runs"]["web"]
    assert facts["kept"] == first.counts["kept"] and facts["rows"] == ROWS
    assert (
        second.run["recipe"]["input"][0]["from"] == str(first.folder) and "path" not in second.run["recipe"]["input"][0]
    )
    write_report(str(second.folder))
    assert str(first.folder) in (second.folder / "report.html").read_text()


def test_a_copy_of_the_first_run_is_the_same_list(stages, web, tmp_path):
    """In another place and with other times: its downloads are found."""
    first, second_run, _ = stages
    shutil.copytree(first.folder, tmp_path / "copy", copy_function=shutil.copyfile)
    asked = len(web.log)
    run = kit.run_local(second(tmp_path / "copy"), tmp_path / "again", reuse=second_run.folder)
    assert len(web.log) == asked and run.counts["kept"] + run.counts["failed"] == first.counts["kept"]


BAD = {
    "both": ({"path": "a.parquet"}, "give either path, of lists of URLs, or from"),
    "neither": ({"from": None}, "give either path, of lists of URLs, or from"),
    "columns": ({"columns": {"url": "x"}}, "the run named by `from` says which column is which"),
    "no run": ({"from": "nowhere"}, "nowhere"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(stages, tmp_path, name):
    source, message = BAD[name]
    with pytest.raises(RecipeError, match=message):
        prepare(second(stages.first.folder, source), str(tmp_path / "run"))


def test_runs_that_are_no_list(stages, tmp_path):
    shutil.copytree(stages.first.folder, tmp_path / "unfinished")
    (tmp_path / "unfinished/_SUCCESS").unlink()
    with pytest.raises(RecipeError, match="this run is not finished"):
        prepare(second(tmp_path / "unfinished"), str(tmp_path / "run"))
    images = kit.run_local(
        kit.recipe_of(kit.write_tars(tmp_path / "pool", kit.make_samples(12), 1)), tmp_path / "images"
    )
    with pytest.raises(RecipeError, match="the run has images; accepted: a run over a list of URLs as text"):
        prepare(second(images.folder), str(tmp_path / "run"))


@pytest.mark.slow
def test_the_readmes_lines_run(web, tmp_path):
    """Except that this list's hosts are on this machine."""
    section = PAGE.read_text().partition("## MetaCLIP from URLs, in two stages")[2].partition("\n## ")[0]
    for name, text in re.findall(r"```yaml\n# (\S+\.yaml)(.*?)```", section, re.DOTALL):
        (tmp_path / name).write_text(f"#{text}")
    (tmp_path / "list").mkdir()
    table = (
        pq.read_table(write_urls(web, tmp_path / "a.parquet")).drop_columns(["TEXT"]).rename_columns({"ALT": "TEXT"})
    )
    pq.write_table(table, tmp_path / "list/0.parquet")
    kit.write_metadata(tmp_path)
    [lines] = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    for line in lines.splitlines():
        curate, *words = shlex.split(line, comments=True)
        assert curate == "curate"
        if "images.yaml" in line:
            words += ["--set", "input.0.network.allow_networks=[127.0.0.0/8]", "--set", "max_failed=1"]
        done = forked.run(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    first, run = kit.Ran(tmp_path / "text-run"), kit.Ran(tmp_path / "images-run")
    assert first.counts["kept"] == sum(run.counts.values()) and run.counts["failed"] > 3 < run.counts["kept"]
