"""One HTTP endpoint, called by many threads at once: its connections, its key, its limits, and a circuit breaker.

In: the calls of `openai_protocol`. Out: a reply (status, body), never an exception for what the network does. The client is
that of package openai, without its retries. All calls run in one event loop in a thread of its own, since only there can a
call be ended wherever it hangs, be it in a header that trickles in, byte by byte. Trade-offs: one thread sends and reads
all, which is enough for a thousand calls a second, and a language model is slower than that.

An endpoint is a stranger: at most 1 MB of an answer is read (16 MB of a list of models), and a redirect is a reply like any other, never followed,
so that the key goes to no other host. TLS certificates are verified. Proxies are those of the environment.
"""

import asyncio
import email.utils
import logging
import os
import queue
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, cast

from curate.base.errors import RecipeError, needing
from curate.llm.engine import Answer
from curate.llm.openai_protocol import MAX_LIST, MAX_REPLY, Call, Reply

T = TypeVar("T")

MAX_CONNECT = 10.0  # seconds; what takes no connection is unreachable, whatever a reply may take
MAX_NO_REPLIES = 8  # requests in a row without any reply after which the endpoint is taken for dead
MAX_REFUSALS = 8  # replies in a row that say nothing of their request after which the endpoint is probed
FIRST_WORD, NEXT_WORD = 30.0, 60.0  # seconds without any answer after which it is said, first and again
MAX_DETAIL = 300  # characters
_LONG_KEY = 16  # characters: a shorter key may be a word of a text

_log = logging.getLogger(__name__)
_SECONDS = re.compile(r"\d{1,9}(\.\d{1,9})?")


def read_key(variable: str | None) -> str:
    """Return the key that an environment variable holds, by which an endpoint knows its user; empty where none is needed.

    Raises RecipeError where the variable holds none, or one that no header can.
    """
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    name = f"the environment variable {variable}"
    if not key:
        remedy = "it must hold the endpoint's key; leave `key` out if the endpoint needs none"
        raise RecipeError(f"key: {name} is not set; {remedy}")
    if not re.fullmatch(r"[!-~]+", key):
        accepted = "accepted: ASCII letters, digits and punctuation, without spaces"
        raise RecipeError(f"key: the value of {name} cannot be a key; {accepted}")
    return key


class Tripped(asyncio.Event):
    """Set when an endpoint is given up; `why` is then the error of whatever is waiting for it."""

    why = ""


class CircuitBreaker:
    """Gives an endpoint up that is dead, fails all the time or refuses everything, by what the requests of all threads met.

    A batch of requests takes the event `tripped` when it begins, and ends when it is set. A later batch gets another one, and
    so tries again; but one more such request will do then, until there is a better reply. `patience`: the seconds for which it
    may say to all requests that it fails or is too busy; `warn` says so meanwhile.
    """

    def __init__(self, patience: float, warn: Callable[[str], None]) -> None:
        self.tripped = Tripped()
        self._no_replies = self._refusals = 0
        self._patience, self._warn = patience, warn
        self._batches = 0
        self._since: float | None = None  # when it first said that it fails, since the last answer
        self._next_word = 0.0
        self._was_failing = False  # given up for that

    @contextmanager
    def batch(self) -> Iterator[Tripped]:
        """Yield the event of a batch of requests that is sent in the block. Time in which nothing is sent is not held against it."""
        if not self._batches:
            self._since = None
        self._batches += 1
        try:
            yield self.tripped
        finally:
            self._batches -= 1

    def failed(self, error: str, has_reply: bool) -> None:
        """Note an attempt that another may follow: a reply that says no more than that, or none."""
        now = time.monotonic()
        if self._since is None:
            if not has_reply:  # `no_reply` counts requests, which may take long
                return
            self._since, self._next_word = now, now + FIRST_WORD
        passed = now - self._since
        code, _, detail = error.partition(": ")
        if self._was_failing or passed >= self._patience:
            self._trip(f"{code}: stopped after {passed:.0f} s without an answer to any request: {detail}")
            self._was_failing = True
        elif now >= self._next_word:
            self._warn(
                f"has answered no request for {passed:.0f} s: {detail}; curate gives up after {self._patience:.0f} s (patience)"
            )
            self._next_word = now + NEXT_WORD

    def replied(self) -> None:
        """Note a reply, of any status."""
        self._no_replies = 0

    def no_reply(self) -> None:
        """Note a request that got no reply at any attempt."""
        self._no_replies += 1
        if self._no_replies >= MAX_NO_REPLIES:
            self._trip(f"unreachable: stopped after {MAX_NO_REPLIES} requests in a row without a reply")
            self._no_replies = MAX_NO_REPLIES - 1

    def accepted(self) -> None:
        """Note a reply that was about its request."""
        self._refusals, self._since, self._was_failing = 0, None, False

    def refused(self) -> bool:
        """Note a reply that says nothing of its request. Return whether there were so many that the endpoint is to be probed."""
        self._refusals += 1
        return self._refusals % MAX_REFUSALS == 0

    def probe_refused(self, error: str) -> None:
        """Note that a harmless request got no answer either, with this error."""
        code, _, detail = error.partition(": ")
        self._trip(f"{code}: stopped, since it answers no request: {detail}")
        self._refusals = MAX_REFUSALS - 1

    def _trip(self, why: str) -> None:
        self.tripped.why = why
        self.tripped.set()
        self.tripped = Tripped()


