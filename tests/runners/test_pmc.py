"""Articles on Spark and on Prism: the same bytes as here."""

import pytest
import yaml

from tests.kit import forked
from tests.kit.articles import ARTICLES, DAMAGED, write_folders
from tests.pool.pmc.test_runs import RULES
from tests.runners.clusters import find_go_program
from tests.runners.test_engines import digests

pytestmark = pytest.mark.runners


@pytest.mark.parametrize("engine", ["spark", "prism"])
def test_same_bytes(tmp_path, engine):
    if engine == "spark":
        pytest.importorskip("pyspark")
        options = ["--runner=spark", "--spark_master_url=local[2]"]
    else:
        options = ["--runner=prism", f"--prism_location={find_go_program('prism')}"]
    source = {"name": "pmc", "format": "pmc", "path": str(write_folders(tmp_path / "pmc", [*ARTICLES, *DAMAGED]))}
    recipe = {"input": [source], "rules": RULES, "max_failed": 1.0, "output": {"rows_per_shard": 5}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    shards = []
    for name, more in (("local", []), (engine, ["--", *options])):
        ended = forked.run("run", tmp_path / "recipe.yaml", "--out", tmp_path / name, *more)
        assert ended.returncode == 0, ended.stderr
        files = digests(tmp_path / name)
        shards.append({file: digest for file, digest in files.items() if file.startswith("shards/")})
    assert shards[0] == shards[1]
    assert len(shards[0]) >= 6
