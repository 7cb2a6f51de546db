"""The files that a source's folders and globs have, by one walk: names, sizes, versions, and what is no usable file.

In: the paths of a source. Out: batches of LISTED, in no order. No file is opened, unless fingerprints are of contents.
Hidden files and folders are left out. A link is followed to a file within the source's folders alone; folders that are
links are not followed. Local folders are read by `os.scandir`, since fsspec takes ten times as long.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from curate.base import schema
from curate.read.listing import expand_braces, file_version
from curate.read.tar_samples import IMAGE_SUFFIXES
from curate.recipe.secrets import refuse_password
from curate.recipe.source import Source
from curate.recipe.strict_yaml import find_surrogate

LISTED = pa.schema(
    [
        ("name", pa.string()),  # relative to the root; of a folder that is not entered with a slash at its end
        ("size", pa.int64()),
        ("fingerprint", pa.string()),  # see `curate.read.listing.InputFile`
        ("status", pa.string()),  # `ok`, or the reason why it cannot be read
        ("error", pa.string()),
        ("is_chosen", pa.bool_()),  # whether a path of the source names it; captions lie beside such files
    ]
)
UNREADABLE, UNSAFE = "unreadable_file", "unsafe_path"
_WILD = re.compile(r"[*?\[]")
_BATCH = 1 << 16
_ANY_DEPTH = 1 << 30

_Row = tuple[str, int, str, str, str | None, bool]


@dataclass(frozen=True)
class _Branch:
    """A folder of the source, and which of the files below it a path names."""

    folder: str
    depth: int  # of the folders below it that may have some
    pattern: re.Pattern[str] | None = None  # of a file's whole path; None: all


@dataclass(frozen=True)
class FileTree:
    """The folders of a source."""

    source: Source
    fs: Any
    root: str  # the folder that names are relative to, as the file system has it
    branches: tuple[_Branch, ...]

    @classmethod
    def of(cls, source: Source) -> "FileTree":
        """Return the folders that a source's paths name. Raises RecipeError where one is not there, and OSError."""
        systems, branches = [], []
        for path in source.paths:
            refuse_password(path)
            for name in expand_braces(path):
                fs, inner = fsspec.core.url_to_fs(name, **source.storage)
                fs.invalidate_cache()
                systems.append(fs)
                branches.append(_find_branch(source, fs, name, inner))
        if any(fs != systems[0] for fs in systems):
            raise source.error("path: names several file systems; accepted: folders of one")
        folders = [branch.folder for branch in branches]
        return cls(source, systems[0], os.path.commonpath(folders) if folders[1:] else folders[0], tuple(branches))

    def full_path(self, name: str) -> str:
        """Return the path or URL of a file, by its name."""
        path = f"{self.root.rstrip('/')}/{name}" if name else self.root
        return str(self.fs.unstrip_protocol(path)) if "://" in self.source.paths[0] else path

    def list(self, content: bool) -> Iterator[pa.RecordBatch]:
        """Yield LISTED, each file once; with `content`, fingerprints are of it. Raises OSError."""
        rows: list[_Row] = []
        walk = self._walk if isinstance(self.fs, LocalFileSystem) else self._find
        for row in walk(content):
            rows.append(row)
            if len(rows) >= _BATCH:
                yield _batch(rows)
                rows = []
        yield _batch(rows)

    def _is_chosen(self, path: str) -> bool:
        return any(
            path.startswith(f"{branch.folder.rstrip('/')}/") and (not branch.pattern or branch.pattern.match(path))
            for branch in self.branches
        )

    def _find(self, content: bool) -> Iterator[_Row]:
        """Yield the files of a store."""
        start, infos = len(self.root.rstrip("/")) + 1, dict[str, dict[str, Any]]()
        for branch in self.branches:
            depth = None if branch.depth == _ANY_DEPTH else branch.depth + 1
            infos |= self.fs.find(branch.folder, maxdepth=depth, detail=True)
        for path, info in infos.items():
            if "/." not in path[start - 1 :]:
                version = file_version(self.fs, info, content)
                yield path[start:], int(info["size"] or 0), version, schema.OK, None, self._is_chosen(path)

    def _walk(self, content: bool) -> Iterator[_Row]:
        """Yield the files of this machine."""
        start = len(self.root.rstrip("/")) + 1
        within = [os.path.realpath(branch.folder) for branch in self.branches]
        chooses_all = any(not branch.pattern and branch.folder == self.root for branch in self.branches)
        waiting, seen = [(branch.folder, branch.depth) for branch in self.branches], set[str]()
        while waiting:
            folder, depth = waiting.pop()
            if folder in seen:
                continue
            seen.add(folder)
            try:
                entries = os.scandir(folder)
            except OSError as error:
                if any(folder == branch.folder for branch in self.branches):
                    raise
                yield f"{folder[start:]}/", 0, "", UNREADABLE, f"it cannot be listed: {error.strerror}", True
                continue
            with entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    path = entry.path
                    if entry.is_dir(follow_symlinks=False):
                        if depth:
                            waiting.append((path, depth - 1))
                        if not path.lower().endswith(_SUFFIXES):
                            continue
                    is_chosen = chooses_all or self._is_chosen(path)
                    state, fault = _look_at(entry, within)
                    if fault:
                        is_folder = bool(depth and entry.is_symlink() and state and stat.S_ISDIR(state.st_mode))
                        if not is_folder or fault[0] == UNSAFE:  # files of a folder within are listed there
                            yield path[start:] + "/" * is_folder, 0, "", *fault, is_chosen or is_folder
                        continue
                    assert state is not None
                    version = f"mtime:{state.st_mtime_ns}"
                    if content:
                        version = file_version(self.fs, {"name": path, "size": state.st_size}, content)
                    yield path[start:], state.st_size, version, schema.OK, None, is_chosen


