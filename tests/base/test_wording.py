"""Numbers in all digits; parts of error messages: one line of an error, and the nearest name."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from curate.base.wording import all_digits, did_you_mean, one_line


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_all_digits_of_a_double_are_read_back(value):
    text = all_digits(value)
    assert float(text) == value and "e" not in text


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_all_digits_of_a_float32_are_read_back_and_no_fewer_would_do(value):
    text = all_digits(value, single=True)
    assert np.float32(text) == value and "e" not in text
    assert len(text) <= len(np.format_float_positional(np.float32(value), trim="-"))


def test_all_digits_of_whole_numbers_and_of_none():
    assert [all_digits(value) for value in (3, 3.0, -200, 1e22)] == ["3", "3", "-200", "1" + "0" * 22]
    assert [all_digits(float(value), True) for value in ("inf", "nan")] == ["inf", "nan"]


def test_one_line_joins_lines_and_cuts():
    error = ValueError("line one\n\tline   two\n")
    assert one_line(error) == "line one line two"
    assert one_line(error, 8) == "line one"
    assert one_line(ValueError(), 8) == ""


def test_did_you_mean_names_the_nearest_whatever_its_case():
    for name, nearest in (("aligne", "Aligned"), ("ALIGNED", "Aligned"), ("words", "words"), ("zebra", ""), ("", "")):
        hint = f"did you mean {nearest!r}? " if nearest else ""
        assert did_you_mean(name, ["failed", "Aligned", "words"]) == hint
