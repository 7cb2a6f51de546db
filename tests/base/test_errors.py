import pytest

from curate.base.errors import RecipeError, RunError, reraised


def test_errors_are_raised_again_on_one_line_after_their_subject():
    cannot_read = reraised(RecipeError, "list.txt: cannot be read", OSError, ValueError, remedy="; accepted: text")
    with pytest.raises(RecipeError) as raised, cannot_read:
        raise ValueError("two\n  lines")
    assert str(raised.value) == "list.txt: cannot be read: two lines; accepted: text"
    assert raised.value.__cause__ is None and raised.value.__suppress_context__
    with pytest.raises(RunError) as raised, reraised(RunError, "run1", RecipeError):
        raise RecipeError("first\nsecond")
    assert str(raised.value) == "run1: first\nsecond", "what curate says stays as it is"
    with pytest.raises(KeyError), reraised(RunError, "run1", OSError):
        raise KeyError("key")
