"""Find words of ImageNet-21k in captions: what DataComp's text-based baseline keeps English captions for.

In: string column, WordNet 3.0's files, and a list of ImageNet ids. Out: string column, the first word of each caption
that passes: cut by `str.split`, its first WordNet synset (nouns, then verbs, adjectives, adverbs) has an offset that is
in ImageNet-21k. Punctuation stays on a word, so `dog,` does not pass; and offsets are compared without their part of
speech, as in the published code, so that some forty lemmas such as `visual` pass by coincidence.

The lookup is that of nltk 3.8.1, which DataComp pins, written out here: it is a few lines, and later versions of nltk
strip one ending only (they do not know `womens`) and open no folder outside of nltk's own. Only index.* and *.exc are
read, once; then threads share nothing but a cache of words. Every copy of WordNet 3.0 has the same nouns, but Debian's
wordnet-base moved verbs and adjectives by some bytes, and so has other coincidences: Princeton's files are exact.

Sources: Gadre et al., DataComp, 2023, text-based filtering; WordNet 3.0's manual pages wndb(5WN) and morphy(7WN).
"""

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa
from pydantic import Field

from curate.base import ids
from curate.base.errors import RecipeError, needing
from curate.base.process import process_cache
from curate.models.weights import package_folder
from curate.recipe.files import read_whole
from curate.recipe.section import Column, Section, UserFile, UserPath
from curate.signals.on_embeddings import unchanged
from curate.signals.signal import Built, Known, SignalKind, TextSignal

IDS = "imagenet21k_goog_synsets.txt"  # timm ships it: the 21,843 ids of DataComp's own file, byte for byte

_KNOWN_WORDS = 1 << 17
_KNOWN_LENGTH = 64
_MAX_BYTES = 64 << 20  # WordNet's largest index has 5 MB

_ACCEPTED = "accepted: a local folder of WordNet 3.0's files index.* and *.exc"
_ACCEPTED_IDS = "accepted: one noun id of ImageNet per line, n and eight digits, such as n01440764"

# By part of speech, in the order of lookup: name of the files, letter in the index, and endings of form/lemma in order.
_PARTS = (
    ("noun", "n", "s/ ses/s ves/f xes/x zes/z ches/ch shes/sh men/man ies/y"),
    ("verb", "v", "s/ ies/y es/e es/ ed/e ed/ ing/e ing/"),
    ("adj", "a", "er/ est/ er/e est/e"),
    ("adv", "r", ""),
)


class _Part(NamedTuple):
    lemmas: Mapping[str, bool]  # each lemma, and whether its first synset is in ImageNet
    exceptions: Mapping[str, list[str]]  # irregular forms and their lemmas
    endings: Sequence[tuple[str, ...]]  # of regular forms, and what replaces them in the lemma


class Vocabulary:
    """The words that pass, in any number: `word in vocabulary`. Threads may share it."""

    def __init__(self, digest: str, parts: Sequence[_Part]) -> None:
        # Hex, of the WordNet files that are read and the set of ids: what determines results
        self.digest, self._parts = digest, parts
        self._known = lru_cache(_KNOWN_WORDS)(self._look_up)

    def __contains__(self, word: str) -> bool:
        return self._known(word) if len(word) <= _KNOWN_LENGTH else self._look_up(word)

    def _look_up(self, word: str) -> bool:
        """Return whether the first synset is in ImageNet: the first part of speech that knows the word decides."""
        lemmas = ((part, _find_lemma(word.lower(), part)) for part in self._parts)
        return next((part.lemmas[lemma] for part, lemma in lemmas if lemma is not None), False)


def _find_lemma(form: str, part: _Part) -> str | None:
    """Return the first of: the form itself; its exceptions, if it has any; else it without its endings, one by one."""
    if form in part.lemmas:
        return form
    if form in part.exceptions:
        return next(filter(part.lemmas.__contains__, part.exceptions[form]), None)
    forms = [form]
    while forms:
        forms = [f[: -len(old)] + new for f in forms for old, new in part.endings if f.endswith(old)]
        if lemma := next(filter(part.lemmas.__contains__, forms), None):
            return lemma
    return None


class ImagenetWords(Section):
    """The caption's first word that WordNet knows as a class of ImageNet-21k (DataComp's text-based filter).

    Words are split at white space, and punctuation stays on them: `dog,` does not count. Of each word, the first synset
    decides.
    """

    example: ClassVar[Any] = {"wordnet": "wordnet"}
    gives = (Column("scores", "imagenet_word", "string", "The word as the caption has it; null where there is none."),)

    wordnet: UserFile = Field(examples=["wordnet"])
    """A local folder of WordNet 3.0's database: index.noun, noun.exc, and so on."""
    synsets: UserPath | None = Field(None, examples=["synsets.txt"])
    """A text file of ImageNet ids, one per line. null: timm's 21,843 (`.[clip]`)."""


def _identify(name: str, options: ImagenetWords, known: Known) -> str:
    try:
        return load_vocabulary(options.wordnet, options.synsets).digest
    except RecipeError as error:
        raise RecipeError(f"measure.imagenet_words: {error}") from None


def _build(name: str, options: ImagenetWords, built: Built) -> Iterator[TextSignal]:
    key = ids.digest(["imagenet_words", 1, built.identities[name]])

    def find(captions: pa.Array) -> Sequence[pa.Array]:
        known = process_cache(key, lambda: unchanged(name, load_vocabulary(options.wordnet, options.synsets), built))
        return [find_words(captions, known)]

    yield TextSignal(name, (pa.field("imagenet_word", pa.string()),), key, compute=find)


