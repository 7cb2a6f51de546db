"""Metadata is the same bytes on Spark as in this process, however its files are cut."""

from pathlib import Path

import pytest

from curate.match.building.parts import make_plan
from curate.match.building.wikis import Limits, Mode
from pipelines.metadata import run_build
from tests.kit.wikis import SMALL, build, write_all

pytestmark = pytest.mark.runners


def test_a_build_on_spark_equals_one_in_this_process(tmp_path, spark, monkeypatch):
    write_all(tmp_path)
    expected, report = build(tmp_path, "corrected")
    dumps = sorted(map(str, tmp_path.glob("*.bz2")))
    monkeypatch.setattr("curate.match.building.parts.PART_BYTES", Path(dumps[0]).stat().st_size // 7 + 1)
    plan = make_plan(dumps, [str(tmp_path / "views")], [str(tmp_path / "wordnets")], (), Mode.corrected)
    out = tmp_path / "spark.parquet"
    words = ("--runner=spark", "--spark_master_url=local[2]")
    assert run_build(plan, str(out), Mode.corrected, Limits(**SMALL), words) == report
    assert out.read_bytes() == expected.read_bytes()
