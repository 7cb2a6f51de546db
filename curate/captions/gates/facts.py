"""Gates of facts that a text has lost or invented: numbers and names, read in Python where a row holds some."""

import itertools

import numpy as np
from pydantic import Field

from curate.base.numeric.arrays import Mask
from curate.captions.gates.gate import Candidates, Gate, Option
from curate.captions.gates.names import hold_names, read_names
from curate.captions.gates.numerals import read_numbers
from curate.captions.gates.text_columns import name_suspects, number_suspects, read_rows

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
        """See `Gate`."""
        texts, originals, is_translated = candidates.texts, candidates.originals, candidates.relation == "translated"
        bad = np.zeros(len(texts), np.bool_)
        rows = read_rows(number_suspects(texts, originals), texts, originals, candidates.sources)
        for row, text, original, source in rows:
            expected, written = read_numbers(original), read_numbers(text)
            held = expected.held | read_numbers(source).held if source else expected.held
            lost = (number for number in expected.claimed if not number.is_in(written.held))
            invented = (number for number in written.claimed if not number.is_in(held))
            bad[row] = any(
                not is_translated or (not number.spelt and number.above(_ELSEWHERE))
                for number in itertools.chain(lost, invented)
            )
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
    option = Option(
        "names",
        float,
        Field(1.0, description="Share of the caption's names to keep, at least.", examples=[0.5], ge=0, le=1),
    )

    def check(self, candidates: Candidates, option: float) -> Mask:
        """See `Gate`."""
        texts, originals = candidates.texts, candidates.originals
        bad = np.zeros(len(texts), np.bool_)
        rows = read_rows(name_suspects(texts, originals), texts, originals, candidates.sources)
        for row, text, original, source in rows:
            expected, written, held = read_names(original), read_names(text), hold_names(text)
            shown = [hold_names(known) for known in (original, source) if known]
            lost = sum(not held.word(name) for name in expected.words)
            bad[row] = (
                lost > (1 - option) * len(expected.words) + 1e-9
                or not all(map(held.code, expected.codes))
                or not all(any(known.word(name) for known in shown) for name in written.words)
                or not all(any(known.code(code) for known in shown) for code in written.codes)
            )
        return bad
