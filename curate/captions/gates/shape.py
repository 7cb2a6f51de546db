"""Gates on a text's shape: whether it is empty, its length, and repetition."""

import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.base.numeric.arrays import Mask
from curate.captions.gates.gate import Candidates, Gate, Option
from curate.captions.gates.text_columns import are_equal, count_words, filled, matches, to_mask, to_texts

_IN_A_ROW, _TRIGRAMS, _SHARE = 4, 3, 0.25
_RUN = re.compile(r"([^\s\d])\1{5}")
_FEW = 5  # words; for a shorter caption the ratio means little
_MIN_SHARE, _MAX_SHARE = 0.3, 4.0  # number of words, text / caption
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
_ASCII = re.compile(r"[a-z0-9]+")


class Empty(Gate):
    """Fails null, white space, a single character, and text without any letter or digit (punctuation, emoji)."""

    key = "empty"
    summary = "it has no letter or digit, or is a single character"

    def check(self, candidates: Candidates, option: None) -> Mask:
        lengths = pc.utf8_length(pc.utf8_trim_whitespace(filled(candidates.texts))).to_numpy()
        return np.asarray((lengths < 2) | ~matches(candidates.texts, r"[\p{L}\p{N}]"))


class Length(Gate):
    """Fails a text with too few or too many words, absolutely or relative to its caption.

    Also fails a text that stopped at the model's limit (`finish` is `length`) without punctuation that ends a sentence.

    White space separates words. A Han or kana character is a word, as are four characters of Thai, Lao, Khmer or
    Burmese.
    """

    key = "length"
    summary = "it is shorter or longer than `words` allows, much shorter or longer than the original, or unfinished"
    description = "Minimum and maximum number of words. LaCLIP also uses 2 as the minimum."
    option = Option("words", tuple[int, int], Field((2, 100), description=description, examples=[[3, 60]]))

    def check(self, candidates: Candidates, option: tuple[int, int]) -> Mask:
        texts = candidates.texts
        count = count_words(texts)
        bad = (count < option[0]) | (count > option[1])
        if candidates.compared is not None:
            expected = count_words(candidates.compared)
            too_many = count > _MAX_SHARE * np.maximum(expected, _FEW)
            bad |= (expected > 0) & ((count < _MIN_SHARE * expected) | too_many)
        if candidates.finish is not None:
            bad |= are_equal(candidates.finish, pa.scalar("length")) & ~matches(texts, r"[.!?…。！？][\"'”’»)]*\s*$")
        return bad & to_mask(texts.is_valid())


class Repetition(Gate):
    """Fails a text with a word four times in a row, a character (not a digit) six times in a row, or a phrase of three
    words that occurs three times and makes up a quarter of the text; unless its caption also repeats itself."""

    key = "repetition"
    summary = "it repeats a word, a character, or a phrase"

    def check(self, candidates: Candidates, option: None) -> Mask:
        pairs = zip(to_texts(candidates.texts), to_texts(candidates.originals), strict=True)
        return np.array([_repeats(text) and not _repeats(original) for text, original in pairs], np.bool_)


def _repeats(text: str) -> bool:
    """Return whether the text repeats a word, a character or a phrase, as `Repetition` defines it."""
    if _RUN.search(text):
        return True
    words = (_ASCII if text.isascii() else _TOKEN).findall(text.lower())
    if len(words) < _IN_A_ROW or len(set(words)) > len(words) - 3:
        return False
    if any(len(set(words[i : i + _IN_A_ROW])) == 1 for i in range(len(words) - _IN_A_ROW + 1)):
        return True
    often = Counter(zip(words, words[1:], words[2:], strict=False)).most_common(1)[0][1]
    return often >= _TRIGRAMS and 3 * often >= _SHARE * len(words)
