"""Find the names in a caption (people, places, brands, product codes), and check whether another text contains them.

In: a text. Out: `Names`, the names that it claims; `Held`, everything that can cover another text's claims. There is no
model; spelling decides.

    a name      a capitalized word that is not ordinary, anywhere in the text
    or          a capitalized word that is both ordinary and a name (Brooks, Young), if it is next to a name, or inside
                a sentence of a caption that capitalizes fewer than half of its longer words
    a code      letters and digits that are not a number with a unit: BM-60, H11421014, VPC-EH2CFX; not 50cm, 4K, 50x70,
                nor an ordinary word and its number (step-2)

Ordinary words are single letters and the lower-case words in hunspell's English dictionary (package spylls), in
American or British spelling, with or without an s; `word_marks.txt` overrides some 1,000 words. So the module misses
names made of ordinary words (White House, Star Wars) in Title Case. In other languages each capitalized word is a name.

A text contains a name in any case, with or without accents or an s, as one word or two ("You Tube"), or in a form with
up to three more letters (America, American). It contains a code whatever separates its letters and digits.
"""

import functools
import itertools
import re
import tomllib
from importlib.resources import files
from typing import Any, NamedTuple

from curate.captions.gates.plain_text import plain, without_places

_LETTERS = re.compile(r"[^\W\d_]+")
_WORD = re.compile(r"(?<![^\W_])[^\W\d_]{2,}")  # letters after a digit are a unit
_TOKEN = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
_DIGIT = re.compile(r"\d")
_CODE = re.compile(r"[^\W\d_]+\d|\d+[^\W\d_]+\d")
_SERIES = re.compile(r"[A-Z]{1,3}-\d+\w?")
_UNITS = re.compile(r"\d[\dx×cmpftinhXCMPFTINH]*|x\d+")  # 50x70cm, 4in1, 10h30
_WITHIN = " -'&/,0123456789"  # characters between words of one sentence
_BESIDE = re.compile(r" ?[ \-&/.] ?|'s |( [A-Z]\.?)+ ")  # between words of one name; includes middle initials
_SEPARATORS = re.compile(r"[\W_]+")
_FILES = files("curate.captions.gates")
_SPELLINGS = tomllib.loads(_FILES.joinpath("spellings.toml").read_text("ascii"))  # British to American

_LONG = 4  # letters; titles often do not capitalize shorter words
_SENTENCE = 0.5  # below this share of capitalized longer words, a caption is not a title
_SAME, _MORE = 4, 3  # minimum letters that a form shares, maximum letters that it adds


class Names(NamedTuple):
    """The names that a text claims, normalized for lookup: distinct words and codes, in order."""

    words: tuple[str, ...]
    codes: tuple[str, ...]


class Held(NamedTuple):
    """A text's content: its words in order, and all letters and digits without separators."""

    words: tuple[str, ...]
    squeezed: str

    def word(self, name: str) -> bool:
        """Return whether the text contains a word of `Names` in any form."""
        words = self.words
        if name in words or name + "s" in words or (name[-1] == "s" and name[:-1] in words):
            return True
        if any(a + b == name for a, b in itertools.pairwise(words)):
            return True
        long = (word for word in words if len(word) >= _SAME and abs(len(word) - len(name)) <= _MORE)
        return len(name) >= _SAME and any(word.startswith(name) or name.startswith(word) for word in long)

    def code(self, code: str) -> bool:
        """Return whether the text contains a code of `Names`."""
        return code in self.squeezed


@functools.cache
def _marks() -> dict[str, str]:
    """Return each word's mark in `word_marks.txt`: + is ordinary, - a name, * an ordinary word that is also a name."""
    lines = _FILES.joinpath("word_marks.txt").read_text("ascii").splitlines()
    words = itertools.chain.from_iterable(line.split() for line in lines if not line.startswith("#"))
    return {word.strip("*-+"): "*" if word[-1] == "*" else word[0] for word in words}


@functools.cache
def _dictionary() -> Any:
    from spylls.hunspell import Dictionary

    return Dictionary.from_files("en_US")


def _is_known(word: str) -> bool:
    if mark := _marks().get(word):
        return mark != "-"
    american = (re.sub(british, spelling, word) for british, spelling in _SPELLINGS.items() if re.search(british, word))
    return any(map(_dictionary().lookup, (word, *american)))


@functools.lru_cache(1 << 16)
def is_ordinary(word: str) -> bool:
    """Return whether a lower-case word, with or without an s, is English and not a name; one letter is."""
    if len(word) < 2 or _is_known(word):
        return True
    return word[-1] == "s" and word not in _marks() and _is_known(word[:-1])


def may_be_name(word: str) -> bool:
    """Return whether a lower-case word could be a name in `Names` if it were capitalized."""
    return not is_ordinary(word) or _marks().get(word) == "*"


@functools.lru_cache(1 << 12)  # an original may have several texts
def read_names(text: str) -> Names:
    """Return the names that a text claims (see the module); its own `hold_names` contains all of them."""
    text = without_places(plain(text))
    codes = [token for token in _TOKEN.findall(text) if _is_code(token)] if _DIGIT.search(text) else []
    if codes:
        text = _TOKEN.sub(lambda token: " " if _is_code(token[0]) else token[0], text)
    words = list(_WORD.finditer(text))
    marked = [word for word in words if word[0] != word[0].lower()]
    longer = [word[0] for word in words if len(word[0]) >= _LONG]
    capitals = sum(word != word.lower() for word in longer)
    names = _pick(text, marked, sentence=capitals < _SENTENCE * len(longer))
    squeezed = (_SEPARATORS.sub("", code.casefold()) for code in codes)
    return Names(tuple(dict.fromkeys(names)), tuple(dict.fromkeys(squeezed)))


@functools.lru_cache(1 << 12)
def hold_names(text: str) -> Held:
    """Return everything in a text that can cover a name."""
    text = plain(text).casefold()
    return Held(tuple(_LETTERS.findall(text)), _SEPARATORS.sub("", text))


def _pick(text: str, marked: list[re.Match[str]], sentence: bool) -> list[str]:
    lowered = [word[0].casefold() for word in marked]
    strong = [not is_ordinary(word) for word in lowered]
    either = [_marks().get(word) == "*" for word in lowered]
    names = strong.copy()
    for i, (a, b) in enumerate(itertools.pairwise(marked)):
        vouched = (either[i] and strong[i + 1]) or (strong[i] and either[i + 1])
        if vouched and _BESIDE.fullmatch(text, a.end(), b.start()):
            names[i] = names[i + 1] = True
    if sentence:
        for i, word in enumerate(marked):
            names[i] |= either[i] and text[: word.start()].rstrip(_WITHIN)[-1:].isalpha()
    return [word for word, name in zip(lowered, names, strict=True) if name]


def _is_code(token: str) -> bool:
    if _UNITS.fullmatch(token) or not (_CODE.search(token) or _SERIES.fullmatch(token)):
        return False
    return not all(len(part) > 1 and is_ordinary(part.casefold()) for part in _LETTERS.findall(token))
