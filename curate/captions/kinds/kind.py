"""The interface of a caption kind: a recipe section that makes requests and reads their answers.

In: `ROWS`, a unit's kept rows. Out: requests, one per row, style and ordinal. A request depends only on its row, the
section and the seed, so asking for more texts per row does not change the first ones.
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

# A row as kinds see it: `language` (ISO 639-1), `sha256` (of its image), `source` (the text that new texts start from,
# see `CaptionSection.source`), each null if there is none; `per_row` (number of texts of each style).
ROWS = pa.schema(
    [(name, pa.string()) for name in ("uid", "caption", "language", "sha256", "source")] + [("per_row", pa.int32())]
)

GREEDY = 0.0
# Sampling when an image gets several texts; top_p as in SIEVE.
NUCLEUS_TEMPERATURE, NUCLEUS_TOP_P = 0.9, 0.9


class Text(NamedTuple):
    """A text that passed all gates."""

    style: str
    ordinal: int
    text: str


class CaptionKind(CaptionSection):
    """Base of the caption kinds."""

    relation: ClassVar[Relation]  # how its texts relate to the caption, which decides the gates that apply
    form: ClassVar[Form]  # of its template; a kind with several templates overrides `load_template`
    tokens: ClassVar[int] = 77  # maximum length of a text

    def load_template(self) -> Template:
        """Return the user's template, or the package's. Raises RecipeError."""
        return load_template(self.form, self.template)

    @abstractmethod
    def drafts(self, rows: pa.Table, seed: int) -> Iterator[tuple[int | None, Request]]:
        """Yield for each row and style the number of texts and their request, still without ordinal and sampling."""

    def requests(self, rows: pa.Table, seed: int) -> list[Request]:
        """Return all requests, sorted by row, style and ordinal."""
        return [
            seeded(replace(draft, ordinal=ordinal, sampling=self.sampling(draft.style, ordinal)), seed)
            for count, draft in self.drafts(rows, seed)
            for ordinal in range(count or 0)
        ]

    def sampling(self, style: str, ordinal: int) -> Sampling:
        """Return a text's sampling settings, still without a seed."""
        return text_sampling(self.temperature, ordinal, self.max_tokens or self.tokens)

    def text_of(self, answer: str, style: str) -> str:
        """Return an answer's caption: one line without surrounding quotes, empty if there is none."""
        return first_line(answer)

    def shown_examples(self) -> list[str]:
        """Return the example texts in its prompts."""
        return []

    def language(self, style: str) -> str | None:
        """Return the language of a style's texts; None for the caption's language."""
        return None

    @classmethod
    def json_value(cls, texts: Sequence[Text]) -> Any:
        """Return its field in `captions` of the json: texts by style; further ones as human_2, human_3, and so on."""
        return {style if not ordinal else f"{style}_{ordinal + 1}": text for style, ordinal, text in texts}


def text_sampling(temperature: float | None, ordinal: int, max_tokens: int) -> Sampling:
    """Return the sampling settings of text number `ordinal`, from 0. `seeded` adds the seed."""
    if temperature is None:  # the first text is greedy; further texts use nucleus sampling
        temperature = NUCLEUS_TEMPERATURE if ordinal else GREEDY
    return Sampling(temperature, 1.0 if temperature == GREEDY else NUCLEUS_TOP_P, max_tokens)


def seeded(request: Request, seed: int) -> Request:
    """Return the request with a hash as its 31-bit seed. A greedy request gets none, so all seeds share its answer."""
    if request.sampling.temperature == GREEDY:
        return request
    purpose = f"{request.uid}\0{request.kind}\0{request.style}\0{request.ordinal}\0{seed}"
    return replace(request, sampling=replace(request.sampling, seed=ids.hash64(purpose) >> 33))
