"""Tokens: by characters, and by each language's tokenizer."""

import itertools
import random
from collections import Counter

import botok.config
import pytest

from curate.base.errors import RecipeError
from curate.match.building import tokens
from curate.match.building.ngrams import count_ngrams
from curate.match.building.tokens import Tokenizer, load_tokenizer
from tests.match.building import naive

TEXTS = {
    "de": "Köln (am Rhein), z.B. „C++“ <b>fett</b>&lt;i&gt; 漢字 ไทย a\u00a0b\u2003c\x1cd",
    "ja": "アメリカ合衆国は、北米大陸にある「連邦共和国」である。 (注 abc", "zh": "自然语言处理是人工智能的分支。中华人民共和国（中国）位于亚洲", "th": "ประเทศไทยเป็นรัฐชาติ",
    "km": "ប្រទេសកម្ពុជាមានទីតាំងនៅអាស៊ី", "lo": "ປະເທດລາວຕັ້ງຢູ່ໃນອາຊີ",
    "my": "မြန်မာနိုင်ငံသည်အရှေ့တောင်အာရှတွင်တည်ရှိသည်",
}  # fmt: skip


def counted(wiki, texts, mode):
    tokenizer = Tokenizer(wiki, mode == "corrected")
    words, pairs = count_ngrams(b"".join(map(tokenizer.encode, texts)), tokenizer.classes)
    names = words["word"].to_pylist()
    columns = (pairs[name].to_pylist() for name in pairs.column_names)
    return dict(zip(names, words["count"].to_pylist(), strict=True)), {
        (names[a], names[b]): n for a, b, n in zip(*columns, strict=True)
    }


def plain(wiki, texts, mode):
    words, pairs = Counter(), Counter()
    for text in texts:
        tokens = list(naive.tokens_of(text, mode, load_tokenizer(wiki)))
        words.update(token for token in tokens if token is not None)
        pairs.update(pair for pair in itertools.pairwise(tokens) if None not in pair)
    return words, pairs


@pytest.mark.thorough
@pytest.mark.parametrize("wiki", TEXTS)
def test_tokens_are_those_of_the_definition(wiki):
    for mode in ("worldwide", "corrected") if wiki in ("de", "ja") else ["worldwide"]:
        words, pairs = counted(wiki, [TEXTS[wiki]] * 2, mode)
        assert (words, pairs) == plain(wiki, [TEXTS[wiki]] * 2, mode)
        assert 3 <= len(words) < len(TEXTS[wiki]) and pairs


def test_drawn_characters_of_all_kinds():
    rng = random.Random(1)
    kinds = [
        "a", "ß", "中", "あ", "ก", "་", "。", ",", "—", " ", "\n", "\u3000", "\x85", "\u200b", "😀", "\U00020000", "।",
        "e\u0301", "<", ">",
    ]  # fmt: skip
    texts = ["".join(rng.choices(kinds, k=rng.randint(0, 60))) for _ in range(300)]
    for mode in ("worldwide", "corrected"):
        assert counted("de", texts, mode) == plain("de", texts, mode)


def test_tables_grow():
    rng = random.Random(0)
    texts = [" ".join(f"w{int(rng.paretovariate(0.3)) % 9000}" for _ in range(200)) for _ in range(200)]
    assert counted("en", texts, "worldwide") == plain("en", texts, "worldwide")
    assert counted("en", [], "worldwide") == ({}, {}) == counted("en", ["", " ", "..."], "worldwide")


def test_tibetan_needs_its_dictionary_which_nobody_downloads_unasked(tmp_path, monkeypatch):
    monkeypatch.setattr(botok.config, "DEFAULT_BASE_PATH", tmp_path)
    tokens._load_tibetan.cache_clear()
    with pytest.raises(
        RecipeError, match=f"has no dictionary at {tmp_path}/general; to download it once, run python -c"
    ):
        load_tokenizer("dz")
    for folder in ("dictionary", "adjustments"):
        (tmp_path / "general" / folder / "words").mkdir(parents=True)
    (tmp_path / "general/dictionary/words/words.tsv").write_text("བོད་\nསྐད་ཡིག་\n")
    words, pairs = counted("bo", ["བོད་སྐད་ཡིག། བོད་"], "worldwide")
    assert words == {"བོད་": 2, "སྐད་ཡིག": 1, "།": 1}
    assert pairs == {("བོད་", "སྐད་ཡིག"): 1, ("སྐད་ཡིག", "།"): 1, ("།", "བོད་"): 1}
    tokens._load_tibetan.cache_clear()
