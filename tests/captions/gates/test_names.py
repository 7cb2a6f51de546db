"""Names in captions: which words count as names, and which texts contain a name."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.captions.gates.names import hold_names, is_ordinary, may_be_name, read_names

CLAIMS = [
    ("Skyline of Rotterdam at night", {"rotterdam"}), ("Vase by Ilse Brandt, 1962", {"ilse", "brandt"}),
    ("HOUSE IN ROTTERDAM WITH GARDEN", {"rotterdam"}), ("Harry Potter And The Cursed Child", {"harry", "potter"}),
    ("A potter at his wheel", set()), ("Portrait of Robert Burns", {"robert", "burns"}),
    ("Warm Burns On A Hand", set()), ("Lemon Baskets And Brooks Fields", set()),
    ("a man whom they call Potter, at his wheel in the shop", {"potter"}), ("Potter at his wheel in the shop", set()),
    ("David F. Wright, editor", {"david", "wright"}), ("a house that was bought by an iPhone dealer", {"iphone"}),
    ("Boring Machine Tools BM-60", {"bm60"}), ("Quartz Watch H11421014", {"h11421014"}),
    ("battery for VPC-EH2CFX, 10V", {"vpceh2cfx"}), ("poster 50x70cm, 4K, step-2, 5th, 12-piece, x10", set()),
    ("boots in suede by Pura López", {"pura", "lopez"}), ("Кот в Москве", {"кот", "москве"}),
    ("ein Hund im Garten", {"hund", "garten"}), ("bag usa flag bag", set()), ("山水双挖", set()),
    ("mail to Brandt@Rotterdam.example or see https://Rotterdam.example #MensHealth @Ilse", set()),
    ("<b>Bread</b> &amp; Butter", set()),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CLAIMS)
def test_what_is_a_name(text, expected):
    found = read_names(text)
    assert {*found.words, *found.codes} == expected


HOLDS = [
    ("a bridge in rotterdam", "rotterdam", True), ("ROTTERDAM'S BRIDGE", "rotterdam", True),
    ("a bridge", "rotterdam", False), ("Lopez boots", "lopez", True), ("López boots", "lopez", True),
    ("an american flag", "america", True), ("Americas", "america", True), ("a You Tube channel", "youtube", True),
    ("the Smiths", "smith", True), ("a smithy", "smi", False), ("Johnson", "johnston", False),
    ("Anneliese", "anne", False), ("Rottweiler", "rotterdam", False),
]  # fmt: skip


@pytest.mark.parametrize(("text", "name", "expected"), HOLDS)
def test_what_holds_a_name(text, name, expected):
    assert hold_names(text).word(name) is expected


def test_codes_are_held_however_they_are_spaced():
    for text in ("tools BM 60", "bm60", "the BM–60"):
        assert hold_names(text).code("bm60")
    assert not hold_names("tools BM 61").code("bm60")


def test_ordinary_words():
    for word in (
        "house",
        "houses",
        "hoodie",
        "color",
        "potter",
        "a",
        "x",
        "",
        "corgis",
        "colour",
        "organised",
        "jeans",
    ):
        assert is_ordinary(word)
    for word in ("rotterdam", "china", "lopez", "alps", "airbus", "boeing"):
        assert not is_ordinary(word)
    assert may_be_name("potter") and may_be_name("rotterdam") and not may_be_name("house")


WORDS = "a the of Brandt brandt BRANDT Potter potter House house HOUSE BM-60 50cm iPhone López Straße İzmir ΣΑΣ ǅ . , ! - ' &amp; http://a.b x@y.zz <b> F. 's ½ 東京"
MIXED = st.lists(st.sampled_from(WORDS.split(" ")), max_size=12).map(" ".join)


@given(MIXED | st.text(max_size=60))
def test_a_text_holds_its_own_names(text):
    held, found = hold_names(text), read_names(text)
    assert all(map(held.word, found.words))
    assert all(map(held.code, found.codes))


@pytest.mark.parametrize("unit", ["A", "Brandt ", "B-1", "a@", "<", "www.", "Aa1-", "&#65;", "A'"])
def test_long_lines_cost_little(unit):
    text = (unit * 10_000)[:10_000]
    read_names(unit)  # what it imports
    began = time.process_time()
    read_names(text)
    hold_names(text)
    assert time.process_time() - began < 5
