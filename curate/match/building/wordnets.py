"""Reads the words of wordnets from files.

In: WordNet 3.0's `data.noun`, `data.verb`, `data.adj` and `data.adv`, for English; `wn-data-jpn.tab` from Open
Multilingual Wordnet 1.4 or NLTK; or LMF (.xml). Out: names in order: for English each synset's first word in lower
case, up to its first full stop; for others all words of all synsets, sorted. "_" becomes a space, "+" is removed.
"""

import re
from pathlib import PurePosixPath
from xml.parsers.expat import ExpatError

import fsspec

from curate.base.errors import RecipeError, needing, reraised
from curate.base.wording import one_line
from curate.match.building.wikis import Mode
from curate.recipe.files import read_whole

_MAX_BYTES = 1 << 28
_WORDNET = ("data.noun", "data.verb", "data.adj", "data.adv")
WORDNET_SUFFIXES = (*(name.removeprefix("data") for name in _WORDNET), ".tab", ".xml")
_WIKIS = {
    **{"fin": "fi", "heb": "he", "slv": "sl", "ita": "it", "nno": "nn", "nob": "no", "als": "als", "pol": "pl"},
    **{"hrv": "hr", "nld": "nl", "ron": "ro", "arb": "ar", "isl": "is", "swe": "sv", "por": "pt", "cmn": "zh"},
    **{"jpn": "ja", "dan": "da", "slk": "sk", "lit": "lt", "bul": "bg", "eus": "eu", "cat": "ca", "glg": "gl"},
    **{"spa": "es", "ell": "el", "zsm": "ms", "ind": "id", "fra": "fr", "tha": "th"},
}
_TAB = re.compile(r"wn-data-([a-z]{3})\.tab")
_TAGS = {"nb": "no", "arb": "ar", "zsm": "ms", "cmn": "zh"}  # LMF codes that are not names of Wikipedias
_ACCEPTED = f"WordNet 3.0's {', '.join(_WORDNET)}; wn-data-LANGUAGE.tab; or LMF (.xml)"


def is_wordnet(path: str) -> bool:
    """Return whether a file in a folder is a wordnet."""
    name = PurePosixPath(path).name
    return name in _WORDNET or bool(_TAB.fullmatch(name)) or name.endswith(".xml")


def find_wordnet(path: str, mode: Mode) -> str:
    """Return the wiki for a file's language. Raises RecipeError if it is not a wordnet or its language is unknown."""
    name = PurePosixPath(path).name
    if name in _WORDNET:
        return "en"
    if tab := _TAB.fullmatch(name):
        code = tab[1]
        wiki = _WIKIS.get(code)
    elif name.endswith(".xml"):
        with fsspec.open(path, "rb") as file:
            head = file.read(1 << 16)
        tag = re.search(rb"<Lexicon\b[^<>]*\blanguage=[\"']([A-Za-z-]+)[\"']", head)
        code = tag[1].decode().split("-")[0].lower() if tag else ""
        wiki = _TAGS.get(code, _WIKIS.get(code, code or None))
    else:
        raise RecipeError(f"--wordnet {path}: not a wordnet file; accepted: {_ACCEPTED}")
    if wiki is None:
        error = f"{path}: its language is {code or 'unknown'}, for which MetaCLIP 2 uses no wordnet"
        raise RecipeError(f"--wordnet {error}; accepted: {', '.join(sorted(_WIKIS))}")
    # "als" is Tosk Albanian; MetaCLIP 2 takes it for Alemannic, whose Wikipedia has that name
    return "sq" if code == "als" and mode is Mode.corrected else wiki


def name_order(path: str) -> int:
    """Return the order of a file within its language: nouns, verbs, adjectives, adverbs."""
    name = PurePosixPath(path).name
    return _WORDNET.index(name) if name in _WORDNET else 0


def read_wordnet(path: str) -> list[str]:
    """Return the distinct names of a file, for English in its order, otherwise sorted. Raises RecipeError."""
    name = PurePosixPath(path).name
    remedy = f"; accepted: {_ACCEPTED}"
    with reraised(RecipeError, f"--wordnet {path}: cannot be read", OSError, ValueError, ImportError, remedy=remedy):
        text = read_whole(path, _MAX_BYTES).decode()
    if name in _WORDNET:
        lines = [line.split(" ", 5) for line in text.splitlines() if not line.startswith("  ")]
        if bad := next((line for line in lines if len(line) < 6), None):
            raise RecipeError(f"--wordnet {path}: {' '.join(bad)[:80]!r} is not a line of WordNet's {name}")
        words = (re.sub(r"\((?:a|p|ip)\)$", "", line[4]).lower().partition(".")[0] for line in lines)
        return list(dict.fromkeys(word.replace("_", " ") for word in words))
    lemmas = _read_lmf(path) if name.endswith(".xml") else _read_tab(text, path)
    return sorted({lemma.replace("_", " ").replace("+", "") for lemma in lemmas})


def _read_tab(text: str, path: str) -> list[str]:
    """Return the lemmas of a table: offset-pos, TAB, lemma or language:lemma, TAB, word."""
    cells = [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]
    if bad := next((row for row in cells if len(row) < 3), None):
        raise RecipeError(f"--wordnet {path}: {' '.join(bad)[:80]!r} is not a line of a wordnet's table")
    return [row[2].strip() for row in cells if row[1].rpartition(":")[2] == "lemma"]


def _read_lmf(path: str) -> list[str]:
    with needing(f"--wordnet {path}: LMF needs another package", "'.[wordnet]' in a checkout of curate"):
        from wn import lmf
    try:
        resource = lmf.load(path, progress_handler=None)
        return [entry["lemma"]["writtenForm"] for lexicon in resource["lexicons"] for entry in lexicon["entries"]]
    except (lmf.LMFError, ExpatError, AssertionError, LookupError, ValueError) as error:
        raise RecipeError(f"--wordnet {path}: damaged or not LMF ({one_line(error) or type(error).__name__})") from None
