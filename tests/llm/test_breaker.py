"""The circuit breaker: what trips it, what closes it, and what it warns of."""

import asyncio

from curate.llm.endpoint import MAX_NO_REPLIES, MAX_REFUSALS, CircuitBreaker
from curate.llm.openai_protocol import Reply

ANSWER = Reply(200, "OK", b'{"choices": [{"text": "a dog"}]}')
BUSY = Reply(500, "Internal Server Error")
REFUSAL = Reply(401, "Unauthorized")
NO_REPLY = Reply(0, "unreachable: ReadError")


def test_requests_without_a_reply_in_a_row_trip_it_and_one_more_is_then_enough():
    async def play():
        breaker = CircuitBreaker(600, print)
        first = breaker.tripped
        for _ in range(MAX_NO_REPLIES - 1):
            breaker.note_no_reply()
        assert not first.is_set()
        breaker.note(BUSY)
        for _ in range(MAX_NO_REPLIES - 1):
            breaker.note_no_reply()
        assert not first.is_set()
        breaker.note_no_reply()
        second = breaker.tripped
        assert first.is_set() and not second.is_set()
        breaker.note_no_reply()
        assert second.is_set()
        breaker.note(BUSY)
        for _ in range(MAX_NO_REPLIES - 1):
            breaker.note_no_reply()
        assert not breaker.tripped.is_set()

    asyncio.run(play())


def test_refusals_in_a_row_are_looked_into_and_one_more_is_then_enough():
    async def play():
        breaker = CircuitBreaker(600, print)
        first = breaker.tripped
        assert not any(breaker.note(REFUSAL) for _ in range(MAX_REFUSALS - 1))
        breaker.note(ANSWER)
        assert [breaker.note(REFUSAL) for _ in range(2 * MAX_REFUSALS)] == 2 * [*[False] * (MAX_REFUSALS - 1), True]
        assert not first.is_set()
        breaker.note_probe(REFUSAL)
        assert (
            first.is_set()
            and first.reason.startswith("refused: stopped")
            and first.reason.endswith(": 401 Unauthorized")
        )
        assert not breaker.tripped.is_set() and breaker.note(REFUSAL)
        breaker.note(ANSWER)
        assert not breaker.note(REFUSAL)

    asyncio.run(play())


def test_an_endpoint_that_fails_all_the_time_is_given_up_once_patience_is_over(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("curate.llm.endpoint.time.monotonic", lambda: clock[0])
    said = []

    def fail(breaker, *times, reply=BUSY):
        for clock[0] in times:
            breaker.note(reply)

    async def play():
        breaker = CircuitBreaker(600, said.append)
        with breaker.batch() as first:
            fail(breaker, 0, 1, 2, reply=NO_REPLY)
            fail(breaker, 10, 39, 41, 99, 102, 400)
            breaker.note(ANSWER)
            fail(breaker, 500, 1099)
            assert not first.is_set()
            fail(breaker, 1101)
            assert (
                first.reason == "busy: stopped after 601 s without an answer to any request: 500 Internal Server Error"
            )
        with breaker.batch() as second:
            fail(breaker, 2000)
            assert first.is_set() and second.is_set()
        with breaker.batch() as third:
            breaker.note(ANSWER)
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
