"""The interface that every gate implements: which texts have lost, invented or slipped in what they must not.

In: `Candidates`, texts with their captions and what else gates compare, row by row. Out: a mask, bool [rows], true
where the text fails. A new gate is a file of this folder and a line in its registry.

Trade-offs: as rules, gates refuse some good texts and pass some bad ones; `tests/bench/bench_gates.py` injects faults
and prints how often. What was not measured, or has no caption, passes: a gate refuses on evidence alone, and what a
caption does itself is no fault of its text. Most work is Arrow's own, over whole columns.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa

from curate.base.numeric.arrays import F64, Mask

Relation = Literal["rewritten", "translated", "seen"]
"""What texts of a kind are to the caption: the same in other words, or in another language; or what the image shows."""
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


@dataclass(frozen=True, eq=False)
class Option:
    """A gate's key in section `captions.gates`: its name, type and field, with default, description and an example."""

    key: str
    type: Any
    field: Any  # pydantic's Field


class Gate(ABC):
    """A gate.

    Attributes:
        key: its reason code: the value of `gate` in table captions.
        summary: what fails it, for the reference of keys.
        option: how strict it is; None: it has no option.
        relations: the kinds of texts that it judges.
        needs: the fields of `Candidates` without which it judges nothing: `entries`, `clip` or `f_clip`.
    """

    key: ClassVar[str]
    summary: ClassVar[str]
    option: ClassVar[Option | None] = None
    relations: ClassVar[frozenset[Relation]] = ANY
    needs: ClassVar[frozenset[Literal["entries", "clip", "f_clip"]]] = frozenset()

    @abstractmethod
    def check(self, candidates: Candidates, option: Any) -> Mask:
        """Return which texts fail: bool [rows], `option` being its option's value. A null text fails `empty` alone."""
