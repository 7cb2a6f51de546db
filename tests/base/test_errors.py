import pytest

from curate.base.errors import RecipeError, RunError, reraised


def test_another_error_on_one_line_after_its_subject():
    cannot_read = reraised(RecipeError, "list.txt: cannot be read", OSError, ValueError, remedy="; accepted: text")
    with pytest.raises(RecipeError) as raised, cannot_read:
        raise ValueError("two\n  lines")
    assert str(raised.value) == "list.txt: cannot be read: two lines; accepted: text"
    assert raised.value.__cause__ is None and raised.value.__suppress_context__


def test_what_curate_says_stays_as_it_is_and_errors_of_other_kinds_pass():
    with pytest.raises(RunError) as raised, reraised(RunError, "run1", RecipeError):
        raise RecipeError("first\nsecond")
    assert str(raised.value) == "run1: first\nsecond"
    with pytest.raises(KeyError), reraised(RunError, "run1", OSError):
        raise KeyError("key")
