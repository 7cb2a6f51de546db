"""Find noun phrases in English captions: the queries for an open-vocabulary detector.

A phrase is a run of nouns with the adjectives and participles before them. Prepositions, conjunctions, verbs and
punctuation end a phrase. Articles, possessives and counts are dropped, since a box contains one object:

    "Two dogs are chasing the small red ball of a boy on the left"  →  dogs, small red ball, boy

It skips pronouns, dates, measures, bare colors ("dressed in black"), sides ("on the left"), words for the picture
itself ("stock photo of"), and quantity words before "of" ("a bunch of flowers" gives flowers).

Parts of speech come from TextBlob's lexicon (Brill's, 94,000 words), which ignores context. Only the neighboring words
decide between noun and verb, and sometimes wrongly. On hand-annotated captions (tests/captions/test_regions.py),
precision is 0.90 to 0.93 and recall 0.92.
"""

import itertools
import re
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, NamedTuple

import pyarrow as pa

from curate.base.errors import needing
from curate.base.process import process_cache

_FILE = files("curate.captions").joinpath("phrase_words.toml")
_WORDS = {name: frozenset(words.split()) for name, words in tomllib.loads(_FILE.read_text("ascii")).items()}
_DETERMINERS = {"DT", "PDT", "PRP$"}
_CLOSED = {"IN", "CC", "TO", "PRP", "WDT", "WP", "WP$", "WRB", "EX", "RP", "MD", "UH"}

# A word includes inner punctuation (U.S., T-Shirts, Women's) and the apostrophe of "dogs' beds".
# All other punctuation ends a phrase.
_TOKEN = re.compile(r"[^\W_]+(?:['’.&+-][^\W_]+|(?<=\d)[,:/]\d+)*(?:(?<=s)['’](?=\s+\w))?|\S")
_UNIT = r"mm|cm|km|inch|inches|ft|px|oz|lbs?|kg|ml|pcs?"
_NUMBER = re.compile(rf"\d[\d.,:/x×-]*(?:st|nd|rd|th|-?(?:{_UNIT}|m|in|g|l|w|v))?|[x×]|{_UNIT}", re.IGNORECASE)


class _Word(NamedTuple):
    """A word and its role: "noun", "modifier", "ing", "participle", "number", "determiner", "and", or "stop"."""

    text: str
    kind: str


_END = _Word("", "stop")


def noun_phrases(captions: pa.Array) -> pa.Array:
    """Return each caption's distinct noun phrases (list<string>, null for null). Needs TextBlob."""
    rows: list[list[str] | None] = []
    for text in captions.to_pylist():
        phrases: dict[str, str] = {}
        for phrase in (_trimmed(run, after) for run, after in _runs(_words(text or ""))):
            if phrase:
                phrases.setdefault(phrase.lower(), phrase)  # distinct regardless of case
        rows.append(None if text is None else list(phrases.values()))
    return pa.array(rows, pa.list_(pa.string()))


def _words(text: str) -> list[_Word]:
    """Return a text's words in order, with `_END` where punctuation ends a phrase."""
    segments: list[list[str]] = [[]]
    for token in _TOKEN.findall(text):
        if token[0].isalnum() or token == "&":
            segments[-1].append(token)
        elif token != "." or not segments[-1] or not _is_short(segments[-1][-1]):
            segments.append([])
    segments = [segment for segment in segments if segment]
    capitals = text.isupper()
    smalls = _tags([[word.lower() for word in segment] for segment in segments])
    tags = iter(zip(smalls if capitals else _tags(segments), smalls, strict=True))
    words = [_END]
    for segment in segments:
        for word in segment:
            tag, small = next(tags)
            words.append(_Word(word, "and" if word == "&" else _kind(word, tag, small, words[-1], capitals)))
        words.append(_END)
    return words


def _is_short(text: str) -> bool:
    """Return whether a period after a word belongs to an abbreviation: St. Louis, J. Smith, U.S. Route."""
    return text in _WORDS["abbreviations"] or (text.isupper() and (len(text) == 1 or "." in text))


