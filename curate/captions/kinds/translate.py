"""Translate captions into other languages. `curate.signals.language` can detect all of them, so a gate can, too.

Out: requests of kind `translation`, one per row, language and ordinal; the style is the language's code.
"""

import re
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import AfterValidator, Field

from curate.base.wording import did_you_mean
from curate.captions.gates.gate import Relation
from curate.captions.kinds.kind import CaptionKind
from curate.captions.kinds.prompts import Form
from curate.captions.kinds.text import one_line
from curate.llm.engine import Request
from curate.recipe.captions import Unique

# ISO 639-1 codes and the English names for prompts.
LANGUAGES: dict[str, str] = tomllib.loads(files("curate.captions.kinds").joinpath("languages.toml").read_text("utf-8"))


def _check_languages(codes: tuple[str, ...]) -> tuple[str, ...]:
    for code in codes:
        if code not in LANGUAGES:
            first, named = re.split("[-_]", code.lower())[0], [f"{key} ({name})" for key, name in LANGUAGES.items()]
            near = did_you_mean(first, named, lambda text: text.partition("(")[2].rstrip(")").lower() or text)
            near = near or did_you_mean(first, named, lambda text: text[:2])
            accepted = f"ISO 639-1 codes of languages that curate can detect: {', '.join(LANGUAGES)}"
            raise ValueError(f"unknown language {code!r}; {near}accepted: {accepted}")
    return codes


Codes = Annotated[tuple[str, ...], Unique, AfterValidator(_check_languages)]


class Translate(CaptionKind):
    """A model translates the caption into other languages.

    curate does not ask for a translation into the caption's own language. Your own `template` must have the fields
    `{language}` and `{caption}`.
    """

    example: ClassVar[Any] = {"engine": "vlm", "languages": ["de", "ja"]}
    key: ClassVar[str] = "translate"
    kind: ClassVar[str] = "translation"
    styles_key: ClassVar[str] = "languages"
    replaces: ClassVar[bool] = False
    tokens: ClassVar[int] = 160
    # Other languages spell names differently, and CLIP scores depend on how well the model understands them.
    relation: ClassVar[Relation] = "translated"
    form: ClassVar[Form] = Form("translate", "v1", fields=("language",), data=("caption",))

    languages: Codes = Field(examples=[["de", "ja"]], min_length=1)
    """ISO 639-1 codes of the target languages."""

    def language(self, style: str) -> str | None:
        return style

    def drafts(self, rows: pa.Table, seed: int) -> Iterator[tuple[int | None, Request]]:
        template = self.load_template()
        columns = (rows[name].to_pylist() for name in ("uid", "caption", "language", "per_row"))
        for uid, caption, language, count in zip(*columns, strict=True):
            for code in self.languages if caption and one_line(caption) else ():
                if code != language:
                    messages = template.messages(language=LANGUAGES[code], caption=caption)
                    yield count, Request(uid, self.kind, code, 0, messages=messages, group=f"{self.kind}/{code}")
