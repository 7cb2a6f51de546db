"""Reads files as they were listed: one that is another now, or gone, ends the run."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import fsspec
import pyarrow as pa

from curate.base.process import read_ahead
from curate.pool.files.listing import UNREADABLE
from curate.read.faults import InputFault
from curate.read.listing import InputFile, check_state
from curate.tar.byte_sources import errors_of, open_copy

_CAPTION_BYTES = 1 << 16  # more than the longest caption that is accepted
_TEXT_BYTES = 1 << 29  # of the captions of a part together
_LARGE = 1 << 26  # bytes from which a file is mapped instead of read


def read_files(files: Iterable[InputFile | None], storage: dict[str, Any]) -> Iterator[bytes | memoryview | None]:
    """Yield the content of each file. Raises RunError where one changed since it was listed, and OSError."""
    return read_ahead(lambda file: file and _read(file, storage), files)


def _read(file: InputFile, storage: dict[str, Any]) -> bytes | memoryview:
    is_local = os.path.isabs(file.path)
    if is_local:  # before it is opened: it may be a pipe now
        _check(file, storage)
    try:
        if file.size > _LARGE:
            return open_copy(file.path, storage).read(0, file.size)
        if is_local:
            with open(file.path, "rb") as opened:
                return opened.read(file.size + 1)
        fs, inner = fsspec.core.url_to_fs(file.path, **storage)
        with errors_of(file.path):
            data: bytes = fs.cat_file(inner)
            return data
    finally:
        _check(file, storage)


def _check(file: InputFile, storage: dict[str, Any]) -> None:
    if file.fingerprint:
        check_state(file.path, storage, f"{file.size} bytes, {file.fingerprint}", file.fingerprint)


def read_texts(files: Sequence[InputFile | None], storage: dict[str, Any]) -> list[bytes | None]:
    """Return the text of each file, or so much of it that it is too long for a caption.

    Raises as `read_files`, and InputFault where they are too long together.
    """
    texts: list[bytes | None] = []
    held = 0
    for data in read_files(files, storage):
        if data is not None and len(data) > _CAPTION_BYTES:  # refused for its length, not for a character cut in two
            data = bytes(data[:_CAPTION_BYTES]).decode(errors="ignore").encode()  # noqa: PLW2901
        texts.append(None if data is None else bytes(data))
        held += len(data or b"")
        if held > _TEXT_BYTES:
            raise InputFault("unreadable", f"its captions have more than {_TEXT_BYTES:,} bytes; accepted: at most that")
    return texts


def with_forbidden(
    images: Sequence[InputFile | None], rows: pa.Table, storage: dict[str, Any]
) -> tuple[pa.Array, pa.Array]:
    """Return status and error of each row, those of this machine's files included that may not be read."""
    status, errors = (rows[name].to_pylist() for name in ("status", "error"))
    for row, image in enumerate(images):
        if image and os.path.isabs(image.path) and not os.access(image.path, os.R_OK):
            _check(image, storage)  # which may be gone
            status[row], errors[row] = UNREADABLE, "it may not be read: permission denied"
    return pa.array(status, pa.string()), pa.array(errors, pa.string())
