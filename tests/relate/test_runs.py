"""Relations in runs: killed, grown, forgotten, without embeddings, on Beam and in process, from another package."""

import json

import pytest
import yaml

from curate.api import Run
from curate.ask.opened import connected
from curate.ask.report.distributions import count_bins
from curate.base.errors import RecipeError
from curate.base.stages import STAGES
from curate.recipe.recipe import parse_recipe
from curate.store.store import RunStore
from pipelines.prepare import prepare
from tests import kit
from tests.kit import packages
from tests.kit.commands import run_command
from tests.kit.embedded import make_embeddings, recipe_of, write_pool
from tests.pipelines.graphs import build_graph, count_stages

RELATE = {
    "negclip": {"s_clip": {"of": "l14", "references": 40}},
    "clusters": {"topic": {"of": "l14", "k": 4, "rounds": 6}},
    "vas": {"pool_vas": {"of": "l14"}},
}


@pytest.fixture(autouse=True)
def units_are_small(monkeypatch):
    monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (20, 20))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_pool(tmp_path_factory.mktemp("pool") / "pool", 5, *make_embeddings(120, 16), missing=(7,))


def lasting(folder):
    return {
        name: (folder / name).read_bytes()
        for name in kit.lasting_files(folder)
        if name.startswith(("tables/", "models/", "shards/"))
    }


def test_beam_writes_what_a_plain_loop_does(path, tmp_path):
    recipe = parse_recipe(recipe_of(path, RELATE, rules={"near": "topic_distance < 0.4"}))
    kit.run_local(recipe, tmp_path / "local")
    kit.run_beam(recipe, tmp_path / "cluster", here=False)
    assert lasting(tmp_path / "local") == lasting(tmp_path / "cluster")
    assert "models/topic.npy" in lasting(tmp_path / "local")


@pytest.mark.slow
def test_a_run_that_was_killed_at_any_file_ends_the_same(path, tmp_path, monkeypatch):
    recipe = parse_recipe(recipe_of(path, RELATE))
    kit.run_local(recipe, tmp_path / "whole")
    put, wanted = RunStore._put, lasting(tmp_path / "whole")

    class Killed(BaseException):
        pass

    names = []
    for after in range(4, 60, 5):
        left = after

        def dying(store, name, *arguments, **named):
            nonlocal left
            if left == 0:
                raise Killed(name)
            left -= 1
            return put(store, name, *arguments, **named)

        out = tmp_path / f"out{after}"
        with monkeypatch.context() as patch:
            patch.setattr(RunStore, "_put", dying)
            try:
                kit.run_local(recipe, out)
            except Killed as killed:
                names.append(str(killed))
        if not (out / "_SUCCESS").exists():
            kit.run_local(recipe, out)
        assert lasting(out) == wanted
    assert any(name.startswith("tables/related") for name in names), names


@pytest.mark.slow
@pytest.mark.parametrize("how", ["missing", "cut short", "a bit is another"])
def test_a_model_that_is_lost_is_made_again(path, tmp_path, how):
    sample = {"quotas": {"of": "topic", "rows": 20, "by": "complexity"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe_of(path, RELATE, sample=sample)))
    recipe, out, model = str(tmp_path / "recipe.yaml"), tmp_path / "run", tmp_path / "run/models/topic.npy"
    assert run_command("run", recipe, "--out", str(out)).status == 0
    wanted, content = lasting(out), model.read_bytes()

    def lose():
        model.unlink()
        if how != "missing":
            changed = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
            model.write_bytes(changed if how == "a bit is another" else content[:100])

    lose()
    asked = run_command("whatif", str(out), "--set", "sample.quotas.rows=30")
    assert asked.status and "models/topic.npy" in asked.err, asked.err
    reused = run_command("run", recipe, "--out", str(tmp_path / "new"), "--reuse", str(out))
    assert reused.status == 0 and lasting(tmp_path / "new") == wanted, reused.err
    (out / "_SUCCESS").unlink()
    assert run_command("run", recipe, "--out", str(out)).status == 0
    assert lasting(out) == wanted


