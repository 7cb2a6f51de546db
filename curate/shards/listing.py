"""Lists input files: brace ranges `{00000..00099}`, lists `{a,b}` and globs, on any fsspec file system, with stamps.

A file that a brace range names and that is missing is an error before the run; what a glob finds is sorted by name.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import fsspec
import xxhash
from fsspec.implementations.local import LocalFileSystem

from curate.errors import RecipeError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)\Z")


@dataclass(frozen=True)
class InputFile:
    """An input file. `stamp` tells a changed file: its etag, its mtime in ns, or the hash of its content."""

    path: str
    size: int
    stamp: str


def expand_braces(path: str) -> list[str]:
    """All paths that `path` names: `a{00..02}{x,y}` gives six. Raises RecipeError for a range that is none."""
    found = _BRACES.search(path)
    if not found:
        return [path]
    before, after = path[: found.start()], expand_braces(path[found.end() :])
    text = found.group(1)
    if "{" in before:
        raise RecipeError(
            f"{path}: braces within braces are not accepted, or one is not closed; write {{a,b}}{{00..09}}"
        )
    if span := _RANGE.match(text):
        first, last = int(span[1]), int(span[2])
        if last < first or last - first >= 10_000_000:
            raise RecipeError(f"{path}: range {{{text}}} is empty or too long; accepted: {{00000..00099}}")
        width = len(span[1]) if span[1].startswith("0") or len(span[1]) == len(span[2]) else 0
        middle = [f"{n:0{width}d}" for n in range(first, last + 1)]
    elif "," in text:
        middle = text.split(",")
    else:
        raise RecipeError(f"{path}: {{{text}}} is neither a range such as {{00000..00099}} nor a list such as {{a,b}}")
    return [f"{before}{m}{a}" for m in middle for a in after]


def list_files(paths: tuple[str, ...], storage: dict[str, Any], content: bool = False) -> list[InputFile]:
    """The files that `paths` name, in order, each once.

    Args:
        paths: paths or URLs with brace ranges, lists and globs.
        storage: options of the file system.
        content: stamp by a hash of the content instead of etag or mtime.

    Raises:
        RecipeError: a file is missing, a glob finds none, or one is named twice.
    """
    files = [file for path in paths for file in _list_path(path, storage, content)]
    seen = set()
    for file in files:
        name = file.path if "://" in file.path else os.path.normpath(file.path)
        if name in seen:
            raise RecipeError(f"{name}: is listed twice in one source")
        seen.add(name)
    return files


def _list_path(path: str, storage: dict[str, Any], content: bool) -> Iterator[InputFile]:
    names = expand_braces(path)
    fs, _ = fsspec.core.url_to_fs(names[0], **storage)
    missing = []
    for name in names:
        inner = fs._strip_protocol(name)
        if any(c in name for c in "*?[") and not fs.exists(inner):
            found = fs.glob(inner, detail=True)
            infos = [found[key] for key in sorted(found) if fs.isfile(found[key]["name"])]
            if not infos:
                raise RecipeError(f"{path}: no file matches {name}")
        else:
            try:
                infos = [fs.info(inner)]
            except FileNotFoundError:
                missing.append(name)
                continue
            if infos[0]["type"] == "directory":
                raise RecipeError(f"{name}: is a folder; name files, such as {name.rstrip('/')}/*.tar")
            if not fs.isfile(inner):
                raise RecipeError(f"{name}: is no regular file")  # a pipe, say, which would be waited for
        for info in infos:
            yield InputFile(
                str(fs.unstrip_protocol(info["name"])) if "://" in path else info["name"],
                int(info["size"]),
                _stamp(fs, info, content),
            )
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise RecipeError(
            f"{missing[0]}{more}: no such file ({len(names) - len(missing)} of the {len(names)} named exist)"
        )


def _stamp(fs: Any, info: dict[str, Any], content: bool) -> str:
    if content:
        state = xxhash.xxh3_128()
        with fs.open(info["name"], "rb") as file:
            while block := file.read(1 << 22):
                state.update(block)
        return f"xxh3:{state.hexdigest()}"
    if isinstance(fs, LocalFileSystem):
        return f"mtime:{info['mtime']!r}"
    for name in ("etag", "ETag", "md5Hash", "crc32c", "mtime", "LastModified", "last_modified", "updated", "created"):
        if info.get(name):
            return f"{name}:{info[name]}"
    return "unknown"
