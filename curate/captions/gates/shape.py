"""Gates of a text's own shape: that there is one, how long it is, and whether it repeats itself."""

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
_FEW = 5  # words: the share of a shorter caption says little
_MIN_SHARE, _MAX_SHARE = 0.3, 4.0  # words of a text over those of its caption
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
_ASCII = re.compile(r"[a-z0-9]+")


class Empty(Gate):
    """Fails null, white space, a single character, and what holds no letter or digit at all (punctuation, emoji)."""

    key = "empty"
    summary = "no text"

    def check(self, candidates: Candidates, option: None) -> Mask:
        lengths = pc.utf8_length(pc.utf8_trim_whitespace(filled(candidates.texts))).to_numpy()
        return np.asarray((lengths < 2) | ~matches(candidates.texts, r"[\p{L}\p{N}]"))


class Length(Gate):
    """Fails a text of too few or too many words, on the whole or for its caption; and one that ended at the model's
    limit (`finish` is `length`) without a mark that ends a sentence.

    Words are between white space; a character of Han or kana, or four of Thai, Lao, Khmer and Burmese, are one.
    """

    key = "length"
    summary = "fewer or more words than `words`, or far fewer or more than the original; an unfinished sentence"
    description = "Fewest and most words; 2 is LaCLIP's own bound."
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
    """Fails a text with a word four times in a row, a character (no digit) six times in a row, or three words in a row
    that come three times and make up a quarter of the text; unless its caption repeats itself as well."""

    key = "repetition"
    summary = "words, characters or phrases that repeat"

    def check(self, candidates: Candidates, option: None) -> Mask:
        pairs = zip(to_texts(candidates.texts), to_texts(candidates.originals), strict=True)
        return np.array([_repeats(text) and not _repeats(original) for text, original in pairs], np.bool_)


def _repeats(text: str) -> bool:
    """Return whether a word comes four times in a row, three words three times, or a character six times in a row."""
    if _RUN.search(text):
        return True
    words = (_ASCII if text.isascii() else _TOKEN).findall(text.lower())
    if len(words) < _IN_A_ROW or len(set(words)) > len(words) - 3:
        return False
    if any(len(set(words[i : i + _IN_A_ROW])) == 1 for i in range(len(words) - _IN_A_ROW + 1)):
        return True
    often = Counter(zip(words, words[1:], words[2:], strict=False)).most_common(1)[0][1]
    return often >= _TRIGRAMS and 3 * often >= _SHARE * len(words)
