"""The parts of an endpoint that need no network: keys, headers, the breaker."""

import asyncio

import pytest

from curate.base.errors import RecipeError
from curate.llm.endpoint import (
    MAX_NO_REPLIES,
    MAX_REFUSALS,
    CircuitBreaker,
    read_key,
    read_retry_after,
)

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


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


def test_silences_in_a_row_are_a_loss_and_one_more_is_then_enough():
    async def play() -> None:
        breaker = CircuitBreaker(600, print)
        first = breaker.tripped
        for _ in range(MAX_NO_REPLIES - 1):
            breaker.no_reply()
        assert not first.is_set()
        breaker.replied()
        for _ in range(MAX_NO_REPLIES - 1):
            breaker.no_reply()
        assert not first.is_set()
        breaker.no_reply()
        second = breaker.tripped
        assert first.is_set() and not second.is_set()
        breaker.no_reply()
        assert second.is_set()
        breaker.replied()
        for _ in range(MAX_NO_REPLIES - 1):
            breaker.no_reply()
        assert not breaker.tripped.is_set()

    asyncio.run(play())


def test_refusals_in_a_row_are_looked_into_and_one_more_is_then_enough():
    async def play() -> None:
        breaker = CircuitBreaker(600, print)
        first = breaker.tripped
        assert not any(breaker.refused() for _ in range(MAX_REFUSALS - 1))
        breaker.accepted()
        assert [breaker.refused() for _ in range(2 * MAX_REFUSALS)] == 2 * [*[False] * (MAX_REFUSALS - 1), True]
        assert not first.is_set()
        breaker.probe_refused("refused: 401 Unauthorized")
        assert first.is_set() and first.why.startswith("refused: stopped") and first.why.endswith(": 401 Unauthorized")
        assert not breaker.tripped.is_set() and breaker.refused()
        breaker.accepted()
        assert not breaker.refused()

    asyncio.run(play())


def test_an_endpoint_that_fails_all_the_time_is_given_up_once_patience_is_over(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("curate.llm.endpoint.time.monotonic", lambda: clock[0])
    said = []

    def fail(breaker: CircuitBreaker, *times: float, has_reply: bool = True) -> None:
        for clock[0] in times:
            breaker.failed("busy: 500 Internal Server Error", has_reply)

    async def play() -> None:
        breaker = CircuitBreaker(600, said.append)
        with breaker.batch() as first:
            fail(breaker, 0, 1, 2, has_reply=False)
            fail(breaker, 10, 39, 41, 99, 102, 400)
            breaker.accepted()
            fail(breaker, 500, 1099)
            assert not first.is_set()
            fail(breaker, 1101)
            assert first.why == "busy: stopped after 601 s without an answer to any request: 500 Internal Server Error"
        with breaker.batch() as second:
            fail(breaker, 2000)
            assert first.is_set() and second.is_set()
        with breaker.batch() as third:
            breaker.accepted()
            fail(breaker, 3000, 3500)
        with breaker.batch() as fourth:  # what was said before a pause is another matter
            fail(breaker, 9000, 9599)
            with breaker.batch() as other:
                assert other is fourth
            fail(breaker, 9601)
        assert not third.is_set() or third is fourth
        assert fourth.is_set()

    asyncio.run(play())
    assert [text.partition(":")[0] for text in said[:3]] == [
        f"has answered no request for {n} s" for n in (31, 92, 390)
    ]
    assert said[0].endswith("500 Internal Server Error; curate gives up after 600 s (patience)")
