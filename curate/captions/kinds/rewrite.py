"""Say a caption in other words, after a few examples of how that is done (LaCLIP).

In: `ROWS`. Out: requests of kind `rewrite`, one for each row, style and ordinal. A style is a pool of in-context pairs
`source => target`, all written for this package: chat_a and chat_b in the manner of two chat models, human as people
write offhand, coco as two people caption one image. Of each pool 32 triples are drawn once for all, and a sample gets
one of them by a hash, so that the prompts of a style share 32 beginnings, which caches of prefixes compute once.

What it trades: any triple of 16 pairs could be drawn in the paper, and for each prompt anew; texts of one sample and
style differ by their seeds alone. Captions are cut, see `curate.captions.text`; a text from a cut caption loses facts,
which the gates see. A rewrite does not look at the image, so it may invent.

Source: Fan et al., Improving CLIP Training with Language Rewrites, 2023, section 3.
"""

import functools
import itertools
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate import ids
from curate.captions.prompts import Template, check_known, load_template
from curate.captions.sampling import seeded
from curate.captions.text import first_line, one_line, without_quotes
from curate.engines.request import Request, Sampling

KIND = "rewrite"
STYLES = ("chat_a", "chat_b", "human", "coco")
TRIPLES = 32

ROWS = pa.schema([("uid", pa.string()), ("caption", pa.string()), ("per_row", pa.int32())])
"""What rows bring: `per_row` texts are asked for of each style; none where that or the caption is null, or empty."""


class Pair(NamedTuple):
    """A caption, and the same in other words."""

    source: str
    target: str


@dataclass(frozen=True)
class Rewrite:
    """How captions are rewritten; the defaults are the paper's.

    Attributes:
        styles: some of `STYLES`.
        prompt: completion, as in the paper, for base models; chat for models that follow instructions.
        temperature, top_p, max_tokens: how tokens are drawn.
        seed: the recipe's.
        template: instead of the package's rewrite_completion or rewrite_chat.
    """

    styles: tuple[str, ...] = STYLES
    prompt: Literal["completion", "chat"] = "completion"
    temperature: float = 0.9
    top_p: float = 0.95
    max_tokens: int = 77
    seed: int = 0
    template: Template | None = None

    def __post_init__(self) -> None:
        for style in self.styles:
            check_known("captions.rewrite.styles", style, STYLES)

    @property
    def sampling(self) -> Sampling:
        """Without the request's seed. A chat is not stopped at a line's end, since it may begin with an empty line."""
        stop = ("\n",) if self.prompt == "completion" else ()
        return Sampling(self.temperature, self.top_p, self.max_tokens, stop)


def requests(rows: pa.Table, options: Rewrite) -> list[Request]:
    """What is asked, by row, style and ordinal; a request depends on its own row and the options alone.

    Args:
        rows: the columns of `ROWS`.
        options: how.
    """
    template = options.template or load_template(f"rewrite_{options.prompt}")
    columns = [rows[name].to_pylist() for name in ROWS.names]
    chosen = np.stack([_choose(rows["uid"], style, options.seed) for style in options.styles], axis=1).tolist()
    asked = []
    for uid, caption, count, triples in zip(*columns, chosen, strict=True):
        if not (caption and one_line(caption)):
            continue
        for style, triple in zip(options.styles, triples, strict=True):
            values = {"examples": _examples(style)[triple], "caption": caption}
            chat = options.prompt == "chat"
            request = Request(
                uid=uid,
                kind=KIND,
                style=style,
                ordinal=0,
                prompt=None if chat else template.prompt(**values),
                messages=template.messages(**values) if chat else (),
                group=f"{KIND}/{style}/{triple}",
            )
            asked += [_numbered(request, ordinal, options) for ordinal in range(count or 0)]
    return asked


def text_of(answer: str, prompt: Literal["completion", "chat"]) -> str:
    """The caption that an answer holds: on one line, without quotes around it; empty where there is none.

    Args:
        answer: what came after the prompt.
        prompt: of a completion the first line counts, up to another `=>`, after which it rewrites itself; of a chat the
            first line that is not empty, with whatever label a model writes before it.
    """
    if prompt == "chat":
        return first_line(answer)
    line = next(iter(answer.splitlines()), "")
    return without_quotes(one_line(line.partition("=>")[0]))


@functools.cache
def load_pairs(style: str) -> tuple[Pair, ...]:
    """The in-context pairs of one of `STYLES`, as the package's file lists them."""
    check_known("captions.rewrite.styles", style, STYLES)
    text = files("curate.captions").joinpath("examples", f"{style}.txt").read_text("utf-8")
    return tuple(Pair(*line.split(" => ")) for line in text.splitlines())


@functools.cache
def triples(style: str) -> tuple[tuple[int, int, int], ...]:
    """The style's 32 triples, as positions in its pool; no two hold the same three pairs.

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
    """Each triple as it stands in prompts."""
    lines = [f"{pair.source} => {pair.target}" for pair in load_pairs(style)]
    return tuple("\n".join(lines[i] for i in triple) for triple in triples(style))


def _choose(uids: pa.Array, style: str, seed: int) -> npt.NDArray[np.int64]:
    """The triple of each uid, 0 to 31: the top bits of a hash of uid, style and seed."""
    high, low = ids.uid_halves(uids)
    key = np.uint64(ids.hash64(f"captions.rewrite\0{style}\0{seed}"))
    return np.asarray(ids.mix64(low ^ ids.mix64(high ^ key)) >> np.uint64(64 - 5)).astype(np.int64)


def _numbered(request: Request, ordinal: int, options: Rewrite) -> Request:
    sampling = seeded(options.sampling, request.uid, KIND, request.style, ordinal, options.seed)
    return replace(request, ordinal=ordinal, sampling=sampling)
