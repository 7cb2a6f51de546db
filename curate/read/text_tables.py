"""Decompress tables of text (CSV, TSV, JSON lines), and check them before Arrow parses them.

Arrow's JSON parser crashes the process if values are nested a hundred thousand levels deep. Its JSON and CSV parsers
both need minutes and gigabytes for a hundred thousand columns.
"""

import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import orjson
import pyarrow as pa
from fsspec.utils import infer_compression

from curate.base.errors import reraised

MAX_COLUMNS = 10_000  # including columns of nested values
MAX_VALUES = 1 << 26  # maximum values of JSON lines per read: Arrow allocates every column for every object
MAX_DEPTH = 64  # maximum depth of values in a line of JSON
_UNPACKED, _MOST_TIMES = 1 << 29, 100  # decompressed bytes of any file; for a larger file, this multiple of its size
_NOT_PACKED = EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error
_ACCEPTED = "; accepted: a JSON object per line"
_HEAD = 1 << 20  # maximum length of the first line of CSV, in bytes


class _Unpacked(io.RawIOBase):
    """Decompressed bytes.

    At most `limit` of them can be read, because a few compressed bytes can expand to any number.
    """

    def __init__(self, file: Any, limit: int) -> None:
        self._file, self._limit, self._remaining = file, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = int(self._file.readinto(buffer))
        self._remaining -= count
        if self._remaining < 0:
            problem = f"unpacked, it has more than {self._limit:,} bytes"
            raise pa.ArrowInvalid(f"{problem}; accepted: at most that, or {_MOST_TIMES} times its packed size")
        return count


@contextmanager
def open_text(path: str, storage: dict[str, Any]) -> Iterator[Any]:
    """Yield a file's bytes, decompressed by its suffix. Raises pa.ArrowInvalid if they are damaged, and OSError."""
    kind = infer_compression(path)
    is_zstd = kind == "zstd"  # its Python library silently stops after the first frame, and in a truncated frame
    damaged = reraised(pa.ArrowInvalid, "it is damaged, or not compressed as its name says", *_NOT_PACKED)
    with damaged, (opened := fsspec.open(path, "rb", compression=None if is_zstd else kind, **storage)) as file:
        unpacked = pa.CompressedInputStream(file, "zstd") if is_zstd else file
        limit = max(_UNPACKED, _MOST_TIMES * opened.fs.size(opened.path)) if kind else 0
        yield io.BufferedReader(_Unpacked(unpacked, limit), _HEAD) if kind else file


def check_first_line(path: str, storage: dict[str, Any], mark: str) -> None:
    """Raise pa.ArrowInvalid if the first line of CSV is not UTF-8, or has too many columns, separated by `mark`.

    Like Arrow, it skips empty lines before the first line. In CSV, it accepts line feeds inside quotation marks.
    """
    with open_text(path, storage) as file:
        head: bytes = file.read(_HEAD)
    if b"\0" in head[:4]:
        raise pa.ArrowInvalid("it is UTF-16 or UTF-32; accepted: UTF-8")
    columns, quotes = 1, 0
    for line in head.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n").splitlines():
        columns, quotes = columns + line.count(mark.encode()), quotes + line.count(b'"')
        if mark == "\t" or quotes % 2 == 0:
            break
    if columns > MAX_COLUMNS:
        raise pa.ArrowInvalid(f"its first line has {columns:,} columns or more; accepted: at most {MAX_COLUMNS:,}")


def check_json_lines(data: bytes, names: set[str]) -> None:
    """Raise pa.ArrowInvalid if values are nested too deeply, or if there are too many names. Add the names to `names`.

    `names` has the names from earlier lines. Each line must be valid JSON. Arrow also accepts objects that span several
    lines, but this function could not check their depth.
    """
    for line in filter(bytes.strip, data.split(b"\n")):
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            with reraised(pa.ArrowInvalid, "a line is not JSON", ValueError, RecursionError, remedy=_ACCEPTED):
                row = json.loads(line.decode("utf-8-sig", "replace"))
        if line.count(b"{") + line.count(b"[") > 1:
            _add_names(row, "", names)
        elif isinstance(row, dict) and not row.keys() <= names:
            names.update(row)
        if len(names) > MAX_COLUMNS:
            raise pa.ArrowInvalid(f"its lines have more than {MAX_COLUMNS:,} columns; accepted: at most that")


def _add_names(value: Any, path: str, names: set[str], depth: int = 0) -> None:
    if depth == MAX_DEPTH and isinstance(value, dict | list):
        raise pa.ArrowInvalid(f"values are nested more than {MAX_DEPTH} deep; accepted: at most that")
    if isinstance(value, dict):
        for name, inner in value.items():
            names.add(inner_path := f"{path}.{name}" if path else name)
            _add_names(inner, inner_path, names, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _add_names(inner, path, names, depth + 1)
