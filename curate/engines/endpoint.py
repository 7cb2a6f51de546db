"""One HTTP endpoint, called by many threads at once: its connections, its key, its limits and its patience.

In: method, path and body of a call. Out: a reply (status, body) or a silence (timeout, unreachable), never an exception
for what the network does. All calls run in one event loop in a thread of its own: since only there can a call be ended
wherever it hangs, be it in a header that trickles in, byte by byte. What it trades: one thread sends and reads all, which
is enough for thousands of calls a second, and a language model is slower than that.

An endpoint is a stranger: at most 16 MB of a reply are read, and a redirect is a reply like any other, never followed,
so that the key goes to no other host. TLS certificates are verified. Proxies are those of the environment, as httpx has
them.
"""

import asyncio
import concurrent.futures
import email.utils
import os
import re
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx2 as httpx

from curate.errors import RecipeError, RunError

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds
LARGEST_REPLY = 16_000_000  # bytes
LONGEST_CONNECT = 10.0  # seconds; what takes no connection is unreachable, whatever a reply may take
SILENCES = 8
"""So many requests in a row without any reply: the endpoint is taken for dead."""
REFUSALS = 8
"""So many in a row with a reply that tells nothing of the request: it is looked whether anything else comes."""


@dataclass(frozen=True)
class Key:
    """What an endpoint knows its user by; it is shown nowhere. Empty where none is needed."""

    value: str = field(repr=False)

    def hide(self, text: str) -> str:
        """The text with `[key]` in the key's places."""
        return text.replace(self.value, "[key]") if self.value else text


def read_key(variable: str | None) -> Key:
    """The key that an environment variable holds. Raises RecipeError where it holds none, or one that no header can."""
    if variable is None:
        return Key("")
    value = os.environ.get(variable, "").strip()
    if not value:
        raise RecipeError(
            f"key: the environment variable {variable} is not set; it is to hold the endpoint's key. "
            "Leave `key` out where the endpoint wants none"
        )
    if not re.fullmatch(r"[!-~]+", value):
        raise RecipeError(
            f"key: what the environment variable {variable} holds cannot be a key: accepted are ASCII letters, "
            "digits and signs, without blanks"
        )
    return Key(value)


@dataclass(frozen=True)
class Reply:
    """What came back. `whole` is false where the body was longer than is read; `body` is then its beginning."""

    status: int
    reason: str
    body: bytes
    whole: bool
    retry_after: float | None
    location: str


@dataclass(frozen=True)
class NoReply:
    """Nothing whole came back: `code` is timeout or unreachable, `detail` what happened."""

    code: str
    detail: str


class Tripped(asyncio.Event):
    """Set when an endpoint is given up; `why` is then the error of whatever is being asked."""

    why = ""


class CircuitBreaker:
    """Whether the endpoint is alive, as the requests of all threads found.

    `lost` is the event of an endpoint that is given up. Who begins to ask takes it, and gives up when it is set. Who
    begins later gets another, and so tries again; but one more such request will do then, until there is a better reply.
    """

    def __init__(self) -> None:
        self.lost = Tripped()
        self._silences = self._refusals = 0

    def replied(self) -> None:
        """There was a reply, of any status."""
        self._silences = 0

    def silent(self) -> None:
        """A request got no reply at any attempt."""
        self._silences += 1
        if self._silences >= SILENCES:
            self._give_up(f"unreachable: stopped after {SILENCES} requests in a row without a reply")
            self._silences = SILENCES - 1

    def accepted(self) -> None:
        """A reply was about the request."""
        self._refusals = 0

    def refused(self) -> bool:
        """A reply told nothing of the request. True: so many in a row did that it is to be found out why."""
        self._refusals += 1
        return self._refusals % REFUSALS == 0

    def refuses_all(self, error: str) -> None:
        """A harmless request got no answer either, with this error."""
        code, _, detail = error.partition(": ")
        self._give_up(f"{code}: stopped, since it answers no request: {detail}")
        self._refusals = REFUSALS - 1

    def _give_up(self, why: str) -> None:
        self.lost.why = why
        self.lost.set()
        self.lost = Tripped()


