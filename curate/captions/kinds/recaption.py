"""Describe an image by a vision-language model, in short or in long.

In: `ROWS`. Out: requests of kind `recaption`, one for each row, style and ordinal, each naming its image. The first
text of a sample is the model's likeliest, further ones are drawn; asking for more leaves the first ones as they are.

With `alt_text` the model is shown the original caption too, since it names what a picture alone cannot tell, and is
told that it may be wrong (Altogether; KALE). What that trades: names come in, and so do errors and what strangers want
to be said; such texts are no longer independent of the caption that they may be compared with.

Sources: Xu et al., Altogether, 2024; Awadalla et al., BLIP3-KALE, 2024; Li et al., What If We Recaption Billions of Web
Images with LLaMA-3? (Recap-DataComp-1B), 2024; Mahmoud et al., SIEVE, 2024 (nucleus sampling).
"""

from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from curate.captions.prompts import Template, check_known, load_template
from curate.captions.sampling import seeded, text_sampling
from curate.captions.text import first_line, one_line, without_quotes
from curate.engines.request import Message, Request

KIND = "recaption"

ROWS = pa.schema([("uid", pa.string()), ("caption", pa.string()), ("sha256", pa.string()), ("per_row", pa.int32())])
"""What rows bring: `per_row` texts are asked for of each style; none where that or the image's sha256 is null."""


class Length(NamedTuple):
    """What a style asks for, and how many tokens it may take."""

    words: str
    max_tokens: int


STYLES = {
    "short": Length("in one sentence of at most 25 words", 77),
    "plain": Length("", 77),  # of captioners that are given an image and nothing else
    "long": Length("in detail, in one paragraph of three to six sentences", 256),
}


@dataclass(frozen=True)
class Recaption:
    """How images are described.

    Attributes:
        styles: some of `STYLES`.
        alt_text: whether the model is shown the original caption, where there is one.
        temperature: of every text; None: the first is greedy, further ones are drawn at 0.9, top_p 0.9.
        max_tokens: at most so many; None: by the style.
        seed: the recipe's.
        template: instead of the package's recaption, or recaption_alt_text with `alt_text`.
    """

    styles: tuple[str, ...] = ("short",)
    alt_text: bool = False
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int = 0
    template: Template | None = None

    def __post_init__(self) -> None:
        for style in self.styles:
            check_known("captions.recaption.styles", style, STYLES)


def requests(rows: pa.Table, options: Recaption) -> list[Request]:
    """What is asked, by row, style and ordinal; a request depends on its own row and the options alone.

    Args:
        rows: the columns of `ROWS`; `caption` may be null, and is not looked at without `alt_text`.
        options: how.
    """
    asked = []
    for uid, caption, picture, count in zip(*(rows[name].to_pylist() for name in ROWS.names), strict=True):
        if picture is None:
            continue
        for style in options.styles:
            is_plain = style == "plain"
            messages = () if is_plain else _messages(options, style, caption)
            for ordinal in range(count or 0):
                sampling = text_sampling(options.temperature, ordinal, options.max_tokens or STYLES[style].max_tokens)
                sampling = seeded(sampling, uid, KIND, style, ordinal, options.seed)
                group = f"{KIND}/{style}"
                request = Request(
                    uid, KIND, style, ordinal, "" if is_plain else None, messages, None, sampling, group, picture
                )
                asked.append(request)
    return asked


def text_of(answer: str, style: str) -> str:
    """The caption that an answer holds, on one line and without quotes around it; empty where there is none.

    Args:
        answer: what the model said.
        style: of a short one the first line that is not empty counts; of a long one all lines.
    """
    return first_line(answer) if style == "short" else without_quotes(one_line(answer))


def _messages(options: Recaption, style: str, caption: str | None) -> tuple[Message, ...]:
    length = STYLES[style].words
    if not options.alt_text:
        return (options.template or load_template("recaption")).messages(length=length)
    if not (caption and one_line(caption)):
        return load_template("recaption").messages(length=length)
    return (options.template or load_template("recaption_alt_text")).messages(length=length, caption=caption)
