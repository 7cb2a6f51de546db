"""Reads an article's files: from a folder, as in PMC's bucket, or from an older tar.gz.

Names from the XML or an archive never reach the file system: they are looked up among the listed names.
"""

import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import fsspec

from curate.base import ids
from curate.base.process import temporary_folder
from curate.base.wording import one_line
from curate.pool.pmc.jats import MAX_XML
from curate.read.json_fields import read_json
from curate.read.listing import InputFile, file_state, list_folder
from curate.read.tar_samples import IMAGE_SUFFIXES
from curate.tar.byte_sources import MmapSource, errors_of
from curate.tar.index import index_tar
from curate.tar.walk import REGULAR

ARCHIVES, XML = (".tar.gz", ".tgz"), (".nxml", ".xml")
_NAME = re.compile(r"(PMC\d{1,15})(?:\.(\d{1,5}))?", re.IGNORECASE)
_PRINTED = ("eps", "ps", "pdf", "svg")  # formats for print: the article's image has another suffix
_MAX_UNPACKED = 1 << 32  # bytes in an archive
_STEP = 1 << 22


class ArticleError(ValueError):
    """An article cannot be used; `reason` is one of `schema.SAMPLE_REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Package:
    """An article's files."""

    name: str  # of its folder, archive, or XML
    xml: bytes
    metadata: Mapping[str, Any]  # its json; empty if there is none
    names: Mapping[str, str]  # of its files, by lower-case name
    read: Callable[[str], bytes]  # reads a file by name; raises OSError

    def find(self, hrefs: Sequence[str]) -> str | None:
        """Return the file for the hrefs of one graphic: the first that is an image; None if there is none.

        A full name takes precedence over a name without suffix. Case is ignored.
        """
        whole = [href.rpartition("/")[2].lower() for href in hrefs]
        for name in whole:
            stem, _, suffix = name.rpartition(".")
            stems = [name, stem] if suffix in (*IMAGE_SUFFIXES, *_PRINTED) else [name]
            for candidate in [name, *(f"{start}.{image}" for start in stems for image in IMAGE_SUFFIXES)]:
                if candidate in self.names and candidate.rpartition(".")[2] in IMAGE_SUFFIXES:
                    return self.names[candidate]
        return next((self.names[name] for name in whole if name in self.names), None)


# sizes of an article's files by name, and a function that reads one
_Files = tuple[dict[str, int], Callable[[str], bytes]]


def parse_name(path: str) -> tuple[str, int] | None:
    """Return PMCID and version (0 if missing) from the name of an article's folder or file; None for others."""
    match = _NAME.fullmatch(name_of(path))
    return (match[1].upper(), int(match[2] or 0)) if match else None


def name_of(path: str) -> str:
    """Return the name of an article's folder, archive, or XML without its suffix."""
    name = path.rstrip("/").rpartition("/")[2]
    return next((name[: -len(suffix)] for suffix in (*ARCHIVES, *XML) if name.lower().endswith(suffix)), name)


def folder_of(path: str) -> str:
    """Return the folder with an article's files: `path` itself, or the folder of this XML file."""
    return path.rpartition("/")[0] if path.lower().endswith(XML) else path


def pack_paths(paths: list[str]) -> str:
    """Pack paths into one path, which `expand_braces` can split again."""
    if len(paths) == 1:
        return paths[0]
    start = os.path.commonprefix(paths)  # noqa: RUF071 (of texts)
    return f"{start}{{{','.join(path[len(start) :] for path in paths)}}}"


def digest_files(files: Iterable[InputFile]) -> str:
    """Return a digest of files by name, size, and version. It does not depend on their folder."""
    return ids.digest([[file.path.rpartition("/")[2], file.size, file.fingerprint] for file in files])


def package_state(path: str, storage: dict[str, Any]) -> str:
    """Return a digest that changes if any file of an article does. This lists its folder once. Raises OSError."""
    with suppress(FileNotFoundError):
        if path.lower().endswith(ARCHIVES):
            return file_state(path, storage)
        return digest_files(list_folder(folder_of(path), storage))
    return "absent"


