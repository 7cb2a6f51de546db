"""An HTTP endpoint's key, the limit on the size of replies, and the circuit breaker."""

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from curate.base.errors import RecipeError
from curate.llm.openai_protocol import MAX_LIST, MAX_REPLY, Reply

MAX_NO_REPLIES = 8  # the breaker trips after so many requests in a row without any reply
MAX_REFUSALS = 8  # the endpoint is probed after so many replies in a row that say nothing about their requests
FIRST_WARNING, NEXT_WARNING = 30.0, 60.0  # seconds without any answer before the first and each further warning


def read_key(variable: str | None) -> str:
    """Return the key in an environment variable, "" for None. Raises RecipeError if it contains no key."""
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise RecipeError(f"key: the environment variable {variable} is not set; set it, or leave `key` out")
    if not re.fullmatch(r"[!-~]+", key):
        raise RecipeError(f"key: the environment variable {variable} cannot be a key; accepted: ASCII without spaces")
    return key


class Tripped(asyncio.Event):
    """Set when the run gives up on an endpoint; `reason` is the error for all waiting requests."""

    reason = ""


class CircuitBreaker:
    """The state of an endpoint, used only in its event loop.

    A batch of requests takes the event `tripped` when it begins, and stops when the event is set. A later batch gets a
    new event and tries again, but a single failure trips it until a better reply arrives. `patience` is how many
    seconds all requests may fail or find the endpoint too busy; `warn` logs warnings in the meantime.
    """

    def __init__(self, patience: float, warn: Callable[[str], None]) -> None:
        self.tripped = Tripped()
        self._patience, self._warn = patience, warn
        self._batches = self._no_replies = self._refusals = 0
        self._since: float | None = None  # time of the first failure since the last answer
        self._next_warning = 0.0
        self._was_failing = False  # whether it tripped because of failures

    @contextmanager
    def batch(self) -> Iterator[Tripped]:
        """Yield the event for a batch of requests sent inside the block. Time without a batch does not count."""
        if not self._batches:
            self._since = None
        self._batches += 1
        try:
            yield self.tripped
        finally:
            self._batches -= 1

    def note(self, reply: Reply) -> bool:
        """Record an attempt's result. Return whether to probe: too many replies say nothing about their requests."""
        if reply.status:
            self._no_replies = 0
        if reply.is_transient:
            self._note_failure(reply)
        elif reply.is_no_answer:
            self._refusals += 1
            return self._refusals % MAX_REFUSALS == 0
        else:  # the reply is about its request, so the endpoint works
            self._refusals, self._since, self._was_failing = 0, None, False
        return False

    def note_probe(self, reply: Reply) -> None:
        """Record the result of a probe."""
        if reply.is_no_answer:
            self._trip(f"{reply.code}: stopped, because the endpoint does not answer: {reply.detail}")
            self._refusals = MAX_REFUSALS - 1
        elif not reply.is_transient:
            self.note(reply)

    def note_no_reply(self) -> None:
        """Record a request without a reply to any attempt."""
        self._no_replies += 1
        if self._no_replies >= MAX_NO_REPLIES:
            self._trip(f"unreachable: stopped after {MAX_NO_REPLIES} requests in a row without a reply")
            self._no_replies = MAX_NO_REPLIES - 1

    def _note_failure(self, reply: Reply) -> None:
        now = time.monotonic()
        if self._since is None:
            if not reply.status:  # `note_no_reply` counts requests, each of which may take long
                return
            self._since, self._next_warning = now, now + FIRST_WARNING
        passed = now - self._since
        if self._was_failing or passed >= self._patience:
            self._trip(f"{reply.code}: stopped after {passed:.0f} s without an answer to any request: {reply.detail}")
            self._was_failing = True
        elif now >= self._next_warning:
            limit = f"curate gives up after {self._patience:.0f} s (patience)"
            self._warn(f"has not answered any request for {passed:.0f} s: {reply.detail}; {limit}")
            self._next_warning = now + NEXT_WARNING

    def _trip(self, reason: str) -> None:
        self.tripped.reason = reason
        self.tripped.set()
        self.tripped = Tripped()


async def limit_reply(response: Any) -> None:
    """Read at most one byte more than the limit, and prevent decompression: the request accepts only plain bytes."""
    import httpx2

    limit, body = MAX_LIST if response.request.method == "GET" else MAX_REPLY, bytearray()
    response.headers.pop("content-encoding", None)
    async with aclosing(response.stream), aclosing(aiter(response.stream)) as blocks:
        async for block in blocks:
            body += block
            if len(body) > limit:
                break
    response.stream = httpx2.ByteStream(bytes(body[: limit + 1]))
