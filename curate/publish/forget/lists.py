"""Lists of what to forget, as users have them: one item a line, a uids.npy, or Parquet.

In: a file of uids (32 hex digits), URLs (exactly as in the pool) or sha256 of images, as they are stored or as they
were downloaded (64 hex digits): text; for uids also an array of DataComp's dtype u8,u8; or Parquet with a column `uid`,
`url` or `sha256`, or a run's forgotten.parquet. A line that is no item is an error that names it, before anything is
changed.
"""

import io
import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from curate.base.decoded_size import read_footer
from curate.base.errors import RecipeError
from curate.base.wording import one_line
from curate.publish.uids import pair_bytes
from curate.recipe.files import read_columns, read_whole
from curate.store.items import KINDS, WIDTHS, Items, column_hashes, hash_url

_HEX = {kind: re.compile(f"[0-9a-fA-F]{{{2 * width}}}") for kind, width in WIDTHS.items()}
_FORMS = {
    "uid": "a uid (32 hex digits)",
    "sha256": "the sha256 of an image (64 hex digits)",
    "url": "a URL, exactly as in the pool",
}
STDIN = "-"
MAX_BYTES, MAX_LINES = 1 << 30, 1 << 22  # of one list, unpacked too; a longer one can be given as several


def read_list(path: str, kind: str | None = None, lines: dict[str, str] | None = None) -> Items:
    """Return the items of a file of at most MAX_BYTES; `-` is standard input. Without a kind each line's form shows it.

    `lines` gets the lines of a text as they are, up to a million, by the hex digits of their items.
    Raises RecipeError where the file cannot be read, or a line is no such item.
    """
    try:
        if path == STDIN:
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise ValueError(f"it holds more than {MAX_BYTES:,} bytes; accepted: at most that")
            return _from_lines("standard input", data, kind, lines)
        data = read_whole(path, MAX_BYTES)
        if path.endswith(".parquet"):
            return _from_table(path, data, kind)
        if path.endswith(".npy"):
            return _from_array(path, np.load(io.BytesIO(data), allow_pickle=False), kind)
        return _from_lines(path, data, kind, lines)
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file") from None
    except (OSError, EOFError, ValueError, ImportError, MemoryError, pa.ArrowException) as error:
        raise RecipeError(f"{path}: cannot be read as a list of items: {one_line(error)}") from None


def _from_lines(path: str, data: bytes, kind: str | None, lines: dict[str, str] | None) -> Items:
    if b"\0" in data:  # compressed bytes may hold a / by chance, and would pass for a URL that matches nothing
        raise RecipeError(f"{path}: holds NUL bytes, so it is compressed or UTF-16; accepted: lines of UTF-8 text")
    if (count := data.count(b"\n") + data.count(b"\r")) > MAX_LINES:
        raise RecipeError(f"{path}: {count:,} lines; accepted: at most {MAX_LINES:,}, and several lists")
    values: dict[str, list[bytes]] = {name: [] for name in KINDS}
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        raw = line.strip()
        text = raw.decode("utf-8", "surrogateescape")
        of_hex = [name for name in ("uid", "sha256") if kind in (name, None) and _HEX[name].fullmatch(text)]
        if of_hex:
            name, value = of_hex[0], bytes.fromhex(text)
        elif not raw:
            continue
        elif kind in ("url", None) and (b"/" in raw or b":" in raw):  # as in every URL; and in no mistyped hex digits
            name, value = "url", hash_url(raw)
        else:
            accepted = _FORMS[kind] if kind else ", ".join(_FORMS.values())
            raise RecipeError(f"{path}, line {number}: {text[:100]!r} is not an item; accepted: {accepted}")
        values[name].append(value)
        if lines is not None and len(lines) < 1_000_000:
            lines[value.hex()] = raw.decode("utf-8", "backslashreplace")
    return Items.of(values)


def _from_array(path: str, array: Any, kind: str | None) -> Items:
    dtype = getattr(array, "dtype", "several")  # an .npz by content
    if kind not in ("uid", None) or dtype != np.dtype("u8,u8") or array.ndim != 1:
        raise RecipeError(f"{path}: an array of {dtype}; accepted: uids as u8,u8, as DataComp and uids.npy have them")
    return Items.of({"uid": [pair_bytes(array).tobytes()]})


def _from_table(path: str, data: bytes, kind: str | None) -> Items:
    columns = read_footer(pa.BufferReader(data)).schema.to_arrow_schema().names
    if {"kind", "value"} <= set(columns) and kind is None:
        return _from_record(path, read_columns(data, ["kind", "value"], MAX_BYTES))
    names = {name.lower(): name for name in columns}
    kinds = KINDS if kind is None else (kind,)
    wanted = [name for name in kinds if name in names]
    if not wanted:
        raise RecipeError(f"{path}: no column {' or '.join(kinds)}; columns: {', '.join(names)}")
    table = read_columns(data, [names[name] for name in wanted], MAX_BYTES)
    return Items.of({name: list(_from_column(path, name, table[names[name]])) for name in wanted})


def _from_record(path: str, table: pa.Table) -> Items:
    values: dict[str, list[bytes]] = {name: [] for name in KINDS}
    for row, (name, value) in enumerate(zip(table["kind"].to_pylist(), table["value"].to_pylist(), strict=True)):
        if name not in KINDS or not _HEX[name].fullmatch(str(value)):
            what = f"{str(name)[:100]!r}, {str(value)[:100]!r} is not a row of a forgotten.parquet"
            accepted = ", ".join(f"{kind} and {2 * width} hex digits" for kind, width in WIDTHS.items())
            raise RecipeError(f"{path}, row {row}: {what}; accepted: {accepted}")
        values[name].append(bytes.fromhex(str(value)))
    return Items.of(values)


def _from_column(path: str, kind: str, column: pa.ChunkedArray) -> Iterator[bytes]:
    column = column.cast(pa.string())
    for row, value in enumerate(column.to_pylist() if kind != "url" else ()):
        if value is not None and not _HEX[kind].fullmatch(value):
            raise RecipeError(f"{path}, row {row}: {value[:100]!r} is not an item; accepted: {_FORMS[kind]}")
    values, is_present = column_hashes(column, kind)
    yield values[is_present].tobytes()
