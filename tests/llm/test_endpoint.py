"""The parts of an endpoint that need no network: keys and headers."""

import pytest

from curate.base.errors import RecipeError
from curate.base.wording import read_retry_after
from curate.llm.endpoint import read_key

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None), ("0", 0.0), ("120", 120.0), (" 1.5 ", 1.5), ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tue, 14 Nov 2023 22:13:00 GMT", 0.0), ("-1", None), ("soon", None), ("", None), ("inf", None),
        ("1e9", None), ("9" * 400, None), ("Tue, 99 Nov 2023 22:13:00 GMT", None),
        ("Tue, 14 Nov 99999999999999999999 22:13:00 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(header, seconds):
    assert read_retry_after(header, NOW) == seconds


def test_keys_come_from_the_environment(monkeypatch):
    assert read_key(None) == ""
    monkeypatch.setenv("SOME_KEY", " sk-1 \n")
    assert read_key("SOME_KEY") == "sk-1"
    monkeypatch.delenv("SOME_KEY")
    for value in (None, "", " \n"):
        if value is not None:
            monkeypatch.setenv("SOME_KEY", value)
        with pytest.raises(RecipeError, match="environment variable SOME_KEY is not set"):
            read_key("SOME_KEY")
    for value in ("sk-1 two", "sk-é", "sk\x01"):
        monkeypatch.setenv("SOME_KEY", value)
        with pytest.raises(RecipeError, match="SOME_KEY cannot be a key") as caught:
            read_key("SOME_KEY")
        assert value not in str(caught.value)
