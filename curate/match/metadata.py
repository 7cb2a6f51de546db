"""Reads a metadata list, cleans it as the reference does, checks it, and writes it as a table.

In: MetaCLIP's `metadata.json` (a JSON list of strings) or a text file (one entry per line), plain or gzipped, or an
imported table (Parquet); any path or fsspec URL. Out: a table with `schema.METADATA`, and a report of entries that were
dropped or can never match. Sizes are limited, because files are untrusted.

Cleaning (MetaCLIP, arXiv 2309.16671, section 3.1 and its published code): empty strings and single ASCII punctuation
marks are dropped; of equal entries the first stays. An entry's id is its position in the original list.
"""

import codecs
import io
import os
import re
import string
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import fsspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from curate.base.decoded_size import read_footer
from curate.base.errors import RecipeError, reraised
from curate.base.schema import METADATA
from curate.base.wording import one_line, pluralize
from curate.match.characters import CORRECTED_MARKS, MARKS, normalize
from curate.match.languages import keys_of
from curate.recipe.files import read_columns, read_whole, unpack
from curate.recipe.recipe import CORRECTED, REFERENCE

MAX_BYTES, MAX_ENTRIES = 1 << 30, 1 << 25  # of a list, unpacked

_ACCEPTED = (
    "a JSON list of strings, a text file with one entry per line (each plain or gzipped), or an imported Parquet table"
)

_KINDS: dict[type, str] = {dict: "object", str: "string", bool: "boolean", type(None): "null"}


@dataclass(frozen=True)
class ImportReport:
    """A report about the entries: dropped ones, and kept ones that can never match."""

    read: int
    empty: pa.Array  # strings, like the next ones
    punctuation: pa.Array
    duplicates: pa.Array
    kept: pa.Array
    mode: str  # of matching

    @cached_property
    def is_never(self) -> pa.Array:
        return never_match(self.kept, self.mode)

    @property
    def never_match(self) -> pa.Array:
        return self.kept.filter(self.is_never)

    @property
    def summary(self) -> str:
        reasons = {"empty": self.empty, "that are one punctuation mark": self.punctuation, "repeated": self.duplicates}
        dropped = ", ".join(f"{len(entries):,} {reason}" for reason, entries in reasons.items() if len(entries))
        never = len(self.never_match)
        notes = [pluralize(len(self.kept), "entry", "entries"), dropped and f"dropped: {dropped}"]
        notes += [f"{never:,} can never match (see `curate metadata show --mode {self.mode}`)" if never else ""]
        return f"metadata: {'; '.join(filter(None, notes))}"


def never_match(entries: pa.Array, mode: str = REFERENCE) -> pa.Array:
    """Return which entries (strings, without nulls) can match no text in a mode, such as "St. Louis".

    They have white space other than a space, a mark next to another character, or two marks one space apart: two
    adjacent marks in a text become two spaces apart, with an empty token between them.
    """
    marks = MARKS + CORRECTED_MARKS * (mode == CORRECTED)
    pattern = rf"[\t\n\r]|[^ ][{marks}]|[{marks}][^ ]|[{marks}] [{marks}]"
    never: pa.Array = pc.match_substring_regex(normalize(entries) if mode == CORRECTED else entries, pattern)
    return never


def read_metadata(
    path: str, source: str = "import", language: str = "en", mode: str | None = None
) -> tuple[pa.Table, ImportReport]:
    """Read and clean a metadata list.

    Gzip and Parquet are recognized by their first bytes, JSON and text by their names; with any other name, a file is
    JSON if its first character other than white space is `[` or `{`. Only the end of a text line is stripped.

    Args:
        path: a local path or any fsspec URL.
        source: value of the column `source`, and `language` of the column `language`; a Parquet table keeps its own.
        mode: the mode of `match`. With `reference`, only the first of equal entries stays; otherwise, and with None,
            only the first of equal entries of a language. In other modes than `reference`, languages must be keys: en,
            zh_yue, other. With None, entries that can never match are found by mode `corrected` if there are several
            languages, otherwise by `reference`.

    Raises:
        RecipeError: the file is missing, unreadable, damaged, too large, or not of an accepted form.
    """
    content = _read(path)
    if content[:4] == b"PAR1":
        table = _parse_parquet(content, path)
    else:
        entries = _parse_list(content, path)
        constants = [pa.repeat(pa.scalar(value, pa.string()), len(entries)) for value in (source, language)]
        table = pa.table([pa.array(np.arange(len(entries), dtype=np.int32)), entries, *constants], schema=METADATA)
    del content
    if mode not in (None, REFERENCE):
        for name in map(str, table["language"].unique().to_pylist()):
            if not name or keys_of(pa.array([name]), {name})[0].as_py() != name:  # no text's language maps to it
                accepted = f"accepted with match.mode {mode}: keys, such as en or zh_yue"
                raise RecipeError(f"metadata {path}: found language {name!r}, which is not a language key; {accepted}")
    cleaned = _clean(table, mode)
    pa.default_memory_pool().release_unused()
    return cleaned


def write_metadata(table: pa.Table, path: str) -> None:
    """Write a table of METADATA as Parquet (zstd) to a path or URL. Equal tables, equal bytes. Raises RecipeError."""
    sink = io.BytesIO()
    pq.write_table(table.select(METADATA.names).cast(METADATA).combine_chunks(), sink, compression="zstd")
    local = LocalFileSystem(auto_mkdir=True)  # fsspec takes :: in a path for chained file systems
    failed = reraised(RecipeError, f"metadata {path}: cannot be written", OSError, ValueError, ImportError)
    with failed, fsspec.open(path, "wb") if "://" in path else local.open(os.path.expanduser(path), "wb") as file:
        file.write(sink.getvalue())