def open_package(path: str, storage: dict[str, Any]) -> Package:
    """Return an article's files. Raises ArticleError if they are missing, damaged, or too large, and OSError."""
    name, metadata, is_archive = name_of(path), dict[str, Any](), path.lower().endswith(ARCHIVES)
    try:
        sizes, read = (_open_archive if is_archive else _open_folder)(path, storage)
        chosen = path.rpartition("/")[2] if path.lower().endswith(XML) else choose_xml(name, list(sizes))
        if chosen not in sizes:
            count = sum(file.lower().endswith(XML) for file in sizes)
            problem = f"{count} of its {len(sizes):,} files are XML; accepted: {name}.xml, or a single XML"
            raise ArticleError("no_article", problem)
        if sizes[chosen] > MAX_XML:
            problem = f"the XML has {sizes[chosen]:,} bytes; accepted: at most {MAX_XML:,}"
            raise ArticleError("damaged_article", problem)
        if not is_archive and (raw := _read_metadata(path, storage, sizes, read)):
            metadata, error = read_json(raw)
            if error:
                raise ArticleError("damaged_article", f"its metadata: {error}")
        return Package(name, read(chosen), metadata, {file.lower(): file for file in sizes}, read)
    except FileNotFoundError:
        raise ArticleError("no_article", "it does not exist: was it withdrawn, or is its version missing?") from None


def choose_xml(name: str, files: Sequence[str]) -> str | None:
    """Return the article's XML file: the one with this name, or else the only .nxml or .xml; None if neither exists."""
    for suffix in XML:
        candidates = [file for file in files if file.lower().endswith(suffix)]
        named = [file for file in candidates if file.lower() == f"{name.lower()}{suffix}"]
        if named or len(candidates) == 1:
            return (named or candidates)[0]
    return None


def _open_folder(path: str, storage: dict[str, Any]) -> _Files:
    folder = folder_of(path)
    files = {file.path.rpartition("/")[2]: file for file in list_folder(folder, storage)}
    fs, _ = fsspec.core.url_to_fs(folder, **storage)
    return {name: file.size for name, file in files.items()}, lambda name: _read_file(fs, files[name].path)


def _read_file(fs: Any, path: str) -> bytes:
    with errors_of(path):
        data: bytes = fs.cat_file(path)
        return data


def _read_metadata(path: str, storage: dict[str, Any], sizes: Mapping[str, int], read: Callable[[str], bytes]) -> bytes:
    """Return the article's json in a folder; empty if there is none."""
    name = f"{name_of(path)}.json"
    with suppress(FileNotFoundError):
        if name in sizes:
            return read(name)
        if (parsed := parse_name(path)) and parsed[1]:  # PMC's bucket has the json files of all articles in one folder
            fs, inner = fsspec.core.url_to_fs(folder_of(path), **storage)
            return _read_file(fs, f"{inner.rstrip('/').rpartition('/')[0]}/metadata/{name}")
    return b""


def _open_archive(path: str, storage: dict[str, Any]) -> _Files:
    unpacked = _unpack(path, storage)
    index = index_tar(unpacked)
    if index.damage:
        raise ArticleError("damaged_article", index.damage.detail)
    members = zip(index.names, index.types.tolist(), index.offsets.tolist(), index.sizes.tolist(), strict=True)
    spans = {name.rpartition("/")[2]: (offset, size) for name, kind, offset, size in members if kind == REGULAR}
    return {name: size for name, (_, size) in spans.items()}, lambda name: bytes(unpacked.read(*spans[name]))


def _unpack(path: str, storage: dict[str, Any]) -> MmapSource:
    size = 0
    with temporary_folder() as folder, fsspec.open(path, "rb", **storage) as packed:
        name = os.path.join(folder, "tar")
        try:
            with open(name, "wb") as file, gzip.GzipFile(fileobj=packed) as unpacked:
                while block := unpacked.read(_STEP):
                    size += len(block)
                    if size > _MAX_UNPACKED:
                        problem = f"it unpacks to over {_MAX_UNPACKED:,} bytes; accepted: at most that"
                        raise ArticleError("damaged_article", problem)
                    file.write(block)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ArticleError("damaged_article", one_line(error, 200)) from None
        return MmapSource(name)
