"""The plain definition that `curate metadata build` must equal. Only the plain text comes from curate."""

import math
import re
import string
import unicodedata
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

EXTRA = "，。、；：？¿！“”‘’（）【】《》〈〉「」『』～—"
CORRECTED = "，．；：？！｀、。،؟۔।።"
RANGES = [
    *[
        (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2EBEF), (0xF900, 0xFAFF), (0x2E80, 0x2EFF),
        (0x2F00, 0x2FDF),
    ],
    *[(0x2FF0, 0x2FFF), (0x0E00, 0x0E7F), (0x0E80, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x0F00, 0x0FFF)],
]  # fmt: skip
PAIRED = ["()", "[]", "{}", "“”", "‘’", "（）", "【】", "《》", "〈〉", "「」", "『』"]


@dataclass
class Limits:
    pmi: int = 30
    count: int = 100
    views: int = 70
    words: int = 251_465
    pairs: int = 100_646
    titles: int = 61_235


def is_mark(character, mode):
    return character in string.punctuation + EXTRA + (CORRECTED if mode == "corrected" else "")


def tokens_of(text, mode, tokenize):
    """The tokens that count, and None where no pair may continue."""
    text = re.sub(r"&lt;.*?&gt;|<.*?>", "", text)
    text = unicodedata.normalize("NFC", text) if mode == "corrected" else text
    tokens = []
    if tokenize is None:
        token = ""
        for character in text:
            is_single = any(first <= ord(character) <= last for first, last in RANGES)
            if is_mark(character, mode) or is_single or character.isspace():
                tokens += [token] if token else []
                token = ""
                tokens += [None] if is_mark(character, mode) else [character] if is_single else []
            else:
                token += character
        return [*tokens, *([token] if token else []), None]
    for run in text.split():
        for token in tokenize(run):
            is_odd = any((pair[0] in token) != (pair[1] in token) for pair in PAIRED)
            tokens.append(None if is_mark(token[0], mode) or is_odd else token)
    return [*tokens, None]


def build_wiki(wiki, texts, names, views, mode, limits, tokenize):
    """Entries and sources, in order."""
    words = Counter()
    pairs = Counter()
    for text in texts:
        before = None
        for token in tokens_of(text, mode, tokenize):
            if token is not None:
                words[token] += 1
                if before is not None:
                    pairs[before, token] += 1
            before = token
    total = words.total()
    first = mode == "reference" or wiki == "en"
    information = {pair: Fraction(n * total, words[pair[0]] * words[pair[1]]) for pair, n in pairs.items()}
    least = Fraction(2) ** limits.pmi
    information = {pair: x for pair, x in information.items() if (x >= least if first else x > least)}
    space = "" if tokenize else " "
    ranked_pairs = sorted(information, key=lambda pair: (-information[pair], -pairs[pair], space.join(pair).encode()))

    def by_count(counter):
        return sorted(counter, key=lambda word: (-counter[word], word.encode()))

    def cap_of(cap):
        return cap if mode == "corrected" else max(cap, 1)

    plan = [
        ("wordnet", names if wiki == "en" else sorted(names), math.inf, 10**9),
        ("unigram", by_count(words), cap_of(min(limits.words, len(words) * 10 // 100)), 256),
        ("bigram", [space.join(pair) for pair in ranked_pairs], cap_of(limits.pairs), 256),
        ("title", by_count(views), cap_of(min(limits.titles, len(views) * 76 // 100)), 256),
    ]
    if first:
        plan = [
            plan[0],
            ("unigram", [word for word in by_count(words) if words[word] >= limits.count], math.inf, 10**9),
            ("bigram", [space.join(pair) for pair in ranked_pairs], math.inf, 10**9),
            ("title", [title for title in by_count(views) if views[title] >= limits.views], math.inf, 10**9),
        ]
    entries = {str(number): "number" for number in range(100)}
    for source, candidates, cap, longest in plan:
        new = 0
        for candidate in candidates:
            if new >= cap:
                break
            entry = candidate
            if first:
                if entry == "" or entry in list(string.punctuation):
                    continue
            else:
                entry = unicodedata.normalize("NFC", entry.strip()) if mode == "corrected" else entry.strip()
                if not entry or len(entry) > longest or all(is_mark(character, mode) for character in entry):
                    continue
            if entry not in entries:
                entries[entry] = source
                new += 1
    return list(entries.items())


def count_titles(hours, wiki, mode):
    """The views of each title in hours of page views."""
    first = mode == "reference" or wiki == "en"
    views = Counter()
    for line in "".join(hours).splitlines():
        cells = line.split(" ")
        if len(cells) != 4 or not cells[2].isdigit():
            continue
        project, title, number = cells[0], cells[1].replace("_", " "), int(cells[2])
        if first:
            counts = project == wiki and number >= 50
        elif mode == "worldwide":
            counts = project.replace(".m", "").split(".")[0] == wiki
        else:
            counts = project in (wiki, f"{wiki}.m")
        if counts and number and ":" not in title:
            views[title] += number
    return views
