"""List input files from brace ranges `{00000..00099}`, lists `{a,b}`, and globs, on any fsspec file system.

If a brace range names a missing file, the run does not start. The results of a glob are sorted by name. Results that
are not files (folders, pipes, broken links) have a fault. Each file has a fingerprint.
"""

import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from posixpath import dirname
from typing import Any

import fsspec
import xxhash
from fsspec.implementations.local import LocalFileSystem

from curate.base.errors import RecipeError, RunError
from curate.recipe.clouds import check_bucket
from curate.recipe.secrets import refuse_password
from curate.recipe.source import Source
from curate.recipe.strict_yaml import find_surrogate
from curate.tar.byte_sources import errors_of

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,100})\.\.(\d{1,100})\Z")
MAX_NAMES = 10_000_000  # maximum number of files in one source, from ranges and lists
HASHED = "xxh3:"  # prefix of fingerprints that are hashes of the content
_BLOCK = 1 << 22  # bytes per read while hashing; each read is a request to a store
_LOCAL_OPTIONS = ("auto_mkdir",)  # options of fsspec's local file system, which silently accepts any other option
_NOT_THERE = (404, 410)  # HTTP statuses
_THREADS = 16  # number of files to look up or hash at the same time
# The names that file systems use for a file's version: object stores, Hugging Face, HTTP, SFTP, memory.
_ETAGS = ("etag", "ETag", "blob_id", "md5Hash", "crc32c")
_VERSIONS = (*_ETAGS, "mtime", "LastModified", "last_modified", "updated", "created")


Paths = str | tuple[str, ...]
Suffixes = tuple[str, ...]
Storage = dict[str, Any]  # options of a file system


@dataclass(frozen=True)
class InputFile:
    """An input file.

    `fingerprint` changes when the file changes: its etag, its mtime in ns, or a hash of its content.
    """

    path: str
    size: int
    fingerprint: str
    fault: tuple[str, str] | None = None  # reason and detail, if this is not a regular file


def expand_braces(path: str) -> list[str]:
    """Return all paths that `path` names: `a{00..02}{x,y}` names six. Raises RecipeError if a brace is wrong."""
    *pieces, end = _BRACES.split(path)
    parts: list[Sequence[str]] = []  # texts and choices, which are counted before they are multiplied
    names = 1
    for before, text in zip(pieces[::2], pieces[1::2], strict=True):
        if "{" in before:
            raise RecipeError(f"{path}: braces are nested, or one is not closed; write {{a,b}}{{0..9}}")
        if span := _RANGE.match(text):
            first, last = int(span[1]), int(span[2])
            if last < first:
                raise RecipeError(f"{path}: range {{{text}}} is empty; accepted: {{00000..00099}}")
            _check_number(path, names * (last - first + 1))
            width = len(span[1]) if span[1].startswith("0") or len(span[1]) == len(span[2]) else 0
            choices = [f"{n:0{width}d}" for n in range(first, last + 1)]
        elif "," in text:
            choices = text.split(",")
        else:
            raise RecipeError(f"{path}: {{{text}}} is neither a range such as {{00..99}} nor a list such as {{a,b}}")
        names *= len(choices)
        _check_number(path, names)
        parts += [before], choices
    return list(map("".join, itertools.product(*parts, [end])))


def _check_number(path: str, names: int) -> None:
    if names > MAX_NAMES:
        accepted = "in all paths together, with ranges such as {00000..00099} and lists such as {a,b}"
        raise RecipeError(f"{path}: names {names:,} files; accepted: at most {MAX_NAMES:,}, {accepted}")


def list_files(paths: Paths, storage: Storage, content: bool = False, suffixes: Suffixes = ()) -> list[InputFile]:
    """Return the files named by paths or URLs with brace ranges, lists, and globs, in order.

    A folder names all files in it, at any depth, that are not hidden and end in one of `suffixes` (lower case). Without
    `suffixes`, a folder is an error. Raises RecipeError if a file is missing or named twice, or if a glob or folder
    finds nothing, or something that is not a file.
    """
    files = _list_all(paths, storage, content, suffixes)
    for file in files:
        if file.fault:
            raise RecipeError(f"{file.path}: is {file.fault[1]}; remove it, or change the path so it is not listed")
    return files