class Endpoint:
    """The connections to one address, as many as `concurrency`, and its key, which is sent as a bearer token.

    `slots` bounds the requests at a time; `timeout` is the seconds that a call may take, from connecting to the last byte;
    `patience` see `CircuitBreaker`.

    Raises:
        RecipeError: a package is missing, or the proxy that the environment names cannot be used.
    """

    def __init__(self, base_url: str, key: str, concurrency: int, timeout: float, patience: float):
        with needing("an HTTP endpoint needs another package", "'.[captions]' in a checkout of curate"):
            import httpx2
            import openai
            import tenacity  # noqa: F401
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # it would log every request
        self._key, self._timeout = key, timeout
        self.slots = asyncio.Semaphore(concurrency)
        self.breaker = CircuitBreaker(patience, lambda said: _log.warning("%s: %s", base_url, self.one_line(said)))
        names = ["OpenAI-Organization", "OpenAI-Project"]  # those of the environment are for OpenAI alone
        headers = dict.fromkeys(names if key else [*names, "Authorization"], openai.Omit())
        self._options: Any = {"headers": {**headers, "Accept-Encoding": "identity"}}
        try:
            http = httpx2.AsyncClient(
                # No bound on connections: `slots` is one, and httpcore may lose a bounded pool's places on a timeout.
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=concurrency),
                timeout=httpx2.Timeout(None, connect=min(MAX_CONNECT, timeout / 2)),
                follow_redirects=False,
                event_hooks={"response": [_limit_reply]},
            )
        except (ImportError, ValueError) as error:  # socks without its package, a scheme that is none
            raise RecipeError(f"{base_url}: the proxy that the environment names cannot be used: {error}") from None
        self._client = openai.AsyncOpenAI(
            api_key=key or "none", base_url=base_url, http_client=http, max_retries=0, timeout=http.timeout
        )
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name=f"curate {base_url}", daemon=True).start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of `work`, done in the endpoint's loop. It ends with the waiting, as by Ctrl-C."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stream(self, work: Callable[[Callable[[T], None]], Coroutine[Any, Any, None]]) -> Iterator[T]:
        """Yield what `work` gives to the function that it is called with, done in the endpoint's loop. It ends with the waiting."""
        given: queue.SimpleQueue[T | Future[None]] = queue.SimpleQueue()
        future = asyncio.run_coroutine_threadsafe(work(given.put), self._loop)
        future.add_done_callback(given.put)  # the last that comes
        try:
            while (item := given.get()) is not future:
                yield cast(T, item)
            future.result()
        finally:
            future.cancel()

    async def send(self, call: Call) -> Reply:
        """Send one call, once; it ends when `timeout` is over, whatever the endpoint does."""
        import httpx2
        import openai

        send = self._client.get if call.body is None else partial(self._client.post, content=call.body)
        try:
            async with asyncio.timeout(self._timeout):
                response = await send(call.path, cast_to=httpx2.Response, options=self._options)
        except TimeoutError:
            return Reply(0, f"timeout: no complete answer in {self._timeout:g} s")
        except openai.APIStatusError as error:
            response = error.response
        except (openai.APIConnectionError, OSError) as error:
            cause = error.__cause__ or error
            return Reply(0, f"unreachable: {type(cause).__name__}: {cause}".removesuffix(": "))
        return Reply(
            response.status_code,
            response.reason_phrase,
            response.content[: MAX_LIST if call.body is None else MAX_REPLY],
            not response.extensions.get("cut", False),
            read_retry_after(response.headers.get("retry-after"), time.time()),
            response.headers.get("location", ""),
        )

    def hide_key(self, text: str) -> str:
        """Return the text with `[key]` in the key's places."""
        return text.replace(self._key, "[key]") if self._key else text

    def hide_in_answer(self, answer: Answer) -> Answer:
        """Return the answer without the key, which an endpoint may give back; its error on one printable line."""
        if answer.error is not None:
            return replace(answer, error=self.one_line(answer.error))
        if answer.text is None or len(self._key) < _LONG_KEY:
            return answer
        return replace(answer, text=self.hide_key(answer.text))

    def one_line(self, text: str) -> str:
        """Return the text as one printable line, the key hidden in it before it is cut."""
        text = self.hide_key(text)[: 8 * MAX_DETAIL]
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return line if len(line) <= MAX_DETAIL else f"{line[: MAX_DETAIL - 1]}…"


async def _limit_reply(response: Any) -> None:
    """Let no more than `MAX_REPLY` bytes of an answer be read, and none be decompressed: identity was requested."""
    import httpx2

    limit = MAX_LIST if response.request.method == "GET" else MAX_REPLY
    response.headers.pop("content-encoding", None)
    whole = response.stream

    class Limited(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for block in whole:
                yield block
                size += len(block)
                if size > limit:
                    response.extensions["cut"] = True
                    return

        async def aclose(self) -> None:
            await whole.aclose()

    response.stream = Limited()


def read_retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds of a Retry-After header: a number or a date (RFC 9110, 10.2.3); None where it is neither."""
    if value is None:
        return None
    if _SECONDS.fullmatch(value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None
