"""A recipe gives the same bytes on Spark as on the local runner, and the same errors."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from curate.cli.demo import _write_recipe
from curate.demo.pool import write_pool
from curate.errors import RunError
from curate.recipe.recipe import load_recipe
from pipelines import driver
from pipelines.claim import claimed

pytestmark = [pytest.mark.runners, pytest.mark.usefixtures("spark")]

TIMED = ("run.json", "_stats.json", "manifest.parquet", "stats.duckdb")  # which hold times
SPARK = ("--runner=spark",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's recipe, over a smaller pool."""
    made = tmp_path_factory.mktemp("demo")
    _write_recipe(str(made), str(made / "recipe.yaml"))
    write_pool(str(made / "pool"), samples=600, seed=3, shards=4)
    return made


def curate(recipe: Path, out: Path, words: tuple[str, ...]) -> None:
    prepared = driver.prepare(load_recipe(str(recipe)), str(out), options=words)
    with claimed(prepared):
        driver.run(prepared)


def digests(run: Path) -> dict[str, str]:
    files = [path for path in run.rglob("*") if path.is_file() and not path.name.endswith(TIMED)]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_bytes(folder: Path) -> None:
    curate(folder / "recipe.yaml", folder / "local", ())
    curate(folder / "recipe.yaml", folder / "spark", SPARK)
    found = digests(folder / "spark")
    assert found == digests(folder / "local")
    assert len([name for name in found if name.startswith(("shards/", "tables/"))]) > 10


def test_same_error(folder: Path, capfd: Any) -> None:
    text = (folder / "recipe.yaml").read_text()
    (folder / "strict.yaml").write_text(text.replace("max_failed: 0.1", "max_failed: 0.001"))
    errors = []
    for name, words in (("strict local", ()), ("strict spark", SPARK)):
        with pytest.raises(RunError, match="max_failed") as error:
            curate(folder / "strict.yaml", folder / name, words)
        errors.append(str(error.value).replace(name, ""))
    assert errors[0] == errors[1]
    assert "org.apache.spark" not in capfd.readouterr().err
