"""The characters that MetaCLIP and MetaCLIP 2 treat as punctuation marks or as words without spaces, and corrections.

Source: MetaCLIP 2 (arXiv 2507.22062) and its published code, which was read, not copied.
"""

import string
import unicodedata
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

MARKS = ",.;:?!`"
"""A text is spaced around these, so each is a token of its own."""
CORRECTED_MARKS = "，．；：？！｀、。،؟۔।።"
"""Mode `corrected` also adds spaces around these: full-width forms, and Chinese, Arabic, Indic, Ethiopic marks."""
PUNCTUATION = f"{string.punctuation}，。、；：？！“”‘’（）【】《》〈〉「」『』～—"
"""Marks that need no space beside them, at either end of an entry."""
SCRIPTS = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2EBEF), (0xF900, 0xFAFF)),
    *((0x2E80, 0x2EFF), (0x2F00, 0x2FDF), (0x2FF0, 0x2FFF)),  # up to here Chinese
    *((0x0E00, 0x0E7F), (0x0E80, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x0F00, 0x0FFF)),
)
"""First and last code points of blocks that need no space, either: Chinese, Thai, Lao, Burmese, Khmer, Tibetan."""
CORRECTED_SCRIPTS = (
    # CJK symbols and kana, with 々 and ー; Bopomofo; its, kana's extensions and strokes; half-width kana; rare kana.
    *((0x3001, 0x30FF), (0x3100, 0x312F), (0x31A0, 0x31FF), (0xFF66, 0xFF9F), (0x1AFF0, 0x1B16F)),
    # Myanmar Extended A, B and C, Khmer Symbols, Javanese, Balinese, and the planes above 2EBEF.
    *((0xAA60, 0xAA7F), (0xA9E0, 0xA9FF), (0x116D0, 0x116FF), (0x19E0, 0x19FF), (0xA980, 0xA9DF)),
    *((0x1B00, 0x1B7F), (0x2EBF0, 0x3FFFF)),
)
"""Blocks that are missing from `SCRIPTS`, and that mode `corrected` adds."""
WHITE = "".join(filter(str.isspace, map(chr, range(0x3001))))
"""The characters that `str.strip` removes."""
_TOGETHER = 1 << 18  # texts converted to Python objects at a time


def normalize(texts: Any) -> Any:
    """Normalize texts to NFC in Python, because Arrow's `utf8_normalize` decomposes characters that NFC composes."""
    if pc.all(pc.string_is_ascii(texts)).as_py() is not False:
        return texts
    parts = []
    for first in range(0, len(texts), _TOGETHER):
        part = texts[first : first + _TOGETHER]
        others = pc.invert(pc.string_is_ascii(part).fill_null(True))
        composed = [unicodedata.normalize("NFC", text) for text in part.filter(others).to_pylist()]
        parts.append(pc.replace_with_mask(part, others, pa.array(composed, texts.type)))
    return pa.concat_arrays(parts)
