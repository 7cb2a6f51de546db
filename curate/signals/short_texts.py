"""Detect the language of a short text from the frequencies of its words and fastText's answers.

fastText looks at parts of words. So it detects "A brown hen." as German, with a probability of 0.61. Here, each
candidate language gets a score, and the highest wins. The score is the sum of

- each word's Zipf value in wordfreq: the logarithm (base 10) of how often it occurs in a billion of its words;
- half the logarithm of fastText's probability;
- 1 for English, because other languages borrow its words.

Candidates are the 27 languages with Latin letters in wordfreq, and fastText's first answer. If wordfreq has no list for
that, each word counts 3.5.

English uses its large list (Zipf 1 and above), and other languages use their small ones (Zipf 3 and above). They load
in 0.5 s and take 160 MB; the large lists of all languages would take 3 s and 600 MB. Captions in languages without a
list, such as Afrikaans, are sometimes assigned to the nearest language that has one.

Source of the frequencies: Robyn Speer, wordfreq 3.1 (2023). Its data is under CC BY-SA 4.0.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from curate.base.numeric.arrays import F64
from curate.base.process import process_cache
from curate.models.weights import identify_files, package_folder

MAX_WORDS, MAX_CHARACTERS = 12, 160  # of a short text
ANSWERS = 5  # of fastText's answers to use
# Codes of wordfreq's lists with Latin letters. On a tie, the first wins.
_LISTS = (
    *("en", "de", "fr", "es", "it", "pt", "nl", "pl", "sv", "nb", "da", "fi", "cs", "ro"),
    *("hu", "tr", "id", "vi", "ca", "sk", "sh", "sl", "lt", "lv", "ms", "is", "fil"),
)
# fastText's codes that differ from those of wordfreq's lists
_LIST_OF = {"no": "nb", "nn": "nb", "hr": "sh", "sr": "sh", "bs": "sh", "tl": "fil"}
_CODES = [{"nb": "no", "fil": "tl"}.get(code, code) for code in _LISTS]
_POSITIONS = {code: position for position, code in enumerate(_LISTS)}
_FILES = [package_folder("wordfreq") / f"data/{'large' if c == 'en' else 'small'}_{c}.msgpack.gz" for c in _LISTS]
_UNKNOWN = np.asarray([0.0 if code == "en" else 1.0 for code in _LISTS])  # Zipf of a word that is not in a list
_UNLISTED = 3.5  # of each word of a language without a list
_PRIOR = np.asarray([1.0 if code == "en" else 0.0 for code in _LISTS])
_FLOOR = 0.003  # added to fastText's probabilities; the value for languages not among its answers
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def identity() -> str:
    """Return everything that determines values besides fastText: the rule, and the version and files of wordfreq."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in _FILES)).hexdigest()
    return f"short 1 {identify_files('wordfreq')} sha256:{digest}"


def short_words(text: str) -> list[str]:
    """Return the words of a text in lower case; none if it is not short."""
    if len(text) > MAX_CHARACTERS:
        return []
    words = [word.casefold().replace("’", "'") for word in _WORD.findall(text)]
    return words if len(words) <= MAX_WORDS else []


def name_language(words: Sequence[str], answers: Sequence[tuple[str, float]]) -> tuple[str, float]:
    """Return the language and score of a text, from its words and fastText's answers, best first.

    If no list has any of the words, this returns fastText's first answer.
    """
    rows = [_find(word) for word in words]
    if all(row is None for row in rows):
        return answers[0]
    probabilities = np.zeros(len(_LISTS))
    for code, probability in answers:
        if (position := _position(code)) is not None:
            probabilities[position] += probability
    sums = _PRIOR + 0.5 * np.log10(probabilities + _FLOOR)
    for row in rows:
        sums += _UNKNOWN if row is None else row
    first, probability = answers[0]
    if _position(first) is None:
        sums = np.append(sums, len(words) * _UNLISTED + 0.5 * np.log10(probability + _FLOOR))
    best = int(sums.argmax())
    variants = [code for code, _ in answers if _position(code) == best]  # such as hr and bs, which share a list
    code = first if best == len(_LISTS) else [*variants, _CODES[best]][0]
    return code, float(1 / np.sum(10 ** (sums - sums[best])))


def _position(code: str) -> int | None:
    return _POSITIONS.get(_LIST_OF.get(code, code))


@lru_cache(1 << 16)
def _find(word: str) -> F64 | None:
    values = [frequencies.get(word) for frequencies in load()]
    if not any(values):
        return None
    pairs = zip(values, _UNKNOWN, strict=True)
    return np.asarray([unknown if value is None else value / 100 for value, unknown in pairs])


def load() -> list[dict[str, int]]:
    """Return each list's words with their Zipf values, in hundredths; loaded once per process."""
    return process_cache("wordfreq", lambda: [_read(path) for path in _FILES])


def _read(path: Path) -> dict[str, int]:
    from wordfreq import read_cBpack

    buckets = read_cBpack(str(path))  # words grouped by frequency, to a hundredth; the first group would have Zipf 9
    return {word: 900 - index for index, words in enumerate(buckets) for word in words}
