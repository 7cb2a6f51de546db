"""Images, captions and files that crash the process that measures them: they fail, and the others are measured."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.measure import isolate
from curate.measure.images import measure_images
from curate.measure.isolate import _measure
from curate.measure.settings import MeasureSettings
from curate.pool.formats.input_format import InputPart
from pipelines.prepare import prepare
from tests import kit
from tests.kit.deadly import check, install

ROOT = Path(__file__).resolve().parents[2]


def run(folder, group=None, *words):
    """Run the recipe, or with these words, in a group of processes whose memory the kernel limits if there is one."""
    env = os.environ | {"PYTHONPATH": f"{folder / 'site'}:{ROOT}"}
    command = [sys.executable, "-m", "curate", "run", *(words or ("recipe.yaml", "--out", "run"))]
    command = ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh", *command] if group else command
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deadly", "deadly_text"])
def test_a_sample_that_ends_its_worker_is_a_row_that_failed(tmp_path, name):
    """Three processes of the command are killed by it; the next one finds it, and measures all others."""
    install(tmp_path, name)
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("curate: in flight: unit 00000 ")]) == 3
    check(tmp_path / "run", name)


@pytest.mark.slow
def test_a_unit_that_was_measured_before_by_other_signals(tmp_path):
    """The run reuses tables in which all rows were ok; when its own signal kills, it measures the unit again."""
    install(tmp_path, "deadly")
    recipe = (tmp_path / "recipe.yaml").read_text()
    (tmp_path / "old.yaml").write_text(recipe.replace("measure: {deadly: {}}\n", ""))
    done = run(tmp_path, None, "old.yaml", "--out", "old")
    assert done.returncode == 0, done.stderr
    done = run(tmp_path, None, "recipe.yaml", "--out", "run", "--reuse", "old")
    assert done.returncode == 0, done.stderr
    check(tmp_path / "run", "deadly")
    few = run(tmp_path, None, "recipe.yaml", "--out", "few", "--reuse", "run", "--set", "max_failed=0.05")
    assert few.returncode == 1 and "1 of 13 samples" in few.stderr, "it counts, and is not tried again"


@pytest.fixture
def group():
    """A group of processes that have 1.2 GB together; the kernel ends one that takes more."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    line = next((line for line in lines if ":memory:" in line), lines[-1])
    root = Path("/sys/fs/cgroup/memory" if ":memory:" in line else "/sys/fs/cgroup")
    path = root / line.split(":", 2)[2].lstrip("/") / f"curate{os.getpid()}"
    try:
        path.mkdir()
        (path / ("memory.limit_in_bytes" if ":memory:" in line else "memory.max")).write_text(str(1_200_000_000))
    except OSError as error:
        pytest.skip(f"no group with a limit of memory: {error}")
    yield path
    path.rmdir()


@pytest.mark.slow
def test_an_image_that_takes_all_memory_is_a_row(tmp_path, group):
    """The kernel kills three processes; the next one isolates the image with half of the free memory, where it is an error."""
    install(tmp_path, "hungry")
    done = run(tmp_path, group)
    assert done.returncode == 0, done.stderr
    scores = pq.read_table(tmp_path / "run/tables/scores/00000.parquet")["hungry"].to_pylist()
    assert scores == [1.0] * 7 + [None] + [1.0] * 5
    assert "hungry" in done.stdout and done.stderr.count("maybe because memory ran out") == 3, done.stderr


def end_with_some(settings, rows, names):
    """As `isolate._measure`, but for images of one byte, which end the process."""
    if any(image == b"!" for image, _, _ in rows):
        os.kill(os.getpid(), signal.SIGSEGV)
    return _measure(settings, rows, names)


class StubbornError(Exception):
    def __reduce__(self):
        raise TypeError("it does not travel")


def fail(settings, rows, names):
    raise StubbornError("no good")


def exit_when_read(settings, parts, source):
    os._exit(3)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    recipe = kit.recipe_of(kit.write_tars(folder / "tars", kit.make_samples(12), 1))
    return MeasureSettings.of(prepare(recipe, str(folder / "run")).context)


@pytest.mark.slow
def test_a_step_is_halved_down_to_what_ends_the_process(settings, monkeypatch):
    image, captions = kit.encode(kit.picture(0)), pa.array(["a caption"] * 2)
    monkeypatch.setattr(isolate, "_measure", end_with_some)
    with isolate.isolating(3, settings) as process:
        assert process
        table = process.measure([image, b"!"], captions, [], ["", ""])
        monkeypatch.setattr(isolate, "_measure", fail)
        with pytest.raises(RuntimeError, match="StubbornError: no good"):
            process.measure([image], captions[:1], [], [""])
        monkeypatch.setattr(isolate, "_read", exit_when_read)
        monkeypatch.setattr("curate.base.isolate.CONFIRMATIONS", 1)
        source = settings.sources[0]
        reason, detail = process.find_fault(source, InputPart(source.paths[0], 1, "")) or ("", "")
    assert table["status"].to_pylist() == ["ok", "worker_died"]
    assert table["error"][1].as_py().endswith("and one that had only this row was ended by signal 11")
    assert table[:1].equals(measure_images(iter([image]), captions[:1], settings.measure.image, [], []))
    assert reason == "worker_died" and detail.endswith("a process that only read the file exited (status 3)")


def end_with_ends(settings, captions, names):
    """As `isolate._compute`, but for a caption that ends the process."""
    if "end" in captions.to_pylist():
        os._exit(5)


@pytest.mark.slow
def test_captions_that_end_the_process(settings, monkeypatch):
    monkeypatch.setattr(isolate, "_compute", end_with_ends)
    with isolate.isolating(3, settings) as process:
        deadly = process.find_deadly(pa.array(["a", None, "end"]), [])
    detail = "3 processes died while they measured the unit, and one that had only this row exited (status 5)"
    assert deadly == {2: detail}


def test_few_kills_and_many(settings):
    """After few kills a unit is measured in its own process; if it kills every process, its file has failed."""
    for killed in (0, 2):
        with isolate.isolating(killed, settings) as process:
            assert process is None
    with isolate.isolating(6, settings) as process:
        fault = process.find_fault(settings.sources[0], InputPart("0.tar", 1, ""))
    assert fault == (
        "worker_died",
        "6 processes died while they measured this file, but a process that measures a single row does not crash",
    )
