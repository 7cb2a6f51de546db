"""Splits texts into tokens as MetaCLIP 2 does, for `ngrams`: by characters, or with a tokenizer for the language.

- In languages with spaces between words, each character of Chinese, Thai, Lao, Burmese, Khmer or Tibetan script is a
  token, and so is each punctuation mark and each run of other characters. Marks are not counted, and end a pair.
- In other languages each run of characters between white space goes to the language's tokenizer. Tokens that are all
  punctuation, begin with it, or have an unbalanced bracket, are not counted, and end a pair.

Tags (`<…>` in one line) are removed first, and the end of a text ends a pair. Source: MetaCLIP 2 (arXiv 2507.22062) and
its published code, which was read, not copied.
"""

import re
import threading
import unicodedata
from collections.abc import Callable
from functools import cache, partial
from pkgutil import resolve_name
from typing import Any

from curate.base.errors import RecipeError, needing
from curate.base.numeric.arrays import U8
from curate.match.building.ngrams import make_classes
from curate.match.characters import CORRECTED_MARKS, PUNCTUATION, SCRIPTS, WHITE

MARKS = f"{PUNCTUATION}¿"
_BRACKETS = ("()", "[]", "{}", "“”", "‘’", "（）", "【】", "《》", "〈〉", "「」", "『』")
_TAGS = re.compile(r"&lt;.*?&gt;|<.*?>")
_SPLIT = "\n"  # between two texts, and in place of uncounted tokens
_lock = threading.Lock()  # tokenizers may not be thread-safe, and hold the GIL anyway
Tokenize = Callable[[str], Any]  # returns the tokens of a text


class Tokenizer:
    """Splits a Wikipedia's texts into tokens; immutable, so threads may share it."""

    def __init__(self, wiki: str, corrected: bool = False) -> None:
        self._tokenize = load_tokenizer(wiki)
        self._corrected = corrected
        self.classes = _classes(corrected, self._tokenize is not None)

    def encode(self, text: str) -> bytes:
        """Return a text as bytes for `count_ngrams`. It ends with a BREAK, so that texts can be joined."""
        text = _TAGS.sub("", text) if "<" in text or "&lt;" in text else text
        text = unicodedata.normalize("NFC", text) if self._corrected else text
        text = text.replace("\0", " ")
        if self._tokenize is None:
            return f"{text}\0".encode()
        with _lock:
            tokens = [token for run in text.split() for token in self._tokenize(run) if token]
        plain = " ".join(_SPLIT if _is_odd(token, self._corrected) else token for token in tokens)
        return f"{plain}{_SPLIT}".encode()


@cache
def _classes(corrected: bool, is_tokenized: bool) -> U8:
    if is_tokenized:
        return make_classes(" ", _SPLIT, [])
    return make_classes(WHITE, f"\0{MARKS}{CORRECTED_MARKS if corrected else ''}", SCRIPTS)


def _is_odd(token: str, corrected: bool) -> bool:
    if token[0] in MARKS or (corrected and token[0] in CORRECTED_MARKS):
        return True
    return any((pair[0] in token) != (pair[1] in token) for pair in _BRACKETS)


def load_tokenizer(wiki: str) -> Tokenize | None:
    """Return the tokenizer of a wiki; None if spaces separate words. Raises RecipeError if it is missing."""
    kind = _KINDS.get(wiki)
    if kind is None:
        return None
    load, extra = kind
    with needing(f"{wiki} is written without spaces, and needs a tokenizer", f"'.[{extra}]' in a checkout of curate"):
        return load()


@cache
def _load_chinese() -> Tokenize:
    import logging

    import jieba

    jieba.setLogLevel(logging.WARNING)
    jieba.initialize()
    tokenize: Tokenize = jieba.cut
    return tokenize


@cache
def _load_japanese() -> Tokenize:
    import fugashi
    import ipadic

    tagger = fugashi.GenericTagger(f"{ipadic.MECAB_ARGS} -Owakati")
    return lambda text: tagger.parse(text).split()


@cache
def _load_burmese() -> Tokenize:
    from burmesenlp import word_tokenize
    from burmesenlp.lexicon import Lexicon

    return partial(word_tokenize, lexicon=Lexicon.default())  # otherwise it is read again for each text


@cache
def _load_tibetan() -> Tokenize:
    from botok import WordTokenizer, config

    pack = config.DEFAULT_BASE_PATH / config.DEFAULT_DIALECT_PACK
    if not pack.is_dir():  # without a network it would retry the download for an hour
        remedy = "to download it once, run python -c 'import botok; botok.WordTokenizer()'"
        raise RecipeError(f"botok, the tokenizer of bo and dz, has no dictionary at {pack}; {remedy}")
    tokenizer = WordTokenizer(config.Config(config.DEFAULT_DIALECT_PACK, config.DEFAULT_BASE_PATH))
    return lambda text: (token.text for token in tokenizer.tokenize(text, split_affixes=False))


_KINDS: dict[str, tuple[Callable[[], Tokenize], str]] = {  # loader and extra
    **dict.fromkeys(("zh", "zh_classical", "zh_yue"), (_load_chinese, "zh")),
    **dict.fromkeys(("ja", "ryu"), (_load_japanese, "ja")),
    **dict.fromkeys(("bo", "dz"), (_load_tibetan, "bo")),
    "th": (partial(resolve_name, "pythainlp.tokenize:word_tokenize"), "th"),
    "km": (partial(resolve_name, "khmercut:tokenize"), "km"),
    "lo": (partial(resolve_name, "laonlp.tokenize:word_tokenize"), "lo"),
    "my": (_load_burmese, "my"),
}
