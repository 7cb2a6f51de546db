"""Find words of ImageNet-21k in captions: DataComp's text-based baseline keeps English captions that have one.

A word passes if the offset of its first WordNet synset (nouns, then verbs, adjectives, adverbs) is in ImageNet-21k.
Like the published code, it compares offsets without the part of speech, so about forty lemmas such as `visual` pass by
coincidence.

The lookup is written out from nltk 3.8.1, which DataComp pins: later versions of nltk strip only one ending (they do
not find `womens`) and open no folder outside of nltk's own. All copies of WordNet 3.0 have the same nouns, but Debian's
wordnet-base moved verbs and adjectives by some bytes, and so has other coincidences.

Sources: Gadre et al., DataComp, 2023, text-based filtering; WordNet 3.0's manual pages wndb(5WN) and morphy(7WN).
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa
from pydantic import Field

from curate.base import ids
from curate.base.errors import RecipeError, naming, needing, reraised
from curate.base.process import process_cache
from curate.models.weights import package_folder
from curate.recipe.files import read_whole
from curate.recipe.section import Column, Section, UserFile, UserPath
from curate.signals.on_embeddings import unchanged
from curate.signals.signal import BuildContext, IdentifyContext, SignalKind, TextSignal

IDS = "imagenet21k_goog_synsets.txt"  # timm ships it: the 21,843 ids, byte for byte equal to DataComp's file

_KNOWN_WORDS = 1 << 17
_KNOWN_LENGTH = 64
_MAX_BYTES = 64 << 20  # WordNet's largest index has 5 MB

_ACCEPTED = "accepted: a local folder of WordNet 3.0's files index.* and *.exc"
_ACCEPTED_IDS = "accepted: one noun id of ImageNet per line, n and eight digits, such as n01440764"

# By part of speech, in the order of lookup: name of the files, and endings of form/lemma in order.
_PARTS = (
    ("noun", "s/ ses/s ves/f xes/x zes/z ches/ch shes/sh men/man ies/y"),
    ("verb", "s/ ies/y es/e es/ ed/e ed/ ing/e ing/"),
    ("adj", "er/ est/ er/e est/e"),
    ("adv", ""),
)


class _Part(NamedTuple):
    lemmas: Mapping[str, bool]  # each lemma, and whether its first synset is in ImageNet
    exceptions: Mapping[str, list[str]]  # irregular forms and their lemmas
    endings: Sequence[tuple[str, ...]]  # of regular forms, and what replaces them in the lemma


class Vocabulary:
    """The words that pass: `word in vocabulary`. Thread-safe."""

    def __init__(self, digest: str, parts: Sequence[_Part]) -> None:
        # Hex digest of everything that determines results: the WordNet files and the set of ids
        self.digest, self._parts = digest, parts
        self._known = lru_cache(_KNOWN_WORDS)(self._look_up)

    def __contains__(self, word: str) -> bool:
        return self._known(word) if len(word) <= _KNOWN_LENGTH else self._look_up(word)

    def _look_up(self, word: str) -> bool:
        lemmas = ((part, _find_lemma(word.lower(), part)) for part in self._parts)
        return next((part.lemmas[lemma] for part, lemma in lemmas if lemma is not None), False)


def _find_lemma(form: str, part: _Part) -> str | None:
    """Return a form's lemma: itself, or its first exception; if it has no exceptions, the form without its ending."""
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
    """Finds the caption's first word that is a class of ImageNet-21k in WordNet (DataComp's text-based filter).

    curate splits captions at white space only, so `dog,` is not the word `dog`. If a word has several synsets, only the
    first one counts.
    """

    example: ClassVar[Any] = {"wordnet": "wordnet"}
    gives = (Column("scores", "imagenet_word", "string", "The word as the caption spells it; null if there is none."),)

    wordnet: UserFile = Field(examples=["wordnet"])
    """Local folder with the database files of WordNet 3.0: index.noun, noun.exc, and so on."""
    synsets: UserPath | None = Field(None, examples=["synsets.txt"])
    """Text file with one ImageNet id per line. null: the 21,843 ids in the package timm, which `.[clip]` installs."""


