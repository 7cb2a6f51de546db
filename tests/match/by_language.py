"""Matching by language by its definition: loops over characters, no bytes and no hashes."""

import unicodedata
from functools import cache

import pyarrow as pa

from curate.match.languages import keys_of
from tests.kit import metaclip

MODES = ("worldwide", "corrected")
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~" + "，。、；：？！“”‘’（）【】《》〈〉「」『』～—"


@cache
def has_boundary(character, mode):
    """Whether an entry that begins or ends with this character needs a space there, by algorithms.md."""
    point = ord(character)
    blocks = "4E00–9FFF 3400–4DBF 20000–2A6DF 2A700–2EBEF F900–FAFF 2E80–2EFF 2F00–2FDF 2FF0–2FFF 0E00–0E7F 0E80–0EFF "
    blocks += "1000–109F 1780–17FF 0F00–0FFF"
    if mode == "corrected":
        blocks += " 3001–30FF 3100–312F 31A0–31FF FF66–FF9F 1AFF0–1B16F AA60–AA7F A9E0–A9FF 116D0–116FF 19E0–19FF "
        blocks += "A980–A9DF 1B00–1B7F 2EBF0–3FFFF"
    ranges = [[int(end, 16) for end in block.split("–")] for block in blocks.split()]
    return character not in PUNCTUATION and not any(first <= point <= last for first, last in ranges)


def spaced(text, mode):
    text = " " + (unicodedata.normalize("NFC", text) if mode == "corrected" else text).strip() + " "
    return metaclip.space(text, ",.;:?!`" + "，．；：？！｀、。،؟۔।።" * (mode == "corrected"))[1:-1]


def pattern(entry, mode):
    entry = unicodedata.normalize("NFC", entry) if mode == "corrected" else entry
    return " " * has_boundary(entry[:1] or "a", mode) + entry + " " * has_boundary(entry[-1:] or "a", mode)


def oracle(entries, keys, texts, codes, mode):
    """The first of a language's equal entries counts. Looks up substrings of the text, or each entry if there are few."""
    patterns = {}
    for i, (entry, key) in enumerate(zip(entries, keys, strict=True)):
        patterns.setdefault(key, {}).setdefault(pattern(entry, mode), i)
    lengths = {key: sorted({*map(len, of_key)}) for key, of_key in patterns.items()}
    texts_keys = keys_of(pa.array(codes, pa.string()), patterns).to_pylist()
    matches = []
    for text, key in zip(texts, texts_keys, strict=True):
        of_key = patterns.get(str(key), {})
        if text is None or not of_key:
            matches.append([])
            continue
        s = spaced(text, mode)
        if len(of_key) < 50:
            matches.append(sorted(i for found, i in of_key.items() if found in s))
        else:
            parts = {s[a : a + n] for n in lengths[str(key)] for a in range(len(s) - n + 1)}
            matches.append(sorted(of_key[part] for part in parts & of_key.keys()))
    return matches