def _list_all(paths: Paths, storage: Storage, content: bool, suffixes: Suffixes) -> list[InputFile]:
    expanded: list[tuple[str, list[str]]] = []
    for path in (paths,) if isinstance(paths, str) else paths:
        refuse_password(path)
        expanded.append((path, expand_braces(path)))
        _check_number(path, sum(len(names) for _, names in expanded))
    files: list[InputFile] = []
    for path, names in expanded:
        with ThreadPoolExecutor(_THREADS) as pool, errors_of(path):  # a store is slow for each name
            found_files = list(pool.map(partial(_find, path, storage, content, suffixes), names))
        if missing := [name for name, of_name in zip(names, found_files, strict=True) if not of_name]:
            check_bucket(*fsspec.core.url_to_fs(missing[0], **storage))
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            rest = f" ({len(names) - len(missing)} of the {len(names)} named exist)" if len(names) > 1 else ""
            raise RecipeError(f"{missing[0]}{others}: no such file{rest}")
        files += itertools.chain.from_iterable(found_files)
    seen = set()
    for file in files:
        name = file.path if "://" in file.path else os.path.normpath(file.path)
        if name in seen:
            raise RecipeError(f"{name}: is listed twice in one source")
        seen.add(name)
    return files


def _find(path: str, storage: Storage, content: bool, suffixes: Suffixes, name: str) -> list[InputFile]:
    fs, inner = fsspec.core.url_to_fs(name, **storage)
    if any(c in name for c in "*?[") and not fs.exists(inner):
        infos = [info for _, info in sorted(fs.glob(inner, detail=True).items())]
        if inner.endswith("**"):  # this also finds the content of folders
            infos = [info for info in infos if info["type"] != "directory"]
        if not any(_is_file(fs, info) for info in infos):
            check_bucket(fs, inner)
            match = f"; {infos[0]['name']} is {_other_than_file(infos[0])}" if infos else ""
            raise RecipeError(f"{path}: no file matches {name}{match}")
    else:
        try:
            infos = [_info(fs, inner)]
        except FileNotFoundError:
            return []
        if infos[0]["type"] == "directory":
            if not suffixes:
                raise RecipeError(f"{name}: is a folder; name files, such as {name.rstrip('/')}/*.tar")
            start, below = len(inner.rstrip("/")), sorted(fs.find(inner, detail=True).items())
            infos = [info for at, info in below if at.lower().endswith(suffixes) and "/." not in at[start:]]
            if not infos:
                raise RecipeError(f"{name}: no {', '.join(suffixes)} files in this folder; name one that has some")
        elif not _is_file(fs, infos[0]):
            raise RecipeError(f"{name}: is not a regular file")  # opening a pipe, for example, would wait for data
    for info in infos:
        if find_surrogate(info["name"]):
            raise RecipeError(f"{ascii(info['name'])[1:-1]}: its name is not UTF-8; accepted: names in UTF-8")
    return [_input_file(fs, path, info, content) for info in infos]


def _input_file(fs: Any, named: str, info: dict[str, Any], content: bool) -> InputFile:
    path = str(fs.unstrip_protocol(info["name"])) if "://" in named else info["name"]
    if info["size"] is None:
        return InputFile(path, 0, "", ("unreadable", "without a size, because the server sends no Content-Length"))
    if _is_file(fs, info):
        return InputFile(path, int(info["size"]), file_version(fs, info, content))
    return InputFile(path, 0, "", ("not_a_file", _other_than_file(info)))


def _other_than_file(info: dict[str, Any]) -> str:
    if info.get("islink"):
        return f"a link to {info.get('destination')!r}, which is not a file"
    return "a folder" if info["type"] == "directory" else "not a regular file"


def _info(fs: Any, name: str) -> dict[str, Any]:
    """Return what a file system says about a file.

    Raises FileNotFoundError if there is none, and OSError if it fails.
    """
    try:
        return dict(fs.info(name))
    except FileNotFoundError as error:
        answer = error.__cause__  # over HTTP, fsspec raises FileNotFoundError for any status, and for no response
        if answer is None or getattr(answer, "status", 0) in _NOT_THERE:
            raise
        kind = PermissionError if getattr(answer, "status", 0) in (401, 403) else OSError
        raise kind(f"{name}: {answer}") from error


def _is_file(fs: Any, info: dict[str, Any]) -> bool:
    return info["type"] == "file" or bool(fs.isfile(info["name"]))


def list_source(source: Source, content: bool, suffixes: Suffixes = ()) -> list[InputFile]:
    """Return the files of a source, in order, including those with a fault. For `suffixes`, see `list_files`.

    Raises RecipeError, which names the source, if it cannot list them.
    """
    is_local = all("://" not in path for path in source.paths)
    if is_local and (unknown := [name for name in source.storage if name not in _LOCAL_OPTIONS]):
        raise source.error(f"storage: {unknown[0]!r} is not an option of local files; drop it, or name a URL in path")
    try:
        return _list_all(source.paths, source.storage, content, suffixes)
    except RecipeError as error:
        raise source.error(error) from None
    except (OSError, ImportError, ValueError) as error:
        raise source.error(f"{source.path} cannot be listed: {error}") from None


