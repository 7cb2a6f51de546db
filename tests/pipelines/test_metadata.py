"""The pipeline of a build, on the local engine."""

import json
import os
from pathlib import Path

import pytest

from curate.match.building.parts import make_plan
from curate.match.building.wikis import Limits, Mode
from pipelines.metadata import run_build
from tests.kit.wikis import SMALL, build, write_all

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("parts", [1, 7, 40])
def test_the_local_engine_gives_what_steps_in_this_process_give(tmp_path, parts, monkeypatch):
    write_all(tmp_path)
    expected, report = build(tmp_path, "worldwide")
    dumps = sorted(map(str, tmp_path.glob("*.bz2")))
    monkeypatch.setattr("curate.match.building.parts.PART_BYTES", Path(dumps[0]).stat().st_size // parts + 1)
    plan = make_plan(dumps, [str(tmp_path / "views")], [str(tmp_path / "wordnets")], (), Mode.worldwide)
    (tmp_path / "out").mkdir()
    assert run_build(plan, str(tmp_path / "out/m.parquet"), Mode.worldwide, Limits(**SMALL)) == report
    assert (tmp_path / "out/m.parquet").read_bytes() == expected.read_bytes()
    assert json.loads((tmp_path / "out/m.report.json").read_text()) == report
    assert sorted(os.listdir(tmp_path / "out")) == ["m.parquet", "m.report.json"]