def _identify(name: str, options: ImagenetWords, context: IdentifyContext) -> str:
    with naming("measure.imagenet_words"):
        return load_vocabulary(options.wordnet, options.synsets).digest


def _build(name: str, options: ImagenetWords, built: BuildContext) -> Iterator[TextSignal]:
    key = ids.digest(["imagenet_words", 1, built.identities[name]])

    def find(captions: pa.Array) -> Sequence[pa.Array]:
        load = partial(load_vocabulary, options.wordnet, options.synsets)
        return [find_words(captions, process_cache(key, lambda: unchanged(name, load(), built)))]

    yield TextSignal(name, (pa.field("imagenet_word", pa.string()),), key, compute=find)


def load_vocabulary(wordnet: str, synsets: str | None) -> Vocabulary:
    """Read WordNet and the list of ids, in half a second and 40 MB of memory. Downloads nothing.

    `wordnet` is a local folder with WordNet 3.0's database files: index.noun, noun.exc, and so on for verb, adj, and
    adv. `synsets` is a text file with an ImageNet id at the start of each line; None means timm's 21,843 ids. Raises
    RecipeError if a file or timm is missing, or a file has another format.
    """
    folder = Path(wordnet)
    names = [name for part, _ in _PARTS for name in (f"index.{part}", f"{part}.exc")]
    texts = {name: _read(folder / name, _ACCEPTED) for name in names}
    source = _shipped_ids() if synsets is None else synsets
    offsets = _parse_ids(source, _read(source, _ACCEPTED_IDS))
    parts = []
    for part, endings in _PARTS:
        index = _parse_index(folder / f"index.{part}", texts[f"index.{part}"], offsets)
        exceptions = {form: lemmas for form, *lemmas in map(str.split, texts[f"{part}.exc"].splitlines())}
        parts.append(_Part(index, exceptions, [tuple(ending.split("/")) for ending in endings.split()]))
    digest = hashlib.sha256()
    for text in [*texts.values(), " ".join(map(str, sorted(offsets)))]:
        digest.update(hashlib.sha256(text.encode()).digest())
    return Vocabulary(digest.hexdigest(), parts)


def find_words(captions: pa.Array, vocabulary: Vocabulary) -> pa.Array:
    """Return each caption's first word of ImageNet-21k, as the caption spells it, or null."""
    texts = captions.to_pylist()
    words = [None if text is None else next(filter(vocabulary.__contains__, text.split()), None) for text in texts]
    return pa.array(words, pa.string())


def _read(path: Path | str, accepted: str) -> str:
    with reraised(RecipeError, str(path), OSError, ValueError, remedy=f"; {accepted}"):
        return read_whole(str(path), _MAX_BYTES).decode()


def _parse_index(path: Path, text: str, offsets: set[int]) -> dict[str, bool]:
    """Return lemmas, and whether the synset of their most frequent sense is among the offsets."""
    if "WordNet 3.0 Copyright" not in text:
        raise RecipeError(f"{path}: does not begin with WordNet 3.0's license; {_ACCEPTED}")
    index = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith(" "):  # lines of the license do
            try:
                lemma, _, _, pointers, *rest = line.split()
                index[lemma] = int(rest[int(pointers) + 2]) in offsets
            except (ValueError, IndexError):
                raise RecipeError(f"{path}:{number}: {line[:80]!r} is not a line of an index; {_ACCEPTED}") from None
    return index


def _shipped_ids() -> Path:
    remedy = f"timm, or give a file as synsets; {_ACCEPTED_IDS}"
    with needing("timm, which ships the ids of ImageNet-21k, is not installed", remedy):
        return package_folder("timm") / "data" / "_info" / IDS  # not imported, since timm would import torch


def _parse_ids(path: Path | str, text: str) -> set[int]:
    offsets = set()
    for number, line in enumerate(text.splitlines(), 1):
        for name in line.split()[:1]:
            if not re.fullmatch("n[0-9]{8}", name):
                raise RecipeError(f"{path}:{number}: {name[:80]!r} is not an ImageNet id; {_ACCEPTED_IDS}")
            offsets.add(int(name[1:]))
    return offsets


KIND = SignalKind("imagenet_words", ImagenetWords, _identify, _build)
