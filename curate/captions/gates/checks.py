"""The gates themselves: each returns which texts fail it, from Arrow columns alone. `curate.captions.gates.gates` says when.

In: texts, string or large_string [rows], and what they are compared with, of as many rows. Out: `Mask`, bool [rows], true
where the text fails. Null texts fail `empty` alone; where there is nothing to compare with, a text passes. What a caption
does itself is no fault of its text: a caption with a URL may keep it.

Most work is Arrow's own, over whole columns; rows are looked at in Python only where numbers, names, repeated words or
suspicious strings are in them.
"""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.numeric.arrays import F64, Mask
from curate.captions.gates.gate_patterns import INSERTED, PREAMBLE
from curate.captions.gates.names import hold_names, read_names
from curate.captions.gates.numerals import read_numbers
from curate.captions.gates.text_columns import (
    brought_in,
    count_words,
    filled,
    flatten,
    name_suspects,
    normalised,
    number_suspects,
    read_rows,
    split_words,
    to_mask,
    word_keys,
)
from curate.signals.language import detect_languages

_PHRASE = 4  # words: shorter parts of a prompt are part of other texts too
_IN_A_ROW, _TRIGRAMS, _SHARE, _CHARACTERS = 4, 3, 0.25, 6
_FEW = 5  # words: the share of a shorter caption says little
_MIN_SHARE, _MAX_SHARE = 0.3, 4.0  # words of a text over those of its caption
_ELSEWHERE = 12  # up to it, languages write numbers as words of their own

_FIELD = re.compile(r"\{[A-Za-z_]\w*\}|[.:;!?\n]|^\[\w+\]$", re.MULTILINE)
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
_ASCII = re.compile(r"[a-z0-9]+")
# Codes of languages that the model confuses, or names otherwise.
_ALIKE = {"nb": "no", "nn": "no", "sh": "hr", "sr": "hr", "bs": "hr", "ms": "id", "yue": "zh", "wuu": "zh", "arz": "ar"}
_ALIKE |= {"azb": "az", "pnb": "ur", "ckb": "ku", "fil": "tl", "iw": "he", "cmn": "zh"}


@dataclass(frozen=True)
class Entries:
    """The metadata entries of texts and captions, list<int32> [rows] as `Matcher.match` gives them; and how heavy each is,
    float64 [entries], see `entry_weights`."""

    texts: pa.Array
    originals: pa.Array
    weights: F64


@dataclass(frozen=True)
class Scores:
    """A score of texts and captions against their images: floating [rows], null or NaN where there is none."""

    texts: pa.Array
    originals: pa.Array


def empty(texts: pa.Array) -> Mask:
    """Fail null, white space, a single character, and what holds no letter or digit at all (punctuation, emoji).

    Passes everything else, "TV" too.
    """
    texts = filled(texts)
    short = pc.less(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 2)
    return to_mask(pc.or_(short, pc.invert(pc.match_substring_regex(texts, r"[\p{L}\p{N}]"))))


def echo_prompt(
    texts: pa.Array, originals: pa.Array, prompts: Sequence[str] = (), examples: Sequence[str] = ()
) -> Mask:
    """Fail a text with `=>` in it, with a sentence of the prompt (four words or more), or with a source or target of the
    examples in it; one of fewer than four words must be the whole text. Case, space and punctuation do not count.

    Passes what the caption itself holds, and an example that was copied with a word of it changed.
    """
    bad = brought_in(texts, originals, partial(pc.match_substring, pattern="=>"))
    parts = [part for prompt in prompts for part in _FIELD.split(prompt) if len(part.split()) >= _PHRASE]
    spoken = filter(None, normalised(pa.array([*parts, *examples], pa.string())).to_pylist())
    phrases = {p: f" {p} " if len(p.split()) >= _PHRASE else f"^ {p} $" for p in sorted(spoken)}
    if not phrases:
        return bad
    # One pass over all texts; then phrase by phrase, where one was found.
    normal = pc.binary_join_element_wise("", normalised(texts), "", " ")
    rows = np.flatnonzero(to_mask(pc.match_substring_regex(normal, "|".join(phrases.values()))))
    own = normalised(originals.take(pa.array(rows))).to_pylist()
    for row, text, original in zip(rows.tolist(), normal.take(pa.array(rows)).to_pylist(), own, strict=True):
        bad[row] |= any(re.search(p, text) and f" {phrase} " not in f" {original} " for phrase, p in phrases.items())
    return bad


def echo(texts: pa.Array, originals: pa.Array) -> Mask:
    """Fail a text that is its caption, but for case, space and punctuation.

    Passes any other, one word more or in another order too. A translation of a bare name fails.
    """
    both = to_mask(texts.is_valid()) & to_mask(originals.is_valid())
    return both & to_mask(pc.equal(normalised(texts), normalised(originals)))


