"""The interface that every gate implements: which texts have lost, invented or slipped in what they must not.

In: `Candidates`, texts with their captions and what else gates compare, row by row. Out: a mask, bool [rows], true
where the text fails. A new gate is a file of this folder and a line in its registry.

Gates are rules: they refuse some good texts and pass some bad ones (`tests/bench/bench_gates.py`). What was not
measured, or has no caption, passes; and what a caption does itself is no fault of its text.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from curate.base.numeric.arrays import F64, Mask
from curate.recipe.gates import GATES, Gates

PASSED = "passed"

# What texts of a kind are to the caption: the same in other words, or in another language; or what the image shows.
Relation = Literal["rewritten", "translated", "seen"]
ANY: frozenset[Relation] = frozenset({"rewritten", "translated", "seen"})


@dataclass(frozen=True)
class Entries:
    """The metadata entries of texts and captions, see `Matcher.match`."""

    texts: pa.Array  # list<int32> [rows]
    originals: pa.Array
    weights: F64  # [entries], see `entry_weights`


@dataclass(frozen=True)
class Scores:
    """A score of texts and captions against their images: floating [rows], null or NaN where there is none."""

    texts: pa.Array
    originals: pa.Array


@dataclass(frozen=True)
class Candidates:
    """Texts of one kind that are to be judged, column by column; what is None is not compared."""

    relation: Relation
    texts: pa.Array  # string; null where there is none
    originals: pa.Array  # string; the captions, null where there is none
    # string; what else the model was shown, which a text may hold: of a fused text, the recaption
    sources: pa.Array | None = None
    prompts: Sequence[str] = ()  # the template, of any number of parts; fields in braces
    examples: Sequence[str] = ()  # sources and targets of all pairs in context that these texts may have been shown
    languages: Sequence[str | None] = ()  # of translations, such as pt or pt-BR; None, or none: the caption's
    finish: pa.Array | None = None  # string; why the model stopped, `stop` or `length`
    entries: Entries | None = None
    clip: Scores | None = None  # CLIP scores, cosines
    f_clip: Scores | None = None  # F-CLIPScores

    @property
    def compared(self) -> pa.Array | None:
        """The captions, where languages and lengths are to be as theirs; None of texts of what the image shows."""
        return None if self.relation == "seen" else self.originals

    @property
    def both(self) -> Mask:
        """Where there is a text and a caption: bool [rows]."""
        return np.logical_and(self.texts.is_valid(), self.originals.is_valid(), dtype=np.bool_)


@dataclass(frozen=True, eq=False)
class Option:
    """A gate's key in section `captions.gates`: its name, type and field, with default, description and an example."""

    key: str
    type: Any
    field: Any  # pydantic's Field


class Gate(ABC):
    """A gate."""

    key: ClassVar[str]  # its reason code: the value of `gate` in table captions
    summary: ClassVar[str]  # what fails it, for the reference of keys
    option: ClassVar[Option | None] = None  # how strict it is; None: it has no option
    relations: ClassVar[frozenset[Relation]] = ANY  # the kinds of texts that it judges
    # The fields of `Candidates` without which it judges nothing
    needs: ClassVar[frozenset[Literal["entries", "clip", "f_clip"]]] = frozenset()

    @abstractmethod
    def check(self, candidates: Candidates, option: Any) -> Mask:
        """Return which texts fail: bool [rows], `option` being its option's value. A null text fails `empty` alone."""


class Verdicts(NamedTuple):
    """What all gates say, without nulls."""

    first: pa.Array  # string [rows], `passed` or the first gate that failed
    failed: pa.Array  # list<string> [rows], all that did, in the order of the gates


def run_gates(candidates: Candidates, options: Gates) -> Verdicts:
    """Return what all gates that apply say, of an empty text only that."""
    gates = GATES.kinds()
    masks = np.zeros((len(candidates.texts), len(gates)), np.bool_)
    for index, gate in enumerate(gates.values()):
        has_all = all(getattr(candidates, name) is not None for name in gate.needs)
        if gate.key not in options.off and candidates.relation in gate.relations and has_all:
            option = None if gate.option is None else getattr(options, gate.option.key)
            masks[:, index] = gate.check(candidates, option)
    masks[masks[:, 0], 1:] = False
    codes = pa.array([*gates, PASSED], pa.string())
    first = np.where(masks.any(1), masks.argmax(1), len(gates))
    ends = np.concatenate([[0], np.cumsum(masks.sum(1))])
    failed = codes.take(np.nonzero(masks)[1])
    return Verdicts(codes.take(first), pa.ListArray.from_arrays(pa.array(ends, pa.int32()), failed))
