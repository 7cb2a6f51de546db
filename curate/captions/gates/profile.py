"""Which gates judge a kind of texts, and what they may compare."""

import typing
from dataclasses import dataclass

from curate.recipe.captions import Gate

ALL_GATES: tuple[str, ...] = typing.get_args(Gate)
"""All gates, in the order in which the first one that fails is reported."""
OWN_GATES = ("empty", "echo_prompt", "preamble", "length", "repetition", "unsafe")
"""Those of any text, whatever it is written of."""


@dataclass(frozen=True)
class GateProfile:
    """The gates of a kind of texts.

    Attributes:
        gates: those that apply.
        compares_caption: whether a text says what its caption says; if not, languages and lengths are not compared, and only
            a given language counts.
        is_translated: whether numbers may be written as another language has them.
    """

    gates: tuple[str, ...]
    compares_caption: bool = True
    is_translated: bool = False
