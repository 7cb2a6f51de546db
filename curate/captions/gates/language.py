"""The gate against texts in the wrong language."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.numeric.arrays import Mask
from curate.captions.gates.gate import Candidates, Gate
from curate.captions.gates.text_columns import split_words, to_mask
from curate.signals.language import detect_languages

# Codes of languages that the model confuses or names differently.
_ALIKE = {"nb": "no", "nn": "no", "sh": "hr", "sr": "hr", "bs": "hr", "ms": "id", "yue": "zh", "wuu": "zh", "arz": "ar"}
_ALIKE |= {"azb": "az", "pnb": "ur", "ckb": "ku", "fil": "tl", "iw": "he", "cmn": "zh"}


class Language(Gate):
    """Fails a text whose language is not its caption's or the target; see `differs`."""

    key = "language"
    summary = "its language is not the original's or, for a translation, not the target language"

    def check(self, candidates: Candidates, option: None) -> Mask:
        texts, originals = candidates.texts, candidates.compared
        targets = candidates.languages or [None] * len(texts)
        bad = np.zeros(len(texts), np.bool_)
        for target in dict.fromkeys(targets):
            rows = np.flatnonzero([language == target for language in targets])
            captions = None if originals is None else originals.take(rows)
            bad[rows] = differs(texts.take(rows), captions, target)
        return bad


def differs(texts: pa.Array, originals: pa.Array | None, target: str | None = None, score: float = 0.6) -> Mask:
    """Return which texts are in a different language than their captions, or than the target.

    fastText's lid.176 must score both above `score`, which it rarely does for one to three words. A text that takes
    half of its words from its caption passes. If the language changes within a text, the first 80 characters decide.
    Languages that the model confuses count as one: Norwegian; Serbian, Croatian and Bosnian; Malay and Indonesian;
    Chinese; Arabic.
    """
    if target is not None:
        languages, sure = _languages(texts, score)
        return np.asarray(sure & (languages != _language(target)), np.bool_)
    bad = np.zeros(len(texts), np.bool_)
    if originals is None:
        return bad
    written, expected = (split_words(pc.utf8_lower(side)) for side in (texts, originals))
    pairs = zip(written, map(set, expected), strict=True)
    rows = np.flatnonzero([2 * sum(word in shown for word in words) < len(words) for words, shown in pairs])
    languages, sure = _languages(texts.take(rows), score)
    rows, languages = rows[sure], languages[sure]
    expected_languages, sure = _languages(originals.take(rows), score)
    bad[rows] = sure & (languages != expected_languages)
    return bad


def _languages(column: pa.Array, score: float) -> tuple[npt.NDArray[np.object_], Mask]:
    """Return each text's language (see `_language`), and whether the model is sure. Detects equal texts once."""
    coded = column.dictionary_encode("encode")
    languages, scores = detect_languages(coded.dictionary)
    names = np.array([_language(name or "") for name in languages.to_pylist()], object)
    at = coded.indices.to_numpy()
    return names[at], to_mask(pc.greater_equal(scores, pa.scalar(score)))[at]


def _language(code: str) -> str:
    """Return a code's language, without region and script, and with one code for languages that the model confuses."""
    name = code.lower().replace("_", "-").partition("-")[0]
    return _ALIKE.get(name, name)
