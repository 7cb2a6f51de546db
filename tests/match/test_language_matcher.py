"""Matching by language equals the naive matcher in by_language.py."""

import json
import random
from functools import cache

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.base.errors import RecipeError, RunError
from curate.match import kernel
from curate.match import matcher as module
from curate.match.characters import WHITE
from curate.match.languages import OTHER, keys_of
from curate.match.matcher import build_matcher, open_matcher
from tests.match.by_language import MODES, has_boundary, oracle


def check(entries, keys, texts, codes, mode):
    """Return the number of matches after checking that none differs."""
    matcher = build_matcher(entries, keys, mode)
    got = matcher.match(pa.array(texts, pa.string()), pa.array(codes, pa.string())).to_pylist()
    expected = oracle(entries, keys, texts, codes, mode)
    differ = [i for i, (a, b) in enumerate(zip(got, expected, strict=True)) if a != b]
    assert not differ, [(texts[i], codes[i], got[i], expected[i]) for i in differ[:3]]
    return sum(map(len, got))


EDGES = [
    "日", "人", "か", "カ", "ー", "ไ", "ກ", "က", "ក", "བ", "，", "。", "！", "।", "؟", "-", "'", "+", ".", ",", "`", " ",
]  # fmt: skip
EDGES += ["  ", "\t", "\n", "a", "b", "ab", "é", "é", "é", "́", "ß", "Ж", "ع", "न", "한", "각", "ᄀ", "𠀀", "𰀀", "😀"]
EDGES += ["\u00a0", "\u3000", "\u2003", "\x1c", "\0", "¿", "—", "·", "ﾊ", "\u200b", "i" * 9, "j" * 17, "あ" * 7]


def words(least, most):
    return st.lists(st.sampled_from(EDGES), min_size=least, max_size=most).map("".join)


@given(st.lists(words(1, 4), min_size=1, max_size=12), st.lists(words(0, 14), min_size=1, max_size=6), st.data())
def test_drawn_edges(entries, texts, data):
    keys = data.draw(st.lists(st.sampled_from(["en", "ja", OTHER]), min_size=len(entries), max_size=len(entries)))
    codes = data.draw(st.lists(st.sampled_from(["en", "ja", "xx"]), min_size=len(texts), max_size=len(texts)))
    for mode in MODES:
        check(entries, keys, texts, codes, mode)


def test_one_character_at_either_end():
    """Each class of characters as an entry, and at either end of one, next to each class in a text."""
    marks = [
        "a", "é", "ж", "한", "न", "1", "日", "か", "ー", "ไ", "，", "！", "؟", "-", "`", ".", "𠀀", "𰀀", "ﾊ", "¿", "\u00a0",
    ]  # fmt: skip
    entries = [*marks, *("x" + mark for mark in marks), *(mark + "x" for mark in marks), *(m + "x" + m for m in marks)]
    texts = [a + b + "x" + c for a in marks for b in ("", " ", "x") for c in (*marks, "", " ", ".")]
    for mode in MODES:
        assert check(entries, ["en"] * len(entries), texts, ["en"] * len(texts), mode) > 1000


@pytest.fixture(scope="module")
def translations(shared):
    """Entries (pieces of all captions) with their keys, and 4,000 captions in 77 languages with their codes."""
    lines = (shared / "captions_multilingual.jsonl").read_text("utf-8").splitlines()
    pairs = [pair for line in lines for pair in json.loads(line)["translations"].items()]
    rng = random.Random(3)
    entries = dict.fromkeys((word, key_of(code)) for code, text in pairs for word in text.split())
    for code, text in pairs:
        words, first = text.split(), rng.randrange(len(text))
        at = rng.randrange(len(words) or 1)
        entries[" ".join(words[at : at + rng.randint(2, 3)]), key_of(code)] = None
        entries[text[first : first + rng.randint(1, 5)], key_of(code)] = None
    named = [(entry, key) for entry, key in entries if entry and rng.random() < 0.8]
    codes, texts = zip(*rng.sample(pairs, 4000), strict=True)
    return [entry for entry, _ in named], [key for _, key in named], [*texts], [*codes]


