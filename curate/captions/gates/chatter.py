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
    """Fails a text that begins with an opening ("Sure, here is", "Here is a rewritten caption:") or a label
    ("Caption:"), refuses or speaks of being a model, asks or offers something, or holds markup of chats (`<|im_end|>`,
    `[INST]`, `###`).

    Passes phrases of a class that also occurs in the caption, other languages, and chat in unusual words.
    """

    key = "preamble"
    summary = "it has chatter before or after the caption, such as an introduction or an offer"

    def check(self, candidates: Candidates, option: None) -> Mask:
        return np.asarray(np.logical_or.reduce([brought_in(candidates, pattern) for pattern in _PREAMBLE]), np.bool_)


class Unsafe(Gate):
    """Fails a text that adds an instruction to a model ("ignore the previous …", "you are now …"), a URL, domain,
    e-mail address or phone number, tags and entities of HTML, code, control characters or marks of writing direction.

    Passes anything that its caption contains verbatim. Slurs and other offensive words are left to the recipe's rules.
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
