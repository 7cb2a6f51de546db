"""Articles on Spark: the same bytes as here."""

from pathlib import Path

import pytest
import yaml

from tests import forked
from tests.pool.pmc.articles import ARTICLES, DAMAGED, write_folders
from tests.pool.pmc.test_runs import RULES
from tests.runners.test_engines import digests

pytestmark = pytest.mark.runners

pytest.importorskip("pyspark")


def test_same_bytes(tmp_path: Path) -> None:
    source = {"name": "pmc", "format": "pmc", "path": str(write_folders(tmp_path / "pmc", [*ARTICLES, *DAMAGED]))}
    recipe = {"input": [source], "rules": RULES, "max_failed": 1.0, "output": {"rows_per_shard": 5}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    shards = []
    for engine, options in (("local", ()), ("spark", ("--", "--runner=spark", "--spark_master_url=local[2]"))):
        ended = forked.run("run", tmp_path / "recipe.yaml", "--out", tmp_path / engine, *options)
        assert ended.returncode == 0, ended.stderr
        files = digests(tmp_path / engine)
        shards.append({name: digest for name, digest in files.items() if name.startswith("shards/")})
    assert shards[0] == shards[1]
    assert len(shards[0]) >= 6