@cache
def key_of(code):
    return str(keys_of(pa.array([code]))[0].as_py())


@pytest.mark.thorough
@pytest.mark.parametrize("mode", MODES)
def test_real_captions_of_77_languages(translations, mode):
    assert len({*translations[3]}) == 77
    assert check(*translations, mode) > 10_000


def test_long_texts_and_entries():
    rng = random.Random(5)
    long = " ".join(rng.choices(["dog", "hot", "日本", "C++", "a,b"], k=3000))
    pieces = [long[a : a + n] for a, n in ((0, 300), (1000, 70), (2000, 700))]
    texts = [long, "dog", "", long[1000:], "é" * 1000]
    for mode in MODES:
        check([*pieces, "dog hot dog", "é" * 1000, "本"], ["en"] * 6, texts, ["en"] * 5, mode)
    with pytest.raises(RecipeError, match="found an entry of 32,768 bytes; accepted: at most 32,767"):
        build_matcher(["a" * 32_768], ["en"], "worldwide")


@pytest.mark.thorough
def test_a_text_of_a_megabyte():
    rng = random.Random(6)
    text = "".join(rng.choices(["日", "本", "語", " ", "word", ", ", "か"], k=250_000))
    assert len(text.encode()) > 500_000
    entries = ["日本", "本 word", "word , word", "語", "本語日本語日本", "日か"]
    for mode in MODES:
        assert check(entries, ["zh"] * 6, [text, "日本", text[::2]], ["zh"] * 3, mode) > 5


def test_is_exact_where_hashes_collide(monkeypatch):
    rng = random.Random(8)
    entries = ["".join(rng.choices("ab日本 -", k=rng.randint(1, 5))) for _ in range(600)]
    texts = ["".join(rng.choices("ab日本 -,", k=30)) for _ in range(200)]
    keys, codes = rng.choices(["en", "de", OTHER], k=600), rng.choices(["en", "de", "xx"], k=200)
    assert check(entries, keys, texts, codes, "worldwide") > 1000
    monkeypatch.setattr(module, "_LOAD", 0.8)  # longer runs of full buckets
    assert check(entries, keys, texts, codes, "worldwide") > 1000


def test_tables_are_shared(tmp_path, monkeypatch):
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    table = pa.table({"entry": ["dog", "Hund"], "language": ["en", "de"]})
    opened = [open_matcher("key", "worldwide", lambda: table) for _ in range(2)]  # the second loads none
    for matcher in opened:
        assert matcher.match(pa.array(["ein Hund"]), pa.array(["de"])).to_pylist() == [[1]]
    [folder] = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    kept = {path.name for path in folder.iterdir()}
    assert len(kept) == 2  # the tables and their lock
    open_matcher("other", "corrected", lambda: table)
    assert len([*folder.iterdir()]) == 4
    monkeypatch.setattr(module, "_DAY", -1)
    open_matcher("third", "corrected", lambda: table)
    assert not kept & {path.name for path in folder.iterdir()}
    folder.chmod(0o777)
    with pytest.raises(RunError, match=r"only this user can write to.*TMPDIR"):
        open_matcher("key", "worldwide", lambda: table)


def test_characters_without_a_boundary():
    points = [*range(0x3200), *range(0x3200, kernel.CODE_POINTS, 7), 0xFFFD, 0xFF0C, 0xFF1A, 0x2EBEF, 0x2EBF0]
    for mode in MODES:
        without = [not has_boundary(chr(point), mode) for point in points]
        assert module.characters_without_boundary(mode)[points].astype(bool).tolist() == without
    assert [*WHITE] == [chr(point) for point in range(0x110000) if chr(point).isspace()]
