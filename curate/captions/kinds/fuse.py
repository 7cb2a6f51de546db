"""Join a caption and a recaption of its image into one sentence: what the one knows, in the form of the other.

In: `ROWS`. Out: requests of kind `fused`, one for each row and ordinal. The recaption is a text that was made before,
see `curate.captions.kinds.recaption`; its style is the fused text's style.

What it trades: both texts are cut to 96 words and 512 characters, about CapsFusion's 256 tokens together, so of a long
recaption the end is lost. CapsFusion searches with 3 beams; few engines offer that, so the first text is greedy. Fused
texts alone hurt in training (VeCLIP): mix them with originals.

Sources: Lai et al., VeCLIP, 2023, section 3; Yu et al., CapsFusion, 2023, section 3 (80 new tokens).
"""

from dataclasses import dataclass

import pyarrow as pa

from curate.captions.prompts import Template, load_template
from curate.captions.sampling import seeded, text_sampling
from curate.captions.text import first_line, one_line
from curate.engines.request import Request

KIND = "fused"

ROWS = pa.schema([("uid", pa.string()), ("caption", pa.string()), ("recaption", pa.string()), ("per_row", pa.int32())])
"""What rows bring: `per_row` texts are asked for; none where that, the caption or the recaption is null, or empty."""


@dataclass(frozen=True)
class Fuse:
    """How captions are joined.

    Attributes:
        style: that of the recaptions.
        temperature: of every text; None: the first is greedy, further ones are drawn at 0.9, top_p 0.9.
        max_tokens: at most so many.
        seed: the recipe's.
        template: instead of the package's fuse.
    """

    style: str = "short"
    temperature: float | None = None
    max_tokens: int = 80
    seed: int = 0
    template: Template | None = None


def requests(rows: pa.Table, options: Fuse) -> list[Request]:
    """What is asked, by row and ordinal; a request depends on its own row and the options alone.

    Args:
        rows: the columns of `ROWS`.
        options: how.
    """
    template = options.template or load_template("fuse")
    asked = []
    for uid, caption, recaption, count in zip(*(rows[name].to_pylist() for name in ROWS.names), strict=True):
        if not (caption and one_line(caption) and recaption and one_line(recaption)):
            continue
        messages = template.messages(caption=caption, recaption=recaption)
        for ordinal in range(count or 0):
            sampling = text_sampling(options.temperature, ordinal, options.max_tokens)
            sampling = seeded(sampling, uid, KIND, options.style, ordinal, options.seed)
            asked.append(Request(uid, KIND, options.style, ordinal, None, messages, None, sampling, KIND))
    return asked


def text_of(answer: str) -> str:
    """The caption that an answer holds: its first line that is not empty, without quotes around it; empty if none."""
    return first_line(answer)
