"""What a driver and its children say: to the shell until it is left, then to a log, which has all of it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# A driver with a child, and a copy of its stream, that goes on until a file is gone, or ends before it leaves the shell.
DRIVER = """
import os, subprocess, sys, time
from pathlib import Path
from curate.cli.detach import passing_on

log, flag, spare = Path(sys.argv[1]), Path(sys.argv[2]), os.dup(2)
with passing_on() as streams:
    words = 'echo child before >&2; touch "$0.ready"; read line && echo child after; while [ -e "$0" ]; do sleep 0.1; done'
    child = subprocess.Popen(["sh", "-c", words, flag], stdin=subprocess.PIPE)
    os.write(1, b"driver before\\n")
    while not Path(f"{flag}.ready").exists():
        time.sleep(0.01)
    if log.name == "none":
        sys.exit("wrong")
    with open(log, "ab") as file:
        for stream in streams:
            stream.move(file.fileno())
    child.stdin.write(b"go\\n")
    child.stdin.flush()
    os.write(1, b"driver after\\n")
    while flag.exists() or "child after" not in log.read_text():
        time.sleep(0.01)
os.write(1, b"driver last\\n")
"""


@pytest.fixture
def flag(tmp_path: Path) -> Iterator[Path]:
    """A file without which driver and child end."""
    (path := tmp_path / "flag").touch()
    yield path
    path.unlink(missing_ok=True)


def start(log: Path, flag: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, str(log), str(flag)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What the shell had, to its end."""
    assert process.stdout and process.stderr
    with process.stdout as out, process.stderr as err:
        return out.read(), err.read()


def test_a_shell_is_left_by_children_too(flag: Path, tmp_path: Path) -> None:
    driver = start(tmp_path / "log", flag)
    assert read(driver) == ("driver before\n", "child before\n")
    assert driver.poll() is None
    flag.unlink()
    assert driver.wait(60) == 0
    said = ["child after", "child before", "driver after", "driver before", "driver last"]
    assert sorted((tmp_path / "log").read_text().splitlines()) == said


def test_an_error_before_is_for_the_shell(flag: Path, tmp_path: Path) -> None:
    driver = start(tmp_path / "none", flag)
    assert driver.wait(60) == 1
    flag.unlink()
    assert read(driver) == ("driver before\n", "child before\nwrong\n")
