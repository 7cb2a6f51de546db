"""A request that crashes its engine's process fails, and all other requests are answered."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from curate.captions import isolate
from curate.captions.isolate import Captioner
from curate.captions.regions import Box
from curate.llm.engine import Request
from tests import kit
from tests.kit import lasting_files
from tests.kit.deadly_captions import check, install

ROOT = Path(__file__).resolve().parents[2]


def curate(folder, *words, **variables):
    env = os.environ | {"PYTHONPATH": f"{folder / 'site'}:{ROOT}"} | variables
    command = [sys.executable, "-m", "curate", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=folder)


@pytest.mark.slow
def test_a_request_that_ends_its_worker_is_told(tmp_path):
    """It kills three processes of the command; the next process isolates it."""
    install(tmp_path)
    run = "run", "recipe.yaml", "--out", "run"
    marks = tmp_path / "run/parts/attempts/captions/00000"
    few = curate(tmp_path, *run, "--set", "max_failed=0.05")
    assert few.returncode == 1 and "1 of 13 caption requests (7.7%) got no answer" in few.stderr, few.stderr
    assert (
        "in flight: captions of unit 00000 (" in few.stderr and few.stderr.count("was ended by signal 9 (Killed") == 3
    )
    assert "worker_died 1, such as 3 processes died while they captioned the unit" in few.stderr
    assert sorted(mark.name for mark in marks.iterdir()) == ["0", "1", "2"]
    done = curate(tmp_path, *run)  # which asks again, apart
    assert done.returncode == 0, done.stderr
    check(tmp_path / "run")
    shown = curate(tmp_path, "explain", "run", "deadly")
    assert "worker_died" in shown.stdout, shown.stdout


@pytest.mark.slow
def test_machines_that_are_taken_away_cost_no_request(tmp_path):
    """If each attempt stores a batch before it is killed, the run finishes, and no answer changes."""
    install(tmp_path)
    run, marks = ("run", "recipe.yaml", "--out", "run"), tmp_path / "run/parts/attempts/captions/00000"
    taken = curate(tmp_path, *run, MACHINE="taken away")
    assert taken.returncode == 0 and 2 <= taken.stderr.count("another one continues") <= 6, taken.stderr
    assert not marks.exists()
    again = curate(tmp_path, "run", "recipe.yaml", "--out", "undisturbed", MACHINE="stays")
    assert again.returncode == 0, again.stderr
    assert lasting_files(tmp_path / "run") == lasting_files(tmp_path / "undisturbed")


@pytest.mark.slow
def test_what_does_not_get_on_is_given_up(tmp_path):
    """The next command marks all requests of the unit as failed, and the one after it sends them again."""
    install(tmp_path)
    run, marks = ("run", "recipe.yaml", "--out", "run"), tmp_path / "run/parts/attempts/captions/00000"
    given_up = curate(tmp_path, *run, MACHINE="dies")
    assert given_up.returncode == 1 and given_up.stderr.count("another one continues") == 6
    assert "6 processes died, the last was ended by signal 9" in given_up.stderr and "killed 6 times" in given_up.stderr
    assert sorted(mark.name for mark in marks.iterdir()) == ["0", "1", "2", "3", "4", "5"]
    over = curate(tmp_path, *run, MACHINE="stays")
    assert over.returncode == 1 and "13 of 13 caption requests" in over.stderr and "run again" in over.stderr
    done = curate(tmp_path, *run, MACHINE="stays")
    assert done.returncode == 0, done.stderr


class Detector:
    """Detects each first phrase; the phrase `the end` ends the process."""

    model, batch = "detector", 4

    def detect(self, pictures, queries, threshold):
        if ["the end"] in queries:
            os._exit(3)
        return [[Box((0.0, 0.0, 1.0, 1.0), 0, 0.5)] for _ in queries]


def open_detector(options, model):
    return Detector()


@pytest.mark.slow
def test_an_image_that_ends_the_detector(monkeypatch):
    monkeypatch.setattr(isolate, "open_detector", open_detector)
    unit = Captioner(SimpleNamespace(captions=SimpleNamespace(regions=None)), 3)  # type: ignore[arg-type]
    phrases = pa.array([["a dog"], ["a cat"], None, ["the end"], [], ["a tree"]])
    tables = unit.find_regions([kit.encode(kit.picture(0))] * 6, phrases, Detector(), 0.1)
    rows = [row for table in tables for row in table.to_pylist()]
    unit.end()
    found = [row["regions"] and row["regions"][0]["phrase"] for row in rows]
    assert found == ["a dog", "a cat", None, None, [], "a tree"] and unit.has_fault
    detail = "3 processes died while they captioned the unit, and a process that had only this request or image exited (status 3)"
    assert [row["error"] for row in rows] == [None, None, None, f"worker_died: {detail}", None, None]


def test_what_kills_whatever_is_asked_fails_unasked():
    spec = SimpleNamespace(section=SimpleNamespace(is_local=False))
    unit = Captioner(None, 6)  # type: ignore[arg-type]
    [(_, answer)] = unit.answers(spec, "a model", [Request("0" * 32, "rewrite", "human", 0)])
    assert (
        answer.error
        == "worker_died: 6 processes died while they captioned the unit, but a process that handles a single request or image does not crash"
    )
    assert answer.text is None and not unit.has_fault