class Endpoint:
    """The connections to one address, open until `close`. `slots` bounds the requests at a time, `health` tells of it.

    Args:
        base_url: its address, without the slash at the end.
        key: sent as a bearer token.
        concurrency: connections kept open, and slots.
        timeout: seconds that a call may take, from connecting to the last byte.

    Raises:
        RecipeError: the proxy that the environment names cannot be used.
    """

    def __init__(self, base_url: str, key: Key, concurrency: int, timeout: float):
        self.base_url, self.key, self.timeout = base_url, key, timeout
        self.slots, self.health = asyncio.Semaphore(concurrency), CircuitBreaker()
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if key.value:
            headers["Authorization"] = f"Bearer {key.value}"
        try:
            self._client = httpx.AsyncClient(
                headers=headers,
                # No bound on connections: `slots` is one, and httpcore may lose a bounded pool's places on a timeout.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=concurrency),
                timeout=httpx.Timeout(None, connect=min(LONGEST_CONNECT, timeout / 2)),
                follow_redirects=False,
            )
        except (ImportError, ValueError) as error:  # socks without its package, a scheme that is none
            raise RecipeError(f"{base_url}: the proxy of the environment cannot be used: {error}") from None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"curate {base_url}", daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> "concurrent.futures.Future[T]":
        """Starts `work` in the endpoint's loop. `wait` gives what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def send(self, method: str, path: str, body: bytes | None) -> Reply | NoReply:
        """One call, without another attempt; it ends when `timeout` is over, whatever the endpoint does."""
        try:
            async with (
                asyncio.timeout(self.timeout),
                self._client.stream(method, f"{self.base_url}/{path}", content=body) as response,
            ):
                content, whole = await _read(response)
        except TimeoutError:
            return NoReply("timeout", f"no whole answer in {self.timeout:g} s")
        except httpx.DecodingError:  # compressed, though that was not asked for, and damaged
            content, whole = b"", True
        except (httpx.HTTPError, OSError) as error:
            return NoReply("unreachable", f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
        headers = response.headers
        return Reply(
            response.status_code,
            response.reason_phrase,
            content,
            whole,
            read_retry_after(headers.get("retry-after"), time.time()),
            headers.get("location", ""),
        )

    def close(self) -> None:
        """Ends the calls that run, with RunError for who waits for them, and closes the connections."""
        self.start(self._end()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.aclose()


def wait(future: "concurrent.futures.Future[T]") -> T:
    """What the work returns. It is ended where the waiting is, as by Ctrl-C. Raises RunError when the engine is closed."""
    try:
        return future.result()
    except concurrent.futures.CancelledError:
        raise RunError("the engine was closed during a request") from None
    except BaseException:
        future.cancel()
        raise


async def _read(response: httpx.Response) -> tuple[bytes, bool]:
    """The body, and whether that is all of it."""
    blocks, size = [], 0
    async for block in response.aiter_bytes():
        blocks.append(block)
        size += len(block)
        if size > LARGEST_REPLY:
            return b"".join(blocks)[:LARGEST_REPLY], False
    return b"".join(blocks), True


def read_retry_after(value: str | None, now: float) -> float | None:
    """Seconds that a Retry-After header asks for: a number or a date (RFC 9110, 10.2.3); None where it is neither."""
    if value is None:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def back_off(failures: int, retry_after: float | None, draw: float) -> float:
    """Seconds to wait before another attempt: exponential with full jitter, or what the endpoint asks for.

    Args:
        failures: attempts that failed, from 1.
        retry_after: what the endpoint asked for; never waited for longer than `LONGEST_PAUSE`, and spread by up to
            `FIRST_PAUSE`, lest all come back at once.
        draw: uniform in [0, 1).

    Source: Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015.
    """
    if retry_after is not None:
        return min(retry_after, LONGEST_PAUSE) + draw * FIRST_PAUSE
    return draw * min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 30))
