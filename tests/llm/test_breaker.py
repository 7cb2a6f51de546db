"""The circuit breaker: what trips it, what closes it, and its warnings."""

from curate.llm.endpoint import MAX_NO_REPLIES, MAX_REFUSALS, CircuitBreaker
from curate.llm.openai_protocol import Reply

ANSWER = Reply(200, "OK", b'{"choices": [{"text": "a dog"}]}')
BUSY = Reply(500, "Internal Server Error")
REFUSAL = Reply(401, "Unauthorized")
NO_REPLY = Reply(0, "unreachable: ReadError")


def test_requests_in_a_row_without_a_reply_trip_it():
    """Then a single further one does, until there is a reply."""
    breaker = CircuitBreaker(600, print)

    def trips_after(requests):
        tripped = breaker.tripped
        for _ in range(requests):
            assert not tripped.is_set()
            breaker.note_no_reply()
        return tripped.is_set()

    assert not trips_after(MAX_NO_REPLIES - 1)
    breaker.note(BUSY)
    assert trips_after(MAX_NO_REPLIES) and trips_after(1)
    breaker.note(BUSY)
    assert not trips_after(MAX_NO_REPLIES - 1)


def test_refusals_in_a_row_lead_to_a_probe():
    """A probe that is refused trips it; then each refusal leads to a probe, until there is an answer."""
    breaker = CircuitBreaker(600, print)
    first = breaker.tripped
    assert not any(breaker.note(REFUSAL) for _ in range(MAX_REFUSALS - 1))
    breaker.note(ANSWER)
    assert [breaker.note(REFUSAL) for _ in range(2 * MAX_REFUSALS)] == 2 * [*[False] * (MAX_REFUSALS - 1), True]
    assert not first.is_set()
    breaker.note_probe(REFUSAL)
    assert first.is_set() and first.reason == "refused: stopped, since it answers no request: 401 Unauthorized"
    assert not breaker.tripped.is_set() and breaker.note(REFUSAL)
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
    assert [text.split()[5] for text in warnings[:3]] == ["31", "92", "390"], "seconds"
