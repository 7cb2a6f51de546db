"""A worker that cannot start is one error, soon, before anything is written."""

import json
import time
from pathlib import Path

import pytest

from curate.base.errors import RunError
from pipelines.driver import preflight
from pipelines.engines import programs
from pipelines.prepare import prepare
from tests.laws import pools
from tests.runners.clusters import find_go_program

pytestmark = pytest.mark.runners


def write(path: Path, *lines: str) -> str:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("fault", ["missing", "ends", "hangs"])
def test_a_worker_that_does_not_start(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = str(tmp_path / "nothing")
    if fault == "ends":
        command = write(tmp_path / "worker", "echo there is no Beam here >&2", "exit 3")
    if fault == "hangs":
        monkeypatch.setattr(programs, "_SECONDS", 3)
        command = write(tmp_path / "worker", "exec sleep 600")
    words = ["--runner=prism", f"--prism_location={find_go_program('prism')}", "--environment_type=PROCESS"]
    words.append(f"--environment_config={json.dumps({'command': command})}")
    recipe = pools.recipe_of(pools.write_tars(tmp_path / "tars", pools.make_samples(6), 1))
    prepared = prepare(recipe, str(tmp_path / "run"), options=words)
    began = time.monotonic()
    with pytest.raises(RunError, match="no worker started within") as found:
        preflight(prepared)
    assert time.monotonic() - began < 110  # before all its time is over
    assert command in str(found.value) and "\n" not in str(found.value)
    said = {"missing": "no such file", "ends": "there is no Beam here", "hangs": "environment_type PROCESS"}[fault]
    assert said in str(found.value)
    assert not (tmp_path / "run").exists()
