"""Gates against lost or invented facts: numbers and names. Only rows that contain some are read in Python."""

import itertools

import numpy as np
import pyarrow.compute as pc
from pydantic import Field

from curate.base.numeric.arrays import I64, Mask
from curate.captions.gates.gate import Candidates, Gate, Option
from curate.captions.gates.names import hold_names, may_be_name, read_names
from curate.captions.gates.numerals import NUMBER_WORDS, read_numbers
from curate.captions.gates.text_columns import are_equal, filled, matches, read_rows, split_words

_ELSEWHERE = 12  # other languages often write numbers up to this one as words


class Numbers(Gate):
    """Fails a text that loses a number from its caption, or adds one that neither caption nor source has.

    `curate.captions.gates.numerals` defines numbers and their equal forms. The gate ignores how often a number occurs
    and what it counts: "3 cats and 2 dogs" may become "2 cats and 3 dogs". In translations, numbers up to twelve or in
    words pass, since the gate cannot read number words of other languages.
    """

    key = "numbers"
    summary = "it has a number that the original does not have, or lacks one that the original has"
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
    """Fails a text that loses a product code, or more than 1 - `option` of its caption's other names, or that adds a
    name or code that neither caption nor source has.

    `curate.captions.gates.names` defines a name: a capitalized word that is not ordinary English. So the gate misses
    lower-case names and most names made of ordinary words, and mistakes rare capitalized words for names.
    """

    key = "names"
    summary = "it has a name that the original does not have, or lacks too many of the original's names"
    relations = frozenset({"rewritten"})
    description = "Minimum share of the original's names that a caption must keep."
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
    """Return the rows that gate `numbers` must read one by one, which is slow. All others pass it.

    These are rows with numbers, except ASCII rows with equal figures and no number words.
    """
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
    """Return the rows that gate `names` must read one by one, which is slow. All others pass it.

    These are rows with a text and a caption where either has a non-ASCII character, an HTML entity, or a letter before
    a digit (a possible code), or where only one has a certain capitalized word that may be a name.
    """
    sides = candidates.texts, candidates.originals
    suspect = np.logical_or(*(matches(side, r"[^\x00-\x7f]|&#?\w+;|[a-zA-Z]-?[0-9]") for side in sides))
    for row, (words, expected) in enumerate(zip(*map(split_words, sides), strict=True)):
        if not suspect[row]:
            differing = {word.lower() for word in words} ^ {word.lower() for word in expected}
            capitals = {word.lower() for word in (*words, *expected) if word != word.lower()}
            suspect[row] = any(map(may_be_name, differing & capitals))
    return np.flatnonzero(suspect & candidates.both)
