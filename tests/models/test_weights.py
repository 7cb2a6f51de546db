"""Weights on a machine: one process loads at a time, and a file is hashed once."""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from curate.models.weights import alone_with, find_digest

ROUNDS = """
import os, sys, time
from curate.models.weights import alone_with
for _ in range(10):
    with alone_with("weights of a test"):
        with open(sys.argv[1], "a") as log:
            log.write(f"{os.getpid()} begins\\n"); log.flush(); time.sleep(0.001); log.write(f"{os.getpid()} ends\\n")
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    (tmp_path / "notes").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "notes"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "notes"))


def test_one_process_at_a_time(tmp_path):
    command = [sys.executable, "-c", ROUNDS, str(tmp_path / "log")]
    for process in [subprocess.Popen(command) for _ in range(3)]:
        assert process.wait() == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 2 * 3 * 10
    for begins, ends in zip(lines[::2], lines[1::2], strict=True):
        assert (begins.split()[0], begins.split()[1], ends.split()[1]) == (ends.split()[0], "begins", "ends")


def test_pipes_and_devices_are_not_hashed(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.symlink("/dev/zero", tmp_path / "zeros")
    for name in ("pipe", "zeros"):
        with pytest.raises(OSError, match=f"{name}: is not a regular file"):
            find_digest(str(tmp_path / name))


def test_a_file_is_hashed_once_until_it_changes(tmp_path, monkeypatch):
    read, original = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: read.append(name) or original(file, name))
    path = tmp_path / "weights.pt"
    for content in (b"one", b"two"):  # of one length
        path.write_bytes(content)
        assert [find_digest(str(path)) for _ in range(3)] == [hashlib.sha256(content).hexdigest()] * 3
    os.symlink(path, tmp_path / "link.pt")
    assert find_digest(str(tmp_path / "link.pt")) == hashlib.sha256(b"two").hexdigest()
    assert len(read) == 2
    for note in (tmp_path / "notes").iterdir():
        note.write_text(note.read_text()[:-3])  # cut by a kill
    assert find_digest(str(path)) == hashlib.sha256(b"two").hexdigest() and len(read) == 3


def test_anothers_file_is_not_believed(tmp_path):
    """Neither is a link, which another user may have put there."""
    with alone_with("a") as file:
        name = Path(str(file.name)) if isinstance(file.name, str) else next((tmp_path / "notes").iterdir())
    name.unlink()
    os.symlink(tmp_path / "elsewhere", name)
    with pytest.raises(OSError, match="symbolic link"), alone_with("a"):
        pass
    name.unlink()
    if os.getuid() == 0:
        name.touch()
        os.chown(name, 12345, 12345)
        with pytest.raises(OSError, match="another user"), alone_with("a"):
            pass
