"""Join a caption and a recaption of its image into one sentence: the caption's facts in the recaption's form.

Out: requests of kind `fused`, one per row and ordinal; none if the caption or the recaption is null or empty. A fused
text has the recaption's style. Trade-offs: both texts are cut to 96 words and 512 characters, together about
CapsFusion's 256 tokens. CapsFusion uses beam search with 3 beams, which few engines offer; here the first text is
greedy.

Sources: Lai et al., VeCLIP, 2023, section 3; Yu et al., CapsFusion, 2023, section 3 (80 new tokens).
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from curate.captions.gates.gate import Relation
from curate.captions.kinds.kind import CaptionKind, Text
from curate.captions.kinds.prompts import Form
from curate.captions.kinds.recaption import Recaption
from curate.captions.kinds.text import one_line
from curate.llm.engine import Request


class Fuse(CaptionKind):
    """A model combines the original caption and a recaption into one sentence (VeCLIP, CapsFusion).

    This needs `captions.recaption`. Do not train on fused texts alone, because this hurts training (VeCLIP): mix them
    with originals. Your own `template` must have the fields `{caption}` and `{recaption}`.
    """

    example: ClassVar[Any] = {"engine": "vlm", "style": "short"}
    key: ClassVar[str] = "fuse"
    kind: ClassVar[str] = "fused"
    is_list: ClassVar[bool] = False
    styles_key: ClassVar[str] = "style"
    tokens: ClassVar[int] = 80
    relation: ClassVar[Relation] = "rewritten"
    form: ClassVar[Form] = Form("fuse", "v1", data=("caption", "recaption"))

    style: Literal["short", "long", "plain"] = Field("short", examples=["long"])
    """Style of the recaption that is combined with the original."""

    @property
    def source(self) -> tuple[type[Recaption], str]:
        return Recaption, self.style

    def drafts(self, rows: pa.Table, seed: int) -> Iterator[tuple[int | None, Request]]:
        template = self.load_template()
        columns = (rows[name].to_pylist() for name in ("uid", "caption", "source", "per_row"))
        for uid, caption, recaption, count in zip(*columns, strict=True):
            if caption and one_line(caption) and recaption and one_line(recaption):
                messages = template.messages(caption=caption, recaption=recaption)
                yield count, Request(uid, self.kind, self.style, 0, messages=messages, group=self.kind)

    @classmethod
    def json_value(cls, texts: Sequence[Text]) -> Any:
        """Return the first text, or None. Further texts are only in table `captions`."""
        return texts[0].text if texts else None
