"""Reads lists of items to forget, before anything is changed.

In: uids (32 hex digits), URLs (exactly as in the pool), or the sha256 (64 hex digits) of images as they are stored or
were downloaded. They are lines of text, a column `uid`, `url` or `sha256` in a Parquet file, a run's forgotten.parquet,
or, for uids, an array with DataComp's dtype u8,u8. Out: `Items`. If a line is not an item, an error names the line.
"""

import sys
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.decoded_size import read_footer
from curate.base.errors import RecipeError
from curate.base.wording import one_line
from curate.publish.uids import pair_bytes
from curate.recipe.files import read_columns, read_npy, read_whole
from curate.store.items import KINDS, WIDTHS, Items, column_hashes, hex_of
from curate.tar.byte_sources import errors_of

_FORMS = {
    "uid": "a uid (32 hex digits)",
    "sha256": "the sha256 of an image (64 hex digits)",
    "url": "a URL, exactly as in the pool",
}
STDIN = "-"
MAX_BYTES, MAX_LINES = 1 << 30, 1 << 22  # limits for one list, before and after unpacking; users can split longer lists
_TYPED = 1_000_000  # number of lines to return as the user typed them


def read_list(path: str, kind: str | None = None, lines: dict[str, str] | None = None) -> Items:
    """Return the items in a file of at most MAX_BYTES, or in standard input (`-`).

    Without a kind, all kinds are accepted. `lines` is filled with the original lines of a text, up to a million, by the
    hex digits of their items. Raises RecipeError if the file cannot be read, or if a line is not an item of this kind.
    """
    try:
        if path == STDIN:
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise ValueError(f"it has more than {MAX_BYTES:,} bytes; accepted: at most that")
            return _from_lines("standard input", data, kind, lines)
        with errors_of(path):
            data = read_whole(path, MAX_BYTES)
        if path.endswith(".parquet"):
            return _from_table(path, data, kind)
        if path.endswith(".npy"):
            return _from_array(path, read_npy(data), kind)
        return _from_lines(path, data, kind, lines)
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file") from None
    except (OSError, EOFError, ValueError, ImportError, MemoryError, pa.ArrowException) as error:
        raise RecipeError(f"{path}: cannot be read as a list of items: {one_line(error)}") from None


def _from_lines(path: str, data: bytes, kind: str | None, lines: dict[str, str] | None) -> Items:
    if b"\0" in data:  # compressed bytes may contain a / by chance, and would be read as a URL
        raise RecipeError(f"{path}: contains NUL bytes, so it is compressed or UTF-16; accepted: lines of UTF-8 text")
    if (count := data.count(b"\n") + data.count(b"\r")) > MAX_LINES:
        raise RecipeError(f"{path}: {count:,} lines; accepted: at most {MAX_LINES:,} per list")
    split = data.removeprefix(b"\xef\xbb\xbf").splitlines()
    text: Any = pc.ascii_trim_whitespace(pa.array(split, pa.large_binary()).view(pa.large_string()))
    remaining = pc.greater(pc.binary_length(text), pa.scalar(0))
    values = {}
    for name in KINDS if kind is None else (kind,):
        is_url = pc.match_substring_regex(text, "[/:]")  # every URL has one, and mistyped hex digits do not
        is_item = pc.and_(remaining, is_url if name == "url" else _is_hex(text, name))
        remaining, items = pc.and_not(remaining, is_item), text.filter(is_item)
        hashes, _ = column_hashes(items, name)
        values[name] = [hashes.tobytes()]
        if lines is not None:
            typed = (raw.decode("utf-8", "backslashreplace") for raw in items.cast(pa.large_binary()).to_pylist())
            lines.update(islice(zip(hex_of(hashes), typed, strict=True), max(0, _TYPED - len(lines))))
    if (wrong := pc.index(remaining, True).as_py()) >= 0:
        line = split[wrong].strip().decode("utf-8", "surrogateescape")
        accepted = _FORMS[kind] if kind else ", ".join(_FORMS.values())
        raise RecipeError(f"{path}, line {wrong + 1}: {line[:100]!r} is not an item; accepted: {accepted}")
    return Items.of(values)


def _is_hex(text: Any, kind: str) -> Any:
    return pc.match_substring_regex(text, rf"\A[0-9a-fA-F]{{{2 * WIDTHS[kind]}}}\z")


def _from_array(path: str, array: Any, kind: str | None) -> Items:
    dtype = array.dtype
    if kind not in ("uid", None) or dtype != np.dtype("u8,u8") or array.ndim != 1:
        raise RecipeError(f"{path}: an array of {dtype}; accepted: uids as u8,u8, like DataComp and uids.npy")
    return Items.of({"uid": [pair_bytes(array).tobytes()]})


def _from_table(path: str, data: bytes, kind: str | None) -> Items:
    footer = read_footer(pa.BufferReader(data))
    if footer.num_rows > 4 * MAX_LINES:
        raise RecipeError(f"{path}: {footer.num_rows:,} rows; accepted: at most {4 * MAX_LINES:,} per list")
    columns = footer.schema.to_arrow_schema().names
    if {"kind", "value"} <= set(columns) and kind is None:
        return _from_record(path, read_columns(data, ["kind", "value"], MAX_BYTES))
    names = {name.lower(): name for name in columns}
    kinds = KINDS if kind is None else (kind,)
    wanted = [name for name in kinds if name in names]
    if not wanted:
        raise RecipeError(f"{path}: no column {' or '.join(kinds)}; columns: {', '.join(names)}")
    table = read_columns(data, [names[name] for name in wanted], MAX_BYTES)
    return Items.of({name: [_from_column(path, name, table[names[name]])] for name in wanted})


def _from_record(path: str, table: pa.Table) -> Items:
    names, texts = (table[column].cast(pa.string()).combine_chunks() for column in ("kind", "value"))
    is_row = pa.array(np.zeros(len(table), bool))
    values = {}
    for kind in KINDS:
        is_item = pc.and_(pc.equal(names, pa.scalar(kind)), _is_hex(texts, kind)).fill_null(False)
        values[kind] = [column_hashes(texts.filter(is_item), "sha256" if kind == "url" else kind)[0].tobytes()]
        is_row = pc.or_(is_row, is_item)
    if (row := pc.index(is_row, False).as_py()) >= 0:
        accepted = ", ".join(f"kind {kind} with a value of {2 * width} hex digits" for kind, width in WIDTHS.items())
        pair = f"{str(names[row])[:100]!r}, {str(texts[row])[:100]!r}"
        raise RecipeError(f"{path}, row {row}: {pair} is not a row of a forgotten.parquet; accepted: {accepted}")
    return Items.of(values)


def _from_column(path: str, kind: str, column: pa.ChunkedArray) -> bytes:
    column = column.cast(pa.string())
    row = pc.index(_is_hex(column, kind), False).as_py() if kind != "url" else -1
    if row >= 0:
        raise RecipeError(f"{path}, row {row}: {column[row].as_py()[:100]!r} is not an item; accepted: {_FORMS[kind]}")
    values, is_present = column_hashes(column, kind)
    return values[is_present].tobytes()
