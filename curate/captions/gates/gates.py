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

import numpy as np
import pyarrow as pa

from curate.captions.gates import checks
from curate.captions.gates.checks import Entries, Scores
from curate.captions.gates.profile import ALL_GATES, GateProfile
from curate.numeric.arrays import Mask
from curate.recipe.captions import Gates

PASSED = "passed"
GATES = ALL_GATES
_DEFAULTS = Gates()


@dataclass(frozen=True)
class Candidates:
    """Texts of one kind that are to be judged, column by column; what is None is not compared.

    Attributes:
        profile: the gates of the kind.
        texts: string; null where there is none.
        originals: string; the captions, null where there is none.
        sources: string; what else the model was shown of the sample: of a fused text, the recaption. It may hold what the
            caption does not.
        prompts: the template, of any number of parts; fields in braces.
        examples: sources and targets of the pairs in context, all that texts of these rows may have been shown.
        language: that of a translation or recaption, an ISO 639 code such as pt or pt-BR; None: the caption's.
        finish: string; why the model stopped, `stop` or `length`.
        entries: of the metadata.
        clip: CLIP scores, cosines.
        f_clip: F-CLIPScores.
    """

    profile: GateProfile
    texts: pa.Array
    originals: pa.Array
    sources: pa.Array | None = None
    prompts: Sequence[str] = ()
    examples: Sequence[str] = ()
    language: str | None = None
    finish: pa.Array | None = None
    entries: Entries | None = None
    clip: Scores | None = None
    f_clip: Scores | None = None


@dataclass(frozen=True)
class Verdicts:
    """What the gates say: `first` string [rows], `passed` or the first gate that failed; `failed` list<string> [rows], all
    that did, in the order of `GATES`. Neither has nulls."""

    first: pa.Array
    failed: pa.Array


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
        "language": lambda: checks.language(texts, related, given.language),
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
    return _verdicts(masks)


def _verdicts(masks: Mask) -> Verdicts:
    """Return the verdicts of failures bool [rows, gates]."""
    codes = pa.array([*GATES, PASSED], pa.string())
    first = np.where(masks.any(1), masks.argmax(1), len(GATES))
    ends = np.concatenate([[0], np.cumsum(masks.sum(1))])
    failed = codes.take(pa.array(np.nonzero(masks)[1]))
    return Verdicts(codes.take(pa.array(first)), pa.ListArray.from_arrays(pa.array(ends, pa.int32()), failed))
