"""From a crawl to shards on Spark: the same bytes as here."""

import pytest

from tests.kit.crawl_runs import run_both, web, write_crawl
from tests.runners.runs import digests

__all__ = ["web"]
pytestmark = pytest.mark.runners

pytest.importorskip("pyspark")


def test_same_bytes(web, tmp_path):
    write_crawl(web, tmp_path)
    for engine, options in (("local", ()), ("spark", ("--", "--runner=spark", "--spark_master_url=local[2]"))):
        (tmp_path / engine).mkdir()
        run_both(tmp_path, tmp_path / engine, tmp_path / "local/first", *options)
    for run in ("first", "second"):
        files = [digests(tmp_path / engine / run) for engine in ("local", "spark")]
        shards = [{name: digest for name, digest in some.items() if name.startswith("shards/")} for some in files]
        assert shards[0] == shards[1]
        assert len(shards[0]) >= 3
