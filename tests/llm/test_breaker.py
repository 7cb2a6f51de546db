"""The circuit breaker: what trips it, what closes it, and its warnings."""

from curate.llm.endpoint import MAX_NO_REPLIES, MAX_REFUSALS, CircuitBreaker
from curate.llm.openai_protocol import Reply

ANSWER = Reply(200, "OK", b'{"choices": [{"text": "a dog"}]}')
BUSY = Reply(500, "Internal Server Error")
REFUSAL = Reply(401, "Unauthorized")
NO_REPLY = Reply(0, "unreachable: ReadError")


def test_a_tripped_breaker_trips_again_at_the_next_failure_until_there_is_a_reply():
    breaker = CircuitBreaker(600, print)
    for requests in (MAX_NO_REPLIES, 1):
        tripped = breaker.tripped
        for _ in range(requests):
            assert not tripped.is_set()
            breaker.note_no_reply()
        assert tripped.is_set()
    breaker.note(BUSY)
    for _ in range(MAX_NO_REPLIES - 1):
        breaker.note_no_reply()
    assert [breaker.note(REFUSAL) for _ in range(MAX_REFUSALS)] == [*[False] * (MAX_REFUSALS - 1), True]
    assert not breaker.tripped.is_set()
    breaker.note_probe(REFUSAL)
    assert breaker.note(REFUSAL)
    breaker.note(ANSWER)
    assert not breaker.note(REFUSAL)


def test_an_endpoint_that_only_fails_is_given_up_after_patience(monkeypatch):
    clock, warnings = [0.0], []
    monkeypatch.setattr("curate.llm.endpoint.time.monotonic", lambda: clock[0])
    breaker = CircuitBreaker(600, warnings.append)

    def fail(*times, reply=BUSY):
        for clock[0] in times:
            breaker.note(reply)

    with breaker.batch() as first:
        fail(0, 1, 2, reply=NO_REPLY)
        fail(10, 39, 41, 99, 102, 400)
        breaker.note(ANSWER)
        fail(500, 1099)
        assert not first.is_set()
        fail(1101)
    assert first.reason == "busy: stopped after 601 s without an answer to any request: 500 Internal Server Error"
    with breaker.batch() as second:
        fail(2000)
        assert first.is_set() and second.is_set()
    with breaker.batch() as third:
        breaker.note(ANSWER)
        fail(3000, 3500)
    with breaker.batch() as fourth:  # time without a batch does not count
        fail(9000, 9599)
        with breaker.batch() as other:
            assert other is fourth
        fail(9601)
    assert fourth.is_set() and (third is fourth or not third.is_set())
    assert [text.split()[6] for text in warnings[:3]] == ["31", "92", "390"], "seconds"