def load_vocabulary(wordnet: str, synsets: str | None) -> Vocabulary:
    """Read WordNet and the list of ids, in half a second; some 40 MB stay in memory. Nothing is downloaded.

    `wordnet` is a local folder of WordNet 3.0's database files: index.noun, noun.exc, and so on for verb, adj and adv;
    `synsets` a text file of one ImageNet id a line, whatever follows it after white space; None: timm's 21,843 ids.
    Raises RecipeError where the folder, a file or timm is missing, or a file is something else.
    """
    folder = Path(wordnet)
    if not folder.is_dir():
        raise RecipeError(f"{wordnet}: {'a file, not a' if folder.exists() else 'no such'} folder; {_ACCEPTED}")
    names = [name for part, _, _ in _PARTS for name in (f"index.{part}", f"{part}.exc")]
    if missing := [name for name in names if not (folder / name).is_file()]:
        verb = "is" if len(missing) == 1 else "are"
        raise RecipeError(f"{wordnet}: {', '.join(missing)} {verb} missing; {_ACCEPTED}")
    texts = {name: _read(folder / name, _ACCEPTED) for name in names}
    indexes = [_parse_index(folder / f"index.{part}", texts[f"index.{part}"], letter) for part, letter, _ in _PARTS]
    source = _shipped_ids() if synsets is None else synsets
    known = _parse_ids(source, _read(source, _ACCEPTED_IDS))
    if strange := known.keys() - set(itertools.chain.from_iterable(indexes[0].values())):
        # It would match nothing, or the two are not of one WordNet.
        line, offset = min((known[offset], offset) for offset in strange)
        others = f", nor are {len(strange) - 1} more" if len(strange) > 1 else ""
        what = f"n{offset:08} is not a noun of the WordNet at {wordnet}{others}"
        raise RecipeError(f"{source}:{line}: {what}; {_ACCEPTED_IDS}")
    parts = [
        _Part(
            {lemma: offsets[0] in known for lemma, offsets in index.items()},
            _parse_exceptions(folder / f"{part}.exc", texts[f"{part}.exc"]),
            [tuple(ending.split("/")) for ending in endings.split()],
        )
        for index, (part, _, endings) in zip(indexes, _PARTS, strict=True)
    ]
    digest = hashlib.sha256()
    for text in [*texts.values(), " ".join(map(str, sorted(known)))]:
        digest.update(hashlib.sha256(text.encode()).digest())
    return Vocabulary(digest.hexdigest(), parts)


def find_words(captions: pa.Array, vocabulary: Vocabulary) -> pa.Array:
    """Return each caption's first word of ImageNet-21k, as written there, or null. Raises TypeError for other types."""
    if captions.type not in (pa.string(), pa.large_string()):
        raise TypeError(f"captions are {captions.type}, not string or large_string")
    texts = captions.to_pylist()
    words = [None if text is None else next(filter(vocabulary.__contains__, text.split()), None) for text in texts]
    return pa.array(words, pa.string())


def _read(path: Path | str, accepted: str) -> str:
    try:
        return read_whole(str(path), _MAX_BYTES).decode()
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 at byte {error.start}; {accepted}") from None
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: {getattr(error, 'strerror', None) or error}; {accepted}") from None


def _parse_index(path: Path, text: str, letter: str) -> dict[str, list[int]]:
    """Return lemmas and the offsets of their synsets, the most frequent sense first."""
    version = re.search(r"^ .*WordNet (\S+) Copyright", text, re.MULTILINE)
    if version is None or version[1] != "3.0":
        whose = "not of WordNet" if version is None else f"of WordNet {version[1]}"
        raise RecipeError(f"{path}: {whose}, whose license at the top would say WordNet 3.0; {_ACCEPTED}")
    index: dict[str, list[int]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(" "):  # the license
            continue
        try:
            lemma, part, synsets, pointers, *rest = line.split()
            offsets = [int(offset) for offset in rest[int(pointers) + 2 :]]
            valid = part == letter and len(offsets) == int(synsets) > 0
        except ValueError:
            valid = False
        if not valid:
            raise RecipeError(f"{path}:{number}: {line[:80]!r} is not a line of WordNet's {path.name}; {_ACCEPTED}")
        index[lemma] = offsets
    return index


def _parse_exceptions(path: Path, text: str) -> dict[str, list[str]]:
    exceptions = {}
    for number, line in enumerate(text.splitlines(), 1):
        form, *lemmas = line.split() or [""]
        if not lemmas:
            raise RecipeError(f"{path}:{number}: {line[:80]!r} is not a line of WordNet's {path.name}; {_ACCEPTED}")
        exceptions[form] = lemmas
    return exceptions


def _shipped_ids() -> Path:
    remedy = f"timm, or give a file as synsets; {_ACCEPTED_IDS}"
    with needing("timm, which ships the ids of ImageNet-21k, is not installed", remedy):
        folder = package_folder("timm")  # found, not imported: it would import torch
    return folder / "data" / "_info" / IDS


def _parse_ids(path: Path | str, text: str) -> dict[int, int]:
    known: dict[int, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, *_ = line.split() or [""]
        if not name:
            continue
        if not re.fullmatch("n[0-9]{8}", name):
            what = "no noun" if re.fullmatch("[vasr][0-9]{8}", name) else "not an ImageNet id"
            raise RecipeError(f"{path}:{number}: {name[:80]!r} is {what}; {_ACCEPTED_IDS}")
        known[int(name[1:])] = number
    if not known:
        raise RecipeError(f"{path}: no ids; {_ACCEPTED_IDS}")
    return known


KIND = SignalKind("imagenet_words", ImagenetWords, _identify, _build)
