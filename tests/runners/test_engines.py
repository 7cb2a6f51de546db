"""One recipe, one result: files of runs on Prism and on Spark are those of the local runner, byte for byte."""

import json
import os
from functools import cache
from itertools import product

import pytest
import yaml

from tests import kit
from tests.kit.kills import check_killed, count_files, kill_at
from tests.runners.clusters import find_go_program, write_boot
from tests.runners.runs import curate, digests, write_demo

pytestmark = pytest.mark.runners

# A cluster's bytes are also those that test_kills.py compares.
ENGINES = ("prism by processes", "local[2]", pytest.param("standalone", marks=pytest.mark.slow), "Spark 3.5")
RECIPES = ("demo", pytest.param("tars", marks=pytest.mark.slow))
# What a run draws by, in place of the demo's balance; topics are clusters that it made.
DRAWS = {
    "values": {"balance": {"of": "topic", "rows": 60}},
    "weights": {"sample": {"weights": "exp(3 * clip_score)", "rows": 60}},
    "mixture": {"sample": {"mixture": {"of": "topic", "rows": 60, "shares": {0: 3, 1: 1, 2: 1}}}},
    "quotas": {"sample": {"quotas": {"of": "topic", "rows": 60, "by": "complexity", "keep": "farthest"}}},
    "texts": {
        "match.mode": "corrected",
        "balance": {"scheme": "per_language", "t": 3, "one_per": "image"},
        "dedup": {"by": ["uid"]},  # so that some images have several
    },
    "soft caps": {"sample": {"soft_cap": {"of": "s_clip", "draws": 300, "batch": 50}}},
}
IN_CI = (("prism", "quotas"), ("local[2]", "soft caps"))
_SPARK = {"spark.ui.enabled": "false", "spark.executor.memory": "512m"}


@pytest.fixture(scope="module")
def engine(request, tmp_path_factory):
    """The options of an engine by its name, as a file of `--on` has them."""

    def find(name):
        if name.startswith("prism"):
            found = {"runner": "prism", "prism_location": find_go_program("prism")}
            if name != "prism":
                command = write_boot(tmp_path_factory.mktemp("engine"))
                found |= {"environment_type": "PROCESS", "environment_config": json.dumps({"command": command})}
            return found
        pytest.importorskip("pyspark")
        if name == "Spark 3.5":
            return {"runner": "spark", "spark_master_url": "local[2]", "spark_conf": _SPARK}
        conf = _SPARK | {"spark.executorEnv.PYTHONPATH": os.environ["PYTHONPATH"]}
        url = request.getfixturevalue("cluster").url if name == "standalone" else name
        return {"runner": "spark", "spark_master_url": url, "spark_conf": conf}

    return find


@pytest.fixture(scope="module")
def recipe_of(tmp_path_factory):
    """Writes a recipe and its pool, once."""
    folder = tmp_path_factory.mktemp("recipes")
    return cache(lambda name: {"demo": write_demo, "tars": write_tars}[name](folder))


def write_tars(folder):
    """2,000 small tars."""
    path = kit.write_tars(folder / "many", kit.make_samples(4000), 2000)
    own = {
        "input": {"name": "pool", "format": "webdataset", "path": path},
        "match": {"metadata": kit.write_metadata(folder)},
        "measure": {"language": {}, "image": {"phash": True}},
        "rules": {"words": "words > 2", "wide": {"top": 0.9, "of": "width"}},
        "dedup": {"by": ["uid", "sha256", {"phash": {"distance": 4}}]},
        "balance": {"rows": 1000},
        "output": {"rows_per_shard": 200},
        "max_failed": 1.0,
    }
    (folder / "tars.yaml").write_text(yaml.safe_dump(own))
    return folder / "tars.yaml"


def find_spark_3():
    """The environment of a process that has Spark 3.5 in place of what is installed; skips the test where there is none."""
    if not (folder := os.environ.get("SPARK_3")):
        pytest.skip("no Spark 3.5: pip install --target FOLDER 'pyspark>=3.5,<4', and SPARK_3=FOLDER")
    return {"PYTHONPATH": os.pathsep.join([folder, os.environ["PYTHONPATH"]])}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The folder of runs by the local runner."""
    return tmp_path_factory.mktemp("local")


@pytest.fixture(scope="module")
def local(recipe_of, here):
    """The files of a run on the local runner, which is made once."""
    return cache(lambda name: curate(recipe_of(name), here / name))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ENGINES)
def test_same_bytes(name, recipe, engine, recipe_of, local, tmp_path):
    environment = find_spark_3() if name == "Spark 3.5" else {}
    files = curate(recipe_of(recipe), tmp_path / "run", engine(name), environment)
    assert files == local(recipe)
    assert len([path for path in files if path.startswith("shards/")]) >= 5


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        pytest.param(name, draw, marks=[] if (name, draw) in IN_CI else pytest.mark.slow)
        for name, draw in product(("prism", "local[2]"), DRAWS)
    ],
)
def test_draws_are_the_same(name, draw, engine, recipe_of, local, here, tmp_path):
    """All that is measured and related is taken of the demo's run, so that an engine decides, draws and emits.

    With texts it matches too, in a mode that the demo's run does not have.
    """
    local("demo")
    changes = {"captions": None, "balance": None} | DRAWS[draw]
    words = ["--reuse", here / "demo"]
    for key, value in changes.items():
        words += ["--set", f"{key}={json.dumps(value)}"]
    files = curate(recipe_of("demo"), tmp_path / "run", engine(name), more=words)
    if not (here / draw).exists():
        curate(recipe_of("demo"), here / draw, more=words)
    assert files == digests(here / draw)
    run = json.loads((tmp_path / "run/run.json").read_text())
    assert draw != "texts" or run["counts"]["other_text"]


def test_an_engine_ends_what_another_began(engine, recipe_of, local, tmp_path):
    """Killed here while it measures, killed on Spark later on, and ended by Prism."""
    out, words = tmp_path / "run", ["run", recipe_of("demo"), "--out", tmp_path / "run"]
    (tmp_path / "spark.yaml").write_text(yaml.safe_dump(engine("standalone")))
    assert kill_at(1, 0, out, *words)
    begun = set(out.glob("tables/*/*.parquet"))
    assert kill_at(count_files(out) + 12, 0, out, *words, "--on", tmp_path / "spark.yaml")
    check_killed(out)
    assert begun < set(out.glob("tables/*/*.parquet")) and not (out / "_SUCCESS").exists()
    assert curate(recipe_of("demo"), out, engine("prism by processes")) == local("demo")
    assert not [path for path in (out / "tmp", out / "parts") if path.exists()]
