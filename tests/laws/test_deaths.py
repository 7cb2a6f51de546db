"""Law 3 on one machine: whatever ends the process of `curate run`, one command goes on, to the end of an undisturbed run.

Samples that kill their process are rows that failed, as in commands that are repeated: by other signals, and in
downloads, in `tests/measure/test_isolate.py`, `tests/captions/test_isolate.py` and `tests/laws/test_killed_downloads.py`,
where memory runs out too.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.captions import deadly as captions
from tests.kit import forked
from tests.laws.test_killed_downloads import check_equal, web, whole
from tests.laws.test_resume import check_finished, many
from tests.measure import deadly as measure

__all__ = ["many", "web", "whole"]
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("name", "death", "end"),
    [
        ("deadly", "os.kill(os.getpid(), signal.SIGSEGV)", "was ended by signal 11"),
        ("deadly", "os.kill(os.getpid(), signal.SIGTERM)", "was ended by signal 15"),
        ("deadly", "os._exit(0)", "ended itself (status 0)"),
        ("deadly_text", "os._exit(7)", "ended itself (status 7)"),
        ("captions", "os.kill(os.getpid(), signal.SIGABRT)", "was ended by signal 6"),
        ("captions", "os._exit(0)", "ended itself (status 0)"),
    ],
)
def test_samples(name, death, end, tmp_path):
    if name == "captions":
        captions.install(tmp_path)
    else:
        measure.install(tmp_path, name)
    env = os.environ | {"PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}", "DEATH": death}
    command = [sys.executable, "-m", "curate", "run", "recipe.yaml", "--out", "run"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr.count("another one continues") == 3, done.stderr
    if name == "captions":
        captions.check(tmp_path / "run", end)
    else:
        measure.check(tmp_path / "run", name, end)


def kill_children(out, recipe, moments, number):
    """Run a recipe, and kill what works for the command, once it has so many files of each of these names in turn."""
    err = out.with_suffix(".err")
    process, killed = forked.start("run", recipe, "--out", out, err=err), 0
    command = psutil.Process(process.pid)
    for name, files in moments:
        while process.is_alive() and len(list(out.glob(name))) < files:
            time.sleep(0.005)
        children = command.children() if process.is_alive() else []
        for child in children:
            child.send_signal(number)
        killed += len(children)
        psutil.wait_procs(children, 300)
    process.join()
    assert process.exitcode == 0, err.read_text()
    # On a crowded machine the last ones may end before they are killed.
    assert killed >= len(moments) / 2 and err.read_text().count("another one continues") >= len(moments) / 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_deaths_from_outside(number, many, tmp_path):
    """In measuring, deciding and emission, and when it publishes."""
    recipe, undisturbed = many
    measuring = [("tables/samples/*.parquet", 2), ("tables/samples/*.parquet", 7)]
    later = [("tables/decisions/*.parquet", 1), ("shards/*.tar", 2), ("shards/*.tar", 5), ("manifest.parquet", 1)]
    kill_children(tmp_path / "out", recipe, measuring + later, number)
    check_finished(tmp_path / "out", undisturbed)


def test_deaths_from_outside_in_downloads(whole):
    recipe, undisturbed = whole
    out = recipe.parent / "disturbed"
    kill_children(
        out, recipe, [("pool/*_stats.json", 3), ("pool/*_stats.json", 9), ("shards/*.tar", 1)], signal.SIGKILL
    )
    check_equal(out, undisturbed)
