"""The parts of an endpoint that need no network: pauses, keys, health."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.engines.endpoint import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    REFUSALS,
    SILENCES,
    CircuitBreaker,
    Key,
    back_off,
    read_key,
    read_retry_after,
)
from curate.errors import RecipeError

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_pauses_double_and_are_drawn_whole(failures, draw):
    pause = back_off(failures, None, draw)
    assert pause == draw * min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 1, 99))


@given(st.integers(1, 50), st.floats(0, 1e9), st.floats(0, 1, exclude_max=True))
def test_what_the_endpoint_asks_for_is_waited_for(failures, asked, draw):
    pause = back_off(failures, asked, draw)
    assert min(asked, LONGEST_PAUSE) <= pause <= LONGEST_PAUSE + FIRST_PAUSE
    assert pause <= asked + FIRST_PAUSE


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        (" 1.5 ", 1.5),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tue, 14 Nov 2023 22:13:00 GMT", 0.0),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("inf", None),
        ("1e9", None),
        ("9" * 400, None),
        ("Tue, 99 Nov 2023 22:13:00 GMT", None),
        ("Tue, 14 Nov 99999999999999999999 22:13:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header, seconds):
    assert read_retry_after(header, NOW) == seconds


def test_keys_come_from_the_environment(monkeypatch):
    assert read_key(None) == Key("")
    monkeypatch.setenv("SOME_KEY", " sk-1 \n")
    assert read_key("SOME_KEY") == Key("sk-1")
    monkeypatch.delenv("SOME_KEY")
    for value in (None, "", " \n"):
        if value is not None:
            monkeypatch.setenv("SOME_KEY", value)
        with pytest.raises(RecipeError, match="environment variable SOME_KEY is not set"):
            read_key("SOME_KEY")
    for value in ("sk-1 two", "sk-é", "sk\x01"):
        monkeypatch.setenv("SOME_KEY", value)
        with pytest.raises(RecipeError, match="SOME_KEY holds cannot be a key") as caught:
            read_key("SOME_KEY")
        assert value not in str(caught.value)


def test_keys_are_hidden():
    key = Key("sk-1")
    assert "sk-1" not in repr(key) and "sk-1" not in str(key)
    assert key.hide("Bearer sk-1, sk-1.") == "Bearer [key], [key]."
    assert Key("").hide("a") == "a"


def test_silences_in_a_row_are_a_loss_and_one_more_is_then_enough():
    async def play() -> None:
        health = CircuitBreaker()
        first = health.lost
        for _ in range(SILENCES - 1):
            health.silent()
        assert not first.is_set()
        health.replied()
        for _ in range(SILENCES - 1):
            health.silent()
        assert not first.is_set()
        health.silent()
        second = health.lost
        assert first.is_set() and not second.is_set()
        health.silent()
        assert second.is_set()
        health.replied()
        for _ in range(SILENCES - 1):
            health.silent()
        assert not health.lost.is_set()

    asyncio.run(play())


def test_refusals_in_a_row_are_looked_into_and_one_more_is_then_enough():
    async def play() -> None:
        health = CircuitBreaker()
        first = health.lost
        assert not any(health.refused() for _ in range(REFUSALS - 1))
        health.accepted()
        assert [health.refused() for _ in range(2 * REFUSALS)] == 2 * [*[False] * (REFUSALS - 1), True]
        assert not first.is_set()
        health.refuses_all("refused: 401 Unauthorized")
        assert first.is_set() and first.why.startswith("refused: stopped") and first.why.endswith(": 401 Unauthorized")
        assert not health.lost.is_set() and health.refused()
        health.accepted()
        assert not health.refused()

    asyncio.run(play())
