"""Gates against texts that talk to a user instead of describing an image, and against injected content."""

import re
import tomllib
from importlib.resources import files

import numpy as np

from curate.base.numeric.arrays import Mask
from curate.captions.gates.gate import Candidates, Gate
from curate.captions.gates.text_columns import brought_in, matches, read_rows


def _read_patterns(classes: str) -> list[str]:
    tables = tomllib.loads(files("curate.captions.gates").joinpath("chatter.toml").read_text("utf-8"))
    patterns = ["(?i)" + "|".join(alternatives) for alternatives in tables[classes].values()]
    for name, part in tables["parts"].items():
        patterns = [pattern.replace(f"{{{name}}}", part) for pattern in patterns]
    return patterns


_PREAMBLE, _INSERTED = _read_patterns("preamble"), _read_patterns("inserted")


class Preamble(Gate):
    """Fails a text that talks to a user, for example with an opening, a label, or a refusal.

    It finds openings ("Sure, here is", "Here is a rewritten caption:"), labels ("Caption:"), refusals, mentions of
    being a model, questions, offers, and chat markup (`<|im_end|>`, `[INST]`, `###`). A phrase passes if the caption
    has one of the same class. The gate misses other languages and unusual words.
    """

    key = "preamble"
    summary = "it has chatter before or after the caption, such as an introduction or an offer"

    def check(self, candidates: Candidates, option: None) -> Mask:
        return np.asarray(np.logical_or.reduce([brought_in(candidates, pattern) for pattern in _PREAMBLE]), np.bool_)


class Unsafe(Gate):
    """Fails a text that adds an instruction to a model, an address, or code.

    It finds instructions ("ignore the previous …", "you are now …"), URLs, domains, e-mail addresses, phone numbers,
    HTML tags and entities, code, control characters, and marks of writing direction. Whatever the caption contains
    verbatim passes. Slurs and other offensive words are left to the recipe's rules.
    """

    key = "unsafe"
    summary = "it has instructions to a model, an address, or code that is not in the original"

    def check(self, candidates: Candidates, option: None) -> Mask:
        bad = np.zeros(len(candidates.texts), np.bool_)
        for pattern in _INSERTED:
            compiled = re.compile(pattern)
            for row, text, original, _ in read_rows(np.flatnonzero(matches(candidates.texts, pattern)), candidates):
                caption = _bare(original)
                # The match of an address includes the punctuation after it.
                bad[row] |= not all(_bare(match[0]).rstrip(",.;:!?)") in caption for match in compiled.finditer(text))
        return bad


def _bare(text: str) -> str:
    return "".join(text.lower().split())
