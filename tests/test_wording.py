"""Parts of error messages: one line of an error, and the nearest name."""

import pytest

from curate.wording import did_you_mean, one_line


def test_one_line_joins_lines_and_cuts() -> None:
    error = ValueError("line one\n\tline   two\n")
    assert one_line(error) == "line one line two"
    assert one_line(error, 8) == "line one"
    assert one_line(ValueError(), 8) == ""


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("aligne", "did you mean 'Aligned'? "),
        ("ALIGNED", "did you mean 'Aligned'? "),
        ("words", "did you mean 'words'? "),
        ("zebra", ""),
        ("", ""),
    ],
)
def test_did_you_mean_names_the_nearest_whatever_its_case(name: str, hint: str) -> None:
    assert did_you_mean(name, ["failed", "Aligned", "words"]) == hint
