"""Samples a path: the names of some thousand files, and the first rows of a few tables.

Formats use it to recognize what they can read (`InputFormat.recognize`), for `curate init PATH` and for messages.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from curate.base.errors import RecipeError, reraised
from curate.download.lists import UrlList, kind_of, read_first_rows
from curate.read.columns import COLUMN_NAMES, is_any
from curate.read.listing import expand_braces, list_files
from curate.recipe.strict_yaml import find_surrogate
from curate.tar.byte_sources import errors_of

MAX_NAMES, _ROWS = 5000, 100  # files to list, and rows of a table to read


@dataclass(frozen=True)
class FoundFiles:
    """The files at a path: in a folder and its subfolders, a single file, or those that globs and ranges match."""

    path: str  # without a slash at its end if it is a folder
    names: tuple[str, ...]  # paths or URLs, without hidden files
    storage: dict[str, Any] = field(default_factory=dict)  # options of their file system
    is_folder: bool = False

    @classmethod
    def look(cls, path: str, storage: dict[str, Any]) -> Self:
        """List a path. Raises RecipeError if nothing is there, or listing fails."""
        folder = path.rstrip("/") or path
        with reraised(RecipeError, f"{path}: cannot be listed", OSError, ImportError, ValueError):
            fs, inner = fsspec.core.url_to_fs(folder, **storage)
            with errors_of(path):
                is_folder = fs.isdir(inner)
            if not is_folder:
                first = expand_braces(path)[0]
                files = [path] if fs.isfile(inner) else [file.path for file in list_files(first, storage)[:MAX_NAMES]]
                return cls(path, tuple(files), storage)
            start = len(inner.rstrip("/"))
            names = (folder + name[start:] for name in islice(_list_folder(fs, inner), MAX_NAMES))
            return cls(folder, tuple(sorted(names)), storage, is_folder=True)

    def exists(self, path: str) -> bool:
        """Return whether a file exists in the same file system."""
        fs, inner = fsspec.core.url_to_fs(path, **self.storage)
        return bool(fs.exists(inner))

    def ending(self, *suffixes: str) -> list[str]:
        """Return the files with one of these suffixes (lower case)."""
        return [name for name in self.names if name.lower().endswith(suffixes)]

    def pattern(self, *suffixes: str) -> str | list[str]:
        """Return a recipe path for the files with these suffixes: one or several globs for a folder."""
        if not self.is_folder:
            return self.path
        is_flat = all(name.rpartition("/")[0] == self.path for name in self.ending(*suffixes))
        ends = {name[-len(suffix) :]: None for suffix in suffixes for name in self.ending(suffix)}
        globs = [f"{self.path.rstrip('/')}/{'' if is_flat else '**/'}*{end}" for end in ends]
        return globs[0] if len(globs) == 1 else globs

    def describe(self) -> str:
        """Return the number of listed files by suffix."""
        counts = Counter(os.path.splitext(name)[1].lower() or "without a suffix" for name in self.names)
        kinds = [f"{count:,} {suffix}" for suffix, count in counts.most_common(5)] + ["and more"] * (len(counts) > 5)
        first = f"in the first {MAX_NAMES:,} files: " if len(self.names) == MAX_NAMES else ""
        return first + (", ".join(kinds) or "no file")


def _list_folder(fs: Any, folder: str) -> Iterator[str]:
    """Yield a folder's file names as the file system spells them, subfolders last, listing lazily."""
    if "s3" in fs.protocol:  # by page: `walk` would list a million objects first
        bucket, prefix, _ = fs.split_path(f"{folder}/")
        page, last = {"IsTruncated": True}, ""
        while page["IsTruncated"]:
            page = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, StartAfter=last)
            for last in (item["Key"] for item in page.get("Contents", ())):
                if "/." not in f"/{last.removeprefix(prefix)}" and not last.endswith("/"):
                    yield f"{bucket}/{last}"
        return
    limit = {"max_results": MAX_NAMES} if "gs" in fs.protocol else {}
    for top, folders, files in os.walk(folder) if isinstance(fs, LocalFileSystem) else fs.walk(folder, **limit):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (f"{top.rstrip('/')}/{name}" for name in sorted(files) if not name.startswith("."))


def read_head(path: str, storage: dict[str, Any], names: tuple[str, ...] | None = None) -> pa.Table | None:
    """Return the first rows of a table; None if the file is of another type or cannot be read.

    `names` are the columns of CSV and TSV without a header line.
    """
    with suppress(OSError, ValueError, pa.ArrowException):
        is_file = "://" in path or os.path.isfile(path)  # a pipe would block
        if kind_of(path) and is_file and not find_surrogate(path):
            head = read_first_rows(UrlList(path, "", storage, names), _ROWS)
            return head if len(set(head.column_names)) == head.num_columns else None
    return None


def texts_of(table: pa.Table) -> dict[str, list[str]]:
    """Return a table's text columns, without nulls and empty values."""
    kinds = (pa.types.is_string, pa.types.is_large_string)
    return {f.name: list(filter(None, table[f.name].to_pylist())) for f in table.schema if is_any(f.type, *kinds)}


def is_url(text: str) -> bool:
    """Return whether a text is the URL of a page or image."""
    return text.startswith(("http://", "https://"))


def find_urls(texts: dict[str, list[str]]) -> str | None:
    """Return the first column with URLs."""
    return next((name for name, values in texts.items() if any(map(is_url, values))), None)


def name_columns(
    texts: Mapping[str, list[str]], names: Mapping[str, Sequence[str]] = COLUMN_NAMES, **roles: str
) -> dict[str, str] | None:
    """Return the `columns` that a source needs in a recipe, role → column.

    They are the columns for the caption and for `roles`, except those that curate finds by `names`. If no column has a
    known name for captions, the one with the longest texts is chosen. Returns None if there is no text column.
    """
    by_lower = {name.lower(): name for name in reversed(list(texts))}
    usual = {role: next((by_lower[name] for name in names[role] if name in by_lower), None) for role in names}
    sizes = {name: sum(map(len, values)) for name, values in texts.items() if not any(map(is_url, values[:1]))}
    others = [name for name in sizes if name not in roles.values()]
    caption = usual["caption"] or max(others, key=sizes.__getitem__, default=None)
    # names that differ only in case are ambiguous
    alike = {name.lower() for name in texts if name != by_lower[name.lower()]}
    named = {role: column for role, column in {"caption": caption, **roles}.items() if column}
    named = {role: column for role, column in named.items() if column != usual[role] or column.lower() in alike}
    return named if caption else None