def preamble(texts: pa.Array, originals: pa.Array) -> Mask:
    """Fail a text that begins with what is said to a user ("Sure, here is", "Here is a rewritten caption:") or with a label
    ("Caption:"); that refuses or speaks of its being a model; that asks or offers something; or that holds markup of chats
    (`<|im_end|>`, `</s>`, `[INST]`, `###`).

    Passes such phrases where the caption has one of the same class, those of other languages, and a chat in words of its own.
    """
    found = [brought_in(texts, originals, partial(pc.match_substring_regex, pattern=p)) for p in PREAMBLE.values()]
    return np.asarray(np.logical_or.reduce(found), np.bool_)


def length(
    texts: pa.Array, originals: pa.Array | None, words: tuple[int, int] = (2, 100), finish: pa.Array | None = None
) -> Mask:
    """Fail a text of too few or too many words, on the whole or for its caption; and one that ended at the model's limit
    (`finish` is `length`) without a mark that ends a sentence.

    Words are what is between white space; a character of Han or kana, or four of Thai, Lao, Khmer and Burmese, are one.
    A text without a caption passes as to its share.
    """
    count = count_words(texts)
    bad = (count < words[0]) | (count > words[1])
    if originals is not None:
        own = count_words(originals)
        bad |= (own > 0) & ((count < _MIN_SHARE * own) | (count > _MAX_SHARE * np.maximum(own, _FEW)))
    if finish is not None:
        whole = pc.match_substring_regex(filled(texts), r"[.!?…。！？][\"'”’»)]*\s*$")
        bad |= to_mask(pc.equal(finish, "length")) & ~to_mask(whole)
    return bad & to_mask(texts.is_valid())


def language(texts: pa.Array, originals: pa.Array | None, target: str | None = None, score: float = 0.6) -> Mask:
    """Fail a text in another language than its caption's, or than the target, where fastText's lid.176 is surer than
    `score` of the text's, and of the caption's.

    Passes whatever it is unsure of, as it is of most texts of one to three words; and a text that has half of its words
    from its caption. Of a text that changes its language only the first 80 characters count. Languages that it confuses
    are one: Norwegian; Serbian, Croatian and Bosnian; Malay and Indonesian; Chinese; Arabic.
    """
    bad = np.zeros(len(texts), np.bool_)
    if target is not None:
        found, sure = _languages(texts, score)
        return np.asarray(sure & (found != _language(target)), np.bool_)
    if originals is None:
        return bad
    there, own = split_words(texts), split_words(originals)
    shared = np.bincount(there.rows, np.isin(*word_keys(there, own)), len(texts))
    rows = np.flatnonzero(2 * shared < np.bincount(there.rows, minlength=len(texts)))
    found, sure = _languages(texts.take(pa.array(rows)), score)
    rows, found = rows[sure], found[sure]
    expected, known = _languages(originals.take(pa.array(rows)), score)
    bad[rows] = known & (found != expected)
    return bad


def numbers(texts: pa.Array, originals: pa.Array, sources: pa.Array | None = None, *, translated: bool = False) -> Mask:
    """Fail a text that has lost a number of its caption, or holds one that neither caption nor source has.

    `curate.captions.gates.numerals` says what a number is, and which forms are equal. How often it occurs does not count, nor of
    what it is the number: "3 cats and 2 dogs" may become "2 cats and 3 dogs". Translated, numbers up to twelve, and
    numbers in words, may be written as we cannot read: they pass.
    """
    bad = np.zeros(len(texts), np.bool_)
    for row, text, original, source in read_rows(number_suspects(texts, originals), texts, originals, sources):
        own, there = read_numbers(original), read_numbers(text)
        held = own.held | read_numbers(source).held if source else own.held
        lost = (number for number in own.claimed if not number.is_in(there.held))
        invented = (number for number in there.claimed if not number.is_in(held))
        # Translated, only what is written in digits, and large, is sure to be read.
        bad[row] = any(
            not translated or (not number.spelt and number.above(_ELSEWHERE))
            for number in itertools.chain(lost, invented)
        )
    return bad


def names(texts: pa.Array, originals: pa.Array, sources: pa.Array | None = None, kept: float = 1.0) -> Mask:
    """Fail a text that has lost a product's code or more than 1 - `kept` of the other names of its caption, or that holds a
    name or code that neither caption nor source has.

    `curate.captions.gates.names` says what a name is: a word that is written as one and is not ordinary English. So it passes
    names in lower case, and most that are made of ordinary words; and it fails texts without a rare word that their caption
    wrote with a capital.
    """
    bad = np.zeros(len(texts), np.bool_)
    for row, text, original, source in read_rows(name_suspects(texts, originals), texts, originals, sources):
        own, there, held = read_names(original), read_names(text), hold_names(text)
        shown = [hold_names(known) for known in (original, source) if known]
        lost = sum(not held.word(name) for name in own.words)
        bad[row] = (
            lost > (1 - kept) * len(own.words) + 1e-9
            or not all(map(held.code, own.codes))
            or not all(any(known.word(name) for known in shown) for name in there.words)
            or not all(any(known.code(code) for known in shown) for code in there.codes)
        )
    return bad