@pytest.mark.thorough
def test_a_file_more_relates_all_anew_and_measures_only_itself(tmp_path):
    images, texts = make_embeddings(150, 16)
    path = write_pool(tmp_path / "pool", 5, images[:120], texts[:120])
    old = kit.run_local(parse_recipe(recipe_of(path, RELATE)), tmp_path / "old")
    write_pool(tmp_path / "more", 1, images[120:], texts[120:])
    (tmp_path / "more/00000.parquet").rename(tmp_path / "pool/00009.parquet")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe_of(path, RELATE)))
    done = run_command("run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "new"), "--reuse", str(old.folder))
    assert done.status == 0, done.err
    steps = {step["step"]: step for step in Run(str(tmp_path / "new")).sql("FROM steps").to_pylist()}
    assert steps["measure"]["units"] == 1 and steps["relate"]["units"] == 6
    assert (
        old.table("related")["s_clip"].to_pylist()
        != kit.Ran(tmp_path / "new").table("related")["s_clip"].to_pylist()[:120]
    )


@pytest.mark.thorough
def test_what_is_forgotten_is_null_and_what_is_blocked_relates_to_nothing(path, tmp_path):
    recipe = recipe_of(path, RELATE)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert run_command("run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")).status == 0
    [url] = Run(str(tmp_path / "run")).sql("SELECT url FROM kept LIMIT 1").column(0).to_pylist()
    (tmp_path / "gone.txt").write_text(f"{url}\n")
    done = run_command("forget", str(tmp_path / "run"), "--urls", str(tmp_path / "gone.txt"))
    assert done.status == 0, done.err
    assert run_command("verify", str(tmp_path / "run")).status == 0
    query = "SELECT s_clip, topic, pool_vas FROM verdicts WHERE rule = 'forgotten'"
    assert Run(str(tmp_path / "run")).sql(query).to_pylist() == [{"s_clip": None, "topic": None, "pool_vas": None}]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"blocklist": str(tmp_path / "gone.txt")}))
    done = run_command("run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "blocked"))
    assert done.status == 0, done.err
    assert Run(str(tmp_path / "blocked")).sql(query).to_pylist() == [{"s_clip": None, "topic": None, "pool_vas": None}]


@pytest.mark.thorough
def test_what_if_the_report_and_plan_know_them(path, tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        yaml.safe_dump(recipe_of(path, RELATE, rules={"near": "topic_distance < 0.9"}))
    )
    recipe, out = str(tmp_path / "recipe.yaml"), str(tmp_path / "run")
    assert run_command("run", recipe, "--out", out).status == 0
    done = run_command(
        "whatif", out, "--set", "rules.near=topic_distance < 0.2", "--set", "rules.s={top: 0.5, of: s_clip}"
    )
    assert done.status == 0 and "near" in done.out, done.err
    costs = run_command("plan", recipe, "--measure", "60")
    assert costs.status == 0 and "relate" in costs.out and "kept" in costs.out, costs.err
    with connected(out) as run:
        assert [histogram.name for histogram in count_bins(run)][:4] == [
            "s_clip", "topic", "topic_distance", "pool_vas",
        ]  # fmt: skip
    names = [stage.name for stage in STAGES]
    for query, column in (("costs", "what"), ("step_times", "step")):
        steps = [row[column] for row in json.loads(run_command("sql", out, query, "--format", "json").out)]
        assert "relate" in steps and [step for step in steps if step != "run"] == [n for n in names if n in steps]
    planned = run_command("plan", recipe, "--out", out)
    assert planned.status == 0 and "related" in planned.out, planned.out


def test_a_plan_before_the_run_relates_its_sample(path, tmp_path):
    rules = {"s": {"top": 0.25, "of": "s_clip"}}
    sample = {"quotas": {"of": "topic", "rows": 20, "by": "complexity", "keep": "farthest"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe_of(path, RELATE, rules=rules, sample=sample)))
    recipe, out = str(tmp_path / "recipe.yaml"), tmp_path / "run"
    planned = run_command("plan", recipe, "--out", str(out))
    assert planned.status == 0, planned.err
    assert "20  (16.67%), with quotas of 4 values of topic" in planned.out and not out.exists(), planned.out


@pytest.mark.parametrize(
    ("relate", "wanted"),
    [
        ({"negclip": {"x": {"of": "b32"}}}, "relate.negclip.x needs the model 'b32' in measure.clip"),
        ({"negclip": {"x": {"of": "l14"}}, "vas": {"x": {"of": "l14"}}}, "two relations are named 'x'"),
        ({"clusters": {"x": {"of": "l14", "k": 0}}}, "relate.clusters.x.k: Input should be greater"),
        ({"cluster": {"x": {"of": "l14", "k": 2}}}, "did you mean 'clusters'"),
    ],
)
def test_what_is_refused(relate, wanted, path):
    with pytest.raises(RecipeError) as error:
        parse_recipe(recipe_of(path, relate))
    assert wanted in str(error.value)


def test_relations_of_one_column(path, tmp_path):
    relate = {"clusters": {"topic": {"of": "l14", "k": 4}}, "vas": {"topic_distance": {"of": "l14"}}}
    with pytest.raises(RecipeError, match="there is a column topic_distance already"):
        prepare(parse_recipe(recipe_of(path, relate)), str(tmp_path / "run"))


def test_a_name_that_there_is(path, tmp_path):
    with pytest.raises(RecipeError, match="relate: there is a column caption already"):
        kit.run_local(parse_recipe(recipe_of(path, {"vas": {"caption": {"of": "l14"}}})), tmp_path / "out")


CODE = '''
import pyarrow as pa

from curate.plugins import Column, Fold, OnKept, Relation


class Twins(OnKept):
    """How many rows of the pool have the very same image embedding."""

    gives = (Column("related", "NAME", "int64", "How many rows have this embedding."),)


def count(rows):
    yield {image.tobytes(): 1 for image in rows.images}


def merge(a, b):
    return {key: a.get(key, 0) + b.get(key, 0) for key in a.keys() | b.keys()}


def save(reading, counts):
    import numpy as np

    keys = sorted(counts)
    arrays = {"keys": np.array([list(key) for key in keys], np.uint8), "counts": np.array([counts[key] for key in keys])}
    return reading.save(**arrays)


class TwinsRelation(Relation):
    key, section = "twins", Twins

    def columns(self, name, section):
        return (pa.field(name, pa.int64()),)

    def fit(self, asking, section):
        return asking.get("save", save, asking.ask("count", count, combine=Fold(merge)))

    def apply(self, model, section, rows):
        counts = {key.tobytes(): n for key, n in zip(model["keys"], model["counts"].tolist())}
        return [pa.array([counts[image.tobytes()] for image in rows.images], pa.int64())]


RELATION = TwinsRelation()
'''


@pytest.mark.slow
@packages.needs_hatchling
def test_a_relation_of_another_package(path, tmp_path):
    site = packages.install(
        tmp_path, "curate-twins", CODE, '[project.entry-points."curate.relations"]\ntwins = "curate_twins:RELATION"'
    )
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe_of(path, {"twins": {"alike": {"of": "l14"}}})))
    done = packages.curate(site, "run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    done = packages.curate(
        site, "sql", str(tmp_path / "run"), "SELECT sum(alike) AS n FROM verdicts", "--format", "csv"
    )
    assert done.stdout.split() == ["n", "119"], done.stderr
    (site / "curate_twins.py").write_text(CODE.replace("counts[image.tobytes()] for", "counts[0] for"))
    done = packages.curate(site, "run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run2"))
    assert done.returncode == 1 and "curate-twins 0.1" in done.stderr and "curate_twins.py" in done.stderr, done.stderr


def test_a_relation_without_any_row_leaves_others_as_they_are(tmp_path):
    images, texts = make_embeddings(60, 16)
    path = write_pool(tmp_path / "pool", 3, images, texts * 0)
    run = kit.run_beam(parse_recipe(recipe_of(path, RELATE)), tmp_path / "run")
    related = run.table("related")
    assert related["s_clip"].null_count == 60 and related["topic"].null_count == related["pool_vas"].null_count == 0


def test_the_graph_stays_small(path, tmp_path):
    """A sample of references takes a few barriers, and each round of clusters about two."""
    counts = []
    for name, relate in (("none", {}), ("negclip", {"negclip": RELATE["negclip"]}), ("all", RELATE)):
        counts.append(count_stages(build_graph(parse_recipe(recipe_of(path, relate)), tmp_path / name)))
    none, negclip, everything = counts
    assert negclip - none <= 8 and everything - none <= 8 + 3 * RELATE["clusters"]["topic"]["rounds"]  # type: ignore[operator]
