"""Reads a recipe's own images."""

import io
from contextlib import nullcontext

from curate.pool import exemplars
from curate.pool.exemplars import picture_files, read_pictures


def test_reads_at_most_the_stated_size_and_the_limit(tmp_path, monkeypatch):
    """An empty file may be the kernel's messages, which block; a file that lies about its size may be endless."""
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").write_bytes(bytes(20))
    monkeypatch.setattr(exemplars, "MAX_BYTES", 9)
    monkeypatch.setattr(exemplars.fsspec, "open", lambda *_: nullcontext(io.BytesIO(bytes(20))))
    pictures = list(read_pictures(picture_files("here", str(tmp_path / "*.png"))))
    assert pictures == [(str(tmp_path / "a.png"), b""), (str(tmp_path / "b.png"), bytes(10))]