def entry_weights(counts: npt.NDArray[np.integer], rows: int) -> F64:
    """Return how heavy each entry is: log(rows / count), so that one of nearly all captions ("of") is of no weight.

    `counts` integer [entries]: how many of the pool's `rows` hold each entry; 0 counts as 1.
    """
    return np.maximum(0.0, np.log(max(rows, 1) / np.maximum(np.asarray(counts, np.float64), 1.0)))


def entries(given: Entries, kept: float = 0.4) -> Mask:
    """Fail a text that no longer matches entries which make up `kept` of the weight of those that its caption matches.

    Passes where the caption matches none, or none of any weight. Matching is exact, so a plural or a synonym loses its
    entry; one of many entries may be lost, however rare.
    """
    own, own_row = flatten(given.originals)
    there, there_row = flatten(given.texts)
    weights = given.weights[own] if len(own) else np.zeros(0)
    still = np.isin(own_row << 32 | own, there_row << 32 | there)
    total = np.bincount(own_row, weights, minlength=len(given.originals))
    stays = np.bincount(own_row, weights * still, minlength=len(given.originals))
    return np.asarray(stays < kept * total - 1e-9)


def repetition(texts: pa.Array, originals: pa.Array) -> Mask:
    """Fail a text with a word four times in a row, a character (no digit) six times in a row, or three words in a row that
    come three times and make up a quarter of the text.

    Passes what its caption does too.
    """
    bad = np.zeros(len(texts), np.bool_)
    given = filled(texts).to_pylist()
    rows = _rows_with_runs(given)
    rows.update(row for row, text in enumerate(given) if _has_loop(text))
    for row in rows:
        original = originals[row].as_py() or ""
        bad[row] = not (_has_loop(original) or _rows_with_runs([original]))
    return bad


def score(given: Scores, margin: float) -> Mask:
    """Fail a text whose score is below its caption's by more than `margin`.

    Passes where a score is null or NaN: that a text was not scored says nothing of it.
    """
    there, own = (column.cast(pa.float64()).to_numpy(zero_copy_only=False) for column in (given.texts, given.originals))
    return np.asarray(there < own - margin)  # false where one of them is NaN


def unsafe(texts: pa.Array, originals: pa.Array) -> Mask:
    """Fail a text that brings in what its caption does not hold: an instruction to a model ("ignore the previous …",
    "you are now …"), a URL, domain, e-mail address or phone number, tags and entities of HTML, code, control characters and
    marks of writing direction.

    Passes all of it where the caption holds the same, letter by letter. Slurs and other offence are not looked for.
    """
    bad = np.zeros(len(texts), np.bool_)
    given = filled(texts)
    for pattern in INSERTED.values():
        rows = np.flatnonzero(to_mask(pc.match_substring_regex(given, pattern)))
        compiled = re.compile(pattern)
        for row, text, original, _ in read_rows(rows, texts, originals):
            own = _bare(original)
            # An address takes the punctuation behind it along.
            bad[row] |= not all(_bare(found[0]).rstrip(",.;:!?)") in own for found in compiled.finditer(text))
    return bad


def _languages(column: pa.Array, score: float) -> tuple[npt.NDArray[np.object_], Mask]:
    """Return each text's language, as in `_language`, and whether the model is sure of it; equal texts are looked at once."""
    coded = column.dictionary_encode()
    found, scores = detect_languages(coded.dictionary)
    names = np.array([_language(name) if name else "" for name in found.to_pylist()] + [""], object)
    sure = np.append(to_mask(pc.greater_equal(scores, score)), False)
    at = pc.fill_null(coded.indices, len(names) - 1).to_numpy(zero_copy_only=False)
    return names[at], sure[at]


def _language(code: str) -> str:
    """Return the language of a code: without region and script, and one for those that are confused."""
    name = code.lower().replace("_", "-").partition("-")[0]
    return _ALIKE.get(name, name)


def _rows_with_runs(texts: list[str]) -> set[int]:
    """Return which texts have a character, no digit, six times in a row."""
    ends = np.cumsum([len(text) + 1 for text in texts])
    codes = np.frombuffer("\n".join([*texts, ""]).encode("utf-32-le", "surrogatepass"), np.uint32)
    same, width = codes[1:] == codes[:-1], _CHARACTERS - 1
    if len(same) < width:
        return set()
    runs = np.logical_and.reduce([same[i : len(same) - width + 1 + i] for i in range(width)])
    places = [at for at in np.flatnonzero(runs) if not chr(codes[at]).isspace() and not chr(codes[at]).isdecimal()]
    return set(np.searchsorted(ends, places, "right").tolist())


def _has_loop(text: str) -> bool:
    """Return whether a word comes four times in a row, or three words three times."""
    words = (_ASCII if text.isascii() else _TOKEN).findall(text.lower())
    if len(words) < _IN_A_ROW or len(set(words)) > len(words) - 3:
        return False
    if any(len(set(words[i : i + _IN_A_ROW])) == 1 for i in range(len(words) - _IN_A_ROW + 1)):
        return True
    often = Counter(zip(words, words[1:], words[2:], strict=False)).most_common(1)[0][1]
    return often >= _TRIGRAMS and 3 * often >= _SHARE * len(words)


def _bare(text: str) -> str:
    return "".join(text.lower().split())
