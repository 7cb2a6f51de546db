"""Gates: what a written text must not have lost, invented or slipped in. Pure functions over Arrow columns, no model.

In: texts (string), the captions they were written of (string), and what else a gate compares, row by row. Out: a mask, bool
[rows], true where the text fails; `run_gates` asks all that apply to a kind, in the order of `GATES`, and keeps every
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
from curate.captions.gates.checks import Bounds, Entries, Scores
from curate.captions.gates.text_columns import Mask

PASSED = "passed"
GATES = (
    *("empty", "echo_prompt", "echo", "preamble", "length", "language", "numbers", "names", "entries", "repetition"),
    *("clip_score", "f_clipscore", "unsafe"),
)
"""All gates, in the order in which the first one that fails is told."""

_BOUNDS = Bounds()
_LOOK = ("empty", "echo_prompt", "preamble", "length", "repetition", "unsafe")
APPLIED = {
    "rewrite": GATES,
    "recaption": (*_LOOK, "language", "clip_score", "f_clipscore"),
    "fused": GATES,
    "translation": (*_LOOK, "echo", "language", "numbers"),
}
"""Which gates are asked for which kind. A recaption tells what the image shows, not what the caption says: it may leave out
numbers, names and entries, and its language is compared with a wanted one only. A translation spells names and scores as
its language and the CLIP model will have it."""


@dataclass(frozen=True)
class GateOptions:
    """How strict gates are.

    Attributes:
        off: gates that are not asked.
        length: bounds of words and tokens.
        language_score: how sure the model must be of both languages.
        names_kept: the share of the caption's names that must stay.
        entries_kept: the share of the caption's entries that must stay, each as heavy as it is rare. A text may say the same
            with other entries: at 0.4, one in seven of the pairs in context of the package is refused, and half of the
            texts that lost their rarest entry; at 0.6, one in three and two in three.
        clip_margin: how much lower than the caption's a CLIP score (a cosine) may be. Scale and noise are the model's: so
            are those of the other scores.
        f_clip_margin: how much lower than the caption's an F-CLIPScore may be; of ViT-H-14, a wrong word costs about 3.5e-4.
        f_clip_least: an F-CLIPScore is at least this; None: no bound.
    """

    off: frozenset[str] = frozenset()
    length: Bounds = _BOUNDS
    language_score: float = 0.6
    names_kept: float = 1.0
    entries_kept: float = 0.4
    clip_margin: float = 0.03
    f_clip_margin: float = 3e-4
    f_clip_least: float | None = None

    def asked(self, kind: str) -> tuple[str, ...]:
        """The gates that are asked for a kind, in the order of `GATES`. Raises KeyError for an unknown kind."""
        return tuple(gate for gate in GATES if gate in APPLIED[kind] and gate not in self.off)


@dataclass(frozen=True)
class Candidates:
    """Texts of one kind that are to be judged, column by column; what is None is not compared.

    Attributes:
        kind: rewrite, recaption, fused or translation.
        texts: string; null where there is none.
        originals: string; the captions, null where there is none.
        sources: string; what else the model was shown of the sample: of a fused text, the recaption. It may hold what the
            caption does not.
        prompts: the template, of any number of parts; fields in braces.
        examples: sources and targets of the pairs in context, all that texts of these rows may have been shown.
        wanted: the language of a translation or recaption, an ISO 639 code such as pt or pt-BR; None: the caption's.
        tokens: integer; of the text.
        finish: string; why the model stopped, `stop` or `length`.
        entries: of the metadata.
        clip: CLIP scores, cosines.
        f_clip: F-CLIPScores.
    """

    kind: str
    texts: pa.Array
    originals: pa.Array
    sources: pa.Array | None = None
    prompts: Sequence[str] = ()
    examples: Sequence[str] = ()
    wanted: str | None = None
    tokens: pa.Array | None = None
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


def run_gates(given: Candidates, options: GateOptions = GateOptions()) -> Verdicts:
    """Asks all gates that apply to the kind. Of an empty text nothing else is said. Raises KeyError for an unknown kind."""
    texts, originals, entries, clip, f_clip = given.texts, given.originals, given.entries, given.clip, given.f_clip
    # What a recaption says is not what the caption says, so their languages and lengths are not compared.
    related = None if given.kind == "recaption" else originals
    gates: dict[str, Callable[[], Mask]] = {
        "empty": lambda: checks.empty(texts),
        "echo_prompt": lambda: checks.echo_prompt(texts, originals, given.prompts, given.examples),
        "echo": lambda: checks.echo(texts, originals),
        "preamble": lambda: checks.preamble(texts, originals),
        "length": lambda: checks.length(texts, related, options.length, given.tokens, given.finish),
        "language": lambda: checks.language(texts, related, given.wanted, options.language_score),
        "numbers": lambda: checks.numbers(texts, originals, given.sources, translated=given.kind == "translation"),
        "names": lambda: checks.names(texts, originals, given.sources, options.names_kept),
        "repetition": lambda: checks.repetition(texts, originals),
        "unsafe": lambda: checks.unsafe(texts, originals),
    }
    if entries is not None:
        gates["entries"] = lambda: checks.entries(entries, options.entries_kept)
    if clip is not None:
        gates["clip_score"] = lambda: checks.score(clip, options.clip_margin)
    if f_clip is not None:
        gates["f_clipscore"] = lambda: checks.score(f_clip, options.f_clip_margin, options.f_clip_least)
    masks = np.zeros((len(texts), len(GATES)), np.bool_)
    for gate in gates.keys() & set(options.asked(given.kind)):
        masks[:, GATES.index(gate)] = gates[gate]()
    masks[masks[:, 0], 1:] = False
    return _verdicts(masks)


def _verdicts(masks: Mask) -> Verdicts:
    """From failures bool [rows, gates]."""
    codes = pa.array([*GATES, PASSED], pa.string())
    first = np.where(masks.any(1), masks.argmax(1), len(GATES))
    ends = np.concatenate([[0], np.cumsum(masks.sum(1))])
    failed = codes.take(pa.array(np.nonzero(masks)[1]))
    return Verdicts(codes.take(pa.array(first)), pa.ListArray.from_arrays(pa.array(ends, pa.int32()), failed))
