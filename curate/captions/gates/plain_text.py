"""Normalize a text before facts are read from it: one spelling per character, no addresses."""

import html
import re
import unicodedata

# Bounded and anchored at word starts, so that an untrusted long line without spaces does not take quadratic time.
_PLACE = re.compile(
    r"(?<![^\W_])(?:https?://|www\.)\S*|(?<!\S)[^\s@]{1,64}@[^\s@]{1,255}\.\w+|<[^<>]*>|[@#][^\W\d]\w*"
    r"|(?<![^\s/])[^\s/]{1,255}\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg|pdf|html?|php)\b",
    re.IGNORECASE,
)
_MARK = re.compile(r"\.[^\W\d_]|//|www\.|[@#][^\W\d]|<|\S@")
_ENTITY = re.compile(r"&#?\w+;")
_THIN = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
# Powers of units: the 2 in m² is not a number.
_SIGNS: dict[int, str] = dict.fromkeys(map(ord, "⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉\u00a0®™©"), " ")
_SIGNS |= {**dict.fromkeys(map(ord, "’‘"), "'"), **dict.fromkeys(map(ord, "–—"), "-")}
_DIGIT = re.compile(r"[^\D0-9]")


def plain(text: str) -> str:
    """Return the normalized text: HTML entities decoded, compatibility forms folded (NFKD), no accents, ASCII
    apostrophes and digits. ASCII text without an ampersand is unchanged."""
    if "&" in text and _ENTITY.search(text):
        text = html.unescape(text)
    if text.isascii():
        return text
    text = _THIN.sub(",", text).translate(_SIGNS)
    if text.isascii():
        return text
    text = "".join([char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char)])
    return text if text.isascii() else _DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), text)


def without_places(text: str) -> str:
    """Return the text without URLs, e-mail addresses, HTML tags, file names, mentions and hashtags."""
    return _PLACE.sub(" ", text) if _MARK.search(text) else text
