"""Gates: what a written text must not have lost, invented or slipped in. Pure functions over Arrow columns, no model.

In: texts (string), the captions they were written of (string), and what else a gate compares, row by row. Out: a mask, bool
[rows], true where the text fails; `run_gates` runs all that apply to a kind, in the order of `GATES`, and keeps every
verdict. A gate's name is its reason code, the value of `gate` in table captions.

What they trade: they are rules, so they refuse some good texts and pass some bad ones; `tests/bench/bench_gates.py` plants
faults and prints how often. What cannot be compared, since it was not measured or there is no caption, passes: a gate
refuses on evidence alone. Not looked for: slurs and other offence; the recipe's rules decide which samples are kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, get_args

import numpy as np
import pyarrow as pa

from curate.base.numeric.arrays import Mask
from curate.captions.gates import checks
from curate.captions.gates.checks import Entries, Scores
from curate.recipe.gates import Gate, Gates

PASSED = "passed"
GATES: tuple[str, ...] = get_args(Gate)
"""All gates, in the order in which the first one that fails is reported."""
OWN_GATES = ("empty", "echo_prompt", "preamble", "length", "repetition", "unsafe")
"""Those of any text, whatever it is written of."""
_DEFAULTS = Gates()


@dataclass(frozen=True)
class GateProfile:
    """The gates that judge a kind of texts, and what they may compare."""

    gates: tuple[str, ...]
    compares_caption: bool = True  # if not, languages and lengths are not compared, and only a given language counts
    is_translated: bool = False  # numbers may be written as another language has them


@dataclass(frozen=True)
class Candidates:
    """Texts of one kind that are to be judged, column by column; what is None is not compared."""

    profile: GateProfile
    texts: pa.Array  # string; null where there is none
    originals: pa.Array  # string; the captions, null where there is none
    # string; what else the model was shown, which a text may hold: of a fused text, the recaption
    sources: pa.Array | None = None
    prompts: Sequence[str] = ()  # the template, of any number of parts; fields in braces
    examples: Sequence[str] = ()  # sources and targets of all pairs in context that these texts may have been shown
    # Of translations, a code each such as pt or pt-BR; None, or none: the caption's
    languages: Sequence[str | None] = ()
    finish: pa.Array | None = None  # string; why the model stopped, `stop` or `length`
    entries: Entries | None = None  # of the metadata
    clip: Scores | None = None  # CLIP scores, cosines
    f_clip: Scores | None = None  # F-CLIPScores


class Verdicts(NamedTuple):
    """What the gates say, without nulls."""

    first: pa.Array  # string [rows], `passed` or the first gate that failed
    failed: pa.Array  # list<string> [rows], all that did, in the order of `GATES`


def run_gates(given: Candidates, options: Gates = _DEFAULTS) -> Verdicts:
    """Return what all gates that apply say. Of an empty text nothing else is said."""
    texts, originals, entries, clip, f_clip = given.texts, given.originals, given.entries, given.clip, given.f_clip
    related = originals if given.profile.compares_caption else None
    gates: dict[str, Callable[[], Mask]] = {
        "empty": lambda: checks.empty(texts),
        "echo_prompt": lambda: checks.echo_prompt(texts, originals, given.prompts, given.examples),
        "echo": lambda: checks.echo(texts, originals),
        "preamble": lambda: checks.preamble(texts, originals),
        "length": lambda: checks.length(texts, related, options.words, given.finish),
        "language": lambda: _languages(texts, related, given.languages or [None] * len(texts)),
        "numbers": lambda: checks.numbers(texts, originals, given.sources, translated=given.profile.is_translated),
        "names": lambda: checks.names(texts, originals, given.sources, options.names),
        "repetition": lambda: checks.repetition(texts, originals),
        "unsafe": lambda: checks.unsafe(texts, originals),
    }
    if entries is not None:
        gates["entries"] = lambda: checks.entries(entries, options.entries)
    if clip is not None:
        gates["clip_score"] = lambda: checks.score(clip, options.clip_score)
    if f_clip is not None:
        gates["f_clipscore"] = lambda: checks.score(f_clip, options.f_clipscore)
    masks = np.zeros((len(texts), len(GATES)), np.bool_)
    for gate in gates.keys() & set(given.profile.gates) - set(options.off):
        masks[:, GATES.index(gate)] = gates[gate]()
    masks[masks[:, 0], 1:] = False
    codes = pa.array([*GATES, PASSED], pa.string())
    first = np.where(masks.any(1), masks.argmax(1), len(GATES))
    ends = np.concatenate([[0], np.cumsum(masks.sum(1))])
    failed = codes.take(pa.array(np.nonzero(masks)[1]))
    return Verdicts(codes.take(pa.array(first)), pa.ListArray.from_arrays(pa.array(ends, pa.int32()), failed))


def _languages(texts: pa.Array, originals: pa.Array | None, languages: Sequence[str | None]) -> Mask:
    """Return what gate `language` says of texts in several languages."""
    bad = np.zeros(len(texts), np.bool_)
    for language in dict.fromkeys(languages):
        rows = np.flatnonzero([one == language for one in languages])
        own = None if originals is None else originals.take(pa.array(rows))
        bad[rows] = checks.language(texts.take(pa.array(rows)), own, language)
    return bad
