"""Images of the recipe's own."""

from contextlib import nullcontext
from pathlib import Path

import pytest

from curate.pool import exemplars
from curate.pool.exemplars import picture_files, read_pictures


def test_a_file_without_bytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the kernel's messages, which would be waited for."""
    (tmp_path / "a.png").touch()
    monkeypatch.setattr(exemplars.fsspec, "open", lambda *_: nullcontext())
    assert list(read_pictures(picture_files("here", str(tmp_path / "*.png")))) == [(str(tmp_path / "a.png"), b"")]
