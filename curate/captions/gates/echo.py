"""Gates of texts that copy what the model was shown: the prompt, its examples, or the caption."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.numeric.arrays import Mask
from curate.captions.gates.gate import Candidates, Gate
from curate.captions.gates.text_columns import are_equal, brought_in, matches, normalised, to_texts

_PHRASE = 4  # words: shorter parts of a prompt are part of other texts too
_FIELD = re.compile(r"\{[A-Za-z_]\w*\}|[.:;!?\n]|^\[\w+\]$", re.MULTILINE)


class EchoPrompt(Gate):
    """Fails a text that holds `=>`, a sentence of the prompt (four words or more), or a source or target of the
    examples; one of fewer than four words must be the whole text. Case, space and punctuation do not count.

    Passes what the caption itself holds, and an example that was copied with a word of it changed.
    """

    key = "echo_prompt"
    summary = "a copy of the prompt or its examples"

    def check(self, candidates: Candidates, option: None) -> Mask:
        bad = brought_in(candidates, "=>")
        parts = [part for prompt in candidates.prompts for part in _FIELD.split(prompt) if len(part.split()) >= _PHRASE]
        shown = filter(None, to_texts(normalised(pa.array([*parts, *candidates.examples], pa.string()))))
        phrases = {p: f" {p} " if len(p.split()) >= _PHRASE else f"^ {p} $" for p in sorted(shown)}
        if not phrases:
            return bad
        # One pass over all texts; then phrase by phrase in those that match.
        normal = pc.replace_substring_regex(normalised(candidates.texts), "^.*$", r" \0 ")
        rows = np.flatnonzero(matches(normal, "|".join(phrases.values())))
        sides = to_texts(normal.take(rows)), to_texts(normalised(candidates.originals.take(rows)))
        for row, text, caption in zip(rows, *sides, strict=True):
            bad[row] |= any(re.search(p, text) and f" {phrase} " not in f" {caption} " for phrase, p in phrases.items())
        return bad


class Echo(Gate):
    """Fails a text that is its caption, but for case, space and punctuation; so a translation of a bare name fails."""

    key = "echo"
    summary = "a copy of the original"
    relations = frozenset({"rewritten", "translated"})

    def check(self, candidates: Candidates, option: None) -> Mask:
        return candidates.both & are_equal(normalised(candidates.texts), normalised(candidates.originals))
