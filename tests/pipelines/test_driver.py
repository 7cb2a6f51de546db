"""What the driver does before Beam's steps begin."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.runners.runner import PipelineResult

from curate.store.lease import find_lease
from pipelines import driver
from pipelines.claim import claimed
from pipelines.engines.choose import choose_engine
from pipelines.engines.job import EngineUnresponsiveError, Job
from pipelines.engines.local import Local
from pipelines.prepare import prepare
from pipelines.spark.context import SparkOptions
from tests import kit


@pytest.mark.thorough
def test_a_program_learns_which_command_survives_a_death(tmp_path, caplog):
    pq.write_table(pa.table({"caption": ["a red dog"], "url": ["u1"]}), tmp_path / "pool.parquet")
    prepared = prepare(kit.recipe_of(str(tmp_path / "pool.parquet"), "parquet"), str(tmp_path / "run"))
    with claimed(prepared):
        prepared.context.store.write_bytes("parts/attempts/00000/0", b"")
        driver.run(prepared)
    unit = f"unit 00000 ({tmp_path}/pool.parquet) (killed 1 time)"
    assert f"a process ended while it worked on this: {unit}; if" in caplog.text


class Silent(Job):
    def follow(self, on_costs):
        raise EngineUnresponsiveError("no answer for an hour")


def test_a_job_that_says_nothing_for_long_keeps_the_folder(tmp_path, monkeypatch):
    pq.write_table(pa.table({"caption": ["a red dog"], "url": ["u1"]}), tmp_path / "pool.parquet")
    prepared = prepare(kit.recipe_of(str(tmp_path / "pool.parquet"), "parquet"), str(tmp_path / "run"))
    monkeypatch.setattr(Local, "outlasts_driver", True)
    monkeypatch.setattr(Local, "submit", lambda *_: Silent("a cluster", PipelineResult("RUNNING")))
    told = "for an hour\nThe job may still be running: run `curate status"
    with pytest.raises(EngineUnresponsiveError, match=told), claimed(prepared) as hold:
        driver.run(prepared, hold)
    holder = find_lease(prepared.context.store)
    assert holder and holder.is_detached


def test_no_folder_depends_on_where_a_worker_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"caption": ["a dog"], "url": ["u"]}), "pool.parquet")
    recipe = kit.recipe_of(str(tmp_path / "pool.parquet"), "parquet")
    with claimed(prepared := prepare(recipe, "first")):
        driver.run(prepared)
    context = prepare(recipe, "second", reuse="first").context
    assert context.reuse is not None
    assert (context.store.url, context.reuse.url) == (str(tmp_path / "second"), str(tmp_path / "first"))
    exchange = choose_engine(["--runner=spark", "--spark_exchange=exchange"]).options.view_as(SparkOptions)
    assert exchange.find_exchange() == str(tmp_path / "exchange")
