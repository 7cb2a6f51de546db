"""Other runners of Beam's: what they need on this machine, and which folders their workers see."""

from pathlib import Path

import pytest

from curate.base.errors import RecipeError
from pipelines.engines.choose import choose_engine


def check(*words: str) -> None:
    choose_engine(words).check()


def write_java(folder: Path, version: str) -> None:
    """A program that answers as Java of a version does, to be found as java."""
    (folder / "bin").mkdir()
    java = folder / "bin" / "java"
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
    java.chmod(0o755)


def test_no_java_for_a_job_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RecipeError, match=r"SparkRunner, Beam's own, needs Java for its job server, but none is found"):
        check("--runner=SparkRunner")


@pytest.mark.parametrize("runner", ["SparkRunner", "FlinkRunner"])
def test_the_job_server_of_beams_own_runners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: str) -> None:
    write_java(tmp_path, "17")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/bin:/usr/bin")
    option = f"--{runner[:5].lower()}_job_server_jar"
    jar = tmp_path / "job-server.jar"
    with pytest.raises(RecipeError, match=rf"curate is not tested on.*{option}=FILE.*--job_endpoint.*runner: spark"):
        check(f"--runner={runner}", f"{option}={jar}")
    jar.touch()
    check(f"--runner={runner}", f"{option}={jar}")
    check(f"--runner={runner}", "--job_endpoint=localhost:1")
