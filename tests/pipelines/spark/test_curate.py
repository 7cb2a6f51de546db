"""A recipe that fails gives the same error on Spark as on the local runner."""

import pytest

from curate.base.errors import RunError
from curate.cli.demo import _write_recipe
from curate.demo.pool import write_pool
from curate.recipe.recipe import load_recipe
from pipelines import driver
from pipelines.claim import claimed
from pipelines.driver import _write_costs
from pipelines.engines import spark
from pipelines.prepare import prepare

pytestmark = [pytest.mark.runners, pytest.mark.usefixtures("spark")]

SPARK = ("--runner=spark",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The demo's recipe, over a smaller pool."""
    made = tmp_path_factory.mktemp("demo")
    _write_recipe(str(made), str(made / "recipe.yaml"))
    write_pool(str(made / "pool"), samples=600, seed=3, shards=4)
    return made


def curate(recipe, out, words):
    prepared = prepare(load_recipe(str(recipe)), str(out), options=words)
    with claimed(prepared):
        driver.run(prepared)


def test_same_error(folder, capfd):
    text = (folder / "recipe.yaml").read_text()
    (folder / "strict.yaml").write_text(text.replace("max_failed: 0.1", "max_failed: 0.001"))
    errors = []
    for name, words in (("strict local", ()), ("strict spark", SPARK)):
        with pytest.raises(RunError, match="max_failed") as error:
            curate(folder / "strict.yaml", folder / name, words)
        errors.append(str(error.value).replace(name, ""))
    assert errors[0] == errors[1]
    assert "org.apache.spark" not in capfd.readouterr().err


def test_what_stages_take_is_written_meanwhile(folder, monkeypatch):
    written = []

    def write(store, costs):
        written.append(len(costs))
        return _write_costs(store, costs)

    monkeypatch.setattr(spark, "_BETWEEN", 100)
    monkeypatch.setattr(driver, "_write_costs", write)
    curate(folder / "recipe.yaml", folder / "run", SPARK)
    assert written == sorted(written) and len(set(written)) > 2
    lines = (folder / "run/logs/stages.csv").read_text().splitlines()
    assert len(lines) == written[-1] + 1 and any(line.startswith('"Units: create, unpack",1,') for line in lines)
