"""Plans a build: lists the downloaded files, and splits them into parts of about equal size.

In: paths of texts, page views and wordnets. Out: parts. Each belongs to one wiki, except page views, which cover all
wikis.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import fsspec
import pyarrow as pa

from curate.base.decoded_size import read_footer
from curate.base.errors import RecipeError, reraised
from curate.base.process import groups, in_threads
from curate.base.wording import did_you_mean
from curate.match.building.tokens import load_tokenizer
from curate.match.building.wikis import Mode, all_keys, find_wiki, key_of_wiki, normal_name
from curate.match.building.wordnets import WORDNET_SUFFIXES, find_wordnet, is_wordnet
from curate.read.listing import InputFile, list_files

PART_BYTES = 24 << 20  # compressed bytes of a dump, about 50 MB of text; uncompressed bytes of other files
_UNPACKED = 2  # bytes of text per compressed byte of a dump, about
Paths = Sequence[str]
Kind = Literal["dump", "parquet", "lines", "views", "wordnet"]
_KINDS: dict[str, Kind] = {
    **{"bz2": "dump", "xml": "dump", "parquet": "parquet"},
    **dict.fromkeys(("json", "jsonl", "json.gz", "jsonl.gz"), "lines"),
}
_INDEX = "-multistream-index"  # published next to a dump, not needed


@dataclass(frozen=True)
class Part:
    """A part of a file."""

    index: int
    kind: Kind
    path: str
    wiki: str  # "" for page views
    start: int = 0  # for a dump: the byte range of stream starts; for Parquet: row groups
    stop: int = 0

    @property
    def title(self) -> str:
        return self.path


class Plan(NamedTuple):
    """The plan of a build."""

    parts: tuple[Part, ...]
    keys: dict[str, str]  # the key of each wiki's entries
    unnamed: tuple[str, ...] = ()  # ignored files in folders: their names have no language


def make_plan(
    wikis: Paths, views: Paths, wordnets: Paths, chosen: Sequence[str], mode: Mode, listed: Collection[str] = ()
) -> Plan:
    """List and split the files.

    `chosen` are the keys to build, by default all that have files. Keys in `listed` already have entries, so none are
    built for them.

    Raises RecipeError if a file is missing or of an unknown kind, or if a language has no files or no tokenizer.
    """
    for key in chosen:
        if key not in all_keys() and not (mode is Mode.corrected and key == "zh_min_nan"):
            hint = did_you_mean(key, all_keys())
            raise RecipeError(f"--language {key}: no such language; {hint}accepted: names of Wikipedias, or other")
    unnamed: list[str] = []
    texts = [item for path in wikis for item in _list_texts(path, unnamed)]
    lexicons = [item for path in wordnets for item in _list_wordnets(path, mode)]
    keys = {wiki: key_of_wiki(wiki, mode) for wiki in sorted({wiki for wiki, *_ in (*texts, *lexicons)})}
    kept = {wiki: key for wiki, key in keys.items() if key and key not in listed and (not chosen or key in chosen)}
    if missing := [key for key in chosen if key not in (*kept.values(), *listed)]:
        languages = ", ".join(sorted({key for key in keys.values() if key})) or "none"
        error = f"--language {missing[0]}: no file of --wiki or --wordnet is in this language"
        raise RecipeError(f"{error}; their languages: {languages}")
    if not kept:
        raise RecipeError("nothing to build: none of the files in --wiki or --wordnet is in a supported language")
    texts, lexicons = ([item for item in items if item[0] in kept] for items in (texts, lexicons))
    _check_snapshots(texts)
    for wiki in sorted({wiki for wiki, *_ in texts}):
        load_tokenizer(wiki)
    pieces = [piece for pieces in in_threads(_split, [*texts, *lexicons]) for piece in pieces]
    if views:
        pieces += [("views", file.path, "", 0, 0) for file in list_files(tuple(views), {}, suffixes=(".gz",))]
    return Plan(tuple(Part(index, *piece) for index, piece in enumerate(pieces)), kept, tuple(unnamed))


_Listed = tuple[str, Kind, InputFile]


def _list_texts(path: str, unnamed: list[str]) -> Iterator[_Listed]:
    """Yield the files of a --wiki path with wiki and kind; `unnamed` gets files of a folder without a wiki's name."""
    named = re.match(r"([a-zA-Z][\w-]*)=(.+)", path)
    files = list_files(named[2] if named else path, {}, suffixes=tuple(f".{suffix}" for suffix in _KINDS))
    for file in (file for file in files if _INDEX not in file.path.rpartition("/")[2]):
        kind = next((kind for suffix, kind in _KINDS.items() if file.path.lower().endswith(f".{suffix}")), None)
        if kind is None:
            raise RecipeError(f"--wiki {file.path}: unknown suffix; accepted: {', '.join(_KINDS)}")
        try:
            yield normal_name(named[1]) if named else find_wiki(file.path), kind, file
        except RecipeError:
            if file.path == path:
                raise
            unnamed.append(file.path)


def _check_snapshots(texts: Sequence[_Listed]) -> None:
    """Raise RecipeError if a wiki's files have several dates or forms: each text would count several times."""
    paths = Counter(file.path for _, _, file in texts)
    if twice := [path for path, times in paths.items() if times > 1]:
        raise RecipeError(f"--wiki: {twice[0]} is named twice; accepted: each file once")
    first: dict[str, tuple[object, str]] = {}
    for wiki, kind, file in texts:
        snapshot = kind, re.findall(r"(?<!\d)\d{8}(?!\d)|latest", file.path)[-1:], "multistream" in file.path
        other, path = first.setdefault(wiki, (snapshot, file.path))
        if snapshot != other:
            error = f"--wiki: {path} and {file.path} are both from {wiki}, but have different dates or formats"
            raise RecipeError(f"{error}; accepted: one of them, because each text would count twice")


def _list_wordnets(path: str, mode: Mode) -> Iterator[_Listed]:
    for file in list_files(path, {}, suffixes=WORDNET_SUFFIXES):
        if file.path == path or is_wordnet(file.path):  # a folder also has other files
            yield find_wordnet(file.path, mode), "wordnet", file


def _split(item: _Listed) -> list[tuple[Any, ...]]:
    wiki, kind, file = item
    if kind == "dump" and file.path.lower().endswith(".bz2"):
        starts = range(0, max(1, file.size), PART_BYTES)
        return [(kind, file.path, wiki, start, min(start + PART_BYTES, file.size)) for start in starts]
    if kind != "parquet":
        return [(kind, file.path, wiki, 0, 1)]
    pieces, begin = [], 0
    for sizes in groups(_group_sizes(file.path), int, _UNPACKED * PART_BYTES):
        pieces.append((kind, file.path, wiki, begin, begin + len(sizes)))
        begin += len(sizes)
    return pieces


def _group_sizes(path: str) -> list[int]:
    damaged = reraised(RecipeError, f"--wiki {path}: damaged Parquet", pa.ArrowException, OSError)
    with damaged, fsspec.open(path, "rb") as file:
        footer = read_footer(file)
    names = [footer.schema.column(i).path for i in range(footer.num_columns)]
    if "text" not in names:
        lacking = f"Parquet without a column text (it has {', '.join(names[:10])})"
        raise RecipeError(f"--wiki {path}: {lacking}; accepted: Parquet with this column")
    column = names.index("text")
    return [footer.row_group(group).column(column).total_uncompressed_size for group in range(footer.num_row_groups)]