_SUFFIXES = tuple(f".{suffix}" for suffix in IMAGE_SUFFIXES)


def _find_branch(source: Source, fs: Any, name: str, inner: str) -> _Branch:
    """Return the folder of one of a source's paths, and which files it names. Raises RecipeError, and OSError."""
    if fs.isdir(inner):
        return _Branch(inner, _ANY_DEPTH)
    if not (wild := _WILD.search(inner)):
        what = "is a file" if fs.exists(inner) else "no such folder"
        raise source.error(f"{name}: {what}; accepted: a folder of images, or a glob such as photos/*.jpg")
    folder = inner[: wild.start()].rpartition("/")[0] or "/"
    if not fs.isdir(folder):
        raise source.error(f"{name}: no such folder: {folder}")
    rest = inner[len(folder.rstrip("/")) + 1 :]
    try:
        pattern = re.compile(glob_translate(inner))
    except (ValueError, re.error) as error:
        raise source.error(f"{name}: {error}") from None
    return _Branch(folder, _ANY_DEPTH if "**" in rest else rest.count("/"), pattern)


def _look_at(entry: Any, within: Sequence[str]) -> tuple[os.stat_result | None, Any]:
    """Return what the system says of a file, and reason and detail where it is none that may be read."""
    is_link = entry.is_symlink()
    try:
        state = entry.stat()
    except OSError as error:
        detail = f"a link to {os.readlink(entry.path)}" if is_link else "it cannot be read"
        return None, (UNREADABLE, f"{detail}: {error.strerror}")
    if is_link:
        real = os.path.realpath(entry.path)
        if not any(f"{real}/".startswith(f"{folder.rstrip('/')}/") for folder in within):
            return state, (UNSAFE, f"a link to {real}, which is not in `path`")
    if not stat.S_ISREG(state.st_mode):
        return state, (UNREADABLE, f"{_kind_of(state.st_mode)}, and no regular file")
    return state, ()


def _kind_of(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a socket or a device"


def _batch(rows: Iterable[_Row]) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True)) or [()] * len(LISTED)
    try:
        return pa.record_batch([list(column) for column in columns], schema=LISTED)
    except UnicodeEncodeError:
        return _batch(map(_with_valid_name, rows))


def _with_valid_name(row: _Row) -> _Row:
    """Return a file, which cannot be used where its name is not UTF-8."""
    name, size, version, _, _, is_chosen = row
    if not find_surrogate(name):
        return row
    return ascii(name)[1:-1], size, version, UNSAFE, "its name is not UTF-8", is_chosen
