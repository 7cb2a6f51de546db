"""Say a caption in other words, after a few examples of how that is done (LaCLIP).

Out: requests of kind `rewrite`, one for each row, style and ordinal. A style is a pool of in-context pairs
`source => target`, all written for this package: chat_a and chat_b in the manner of two chat models, human as people
write offhand, coco as two people caption one image. Of each pool 32 triples are drawn once for all, and a sample gets
one of them by a hash, so that the prompts of a style share 32 beginnings, which caches of prefixes compute once.

Trade-offs: the paper draws a triple of 16 pairs afresh for each prompt; here texts of one sample and style differ by their
seeds alone. A text from a cut caption (see `curate.captions.text`) loses facts, which the gates see. A rewrite does not look
at the image, so it may invent.

Source: Fan et al., Improving CLIP Training with Language Rewrites, 2023, section 3.
"""

import functools
import itertools
from collections.abc import Iterator
from importlib.resources import files
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from curate import ids
from curate.captions.gates.gates import GATES, GateProfile
from curate.captions.kinds.kind import CaptionKind
from curate.captions.prompts import Form, Template, load_template
from curate.captions.text import first_line, one_line, without_quotes
from curate.engines.engine import Request, Sampling
from curate.numeric.mix import mix64
from curate.recipe.captions import Unique

Style = Literal["chat_a", "chat_b", "human", "coco"]
STYLES: tuple[Style, ...] = ("chat_a", "chat_b", "human", "coco")
TRIPLES = 32
FORMS = {
    "completion": Form("rewrite_completion", "v1", fields=("examples",), data=("caption",), is_chat=False),
    "chat": Form("rewrite_chat", "v1", fields=("examples",), data=("caption",)),
}


class Pair(NamedTuple):
    """A caption, and the same in other words."""

    source: str
    target: str


class Rewrite(CaptionKind):
    """The caption rewritten (LaCLIP): styles of in-context examples; `prompt` completion, or chat for chat models.

    Temperature 0.9 and top_p 0.95 are the paper's.
    """

    key: ClassVar[str] = "rewrite"
    kind: ClassVar[str] = "rewrite"
    profile: ClassVar[GateProfile] = GateProfile(GATES)

    styles: Annotated[tuple[Style, ...], Unique] = Field(STYLES, min_length=1)
    prompt: Literal["completion", "chat"] = "completion"

    def load_template(self) -> Template:
        """See `CaptionKind`: by the form of prompt."""
        return load_template(FORMS[self.prompt], self.template)

    def sampling(self, style: str, ordinal: int) -> Sampling:
        """See `CaptionKind`. A chat is not stopped at a line's end, since it may begin with an empty line."""
        temperature = 0.9 if self.temperature is None else self.temperature
        stop = ("\n",) if self.prompt == "completion" else ()
        return Sampling(temperature, 0.95, self.max_tokens or self.tokens, stop)

    def drafts(self, rows: pa.Table, seed: int) -> Iterator[tuple[int | None, Request]]:
        """See `CaptionKind`."""
        template, is_chat = self.load_template(), self.prompt == "chat"
        columns = [rows[name].to_pylist() for name in ("uid", "caption", "per_row")]
        chosen = np.stack([_choose(rows["uid"], style, seed) for style in self.styles], axis=1).tolist()
        for uid, caption, count, triples in zip(*columns, chosen, strict=True):
            if not (caption and one_line(caption)):
                continue
            for style, triple in zip(self.styles, triples, strict=True):
                values = {"examples": _examples(style)[triple], "caption": caption}
                prompt = None if is_chat else template.prompt(**values)
                messages = template.messages(**values) if is_chat else ()
                group = f"{self.kind}/{style}/{triple}"
                yield count, Request(uid, self.kind, style, 0, prompt, messages, group=group)

    def text_of(self, answer: str, style: str) -> str:
        """See `CaptionKind`.

        Of a completion the first line counts, up to another `=>`, after which it rewrites itself; of a chat the first line
        that is not empty, with whatever label a model writes before it.
        """
        if self.prompt == "chat":
            return first_line(answer)
        line = next(iter(answer.splitlines()), "")
        return without_quotes(one_line(line.partition("=>")[0]))

    def examples(self) -> list[str]:
        """See `CaptionKind`."""
        return [text for style in self.styles for pair in load_pairs(style) for text in pair]


@functools.cache
def load_pairs(style: str) -> tuple[Pair, ...]:
    """Return the in-context pairs of one of `STYLES`, as the package's file lists them."""
    text = files("curate.captions").joinpath("examples", f"{style}.txt").read_text("utf-8")
    return tuple(Pair(*line.split(" => ")) for line in text.splitlines())


@functools.cache
def triples(style: str) -> tuple[tuple[int, int, int], ...]:
    """Return the style's 32 triples, as positions in its pool; no two hold the same three pairs.

    Turn after turn, a hash orders the pool and its first three are taken; a triple that was there is passed over.
    """
    pairs = load_pairs(style)
    drawn: dict[frozenset[int], tuple[int, int, int]] = {}
    for turn in itertools.count():
        keys = [ids.hash64(f"{style}\0{turn}\0{pair.source}") for pair in pairs]
        first, second, third = sorted(range(len(pairs)), key=lambda i: keys[i])[:3]
        drawn.setdefault(frozenset((first, second, third)), (first, second, third))
        if len(drawn) == TRIPLES:
            break
    return tuple(drawn.values())


@functools.cache
def _examples(style: str) -> tuple[str, ...]:
    """Return each triple as prompts have it."""
    lines = [f"{pair.source} => {pair.target}" for pair in load_pairs(style)]
    return tuple("\n".join(lines[i] for i in triple) for triple in triples(style))


def _choose(uids: pa.Array, style: str, seed: int) -> npt.NDArray[np.int64]:
    """Return the triple of each uid, 0 to 31: the top bits of a hash of uid, style and seed."""
    high, low = ids.uid_halves(uids)
    key = np.uint64(ids.hash64(f"captions.rewrite\0{style}\0{seed}"))
    return np.asarray(mix64(low ^ mix64(high ^ key)) >> np.uint64(64 - 5)).astype(np.int64)
