"""Finds the articles of a source, in folders and archives or in lists of articles, and groups them into parts.

It reads only the highest version of an article. A part's fingerprint covers all files of its articles, or their
lines in a list.
"""

import re
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence

import fsspec
import numpy as np
import xxhash

from curate.base import ids
from curate.base.errors import reraised
from curate.pool.formats.grouping import group, group_size
from curate.pool.formats.input_format import InputPart
from curate.pool.pmc.packages import ARCHIVES, XML, digest_files, name_of, pack_paths, parse_name
from curate.read.listing import InputFile, list_source
from curate.read.tar_samples import IMAGE_SUFFIXES
from curate.recipe.source import Source

LISTS = (".csv", ".csv.gz", ".txt", ".txt.gz")
ARTICLE_BYTES = 1 << 20  # assumed for an article in a list
PART_BYTES = (1 << 10, 1 << 28)  # part sizes for small and large sources
_PARTS = 64  # a small source is split into about so many parts
_LINE = re.compile(rb"(PMC\d{1,15})(?:\.(\d{1,5}))?\b")
_MAX_LINE = 1 << 16
_TOGETHER = 1 << 14  # articles of a list per part
_NO_PATH = re.compile(r"[{},]")  # `pack_paths` cannot hold these
_MAX_SHARED = 1000  # XML files in one folder, because reading each of them lists the folder
_READ = (*(f".{suffix}" for suffix in IMAGE_SUFFIXES), *XML, ".json")


def make_parts(articles: Iterable[InputFile], total: int, faulty: Sequence[InputFile] = ()) -> Iterator[InputPart]:
    """Yield parts of consecutive articles, `total` bytes in all, and one part for each file with a fault."""
    size = group_size(total, _PARTS, PART_BYTES)
    for members in group(articles, lambda article: article.size, lambda article: name_of(article.path), size):
        path, digest = pack_paths([a.path for a in members]), ids.digest([a.fingerprint for a in members])
        yield InputPart(path, sum(a.size for a in members), digest)
    yield from (InputPart(file.path, 0, "", fault=file.fault) for file in faulty)


def list_articles(source: Source, prefix: str, content: bool) -> tuple[Iterable[InputFile], int, list[InputFile]]:
    """Return a source's articles, their total bytes, and the files with faults.

    Articles are in the order of their paths, or of their numbers if lists name them. Each has the path of its folder,
    archive, or XML, and the number of bytes to read. Raises RecipeError.
    """
    lists = [path for path in source.paths if path.lower().endswith(LISTS)]
    if lists and len(lists) < len(source.paths):
        raise source.error(f"{lists[0]}: a list among other paths; accepted: only lists, or only folders and archives")
    if lists and (not prefix or prefix.startswith(("http://", "https://"))):
        problem = f"curate cannot list its prefix {prefix!r}" if prefix else "a list needs a `prefix`"
        accepted = "accepted: the folder with the listed articles, such as s3://pmc-oa-opendata/"
        raise source.error(f"{lists[0]}: {problem}; {accepted}")
    if lists:
        return *_read_lists(source, prefix), []
    files = list_source(source, content, ("",))
    articles = _group_files(source, (file for file in files if not file.fault))
    if not articles:
        raise source.error(f"{source.paths[0]}: no article; accepted: PMC….xml, .nxml or .tar.gz")
    return articles, sum(article.size for article in articles), [file for file in files if file.fault]


