"""Numbers in texts: forms of one number, forms of different numbers, and English words for numbers."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.captions.gates.numerals import read_numbers

ONES = [
    "", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
]  # fmt: skip
ONES += ["fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
WIDE = str.maketrans("0123456789", "０１２３４５６７８９")


def covers(text, other):
    """Whether the text holds all numbers that the other claims."""
    held = read_numbers(text).held
    return all(number.is_in(held) for number in read_numbers(other).claimed)


def agree(a, b):
    return covers(a, b) and covers(b, a)


def in_words(n):
    return ONES[n] if n < 20 else TENS[n // 10] + ("-" + ONES[n % 10] if n % 10 else "")


SAME = [
    ("1,000 beads", "1000 beads"), ("1.000 Perlen", "1000 Perlen"), ("1'000 Franken", "1000 francs"),
    ("1\u202f000 perles", "1,000 beads"), ("1\u00a0000\u00a0000 perles", "1,000,000 beads"),
    ("1,234.56 EUR", "1.234,56 EUR"), ("1.5 l", "1,5 l"), ("1.50 m", "1.5 m"), ("$20.00", "$20"),
    ("No. 007", "number 7"), ("4K wallpaper", "wallpaper in 4k"), ("4K", "4000"), ("50x70 cm", "50 × 70cm"),
    ("50cm", "50 cm"), ("5-7 years", "5 to 7 years"), ("1990–1995", "from 1990 to 1995"),
    ("12.04.2020", "04/12/2020"), ("at 7:00", "at 7"), ("at 7:00", "at 7 00"), ("at 7:30", "at 7.30"),
    ("2nd edition", "second edition"), ("the 12th", "the twelfth"), ("5 million", "5,000,000"),
    ("2.5 million", "2,500,000"), ("two dozen", "24"), ("a dozen eggs", "12 eggs"), ("twenty-one", "21"),
    ("Twenty One", "21"), ("½ cup", "1/2 cup"), ("٣ cats", "three cats"), ("sizes 1,2,3", "sizes 3, 2 and 1"),
    ("one cat", "a cat"), ("the second cat", "another cat"), ("10 m²", "10 square metres"), ("it&#39;s 5", "it's 5"),
    ("see https://x.example/2019/12 now", "see now"), ("IMG_2044.JPG: a cat", "a cat"),
    ("a cat @user99 #2cool", "a cat 2"), ("a phone", "a stone"),
]  # fmt: skip
DIFFERENT = [
    ("1,000", "1"), ("1,000", "100"), ("1,500", "1 and 500"), ("1.5", "15"), ("1.25", "125"), ("2 cats", "3 cats"),
    ("two cats", "cats"), ("12 cats", "2 cats"), ("2 million", "2"), ("twenty-one", "20"), ("2nd", "3rd"),
    ("1990", "1991"), ("a dozen", "a few"), ("5 apples", "apples"), ("11", "٣"),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), SAME)
def test_one_number_in_two_forms(a, b):
    assert agree(a, b)


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_two_numbers(a, b):
    assert not covers(b, a)


def test_what_covers_but_claims_nothing():
    for text, number in [("a pair of cats", "2"), ("twin beds", "two"), ("a trio", "3"), ("hundred flowers", "100")]:
        assert covers(text, number)
        assert covers("nothing", text)


def test_a_decimal_comma_may_be_a_list_but_a_thousand_may_not():
    assert covers("1 and 5", "1,5")
    assert covers("1.5", "1,5")
    assert not covers("1 and 500", "1,500")
    assert covers("1.5", "1,500"), "1,500 may be one and a half"


@given(st.integers(0, 99))
def test_words_of_english(n):
    text = in_words(n) or "zero"
    assert str(n) in read_numbers(f"about {text} things").held
    assert bool(read_numbers(text).claimed) == (n > 1)


@given(st.integers(0, 10**12))
def test_groups_and_scripts(n):
    forms = [f"{n:,}", f"{n:,}".replace(",", "."), f"{n:,}".replace(",", "'"), f"{n:,}".replace(",", "\u202f")]
    forms += [str(n), str(n).translate(ARABIC), str(n).translate(WIDE), f"{n}.0", f"#{n}", f"{n}cm", f"{n}–{n}"]
    for a in forms:
        assert agree(a, str(n)), a


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_plain_integers_cover_themselves_only(n, m):
    assert covers(f"x {n} y", f"{m}") == (n == m)


NUMERIC = st.text(st.sampled_from("0123456789.,'k -:/x½²٣ ０①twodzenhrfisc&;#@<>\u202f"), max_size=30)


@given(NUMERIC | st.text(max_size=60))
def test_a_text_covers_itself(text):
    assert covers(text, text)
    assert all(unicodedata.normalize("NFKC", reading).isascii() for reading in read_numbers(text).held)


@pytest.mark.parametrize("unit", ["1", "1,", "1.1,", "a", "a@", "<", "www.", "&#1;", "twenty-", "1:00"])
def test_long_lines_cost_little(unit):
    text = (unit * 10_000)[:10_000]
    read_numbers(unit)  # what it imports
    began = time.process_time()
    read_numbers(text)
    assert time.process_time() - began < 5
