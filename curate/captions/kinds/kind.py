"""The interface of a kind of captions: a recipe's section that makes requests, and reads their answers.

In: `ROWS`, a unit's kept rows. Out: requests, one for each row, style and ordinal. A request depends on its row, the
section and the seed alone, so more texts of a row leave the first ones as they are.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from curate.base import ids
from curate.captions.gates.gate import Relation
from curate.captions.kinds.prompts import Form, Template, load_template
from curate.captions.kinds.text import first_line
from curate.llm.engine import Request, Sampling
from curate.recipe.captions import CaptionSection

# What kinds know of a row: `language` ISO 639-1, `sha256` its image's, `source` the text that its own is made of
# (`CaptionSection.source`), each null where there is none; `per_row` how many texts it gets of each style.
ROWS = pa.schema(
    [(name, pa.string()) for name in ("uid", "caption", "language", "sha256", "source")] + [("per_row", pa.int32())]
)

GREEDY = 0.0
# How several texts of one image are drawn; top_p as in SIEVE.
NUCLEUS_TEMPERATURE, NUCLEUS_TOP_P = 0.9, 0.9


class Text(NamedTuple):
    """A text that passed all gates."""

    style: str
    ordinal: int
    text: str


class CaptionKind(CaptionSection):
    """Base of the kinds of captions."""

    relation: ClassVar[Relation]  # what its texts are to the caption, by which gates judge them
    form: ClassVar[Form]  # of its template; a kind that has several chooses in `load_template`
    tokens: ClassVar[int] = 77  # how long a text is at most

    def load_template(self) -> Template:
        """Return the user's template, or the package's. Raises RecipeError."""
        return load_template(self.form, self.template)

    @abstractmethod
    def drafts(self, rows: pa.Table, seed: int) -> Iterator[tuple[int | None, Request]]:
        """Yield, by row and style, the number of texts to write, and their request but for ordinal and sampling."""

    def requests(self, rows: pa.Table, seed: int) -> list[Request]:
        """Return the requests by row, style and ordinal."""
        return [
            seeded(replace(draft, ordinal=ordinal, sampling=self.sampling(draft.style, ordinal)), seed)
            for count, draft in self.drafts(rows, seed)
            for ordinal in range(count or 0)
        ]

    def sampling(self, style: str, ordinal: int) -> Sampling:
        """Return how the tokens of a text are drawn, but for the seed."""
        return text_sampling(self.temperature, ordinal, self.max_tokens or self.tokens)

    def text_of(self, answer: str, style: str) -> str:
        """Return the caption that an answer holds: one line without quotes around it, empty where there is none."""
        return first_line(answer)

    def shown_examples(self) -> list[str]:
        """Return the texts that its prompts hold as examples."""
        return []

    def language(self, style: str) -> str | None:
        """Return the language that a style's texts are in; None for the caption's."""
        return None

    @classmethod
    def json_value(cls, texts: Sequence[Text]) -> Any:
        """Return its field of `captions` in the json: texts by style, and further ones by human_2, human_3 …."""
        return {style if not ordinal else f"{style}_{ordinal + 1}": text for style, ordinal, text in texts}


def text_sampling(temperature: float | None, ordinal: int, max_tokens: int) -> Sampling:
    """Return how text number `ordinal`, counted from 0, is drawn, but for the seed, which `seeded` adds."""
    if temperature is None:  # the first one is greedy, and further ones are drawn from the nucleus of 0.9
        temperature = NUCLEUS_TEMPERATURE if ordinal else GREEDY
    return Sampling(temperature, 1.0 if temperature == GREEDY else NUCLEUS_TOP_P, max_tokens)


def seeded(request: Request, seed: int) -> Request:
    """Return the request with a seed of 31 bits, by a hash of what it is for; a greedy one is cached for any `seed`."""
    if request.sampling.temperature == GREEDY:
        return request
    purpose = f"{request.uid}\0{request.kind}\0{request.style}\0{request.ordinal}\0{seed}"
    return replace(request, sampling=replace(request.sampling, seed=ids.hash64(purpose) >> 33))