def _read_lists(source: Source, prefix: str) -> tuple[Iterator[InputFile], int]:
    """Return each listed article's highest version, and their bytes; this takes 28 bytes of memory per line."""
    numbers, versions, digests = array("q"), array("l"), array("Q")
    if not any("://" in path for path in source.paths):  # otherwise `storage` applies to the articles only
        source = source.model_copy(update={"storage": {}})
    for file in list_source(source, False):
        if file.fault:
            raise source.error(f"{file.path}: is {file.fault[1]}")
        packed = "gzip" if file.path.lower().endswith(".gz") else None
        unread = reraised(source.error, f"{file.path}: cannot be read", OSError, EOFError, zlib.error)
        with unread, fsspec.open(file.path, "rb", compression=packed, **source.storage) as opened:
            while line := opened.readline(_MAX_LINE):
                if match := _LINE.search(line):
                    numbers.append(int(match[1][3:]))
                    versions.append(int(match[2] or 0))
                    digests.append(xxhash.xxh3_64_intdigest(line.strip()))
    if not numbers:
        problem = "it names no article; accepted: lines with a name such as PMC10009416.1"
        raise source.error(f"{source.paths[0]}: {problem}")
    number, version, digest = np.asarray(numbers), np.asarray(versions), np.asarray(digests)
    order = np.lexsort((version, number))
    highest = order[np.append(np.diff(number[order]) > 0, True)]
    folder = prefix.rstrip("/")

    def articles() -> Iterator[InputFile]:
        for first in range(0, len(highest), _TOGETHER):
            lines = highest[first : first + _TOGETHER]
            for pmcid, v, line in zip(*(column[lines].tolist() for column in (number, version, digest)), strict=True):
                name = f"PMC{pmcid}.{v}" if v else f"PMC{pmcid}"
                yield InputFile(f"{folder}/{name}", ARTICLE_BYTES, f"{line:016x}")

    return articles(), len(highest) * ARTICLE_BYTES


def _group_files(source: Source, files: Iterable[InputFile]) -> list[InputFile]:
    folders: dict[str, list[InputFile]] = {}
    articles: list[InputFile] = []
    metadata: dict[str, InputFile] = {}
    for file in files:
        folder, _, name = file.path.rpartition("/")
        if name.lower().endswith(ARCHIVES):
            articles.append(file)
        elif folder.endswith("/metadata") and name.endswith(".json"):
            metadata[f"{folder[: -len('metadata')]}{name_of(name[: -len('.json')])}"] = file
        else:
            folders.setdefault(folder, []).append(file)
    for folder, files_of_folder in folders.items():
        articles += _of_folder(source, folder, files_of_folder, metadata)
    articles.sort(key=lambda article: article.path)
    versions: dict[str, dict[int, list[str]]] = {}  # paths by version, for each article
    for article in articles:
        if _NO_PATH.search(article.path):
            raise source.error(f"{article.path}: has a brace or a comma in its name; accepted: names without them")
        name, version = parse_name(article.path) or (article.path, 0)
        versions.setdefault(name, {}).setdefault(version, []).append(article.path)
    highest = set[str]()
    for of_article in versions.values():
        for path, *others in of_article.values():
            if others:
                raise source.error(f"{others[0]}: this article is also in {path}; accepted: each article once")
        highest.add(of_article[max(of_article)][0])
    return [article for article in articles if article.path in highest]


def _of_folder(
    source: Source, folder: str, files: Sequence[InputFile], metadata: dict[str, InputFile]
) -> Iterator[InputFile]:
    """Yield one article for a folder with an article's name or a single XML; otherwise one for each XML."""
    names = [file.path.rpartition("/")[2] for file in files]
    xml = [name for name in names if name.lower().endswith(XML)]
    is_article = parse_name(folder) is not None
    if not xml and not is_article:
        return
    if not is_article and len(xml) > _MAX_SHARED:
        problem = f"{len(xml):,} articles in one folder; accepted: at most {_MAX_SHARED:,}, or one folder for each"
        raise source.error(f"{folder}: {problem}")
    paths = [folder] if is_article else [f"{folder}/{name}" for name in xml]
    described = [metadata[folder]] if folder in metadata else []
    size = sum(file.size for file in [*files, *described] if file.path.lower().endswith(_READ)) // len(paths)
    digest = digest_files([*files, *described])
    for path in paths:
        yield InputFile(path, size, digest)