def fingerprints_beside(names: Iterable[str], storage: Storage, content: bool) -> dict[str, str]:
    """Return, by name, the size and fingerprint of each file that exists and is visible.

    It lists folders, which needs fewer requests than looking up each file. Raises OSError.
    """
    fingerprints: dict[str, str] = {}

    for folder, names_in_folder in itertools.groupby(sorted(names, key=dirname), dirname):
        fs, inner = fsspec.core.url_to_fs(folder, **storage)
        wanted = {fsspec.core.url_to_fs(name, **storage)[1]: name for name in names_in_folder}
        try:
            infos = _look_up(fs, wanted) if "http" in fs.protocol else fs.ls(inner, detail=True)
            fs.invalidate_cache(inner)  # a later plan in this process must see new files
        except (FileNotFoundError, PermissionError, NotImplementedError):
            infos = _look_up(fs, wanted)
        for info in infos:
            if info["name"] in wanted and info["type"] == "file":
                fingerprints[wanted[info["name"]]] = f"{info['size']} bytes, {file_version(fs, info, content)}"
    return fingerprints


def _look_up(fs: Any, names: Iterable[str]) -> list[dict[str, Any]]:
    def info(name: str) -> dict[str, Any] | None:
        with suppress(FileNotFoundError, PermissionError):
            return _info(fs, name)
        return None

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(filter(None, pool.map(info, names)))


def list_folder(path: str, storage: Storage) -> list[InputFile]:
    """Return the files that a folder has now, by name, without subfolders. Raises OSError."""
    fs, inner = fsspec.core.url_to_fs(path, **storage)
    fs.invalidate_cache(inner)
    with errors_of(path):
        infos = [info for info in fs.ls(inner, detail=True) if _is_file(fs, info)]
        files = [InputFile(info["name"], int(info["size"]), file_version(fs, info)) for info in infos]
        return sorted(files, key=lambda file: file.path)


def file_state(path: str, storage: Storage) -> str:
    """Return the size and the etag or mtime that a file has now. Raises OSError."""
    if os.path.isabs(path):  # a local path from the plan
        stat = os.stat(path)
        return f"{stat.st_size} bytes, mtime:{stat.st_mtime_ns}"
    fs, inner = fsspec.core.url_to_fs(path, **storage)
    fs.invalidate_cache(inner)
    info = _info(fs, inner)
    return f"{info['size']} bytes, {file_version(fs, info)}"


def check_state(
    path: str, storage: Storage, state: str, fingerprint: str = "", read: Callable[[str, Storage], str] = file_state
) -> None:
    """Check that a file has not changed since `file_state` returned `state`.

    If the file's fingerprint (see InputFile) is a hash of its content, another state with the same content is accepted.
    Raises RunError if the file changed or was deleted, and OSError if its state cannot be read now.
    """
    try:
        now = read(path, storage)
    except FileNotFoundError:
        now = "deleted"
    if now == state:
        return
    hashed = fingerprint.startswith(HASHED) and now != "deleted"
    if not hashed or _hash(*fsspec.core.url_to_fs(path, **storage)) != fingerprint:
        problem = f"the file changed during the run: it was {state}, and now it is {now}"
        remedy = "start a run in a new folder, with --reuse of this folder for the files that did not change"
        raise RunError(f"{path[:300]}: {problem}; {remedy}")


def file_version(fs: Any, info: dict[str, Any], content: bool = False) -> str:
    """Return a hash of a file's content, or the version that its file system states."""
    if content:  # empty files are not opened: reading a kernel file such as /proc/kmsg would block
        return _hash(fs, info["name"]) if info["size"] else f"{HASHED}{xxhash.xxh3_128().hexdigest()}"
    if isinstance(fs, LocalFileSystem):
        return f"mtime:{os.stat(info['name']).st_mtime_ns}"  # of a link's target
    return next((f"{name}:{info[name]}" for name in _VERSIONS if info.get(name)), "unknown")


def _hash(fs: Any, name: str) -> str:
    with fs.open(name, "rb") as file:
        return f"{HASHED}{hashlib.file_digest(file, xxhash.xxh3_128, _bufsize=_BLOCK).hexdigest()}"
