"""Gates against texts that copy the prompt, its examples, or the caption."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.numeric.arrays import Mask
from curate.captions.gates.gate import Candidates, Gate
from curate.captions.gates.text_columns import are_equal, brought_in, matches, normalized, to_texts

_PHRASE = 4  # words; shorter parts of a prompt also occur in ordinary texts
_FIELD = re.compile(r"\{[A-Za-z_]\w*\}|[.:;!?\n]|^\[\w+\]$", re.MULTILINE)


class EchoPrompt(Gate):
    """Fails a text that repeats the prompt or its examples.

    It fails a text that contains `=>`, a sentence of the prompt with four words or more, or an example's source or
    target. If an example has fewer than four words, only a text that equals it fails. Case, spaces and punctuation are
    ignored.

    Passes anything that the caption itself contains, and an example that was copied with one word changed.
    """

    key = "echo_prompt"
    summary = "it copies the prompt, or an example in the prompt"

    def check(self, candidates: Candidates, option: None) -> Mask:
        bad = brought_in(candidates, "=>")
        parts = [part for prompt in candidates.prompts for part in _FIELD.split(prompt) if len(part.split()) >= _PHRASE]
        shown = filter(None, to_texts(normalized(pa.array([*parts, *candidates.examples], pa.string()))))
        phrases = {p: f" {p} " if len(p.split()) >= _PHRASE else f"^ {p} $" for p in sorted(shown)}
        if not phrases:
            return bad
        # One pass over all texts, then phrase by phrase over the texts that match.
        normal = pc.replace_substring_regex(normalized(candidates.texts), "^.*$", r" \0 ")
        rows = np.flatnonzero(matches(normal, "|".join(phrases.values())))
        sides = to_texts(normal.take(rows)), to_texts(normalized(candidates.originals.take(rows)))
        for row, text, caption in zip(rows, *sides, strict=True):
            bad[row] |= any(re.search(p, text) and f" {phrase} " not in f" {caption} " for phrase, p in phrases.items())
        return bad


class Echo(Gate):
    """Fails a text that equals its caption except for case, spaces and punctuation. Translated bare names fail, too."""

    key = "echo"
    summary = "it copies the original"
    relations = frozenset({"rewritten", "translated"})

    def check(self, candidates: Candidates, option: None) -> Mask:
        return candidates.both & are_equal(normalized(candidates.texts), normalized(candidates.originals))
