"""What is said of a run, by what is there of it; and how often that is looked at."""

import json
import os
import re
import shutil
import threading
import time
import uuid
from collections import Counter

import fsspec
import pytest

from curate.ask.status import FAILED, FINISHED, NOT_YET, Status, find_status, seconds_between
from curate.base.errors import RunError
from curate.cli import progress
from curate.cli import status as following
from curate.store.facts import read_claim
from curate.store.lock import locked
from curate.store.store import RunStore
from curate.store.timings import log_unit
from tests import kit
from tests.kit.written_runs import write_small


def test_a_run_that_ends_well_while_its_engine_is_asked(tmp_path):
    """To ask may take seconds, in which a driver publishes and ends."""
    url = str(tmp_path / "run")
    write_small(url)
    store, done = RunStore(url), tmp_path / "done"
    shutil.move(store.path("_SUCCESS"), done)

    def ask(holder):
        shutil.move(done, store.path("_SUCCESS"))
        return True, ""

    with locked(store, "run"):
        assert find_status(url, lambda holder: (True, "")).exit_status == FAILED
        assert find_status(url, ask).exit_status == FINISHED


def never(holder):
    return False, ""


def test_rates_and_time_left_are_of_the_files_of_the_last_minutes(tmp_path):
    write_small(str(tmp_path / "run"))
    store, now = RunStore(str(tmp_path / "run")), time.time()
    claim = json.loads(store.read_bytes("run.json"))
    claim["unit_keys"] = ["key"] * 100
    store.write_json("run.json", claim)
    (tmp_path / "run/_SUCCESS").unlink()
    shutil.rmtree(tmp_path / "run/tables")
    for name, ago in {"00000-00009": 5000, "00010": 241, "00011": 180, "00012": 120, "00013": 60, "00014": 1}.items():
        store.write_bytes(f"tables/samples/{name}.parquet", b"")
        os.utime(tmp_path / f"run/tables/samples/{name}.parquet", (now - ago, now - ago))
    with locked(store, "run"):
        status = find_status(store.url, never)
    assert status.exit_status == NOT_YET
    name, done, speed = status.steps[0]
    assert (name, done) == ("measure", "15/100") and re.fullmatch(r"0\.99\d units/min, about 85 min \d+ s left", speed)
    assert status.steps[1] == ("decide", "0/100", "")
    assert find_status(store.url, never).steps[0] == ("measure", "15/100", ""), "nobody works on it"


def test_a_finished_step_has_no_rate_and_one_without_a_total_keeps_it(tmp_path):
    """Shards ended five minutes ago: two in a minute then, and not fewer the longer it is ago."""
    write_small(str(tmp_path / "run"))
    store, now = RunStore(str(tmp_path / "run")), time.time()
    claim = json.loads(store.read_bytes("run.json"))
    claim["unit_keys"] = ["key"] * 3
    store.write_json("run.json", claim)
    (tmp_path / "run/_SUCCESS").unlink()
    for folder in ("tables", "shards"):
        shutil.rmtree(tmp_path / "run" / folder)
    for place, ago in enumerate((360, 330, 300)):
        for name in (f"tables/samples/{place:05d}.parquet", f"shards/{place:05d}_stats.json"):
            store.write_bytes(name, b"")
            os.utime(tmp_path / "run" / name, (now - ago, now - ago))
    with locked(store, "run"):
        steps = {name: (done, speed) for name, done, speed in find_status(store.url, never).steps}
    assert steps["measure"] == ("3/3", "") and steps["emit"] == ("3", "2 shards/min")


@pytest.mark.thorough
def test_steps_of_deduplication_are_those_of_the_last_command(tmp_path):
    """The audit ends a run after it; what an earlier command recorded is not progress of this one."""
    dedup = {"by": ["uid", {"phash": {"distance": 4}}]}
    pool = kit.write_tars(tmp_path / "tars", kit.make_samples(60), 3)
    recipe = kit.recipe_of(pool, max_failed=0.0, measure={"image": {"phash": True}}, dedup=dedup)
    store = RunStore(str(tmp_path / "run"))
    log_unit(store, "1 98 dedup: hash", 7)
    with pytest.raises(RunError, match="max_failed"):
        kit.run_beam(recipe, tmp_path / "run")
    units = len(read_claim(store).unit_keys)
    steps = find_status(store.url, never).steps
    assert [name for name, _, _ in steps][:5] == [
        "measure",
        "dedup: pass 2 search",
        "dedup: hash",
        "dedup: compare",
        "decide",
    ]
    assert [done for _, done, _ in steps][1:4] == ["begun", f"{units}/{units}", f"{units}/{units}"]


@pytest.fixture
def store():
    """A folder on a file system that is no disk."""
    folder = RunStore(f"memory://status-{uuid.uuid4().hex}")
    yield folder
    fsspec.filesystem("memory").rm(folder.root, recursive=True)


def test_an_object_store_is_listed_once_a_look_and_a_look_is_every_30_seconds(store, monkeypatch):
    listed = Counter()

    def counting(function):
        def ask(fs, path, *rest, **options):
            listed[path.removeprefix(store.root)] += 1
            return function(fs, path, *rest, **options)

        return ask

    for name in ("ls", "find"):
        monkeypatch.setattr(type(store.fs), name, counting(getattr(type(store.fs), name)))
    waited = []

    def wait(seconds):
        waited.append(seconds)
        if len(waited) == 3:
            raise KeyboardInterrupt

    with locked(store, "run"):
        store.write_bytes("tables/samples/00000.parquet", b"")
        store.write_bytes("logs/worker-1.log", b"")
        listed.clear()
        find_status(store.url, never)
        assert listed["/tables/samples"] == 1 and max(listed.values()) == 1, listed
        monkeypatch.setattr(following.time, "sleep", wait)
        monkeypatch.setattr(following, "find_status", lambda *_: Status(store.url, NOT_YET, "is at work"))
        with pytest.raises(KeyboardInterrupt):
            following._follow(store.url)
    assert waited == [30.0] * 3
    ended, looks = threading.Event(), progress._Progress(store, 1, 0).poll
    monkeypatch.setattr(ended, "wait", lambda seconds: waited.append(seconds) or ended.set())
    assert len(list(looks(ended, 0.3))) == 1 and waited[3:] == [30.0]


def test_a_folder_that_takes_long_to_list_is_listed_less_often(tmp_path):
    store = RunStore(str(tmp_path))
    assert [seconds_between(store, 0.5, took) for took in (0.01, 1, 60)] == [0.5, 10, 30]


def test_deaths_of_a_run_are_told(tmp_path):
    """And what was in flight: at work, only what was killed before."""
    write_small(str(tmp_path / "run"))
    (tmp_path / "run/_SUCCESS").unlink()
    store = RunStore(str(tmp_path / "run"))
    for work, attempts in {"00000": 1, "captions/00001": 3, "shard-17": 6}.items():
        for number in range(attempts):
            store.write_bytes(f"parts/attempts/{work}/{number}", b"")
    with locked(store, "run") as hold:
        hold.record(died="9 processes died, the last was ended by signal 9")
        working = find_status(store.url, never).notes
    assert working[-2:] == (
        "9 processes died, the last was ended by signal 9",
        "in flight when a process ended: shard 17 (killed 6 times), "
        "captions of unit 00001 (killed 3 times, isolated from now on)",
    )
    assert find_status(store.url, never).notes[-1].endswith(", unit 00000 (killed 1 time)")
