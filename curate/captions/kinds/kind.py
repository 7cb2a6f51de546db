"""The interface of a kind of captions: a section of a recipe that knows its requests, and what becomes of their answers.

In: `ROWS`, a unit's kept rows. Out: requests, one for each row, style and ordinal. A request depends on its own row, the
section and the seed alone; so asking for more texts of a row leaves the first ones as they are.

Adding a kind: one file like those in this folder, and its class in `registry`.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from curate.captions.gates.profile import GateProfile
from curate.captions.kinds.sampling import seeded, text_sampling
from curate.captions.prompts import Form, Template, load_template
from curate.captions.text import first_line
from curate.engines.request import Request, Sampling
from curate.recipe.captions import CaptionSection

ROWS = pa.schema(
    [(name, pa.string()) for name in ("uid", "caption", "language", "sha256", "source")] + [("per_row", pa.int32())]
)
"""What kinds know of a row: `language` is an ISO 639-1 code or null, `sha256` that of its image or null, `source` the text that
its own is made of (see `CaptionSection.source`) or null; `per_row` how many texts it gets of each style."""


class Text(NamedTuple):
    """A text that passed all gates."""

    style: str
    ordinal: int
    text: str


class CaptionKind(CaptionSection):
    """Base of the kinds of captions; `profile` says which gates judge its texts, `tokens` how long one is at most."""

    profile: ClassVar[GateProfile]
    tokens: ClassVar[int] = 77

    @property
    @abstractmethod
    def form(self) -> Form:
        """The form of its template."""

    def load_template(self) -> Template:
        """Return the user's template, or the package's. Raises RecipeError."""
        return load_template(self.form, self.template)

    @abstractmethod
    def drafts(self, rows: pa.Table, seed: int) -> Iterator[tuple[int | None, Request]]:
        """Yield, by row and style, how many texts there are to be, and the request of each but for ordinal and sampling.

        Args:
            rows: the columns of `ROWS`.
            seed: the recipe's.
        """

    def requests(self, rows: pa.Table, seed: int) -> list[Request]:
        """Return the requests by row, style and ordinal; arguments as of `drafts`."""
        return [
            replace(draft, ordinal=ordinal, sampling=seeded(self.sampling(draft.style, ordinal), draft, ordinal, seed))
            for count, draft in self.drafts(rows, seed)
            for ordinal in range(count or 0)
        ]

    def sampling(self, style: str, ordinal: int) -> Sampling:
        """Return how the tokens of a text are drawn, but for the seed."""
        return text_sampling(self.temperature, ordinal, self.max_tokens or self.tokens)

    def text_of(self, answer: str, style: str) -> str:
        """Return the caption that an answer holds, on one line and without quotes around it; empty where there is none."""
        return first_line(answer)

    def examples(self) -> list[str]:
        """Return the texts that its prompts hold as examples."""
        return []

    def language(self, style: str) -> str | None:
        """Return the language that a style's texts are in; None for the caption's."""
        return None

    @classmethod
    def json_value(cls, texts: Sequence[Text]) -> Any:
        """Return its field of `captions` in the json: texts by style; further ones of a style are human_2, human_3 …."""
        return {style if not ordinal else f"{style}_{ordinal + 1}": text for style, ordinal, text in texts}
