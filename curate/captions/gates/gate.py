"""The interface of gates, which find texts that lost or invented facts, or contain injected content.

In: `Candidates`, texts with their captions and other columns, row by row. Out: a mask, bool [rows], true where the text
fails. To add a gate, add a file in this folder and a line in its registry.

Gates are rules: they refuse some good texts and pass some bad ones (`tests/bench/bench_gates.py`). A text passes if
there is no measurement or no caption to compare, or if its caption has the same defect.
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

# How a kind's texts relate to the caption: the same in other words, in another language, or a description of the image.
Relation = Literal["rewritten", "translated", "seen"]
ANY: frozenset[Relation] = frozenset({"rewritten", "translated", "seen"})


@dataclass(frozen=True)
class Entries:
    """The metadata entries that texts and captions match; see `Matcher.match`."""

    texts: pa.Array  # list<int32> [rows]
    originals: pa.Array
    weights: F64  # [entries], see `entry_weights`


@dataclass(frozen=True)
class Scores:
    """Scores of texts and captions against their images: floating [rows], null or NaN if not measured."""

    texts: pa.Array
    originals: pa.Array


@dataclass(frozen=True)
class Candidates:
    """Texts of one kind for the gates, column by column. Gates skip a comparison whose column is None."""

    relation: Relation
    texts: pa.Array  # string; null where there is none
    originals: pa.Array  # string; the captions, null if there is none
    # string; other text that the model saw and a text may repeat: for a fused text, the recaption
    sources: pa.Array | None = None
    prompts: Sequence[str] = ()  # the template's parts, with fields in braces
    examples: Sequence[str] = ()  # sources and targets of all in-context pairs that the model may have seen
    languages: Sequence[str | None] = ()  # of translations, such as pt or pt-BR; None or empty: the caption's language
    finish: pa.Array | None = None  # string; why the model stopped, `stop` or `length`
    entries: Entries | None = None
    clip: Scores | None = None  # CLIP scores, cosines
    f_clip: Scores | None = None  # F-CLIPScores

    @property
    def compared(self) -> pa.Array | None:
        """The captions whose language and length the texts must share; None for descriptions of the image."""
        return None if self.relation == "seen" else self.originals

    @property
    def both(self) -> Mask:
        """Rows with both a text and a caption: bool [rows]."""
        return np.logical_and(self.texts.is_valid(), self.originals.is_valid(), dtype=np.bool_)


@dataclass(frozen=True, eq=False)
class Option:
    """A gate's key in section `captions.gates`: its name, type and field, with default, description and an example."""

    key: str
    type: Any
    field: Any  # pydantic's Field


class Gate(ABC):
    """The base class of gates."""

    key: ClassVar[str]  # its reason code, in column `gate` of table captions
    summary: ClassVar[str]  # when a caption fails it, for the reference of keys: "it …"
    option: ClassVar[Option | None] = None  # sets how strict it is; None: no option
    relations: ClassVar[frozenset[Relation]] = ANY  # the relations that it applies to
    # The fields of `Candidates` that it needs; without them it does not run
    needs: ClassVar[frozenset[Literal["entries", "clip", "f_clip"]]] = frozenset()

    @abstractmethod
    def check(self, candidates: Candidates, option: Any) -> Mask:
        """Return which texts fail: bool [rows]; `option` is its option's value. A null text fails only `empty`."""


class Verdicts(NamedTuple):
    """The verdicts of all gates, without nulls."""

    first: pa.Array  # string [rows], `passed` or the first gate that failed
    failed: pa.Array  # list<string> [rows], all gates that failed, in their order


def run_gates(candidates: Candidates, options: Gates) -> Verdicts:
    """Return the verdicts of all gates that apply; an empty text fails only `empty`."""
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
