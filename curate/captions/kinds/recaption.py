"""Describe an image with a vision-language model, briefly or at length.

Out: requests of kind `recaption`, one per row with an image, style and ordinal. A sample's first text is decoded
greedily; further texts are sampled. With `alt_text`, the model also sees the original caption, for names that an image
does not show, and the prompt warns that the caption may be wrong.

Sources: Xu et al., Altogether, 2024; Awadalla et al., BLIP3-KALE, 2024; Li et al., What If We Recaption Billions of Web
Images with LLaMA-3? (Recap-DataComp-1B), 2024; Mahmoud et al., SIEVE, 2024 (nucleus sampling).
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import pyarrow as pa
from pydantic import Field

from curate.captions.gates.gate import Relation
from curate.captions.kinds.kind import CaptionKind, Text, text_sampling
from curate.captions.kinds.prompts import Form, Template, load_template
from curate.captions.kinds.text import first_line, one_line, without_quotes
from curate.llm.engine import Request, Sampling
from curate.recipe.captions import Unique


class Length(NamedTuple):
    """A style's length: words for the prompt, and a limit in tokens."""

    words: str
    max_tokens: int


STYLES = {
    "short": Length("in one sentence of at most 25 words", 77),
    "plain": Length("", 77),  # for captioners that read only an image
    "long": Length("in detail, in one paragraph of three to six sentences", 256),
}
Styles = Annotated[tuple[Literal["short", "long", "plain"], ...], Unique]
FORM = Form("recaption", "v1", optional=("length",), others=", and caption with alt_text: true")
ALT_TEXT_FORM = Form("recaption_alt_text", "v1", data=("caption",), optional=("length",))


class Recaption(CaptionKind):
    """A vision-language model writes a caption for the image.

    - `short` asks for one sentence of at most 25 words, and `long` for three to six sentences. `plain` is for models
      that read only an image and no text, such as those of the engine `guided`.
    - With `alt_text` (Altogether, KALE), captions can use names from the original. They may also repeat its errors, and
      follow instructions in it.
    - Your own `template` can have the field `{length}`. With `alt_text`, it must have the field `{caption}`.
    """

    example: ClassVar[Any] = {"engine": "vlm", "styles": ["short"], "alt_text": True}
    key: ClassVar[str] = "recaption"
    kind: ClassVar[str] = "recaption"
    needs_images: ClassVar[bool] = True
    # It describes the image, not the caption, so it may omit the caption's numbers, names and entries.
    relation: ClassVar[Relation] = "seen"

    styles: Styles = Field(("short",), examples=[["short", "long"]], min_length=1)
    """Which styles to write."""
    alt_text: bool = Field(False, examples=[True], strict=True)
    """Also show the model the original caption."""

    @property
    def needs_words(self) -> bool:
        return set(self.styles) != {"plain"}

    def load_template(self) -> Template:
        """See `CaptionKind`. The template depends on whether the model sees the original."""
        return load_template(ALT_TEXT_FORM if self.alt_text else FORM, self.template)

    def sampling(self, style: str, ordinal: int) -> Sampling:
        return text_sampling(self.temperature, ordinal, self.max_tokens or STYLES[style].max_tokens)

    def drafts(self, rows: pa.Table, seed: int) -> Iterator[tuple[int | None, Request]]:
        """See `CaptionKind`. `caption` may be null, and is unused without `alt_text`."""
        template, without_caption = self.load_template(), load_template(FORM)
        columns = (rows[name].to_pylist() for name in ("uid", "caption", "sha256", "per_row"))
        for uid, caption, picture, count in zip(*columns, strict=True):
            for style in self.styles if picture is not None else ():
                shown = {"caption": caption} if self.alt_text and caption and one_line(caption) else {}
                form = without_caption if self.alt_text and not shown else template
                messages = () if style == "plain" else form.messages(length=STYLES[style].words, **shown)
                prompt, group = "" if style == "plain" else None, f"{self.kind}/{style}"
                yield count, Request(uid, self.kind, style, 0, prompt, messages, group=group, picture=picture)

    def text_of(self, answer: str, style: str) -> str:
        """See `CaptionKind`. A short text is the first line that is not empty; others keep all lines."""
        return first_line(answer) if style == "short" else without_quotes(one_line(answer))

    @classmethod
    def json_value(cls, texts: Sequence[Text]) -> Any:
        return [text.text for text in texts]
