"""Rewrite a caption in other words, with a few in-context examples (LaCLIP).

Out: requests of kind `rewrite`, one per row, style and ordinal. A style is a pool of in-context pairs
`source => target`: the package's own, or a user's file. Each pool has 32 fixed triples, and a hash picks one per
sample. So the prompts of a style share 32 prefixes, which engines can cache.

Trade-off: the paper draws a new triple from 16 pairs for each prompt; here texts of one sample and style differ only by
their seeds.

Source: Fan et al., Improving CLIP Training with Language Rewrites, 2023, section 3.
"""

import functools
import itertools
import math
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from curate.base import ids
from curate.base.errors import RecipeError
from curate.base.numeric.elementary import mix64
from curate.captions.gates.gate import Relation
from curate.captions.kinds.kind import CaptionKind
from curate.captions.kinds.prompts import Form, Template, load_template, read_lines
from curate.captions.kinds.text import first_line, one_line, without_quotes
from curate.llm.engine import Request, Sampling
from curate.recipe.captions import Unique
from curate.recipe.section import Name, UserFile, fault

STYLES = ("chat_a", "chat_b", "human", "coco")
_ACCEPTED = f"{', '.join(STYLES)}, and keys of examples"
TRIPLES = 32
_SHOWN = 3  # pairs in a prompt
_EXAMPLES = ("examples", *(f"{side}_{number}" for number in range(1, _SHOWN + 1) for side in ("source", "target")))
FORMS = {
    "completion": Form("rewrite_completion", "v1", data=("caption",), optional=_EXAMPLES, is_chat=False),
    "chat": Form("rewrite_chat", "v1", data=("caption",), optional=_EXAMPLES),
}


class Pair(NamedTuple):
    """A caption and its rewrite."""

    source: str
    target: str


class Rewrite(CaptionKind):
    """A model writes the caption in other words. The prompt shows it three examples of a style (LaCLIP).

    - `examples` adds your own styles. Each style is a file with three or more lines `caption => the same in other
      words`. If you do not set `styles`, your own styles replace the built-in ones.
    - Your own `template` must have the field `{caption}`. For the examples, it can have the field `{examples}`, which
      becomes three lines, or the fields `{source_1}`, `{target_1}`, and so on to `{target_3}`. If the template has none
      of these fields, set only one style.
    - With `template` and `examples`, you can use LaCLIP's own prompt and examples.
    - By default, the temperature is 0.9 and top_p is 0.95, as in the paper.
    """

    example: ClassVar[Any] = {"engine": "vlm", "styles": ["chat_a", "human"], "prompt": "chat"}
    key: ClassVar[str] = "rewrite"
    kind: ClassVar[str] = "rewrite"
    relation: ClassVar[Relation] = "rewritten"

    styles: Annotated[tuple[Name, ...], Unique] = Field(STYLES, examples=[["chat_a", "human"]], min_length=1)
    """Which styles to use: built-in ones, or keys of `examples`."""
    prompt: Literal["completion", "chat"] = Field("completion", examples=["chat"])
    """Form of the prompt: a text that the model continues (`completion`), or a chat, for chat models (`chat`)."""
    examples: dict[Name, UserFile] | None = Field(None, examples=[{"chatgpt": "pairs.txt"}], min_length=1)
    """Your own styles. Each name gets a file of examples. null: no styles of your own."""

    @model_validator(mode="before")
    @classmethod
    def _styles_of_examples(cls, plain: Any) -> Any:
        if isinstance(plain, dict) and isinstance(plain.get("examples"), dict) and plain.get("styles") is None:
            return plain | {"styles": tuple(plain["examples"])}
        return plain

    @model_validator(mode="after")
    def _styles_are_known(self) -> "Rewrite":
        if self.template is None and (unknown := self._without_examples()):
            raise fault("styles", f"{unknown[0]!r} is not a style; accepted: {_ACCEPTED}")
        if numbered := [style for style in self.styles if re.search(r"_\d+$", style)]:
            raise fault("styles", f"{numbered[0]!r} ends in a number, like the names of additional captions; rename it")
        return self

    def _without_examples(self) -> list[str]:
        return [style for style in self.styles if style not in (*STYLES, *(self.examples or ()))]

    def load_template(self) -> Template:
        """See `CaptionKind`. The form depends on the engine. A template without examples allows only one style."""
        return load_template(FORMS[self.prompt], self.template, self._faults_of_examples)

    def _faults_of_examples(self, template: Template) -> Iterator[str]:
        if template.fields.isdisjoint(_EXAMPLES):
            if self.examples or len(self.styles) > 1:
                shown = "examples" if self.examples else f"{len(self.styles)} styles"
                accepted = f"fields {', '.join(_EXAMPLES)}, or one style without examples"
                yield f"has no fields for examples, but the section has {shown}; accepted: {accepted}"
        elif unknown := self._without_examples():
            yield f"has fields for examples, but style {unknown[0]!r} has no examples; accepted: {_ACCEPTED}"

    def pairs(self, style: str) -> tuple[Pair, ...]:
        """Return a style's in-context pairs; empty if its prompt shows no examples. Raises RecipeError."""
        if self.examples and style in self.examples:
            return read_pairs(self.examples[style])
        return load_pairs(style) if style in STYLES else ()

    def sampling(self, style: str, ordinal: int) -> Sampling:
        """See `CaptionKind`. A chat does not stop at a line's end, since its answer may begin with an empty line."""
        temperature = 0.9 if self.temperature is None else self.temperature
        stop = ("\n",) if self.prompt == "completion" else ()
        return Sampling(temperature, 0.95, self.max_tokens or self.tokens, stop)

    def drafts(self, rows: pa.Table, seed: int) -> Iterator[tuple[int | None, Request]]:
        template, is_chat = self.load_template(), self.prompt == "chat"
        columns = [rows[name].to_pylist() for name in ("uid", "caption", "per_row")]
        shown = [_examples(style, self.pairs(style)) for style in self.styles]
        uids = rows["uid"].combine_chunks()
        chosen = [_choose(uids, style, seed, len(pool)) for style, pool in zip(self.styles, shown, strict=True)]
        for uid, caption, count, *triples in zip(*columns, *chosen, strict=True):
            styles = zip(self.styles, shown, triples, strict=True) if caption and one_line(caption) else ()
            for style, pool, triple in styles:
                values = {**pool[triple], "caption": caption}
                prompt = None if is_chat else template.prompt(**values)
                messages = template.messages(**values) if is_chat else ()
                group = f"{self.kind}/{style}/{triple}"
                yield count, Request(uid, self.kind, style, 0, prompt, messages, group=group)

    def text_of(self, answer: str, style: str) -> str:
        """See `CaptionKind`. A chat's text is its first line that is not empty; others end with the line or at `=>`."""
        if self.prompt == "chat":
            return first_line(answer)
        line = next(iter(answer.splitlines()), "")
        return without_quotes(one_line(line.partition("=>")[0]))

    def shown_examples(self) -> list[str]:
        return [text for style in self.styles for pair in self.pairs(style) for text in pair]

    def examples_digest(self) -> str | None:
        return ids.digest([[style, self.pairs(style)] for style in self.styles]) if self.examples else None


