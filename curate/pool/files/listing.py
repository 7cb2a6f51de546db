"""Walks a source's folder or glob once: names, sizes, versions, and files that cannot be read.

It skips hidden files and folders, and follows links only to files within the folder. It does not enter linked folders.
It does not use fsspec's walk for disks, because that would enter them.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from curate.base.schema import OK, define
from curate.read.listing import file_version
from curate.read.tar_samples import IMAGE_SUFFIXES
from curate.recipe.secrets import refuse_password
from curate.recipe.source import Source
from curate.recipe.strict_yaml import find_surrogate
from curate.tar.byte_sources import errors_of

# `name` is relative; a folder's ends with a slash. `size` and `fingerprint` are those of `InputFile`. `status` is `ok`
# or a reason. `is_named` is whether `path` matches the file
_TEXT = pa.string()
LISTED = define(name=_TEXT, size=pa.int64(), fingerprint=_TEXT, status=_TEXT, error=_TEXT, is_named=pa.bool_())
_WILD = re.compile(r"[*?\[]")
UNREADABLE, UNSAFE = "unreadable_file", "unsafe_path"
CHAINED = UNSAFE, "its name has ::, which fsspec uses to chain file systems"
_SUFFIXES = tuple(f".{suffix}" for suffix in IMAGE_SUFFIXES)
_BATCH = 1 << 16
_Row = tuple[str, int, str, str, str | None, bool]


@dataclass(frozen=True)
class FileTree:
    """A source's folder, and which of its files to include."""

    fs: Any
    root: str  # as the file system spells it
    url: str  # as the recipe spells it
    depth: int = 1 << 30  # levels of subfolders to enter
    pattern: re.Pattern[str] | None = None  # for the whole path; None: all files

    @classmethod
    def of(cls, source: Source) -> "FileTree":
        """Return a source's folder. Raises RecipeError if it is missing, and OSError."""
        refuse_password(path := source.paths[0])
        fs, inner = fsspec.core.url_to_fs(path, **source.storage)
        fs.invalidate_cache()
        with errors_of(path):
            is_folder = fs.isdir(inner)
        if is_folder:
            return cls(fs, inner.rstrip("/"), path.rstrip("/"))
        root = _WILD.split(inner, maxsplit=1)[0].rpartition("/")[0]
        if not _WILD.search(inner) or not fs.isdir(root or "/"):
            problem = "is a file" if fs.exists(inner) else "no such folder"
            accepted = "a folder of images, or a glob such as photos/*.jpg; a caption table goes in `table`"
            raise source.error(f"{path}: {problem}; accepted: {accepted}")
        depth = cls.depth if "**" in inner else inner.count("/", len(root) + 1)
        return cls(fs, root, path[: len(path) - len(inner) + len(root)], depth, re.compile(glob_translate(inner)))

    def list(self, content: bool) -> Iterator[pa.Table]:
        """Yield tables with the columns LISTED, in any order. Raises OSError.

        With `content`, fingerprints are hashes of the content.
        """
        rows = self._walk(content) if isinstance(self.fs, LocalFileSystem) else self._find(content)
        while batch := list(islice(rows, _BATCH)):
            columns = zip(*batch, strict=True)
            yield pa.table([pa.array(column, f.type) for column, f in zip(columns, LISTED, strict=True)], schema=LISTED)

    def _is_named(self, path: str) -> bool:
        return self.pattern is None or self.pattern.match(path) is not None

    def _find(self, content: bool) -> Iterator[_Row]:
        start = len(self.root) + 1
        for path, info in self.fs.find(self.root, maxdepth=self.depth + 1, detail=True).items():
            if "/." not in path[start - 1 :]:
                name, version = path[start:], file_version(self.fs, info, content)
                status, error = CHAINED if "::" in name else (OK, None)
                yield name, int(info["size"] or 0), version, status, error, self._is_named(path)

    def _walk(self, content: bool) -> Iterator[_Row]:
        start, real, folders = len(self.root) + 1, os.path.realpath(self.root), [(self.root or "/", self.depth)]
        while folders:
            folder, depth = folders.pop()
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False) and depth:
                        folders.append((entry.path, depth - 1))
                    name, is_named = entry.path[start:], self._is_named(entry.path)
                    state, error = _look_at(entry, real)
                    if find_surrogate(name):
                        name, error = ascii(name)[1:-1], (UNSAFE, "its name is not UTF-8")
                    if not error and "::" in name:
                        error = CHAINED
                    if state and not error:
                        version = f"mtime:{state.st_mtime_ns}"
                        if content:
                            version = file_version(self.fs, {"name": entry.path, "size": state.st_size}, True)
                        yield name, state.st_size, version, OK, None, is_named
                        continue
                    assert error
                    is_folder = state is not None and stat.S_ISDIR(state.st_mode)
                    if is_folder and error[0] == UNSAFE:  # its files are listed nowhere else
                        yield f"{name}/", 0, "", *error, True
                    elif not is_folder or name.lower().endswith(_SUFFIXES):
                        yield name, 0, "", *error, is_named


def _look_at(entry: Any, root: str) -> tuple[os.stat_result | None, tuple[str, str] | None]:
    """Return the file's status, if any, and a reason and detail if it may not be read."""
    state, problem = None, None
    try:
        state = entry.stat()
        if not stat.S_ISREG(state.st_mode) or not os.access(entry.path, os.R_OK):
            problem = UNREADABLE, "a folder, a pipe, or a file without permission to read"
    except OSError as error:
        problem = UNREADABLE, f"a broken link: {error.strerror}"
    if entry.is_symlink() and state and not f"{os.path.realpath(entry.path)}/".startswith(f"{root.rstrip('/')}/"):
        problem = UNSAFE, "a link to a file outside `path`"
    return state, problem
