"""Images of the recipe's own."""

import io
from contextlib import nullcontext

from curate.pool import exemplars
from curate.pool.exemplars import picture_files, read_pictures


def test_so_many_bytes_are_read_as_a_file_has_but_not_any_number(tmp_path, monkeypatch):
    """One without bytes may be the kernel's messages, which would be waited for; one of a hole may have any number."""
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").write_bytes(bytes(20))
    monkeypatch.setattr(exemplars, "MAX_BYTES", 9)
    monkeypatch.setattr(exemplars.fsspec, "open", lambda *_: nullcontext(io.BytesIO(bytes(20))))
    pictures = list(read_pictures(picture_files("here", str(tmp_path / "*.png"))))
    assert pictures == [(str(tmp_path / "a.png"), b""), (str(tmp_path / "b.png"), bytes(10))]