def _kind(text: str, tag: str, small: str, before: _Word, capitals: bool) -> str:
    """Return a word's role, from its part of speech as written (`tag`) and in lower case (`small`)."""
    low, name = text.lower().replace("’", "'"), not capitals and not text[0].islower()
    if low in _WORDS["stops"] or (name and low in _WORDS["dates"]) or (not name and low in _WORDS["verbs"]):
        return "stop"
    if _NUMBER.fullmatch(text) or small == "CD":
        return "number"
    if small in _DETERMINERS or low in _WORDS["quantifiers"]:
        return "determiner"
    if small in _CLOSED and not (name and (text in ("US", "IT") or small == "MD")):
        return "stop"
    if low in _WORDS["quantities"] or low in _WORDS["picture"] or low in _WORDS["places"]:
        return "noun"
    return _content_kind(low, tag, small, before, name, capitals)


def _content_kind(low: str, tag: str, small: str, before: _Word, name: bool, capitals: bool) -> str:
    """Return the role of a content word: `low` is its lower case; `name`: is it a proper name?"""
    if small.startswith("JJ") or (small == "RB" and (capitals or (name and tag == "RB"))):
        return "modifier"
    if small == "VBN" or (small == "VBD" and low.endswith("ed")):
        return "participle"
    if name or tag.startswith(("NN", "FW")):
        return "noun"
    if tag == "VBG":
        return "ing"
    # The lexicon prefers verbs, but captions mostly use such words as nouns (a print). After a plural it is a verb.
    singular = before.text[-1:] != "s" and before.text.lower() not in _WORDS["plurals"]
    nominal = singular and before.kind in ("determiner", "modifier", "number", "noun")
    return "noun" if tag in ("VB", "VBP") and nominal else "stop"


def _runs(words: list[_Word]) -> Iterator[tuple[list[_Word], _Word]]:
    run: list[_Word] = []
    for i, word in enumerate(words[1:], 1):
        if i + 1 < len(words) and _goes_on(run, words[i - 1], word, words[i + 1]):
            run.append(word)
        else:
            yield run, word
            run = []


def _goes_on(run: list[_Word], before: _Word, word: _Word, after: _Word) -> bool:
    if word.kind == "and":  # Halden & Voss
        return bool(run) and run[-1].text[0].isupper() and after.text[:1].isupper()
    if word.kind in ("determiner", "stop"):
        return False
    if not word.text[0].islower():
        return True
    if word.kind == "ing":  # "two sleeping dogs", but not "a man eating pizza"
        begins = all(earlier.kind in ("number", "modifier") for earlier in run)
        return begins and before.kind in ("determiner", "number", "modifier") and after.kind in ("noun", "modifier")
    if word.kind == "participle":
        return after.kind in ("noun", "modifier", "participle")
    # Two phrases in a row need a verb between them: "rides" in "a boy rides the horse" is tagged as a noun.
    met = (run and word.text.endswith("s")) or before.text.lower() == "to"
    return not (met and word.kind == "noun" and after.kind == "determiner")


def _trimmed(run: list[_Word], after: _Word) -> str:
    """Return the run's phrase, from after its counts to its last noun; empty if nothing is left."""
    words = list(itertools.dropwhile(lambda word: word.kind in ("number", "and"), run))
    while words and (words[-1].kind != "noun" or _is_picture(words[-1].text, len(words))):
        words.pop()
    if all(len(word.text) == 1 or word.text.lower() in _WORDS["colors"] for word in words):
        return ""
    bare = all(word.kind == "modifier" for word in words[:-1])
    if bare and after.text.lower() == "of" and words[-1].text.lower() in _WORDS["quantities"]:
        return ""
    return " ".join(word.text for word in words)


def _is_picture(text: str, words: int) -> bool:
    return text.lower() in _WORDS["picture"] or (text.lower() in _WORDS["places"] and (words == 1 or text[0].islower()))


def _tags(segments: list[list[str]]) -> list[str]:
    """Return each word's part of speech, as a Penn Treebank tag."""
    if not segments:
        return []
    # The lexicon has few hyphenated words, so look up their last part (T-shirt, snow-covered).
    text = "\n".join(" ".join(word.rpartition("-")[2] for word in segment) for segment in segments)
    return [tag for _, tag in process_cache("tagger of phrases", _load).tag(text, tokenize=False)]


def _load() -> Any:
    with needing("captions.regions: TextBlob cannot be imported", "'.[regions]' in a checkout of curate"):
        from textblob.en.taggers import PatternTagger
    tagger = PatternTagger()
    tagger.tag("a house", tokenize=False)  # loads the lexicon, which all threads share
    return tagger