def _read(path: str) -> bytes:
    try:
        content = read_whole(path, MAX_BYTES)
    except FileNotFoundError as error:
        raise RecipeError(f"metadata {path}: no such file; accepted: {_ACCEPTED}") from error
    except (OSError, ValueError, ImportError) as error:
        raise RecipeError(f"metadata {path}: cannot be read ({one_line(error)})") from error
    try:
        content = unpack(content, MAX_BYTES)
    except ValueError as error:
        raise _wrong(path, str(error)) from None
    parts = max(content.count(b"\n"), sum(map(content.count, (b",", b"[", b"{"))))
    if parts > MAX_ENTRIES and content[:4] != b"PAR1":
        raise RecipeError(f"metadata {path}: found more than {MAX_ENTRIES:,} entries; accepted: at most that many")
    return content


def _parse_list(content: bytes, path: str) -> pa.Array:
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise _wrong(path, f"bytes that are not UTF-8 (at byte {error.start:,})") from error
    name = path.lower().removesuffix(".gz")
    if name.endswith(".json") or (not name.endswith(".txt") and re.match(rb"\s*[\[{]", content)):
        return _parse_json(content, path)
    lines: Any = pc.split_pattern(pa.array([content], pa.string()), "\n").flatten()
    entries: pa.Array = pc.replace_substring_regex(lines if lines[-1].as_py() else lines[:-1], "\r$", "")
    return entries


def _parse_json(content: bytes, path: str) -> pa.Array:
    with reraised(partial(_wrong, path), "damaged JSON", orjson.JSONDecodeError):
        entries = orjson.loads(content)
    if not isinstance(entries, list):
        raise _wrong(path, f"a JSON {_KINDS.get(type(entries), 'number')}")
    if set(map(type, entries)) - {str}:
        i, item = next((i, item) for i, item in enumerate(entries) if not isinstance(item, str))
        raise _wrong(path, f"a JSON list whose item {i:,} is {type(item).__name__}")
    return pa.array(entries, pa.string())


def _parse_parquet(content: bytes, path: str) -> pa.Table:
    """Return the table of a Parquet file with metadata, with the columns and types of METADATA. Raises RecipeError."""
    try:
        columns = read_footer(pa.BufferReader(content)).schema.to_arrow_schema().names
        if missing := [name for name in METADATA.names if name not in columns]:
            accepted = f"with columns {', '.join(METADATA.names)}"
            raise _wrong(path, f"Parquet without column {', '.join(missing)}", accepted)
        # The maximum bytes of a list, and 16 more per entry for its id and text offsets.
        table = read_columns(content, METADATA.names, MAX_BYTES + 16 * MAX_ENTRIES)
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:  # Arrow's errors first: some are also ValueErrors
        raise _wrong(path, f"damaged Parquet ({one_line(error)})") from error
    except ValueError as error:  # from read_columns: above its limit
        raise RecipeError(f"metadata {path}: cannot be read ({one_line(error)})") from error
    with reraised(partial(_wrong, path), "Parquet with other types", pa.ArrowException, ValueError):
        table = table.select(METADATA.names).cast(METADATA).combine_chunks()
    if nulls := [name for name in METADATA.names if table[name].null_count]:
        raise _wrong(path, f"Parquet with nulls in column {nulls[0]}")
    entry_ids = table["entry_id"].to_numpy()
    # Arrays are as long as the largest id, so at least a tenth of the ids must be used.
    highest = min(10 * len(table) + 1000, MAX_ENTRIES)
    if (np.diff(entry_ids, prepend=-1) <= 0).any() or entry_ids.max(initial=0) > highest:
        raise _wrong(path, "Parquet whose entry_id is not ascending, or skips more than 90% of the numbers")
    return table


def _wrong(path: str, content: str, accepted: str = _ACCEPTED) -> RecipeError:
    return RecipeError(f"metadata {path}: found {content}; accepted: {accepted}")


def _clean(table: pa.Table, mode: str | None) -> tuple[pa.Table, ImportReport]:
    """Drop the entries that the reference drops, and report them; an entry's id is its position, as in MetaCLIP."""
    entries = pc.cast(table["entry"].combine_chunks(), pa.string())
    empty = pc.equal(entries, pa.scalar(""))
    punctuation = pc.is_in(entries, pa.array(list(string.punctuation)))
    named, by_language = entries, mode != REFERENCE and pc.count_distinct(table["language"]).as_py() > 1
    if by_language:
        both: list[Any] = [entries, table["language"].combine_chunks()]
        named = pc.binary_join_element_wise(*both, "\0")
    unusable = pc.or_(empty, punctuation)
    codes = named.dictionary_encode().indices.to_numpy()  # numbered by first appearance
    is_repeated = codes <= np.maximum.accumulate(np.concatenate([[-1], codes]))[:-1]
    duplicates = pc.and_not(pa.array(is_repeated), unusable)
    kept = table.filter(pc.invert(pc.or_(unusable, duplicates))).combine_chunks()
    dropped = entries.filter(empty), entries.filter(punctuation), entries.filter(duplicates)
    mode = mode or (CORRECTED if by_language else REFERENCE)
    return kept, ImportReport(len(entries), *dropped, kept["entry"].combine_chunks(), mode)
