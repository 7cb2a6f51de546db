"""Clean untrusted text for prompts, and read the model's answers.

A caption in a prompt is data. `as_data` ensures this: one line, cut to 96 words and 512 characters, without anything
that has a meaning in templates, chat formats or tokenizers:

    line breaks, tabs, control characters      a space
    invisible characters (zero width, bidi)    removed: the model reads only what people see
    < > and their wide forms                   ‹ ›: so neither a delimiter, nor <|im_start|>, <s>, <image>
    => -> ⇒                                    →: the arrow between an example's source and target is the prompt's own
    [INST], [IMG] and any other [word]         (word)
    ‹/caption›, (recaption) and the like       the word alone: nothing looks like a delimiter
    ### and more                               #
    user: assistant: system: human:            the word and a dash: some chat formats write turns as plain text

The stored caption is left as it is.
"""

import re

# Maximum length of a caption in a prompt: about 128 English tokens, so that two fit into CapsFusion's 256.
MAX_WORDS, MAX_CHARACTERS = 96, 512

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# Invisible format characters (Cf) and lone surrogates. U+200C and U+200D are kept, since they are part of spelling.
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001-\U000e007f\ud800-\udfff]+"
)
_BRACKETS = str.maketrans("<>＜＞﹤﹥", "‹›‹›‹›")
_ARROW = re.compile(r"[=\-]+›|⇒")
_MARK = re.compile(r"\[\s*(/?\w+)\s*\]")
_DELIMITER = re.compile(r"[‹«〈⟨({\[]\s*/?\s*((?:re)?caption)\s*/?\s*[›»〉⟩)}\]]", re.IGNORECASE)
_HEADING = re.compile(r"#{2,}")
_TURN = re.compile(r"\b(user|assistant|system|human)\s*[:：]", re.IGNORECASE)

_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "«": "»", "„": "“", "「": "」", "『": "』"}


def one_line(text: str) -> str:
    """Return the text on one line. White space and control characters become one space; invisible ones are removed."""
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    return " ".join(_INVISIBLE.sub("", _CONTROL.sub(" ", text)).split())


def as_data(text: str) -> str:
    """Return the text cleaned for prompts (see the module). Idempotent.

    A long text is cut between words, unless that loses over half of it.
    """
    text = _shorten(one_line(text).translate(_BRACKETS))
    text = _ARROW.sub("→", _TURN.sub(r"\1 -", text))
    replaced = 1
    while replaced:  # removing one match can create another
        text, replaced = _DELIMITER.subn(r" \1 ", text)
    text = " ".join(_HEADING.sub("#", _MARK.sub(r"(\1)", text)).split())
    return _shorten(text)


def first_line(answer: str) -> str:
    """Return the first line of an answer that is not blank, without quotes around it."""
    lines = (one_line(line) for line in answer.splitlines())
    return without_quotes(next((line for line in lines if line), ""))


def without_quotes(text: str) -> str:
    """Return the text without quotes around all of it; unchanged if it has inner quotes, as in `"a" and "b"`."""
    text = text.strip()
    if len(text) < 2 or _QUOTES.get(text[0]) != text[-1]:
        return text
    # In `"a" and "b"` and `"12" frame"`, inner quotes at a word's edge are not apostrophes, so the text is unchanged.
    inner, marks = text[1:-1].strip(), re.escape(text[0] + text[-1])
    return text if re.search(rf"(?<!\w)[{marks}]|[{marks}](?!\w)", inner) else inner


def _shorten(text: str) -> str:
    text = " ".join(text.split(" ")[:MAX_WORDS])
    if len(text) <= MAX_CHARACTERS:
        return text
    end = text.rfind(" ", MAX_CHARACTERS // 2, MAX_CHARACTERS + 1)
    return text[: end if end > 0 else MAX_CHARACTERS].rstrip()
