"""Relations in runs: on Beam, killed, grown, forgotten, planned, and without embeddings."""

import pytest
import yaml

from curate.api import Run
from curate.base.errors import RecipeError
from curate.recipe.recipe import parse_recipe
from curate.store.store import RunStore
from pipelines.prepare import prepare
from tests import kit
from tests.kit.commands import run_command
from tests.kit.embedded import make_embeddings, recipe_of, write_pool

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
    names = [name for name in kit.lasting_files(folder) if name.startswith(("tables/", "models/", "shards/"))]
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.slow
def test_on_beam_and_killed_at_each_kind_of_file_a_run_ends_the_same(path, tmp_path, monkeypatch):
    recipe = parse_recipe(recipe_of(path, RELATE, rules={"near": "topic_distance < 0.4"}))
    kit.run_local(recipe, tmp_path / "whole")
    kit.run_beam(recipe, tmp_path / "cluster", here=False)
    put, wanted = RunStore._put, lasting(tmp_path / "whole")
    assert lasting(tmp_path / "cluster") == wanted and "models/topic.npy" in wanted

    class Killed(BaseException):
        pass

    for number, folder in enumerate(("tmp/relate/topic/", "models/", "tables/related/")):

        def dying(store, name, *arguments, folder=folder, **named):
            if name.startswith(folder):
                raise Killed(name)
            return put(store, name, *arguments, **named)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(RunStore, "_put", dying)
            kit.run_local(recipe, tmp_path / f"{number}")
        kit.run_local(recipe, tmp_path / f"{number}")
        assert lasting(tmp_path / f"{number}") == wanted


@pytest.mark.thorough
def test_a_file_more_relates_all_anew_and_measures_only_itself(tmp_path):
    images, texts = make_embeddings(150, 16)
    path = write_pool(tmp_path / "pool", 5, images[:120], texts[:120])
    recipe = parse_recipe(recipe_of(path, RELATE))
    old = kit.run_local(recipe, tmp_path / "old")
    write_pool(tmp_path / "more", 1, images[120:], texts[120:])
    (tmp_path / "more/00000.parquet").rename(tmp_path / "pool/00009.parquet")
    new = kit.run_local(recipe, tmp_path / "new", reuse=old.folder)
    steps = {step["step"]: step for step in Run(str(new.folder)).sql("FROM steps").to_pylist()}
    assert steps["measure"]["units"] == 1 and steps["relate"]["units"] == 6
    before, after = (run.table("related")["s_clip"].to_pylist()[:120] for run in (old, new))
    assert before != after


@pytest.mark.thorough
def test_what_is_forgotten_is_null_and_what_is_blocked_relates_to_nothing(path, tmp_path):
    out, gone, recipe = tmp_path / "run", tmp_path / "gone.txt", recipe_of(path, RELATE)
    kit.run_local(parse_recipe(recipe), out)
    [url] = Run(str(out)).sql("SELECT url FROM kept LIMIT 1").column(0).to_pylist()
    gone.write_text(f"{url}\n")
    done = run_command("forget", str(out), "--urls", str(gone))
    assert done.status == 0 and run_command("verify", str(out)).status == 0, done.err
    blocked = kit.run_local(parse_recipe(recipe | {"blocklist": str(gone)}), tmp_path / "blocked")
    query = "SELECT s_clip, topic, pool_vas FROM verdicts WHERE rule = 'forgotten'"
    for folder in (out, blocked.folder):
        assert Run(str(folder)).sql(query).to_pylist() == [{"s_clip": None, "topic": None, "pool_vas": None}]


def test_a_plan_before_the_run_relates_its_sample(path, tmp_path):
    rules = {"s": {"top": 0.25, "of": "s_clip"}}
    sample = {"quotas": {"of": "topic", "rows": 20, "by": "complexity", "keep": "farthest"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe_of(path, RELATE, rules=rules, sample=sample)))
    out = tmp_path / "run"
    planned = run_command("plan", str(tmp_path / "recipe.yaml"), "--out", str(out))
    assert planned.status == 0, planned.err
    assert "20  (16.67%), with quotas of 4 values of topic" in planned.out and not out.exists(), planned.out


@pytest.mark.parametrize(
    ("relate", "wanted"),
    [
        ({"negclip": {"x": {"of": "b32"}}}, "relate.negclip.x needs the model 'b32' in measure.clip"),
        ({"negclip": {"x": {"of": "l14"}}, "vas": {"x": {"of": "l14"}}}, "two relations are named 'x'"),
        ({"clusters": {"x": {"of": "l14", "k": 0}}}, "relate.clusters.x.k: Input should be greater"),
        ({"cluster": {"x": {"of": "l14", "k": 2}}}, "did you mean 'clusters'"),
        (RELATE | {"vas": {"topic_distance": {"of": "l14"}}}, "a column topic_distance exists already"),
        ({"vas": {"caption": {"of": "l14"}}}, "relate: a column caption exists already"),
    ],
)
def test_what_is_refused(relate, wanted, path, tmp_path):
    with pytest.raises(RecipeError) as error:
        prepare(parse_recipe(recipe_of(path, relate)), str(tmp_path / "run"))
    assert wanted in str(error.value)


def test_a_relation_without_any_row_leaves_others_as_they_are(tmp_path):
    images, texts = make_embeddings(60, 16)
    path = write_pool(tmp_path / "pool", 3, images, texts * 0)
    related = kit.run_local(parse_recipe(recipe_of(path, RELATE)), tmp_path / "run").table("related")
    assert related["s_clip"].null_count == 60 and related["topic"].null_count == related["pool_vas"].null_count == 0
