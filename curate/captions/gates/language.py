"""The gate of texts in another language than asked for."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.numeric.arrays import Mask
from curate.captions.gates.gate import Candidates, Gate
from curate.captions.gates.text_columns import split_words, to_mask
from curate.signals.language import detect_languages

# Codes of languages that the model confuses, or names otherwise.
_ALIKE = {"nb": "no", "nn": "no", "sh": "hr", "sr": "hr", "bs": "hr", "ms": "id", "yue": "zh", "wuu": "zh", "arz": "ar"}
_ALIKE |= {"azb": "az", "pnb": "ur", "ckb": "ku", "fil": "tl", "iw": "he", "cmn": "zh"}


class Language(Gate):
    """Fails a text in another language than its caption's, or than the target, see `differs`."""

    key = "language"
    summary = "another language than asked for"

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
    """Return which texts are in another language than their captions, or than the target.

    fastText's lid.176 must be surer than `score` of both, as it is of few texts of one to three words. Passes a text
    that has half of its words from its caption. Of a text that changes its language only the first 80 characters count.
    Languages that it confuses are one: Norwegian; Serbian, Croatian and Bosnian; Malay and Indonesian; Chinese; Arabic.
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
    """Return each text's `_language`, and whether the model is sure of it; equal texts are identified once."""
    coded = column.dictionary_encode("encode")
    languages, scores = detect_languages(coded.dictionary)
    names = np.array([_language(name or "") for name in languages.to_pylist()], object)
    at = coded.indices.to_numpy()
    return names[at], to_mask(pc.greater_equal(scores, pa.scalar(score)))[at]


def _language(code: str) -> str:
    """Return the language of a code: without region and script, and one for those that are confused."""
    name = code.lower().replace("_", "-").partition("-")[0]
    return _ALIKE.get(name, name)
