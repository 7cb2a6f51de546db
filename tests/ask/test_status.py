"""The status of a run from its files, and how often its folders are listed."""

import os
import re
import shutil
import time

import pytest

from curate.ask.status import FAILED, FINISHED, NOT_YET, find_status, seconds_between
from curate.base.errors import RunError
from curate.store.facts import read_claim
from curate.store.lock import locked
from curate.store.store import RunStore
from curate.store.timings import log_unit
from tests import kit
from tests.kit.written_runs import write_small


def never(holder):
    return False, ""


def unfinished(folder, units=1):
    """A run of `units` units without tables and shards, which has not ended."""
    store = write_small(str(folder / "run"))
    store.write_json("run.json", store.read_json("run.json") | {"unit_keys": ["key"] * units})
    store.delete("_SUCCESS")
    for name in ("tables", "shards"):
        shutil.rmtree(store.path(name))
    return store


def write_aged(store, ages):
    """Write empty files, each some seconds old."""
    now = time.time()
    for name, age in ages.items():
        store.write_bytes(name, b"")
        os.utime(store.path(name), (now - age, now - age))


def test_a_run_that_finishes_while_curate_asks_its_engine(tmp_path):
    store, done = write_small(str(tmp_path / "run")), tmp_path / "done"
    shutil.move(store.path("_SUCCESS"), done)

    def ask(holder):
        shutil.move(done, store.path("_SUCCESS"))
        return True, ""

    with locked(store, "run"):
        assert find_status(store.url, lambda holder: (True, "")).exit_status == FAILED
        assert find_status(store.url, ask).exit_status == FINISHED


def test_rates_and_time_left_are_from_files_of_the_last_minutes(tmp_path):
    store = unfinished(tmp_path, 100)
    ages = {"00000-00009": 5000, "00010": 241, "00011": 180, "00012": 120, "00013": 60, "00014": 1}
    write_aged(store, {f"tables/samples/{name}.parquet": age for name, age in ages.items()})
    with locked(store, "run"):
        status = find_status(store.url, never)
    assert status.exit_status == NOT_YET
    name, done, speed = status.steps[0]
    assert (name, done) == ("measure", "15/100") and re.fullmatch(r"0\.99\d units/min, about 85 min \d+ s left", speed)
    assert status.steps[1] == ("decide", "0/100", "")
    assert find_status(store.url, never).steps[0] == ("measure", "15/100", ""), "nobody works on it"


def test_a_finished_step_has_no_rate_and_one_without_a_total_keeps_it(tmp_path):
    """Shards ended five minutes ago, at two per minute; the rate does not fall with time."""
    store = unfinished(tmp_path, 3)
    for place, age in enumerate((360, 330, 300)):
        write_aged(store, {f"tables/samples/{place:05d}.parquet": age, f"shards/{place:05d}_stats.json": age})
    with locked(store, "run"):
        steps = {name: (done, speed) for name, done, speed in find_status(store.url, never).steps}
    assert steps["measure"] == ("3/3", "") and steps["emit"] == ("3", "2 shards/min")


@pytest.mark.thorough
def test_steps_of_deduplication_are_those_of_the_last_command(tmp_path):
    """What an earlier command recorded is not progress of this one, which the audit ends."""
    dedup = {"by": ["uid", {"phash": {"distance": 4}}]}
    pool = kit.write_tars(tmp_path / "tars", kit.make_samples(60), 3)
    recipe = kit.recipe_of(pool, max_failed=0.0, measure={"image": {"phash": True}}, dedup=dedup)
    store = RunStore(str(tmp_path / "run"))
    log_unit(store, "1 98 dedup: hash", 7)
    with pytest.raises(RunError, match="max_failed"):
        kit.run_beam(recipe, tmp_path / "run")
    units = len(read_claim(store).unit_keys)
    steps = find_status(store.url, never).steps
    assert [name for name, _, _ in steps][1:4] == ["dedup: pass 2 search", "dedup: hash", "dedup: compare"]
    assert [done for _, done, _ in steps][1:4] == ["begun", f"{units}/{units}", f"{units}/{units}"]


def test_a_folder_that_takes_long_to_list_is_listed_less_often(tmp_path):
    """A folder in an object store is listed every 30 seconds at most."""
    store = RunStore(str(tmp_path))
    assert [seconds_between(store, 0.5, took) for took in (0.01, 1, 60)] == [0.5, 10, 30]
    assert seconds_between(RunStore("memory://status"), 0.5, 0.01) == 30


def test_killed_work_is_shown(tmp_path):
    """While a command works, only work that was killed more than once."""
    store = unfinished(tmp_path)
    for work, attempts in {"00000": 1, "captions/00001": 3, "shard-17": 6}.items():
        for number in range(attempts):
            store.write_bytes(f"parts/attempts/{work}/{number}", b"")
    with locked(store, "run") as hold:
        hold.record(died="9 processes died")
        died, in_flight = find_status(store.url, never).notes[-2:]
    assert (
        died == "9 processes died" and "shard 17 (killed 6 times), captions of unit 00001 (killed 3 times" in in_flight
    )
    assert find_status(store.url, never).notes[-1].endswith(", unit 00000 (killed 1 time)")
