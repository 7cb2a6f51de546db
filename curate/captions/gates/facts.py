"""Gates of facts that a text has lost or invented: numbers and names, read in Python where a row holds some."""

import itertools

import numpy as np
import pyarrow.compute as pc
from pydantic import Field

from curate.base.numeric.arrays import I64, Mask
from curate.captions.gates.gate import Candidates, Gate, Option
from curate.captions.gates.names import hold_names, may_be_name, read_names
from curate.captions.gates.numerals import NUMBER_WORDS, read_numbers
from curate.captions.gates.text_columns import are_equal, filled, matches, read_rows, split_words

_ELSEWHERE = 12  # up to it, languages write numbers as words of their own


class Numbers(Gate):
    """Fails a text that has lost a number of its caption, or holds one that neither caption nor source has.

    `curate.captions.gates.numerals` says what a number is, and which forms are equal. How often it occurs, and of what,
    does not count: "3 cats and 2 dogs" may become "2 cats and 3 dogs". Translated, numbers up to twelve or in words
    pass, as they may be written in a way that is not read.
    """

    key = "numbers"
    summary = "numbers that the original does not have, or lost ones"
    relations = frozenset({"rewritten", "translated"})

    def check(self, candidates: Candidates, option: None) -> Mask:
        is_translated = candidates.relation == "translated"
        bad = np.zeros(len(candidates.texts), np.bool_)
        for row, text, original, source in read_rows(_number_suspects(candidates), candidates):
            expected, written = read_numbers(original), read_numbers(text)
            held = expected.held | read_numbers(source).held if source else expected.held
            lost = (number for number in expected.claimed if not number.is_in(written.held))
            differing = itertools.chain(lost, (number for number in written.claimed if not number.is_in(held)))
            bad[row] = any(not is_translated or (not n.spelt and n.above(_ELSEWHERE)) for n in differing)
        return bad


class Names(Gate):
    """Fails a text that has lost a product's code or more than 1 - `option` of the other names of its caption, or that
    holds a name or code that neither caption nor source has.

    `curate.captions.gates.names` says what a name is: a word with a capital that is not ordinary English. So it passes
    names in lower case, and most that are made of ordinary words; and takes a rare word with a capital for one.
    """

    key = "names"
    summary = "names that the original does not have, or lost ones"
    relations = frozenset({"rewritten"})
    description = "Share of the caption's names to keep, at least."
    option = Option("names", float, Field(1.0, description=description, examples=[0.5], ge=0, le=1))

    def check(self, candidates: Candidates, option: float) -> Mask:
        bad = np.zeros(len(candidates.texts), np.bool_)
        for row, text, original, source in read_rows(_name_suspects(candidates), candidates):
            expected, written, held = read_names(original), read_names(text), hold_names(text)
            shown = [hold_names(side) for side in (original, source) if side]
            bad[row] = (
                sum(not held.word(name) for name in expected.words) > (1 - option) * len(expected.words) + 1e-9
                or not all(map(held.code, expected.codes))
                or not all(any(side.word(name) for side in shown) for name in written.words)
                or not all(any(side.code(code) for side in shown) for code in written.codes)
            )
        return bad


def _number_suspects(candidates: Candidates) -> I64:
    """Return rows that `numbers` may fail: all with numbers, but ASCII without number words and with equal figures."""
    sides = candidates.texts, candidates.originals
    suspect, spelt = (
        matches(sides[0], pattern) | matches(sides[1], pattern)
        for pattern in (r"\pN|&#?\w+;|" + NUMBER_WORDS, r"[^\x00-\x7f]|&#?\w+;|" + NUMBER_WORDS)
    )
    rows = np.flatnonzero(suspect & ~spelt)
    figures = (pc.replace_substring_regex(filled(side.take(rows)), r"[^0-9.,']+", " ") for side in sides)
    suspect[rows] = ~are_equal(*figures)
    return np.flatnonzero(suspect & candidates.both)


def _name_suspects(candidates: Candidates) -> I64:
    """Return the rows that gate `names` has to read one by one, which is slow; all others pass it.

    These are, of rows with a text and a caption, those where either one has a character beyond ASCII, an HTML entity,
    or a letter before a digit, as codes have; or where one has a word with a capital that the other lacks, and that
    may be a name.
    """
    sides = candidates.texts, candidates.originals
    suspect = np.logical_or(*(matches(side, r"[^\x00-\x7f]|&#?\w+;|[a-zA-Z]-?[0-9]") for side in sides))
    for row, (words, expected) in enumerate(zip(*map(split_words, sides), strict=True)):
        if not suspect[row]:
            differing = {word.lower() for word in words} ^ {word.lower() for word in expected}
            capitals = {word.lower() for word in (*words, *expected) if word != word.lower()}
            suspect[row] = any(map(may_be_name, differing & capitals))
    return np.flatnonzero(suspect & candidates.both)
