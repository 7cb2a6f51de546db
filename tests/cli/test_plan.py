"""`curate plan` as a whole; test_costs.py tests the costs."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curate.base.wording import format_bytes
from tests.cli.shared import by_first_word, changes, flat, tree
from tests.kit.crawls import info, pack

CLIP = Path(__file__).resolve().parents[2] / "curate/demo/clip"


def test_a_plan_changes_nothing(cli, pool, tmp_path):
    before = tree(pool)
    done = cli("plan", str(pool / "texts.yaml"), "--out", str(tmp_path / "out"))
    assert (done.status, done.err) == (0, "")
    lines = by_first_word(done.out)
    assert "1 file " in lines["urls"] and "parquet" in lines["urls"] and " uncompressed " in lines["urls"]
    assert "0 of 1 unit done" in lines["samples"] and "0 of 1 unit done" in lines["decisions"]
    assert lines["kept"].split()[1] == "58" and "±" in lines["kept"]  # t is whole: the largest that expects at most 60
    assert "metadata: 5 entries; dropped: 1 empty, 1 that are one punctuation mark, 1 repeated; 1 can never" in done.out
    assert tree(pool) == before and list(tmp_path.iterdir()) == []
    assert "estimate" not in cli("plan", str(pool / "texts.yaml"), "--no-estimate").out
    lines = by_first_word(cli("plan", str(pool / "tars.yaml")).out)
    assert "3 files" in lines["photos"] and "images" in lines["output"] and "members" in lines


@pytest.mark.usefixtures("without_beam")
def test_the_size_of_compressed_files_is_not_called_uncompressed(cli, tmp_path):
    (tmp_path / "cc.yaml").write_text("input: {name: cc, format: commoncrawl, path: a.warc.gz}")
    pack(tmp_path / "a.warc.gz", [info("a.warc.gz")])
    size = format_bytes((tmp_path / "a.warc.gz").stat().st_size)
    line = by_first_word(cli("plan", str(tmp_path / "cc.yaml"), "--no-estimate").out)["cc"]
    assert line.split() == ["cc", "commoncrawl", "1", "file", *size.split(), "1", "unit"]


@pytest.mark.usefixtures("without_beam")
def test_too_many_failed_samples_are_warned_of(cli, pool):
    recipe = str(pool / "tars.yaml")
    shown = cli("plan", recipe, *changes("max_failed=0.02")).out
    assert "warning: 5.0% of the samples could not be read" in shown
    [enough] = re.findall(r"--set (max_failed=[\d.]+) allows it", shown)
    assert "warning" not in cli("plan", recipe, *changes(enough)).out


def test_a_model_that_only_workers_can_run(cli, pool):
    """On this machine, this is an error. For another engine, the plan says why it estimates nothing."""
    model = changes(f"measure.clip={{model: 'onnx:{CLIP}', device: cuda}}")
    here = cli("plan", str(pool / "tars.yaml"), *model)
    assert here.status == 2 and "the recipe sets device: cuda" in here.err
    beam = ["--", "--runner=PortableRunner", "--job_endpoint=localhost:1", "--environment_type=LOOPBACK"]
    there = cli("plan", str(pool / "tars.yaml"), *model, *beam)
    assert there.status == 0 and "estimate: none on this machine: measure.clip 'clip': the recipe sets" in there.out


def test_rows_come_from_the_reused_run(cli, pool, finished, monkeypatch):
    monkeypatch.setattr("curate.ask.whatif.estimate._BYTES", 1)
    lines = by_first_word(cli("plan", str(pool / "tars.yaml")).out)
    assert lines["pool"].split()[1] == "about" and "at most" in lines["kept"]
    lines = by_first_word(cli("plan", str(pool / "tars.yaml"), "--reuse", str(finished["tars"][0])).out)
    assert lines["pool"].split()[1] == "60"
    done = cli("plan", str(pool / "texts.yaml"), "--out", str(finished["texts"][0]))
    assert "finished: nothing to do" in done.out and "1 of 1 unit done" in by_first_word(done.out)["samples"]


@pytest.mark.usefixtures("without_beam")
def test_files_that_cannot_be_read_and_pools_without_rows(cli, tmp_path, pool):
    (tmp_path / "r.yaml").write_text('input: {name: urls, format: parquet, path: "*.parquet"}\n')
    pq.write_table(pq.read_table(pool / "pool.parquet")[:0], tmp_path / "a.parquet")
    done = cli("plan", str(tmp_path / "r.yaml"))
    assert done.status == 0 and "none, since no row could be read" in done.out
    assert cli("run", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "out")).status == 0
    assert cli("verify", str(tmp_path / "out")).status == cli("sql", str(tmp_path / "out"), "funnel").status == 0
    (tmp_path / "b.parquet").write_bytes(b"junk")
    done = cli("plan", str(tmp_path / "r.yaml"), "--no-estimate")
    assert done.status == 0 and f"{tmp_path}/b.parquet: not_parquet" in flat(done.out)