@functools.cache
def load_pairs(style: str) -> tuple[Pair, ...]:
    """Return the in-context pairs of one of `STYLES`, from the package's file."""
    text = files("curate.captions").joinpath("examples", f"{style}.txt").read_text("utf-8")
    return tuple(Pair(*line.split(" => ")) for line in text.splitlines())


def read_pairs(path: str) -> tuple[Pair, ...]:
    """Return the pairs in a user's file, one `source => target` per line; empty lines are skipped.

    Raises RecipeError if the file cannot be read, a line is malformed, or there are fewer than three pairs.
    """
    pairs: dict[Pair, None] = {}
    for number, line in enumerate(read_lines(path, "examples of rewrite"), 1):
        source, arrow, target = (part.strip() for part in line.partition("=>"))
        if line.strip() and not (source and arrow and target and "=>" not in target):
            raise RecipeError(f"{path}: line {number} is {line[:80]!r}; accepted: CAPTION => CAPTION IN OTHER WORDS")
        if arrow:
            pairs[Pair(source, target)] = None
    if len(pairs) < _SHOWN:
        raise RecipeError(f"{path}: has {len(pairs)} different pairs; accepted: at least {_SHOWN}")
    return tuple(pairs)


@functools.cache
def draw_triples(style: str, pairs: tuple[Pair, ...]) -> tuple[tuple[int, int, int], ...]:
    """Return a style's 32 triples as indices into its pool, all different; fewer for a small pool."""
    drawn: dict[frozenset[int], tuple[int, int, int]] = {}
    for turn in itertools.count():  # a hash orders the pool; its first three pairs are a triple, unless drawn before
        keys = [ids.hash64(f"{style}\0{turn}\0{pair.source}") for pair in pairs]
        first, second, third = sorted(range(len(pairs)), key=lambda i: keys[i])[:3]
        drawn.setdefault(frozenset((first, second, third)), (first, second, third))
        if len(drawn) == min(TRIPLES, math.comb(len(pairs), _SHOWN)):
            break
    return tuple(drawn.values())


@functools.cache
def _examples(style: str, pairs: tuple[Pair, ...]) -> tuple[dict[str, str], ...]:
    """Return each triple's template fields; for a style without pairs, a single entry without fields."""
    examples = []
    for triple in draw_triples(style, pairs) if pairs else ():
        shown = [pairs[i] for i in triple]
        fields = {"examples": "\n".join(f"{pair.source} => {pair.target}" for pair in shown)}
        for number, pair in enumerate(shown, 1):
            fields |= {f"source_{number}": pair.source, f"target_{number}": pair.target}
        examples.append(fields)
    return tuple(examples) or ({},)


def _choose(uids: pa.Array, style: str, seed: int, count: int) -> list[int]:
    """Return the index of each uid's triple, below 32, from the top bits of a hash of uid, style and seed."""
    high, low = ids.uid_halves(uids)
    key = np.uint64(ids.hash64(f"captions.rewrite\0{style}\0{seed}"))
    return list((mix64(low ^ mix64(high ^ key)) >> np.uint64(32)).astype(np.int64) * count >> 32)
