"""What a driver and its children say: to the shell until it is left, then to a log, which has all of it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# A driver with a child that outlives the shell, and goes on to say something; it ends once that is in the log, or at once.
DRIVER = """
import subprocess, sys, time
from pathlib import Path
from curate.cli.detach import passing_on

log = Path(sys.argv[1])
with passing_on() as streams:
    words = 'echo child before >&2; read line && echo child after; while [ -e "$0" ]; do sleep 0.1; done'
    child = subprocess.Popen(["sh", "-c", words, sys.argv[2]], stdin=subprocess.PIPE)
    print("driver before", flush=True)
    time.sleep(0.3)
    if log.name == "none":
        sys.exit("wrong")
    with open(log, "ab") as file:
        for stream in streams:
            stream.move(file.fileno())
    child.stdin.write(b"go\\n")
    child.stdin.flush()
    print("driver after", flush=True)
    ends = time.monotonic() + 30
    while "child after" not in log.read_text() and time.monotonic() < ends:
        time.sleep(0.01)
print("driver last", flush=True)
"""


@pytest.fixture
def flag(tmp_path: Path) -> Iterator[Path]:
    """A file that lets the child go on."""
    (path := tmp_path / "flag").touch()
    yield path
    path.unlink()


def start(log: Path, flag: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, str(log), str(flag)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_shell_is_left_by_children_too(flag: Path, tmp_path: Path) -> None:
    out, err = start(tmp_path / "log", flag).communicate(timeout=60)  # which reads to their end
    assert (out, err) == ("driver before\n", "child before\n")
    said = ["child after", "child before", "driver after", "driver before", "driver last"]
    assert sorted((tmp_path / "log").read_text().splitlines()) == said


def test_an_error_before_is_for_the_shell(flag: Path, tmp_path: Path) -> None:
    out, err = start(tmp_path / "none", flag).communicate(timeout=60)
    assert (out, err) == ("driver before\n", "child before\nwrong\n")
