"""One HTTP endpoint, called by many threads at once: its connections, key and limits, and when it is given up.

In: requests. Out: a reply (status, body), never an exception for what the network does. The client is that of package
openai, without its own retries: they report no failed attempts, and end where Retry-After is over two minutes. All
calls run in one event loop in a thread of its own: only there can a call be ended wherever it hangs. Trade-off: one
thread does all, some hundred calls a second.

An endpoint is a stranger: at most 1 MB of an answer is read (16 MB of a list of models), and no redirect is followed,
so that the key goes to no other host. TLS certificates are verified. Proxies are those of the environment.
"""

import asyncio
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import aclosing, contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar, cast

from curate.base.errors import RecipeError, needing
from curate.base.wording import read_retry_after
from curate.llm.engine import Request
from curate.llm.openai_protocol import MAX_LIST, MAX_REPLY, Reply, UnsentError, write_chat

T = TypeVar("T")

MAX_CONNECT = 10.0  # seconds; what takes no connection is unreachable, whatever a reply may take
MAX_DETAIL = 300  # characters
MAX_NO_REPLIES = 8  # requests in a row without any reply after which the endpoint is taken for dead
MAX_REFUSALS = 8  # replies in a row that say nothing of their request after which the endpoint is probed
FIRST_WARNING, NEXT_WARNING = 30.0, 60.0  # seconds without any answer after which it is said, first and again

_log = logging.getLogger(__name__)


def read_key(variable: str | None) -> str:
    """Return the key of an environment variable, empty without one. Raises RecipeError where it holds none."""
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        remedy = "it must hold the endpoint's key; leave `key` out if the endpoint needs none"
        raise RecipeError(f"key: the environment variable {variable} is not set; {remedy}")
    if not re.fullmatch(r"[!-~]+", key):
        accepted = "ASCII letters, digits and punctuation, without spaces"
        raise RecipeError(f"key: the environment variable {variable} cannot be a key; accepted: {accepted}")
    return key


class Endpoint:
    """The connections to one address, as many as `concurrency`, and its key, which is sent as a bearer token.

    `slots` bounds the requests at a time; `timeout`: seconds of a call, from connecting to the last byte; `patience`
    see `CircuitBreaker`. Raises RecipeError where a package is missing, or the environment's proxy cannot be used.
    """

    def __init__(self, base_url: str, key: str, concurrency: int, timeout: float, patience: float):
        with needing("an HTTP endpoint needs another package", "'.[captions]' in a checkout of curate"):
            import httpx2
            import openai
            import tenacity  # noqa: F401
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # it would log every request
        self._key, self._timeout = key, timeout
        self.slots = asyncio.Semaphore(concurrency)
        self.breaker = CircuitBreaker(patience, lambda text: _log.warning("%s: %s", base_url, self.one_line(text)))
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
        omitted = ["OpenAI-Organization", "OpenAI-Project"]  # those of the environment are for OpenAI alone
        headers = dict.fromkeys(omitted if key else [*omitted, "Authorization"], openai.Omit())
        self._headers: Any = {**headers, "Accept-Encoding": "identity"}
        options: Any = {"api_key": key or "none", "base_url": base_url, "max_retries": 0, "timeout": http.timeout}
        self._client = openai.AsyncOpenAI(http_client=http, **options)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name=f"curate {base_url}", daemon=True).start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of `work`, done in the endpoint's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def stream(self, work: Callable[[Callable[[T], None]], Coroutine[Any, Any, None]]) -> Iterator[T]:
        """Yield what `work`, done in the endpoint's loop, puts; it ends with the waiting, as by Ctrl-C."""
        results: queue.SimpleQueue[T | Future[None]] = queue.SimpleQueue()
        future = asyncio.run_coroutine_threadsafe(work(results.put), self._loop)
        future.add_done_callback(results.put)  # the last that comes
        try:
            while (item := results.get()) is not future:
                yield cast(T, item)
            future.result()
        finally:
            future.cancel()

    async def ask(self, request: Request, model: str, extra: Mapping[str, Any]) -> Reply:
        """Send a request, once: a prompt to /completions, a chat to /chat/completions. Fields of `extra` win.

        Raises UnsentError without a prompt or chat, or where an image cannot be placed or is of no known kind.
        """
        fields = {"model": model, **asdict(request.sampling), "extra_body": dict(extra)}
        if not request.sampling.stop:
            del fields["stop"]
        if request.prompt is None:
            chats = self._client.chat.completions.with_raw_response
            return await self._send(partial(chats.create, messages=write_chat(request), **fields))
        if request.image is not None:
            raise UnsentError("refused: not sent, since a completion takes no image; use a chat")
        completions = self._client.completions.with_raw_response
        return await self._send(partial(completions.create, prompt=request.prompt, **fields))

    async def list_models(self) -> Reply:
        return await self._send(self._client.models.with_raw_response.list)

    async def _send(self, call: Callable[..., Any]) -> Reply:
        """Call once; it ends when `timeout` is over, whatever the endpoint does."""
        import openai

        try:
            async with asyncio.timeout(self._timeout):
                response = (await call(extra_headers=self._headers)).http_response
        except TimeoutError:
            return Reply(0, f"timeout: no complete answer in {self._timeout:g} s")
        except openai.APIStatusError as error:
            response = error.response
        except (openai.APIConnectionError, OSError) as error:
            cause = error.__cause__ or error
            return Reply(0, f"unreachable: {type(cause).__name__}: {cause}".removesuffix(": "))
        retry_after = read_retry_after(response.headers.get("retry-after"), time.time())
        location = response.headers.get("location", "")
        return Reply(response.status_code, response.reason_phrase, response.content, retry_after, location)

    def hide_key(self, text: str) -> str:
        """Return a text without the key, which an endpoint may echo; short keys may be words of texts."""
        return text.replace(self._key, "[key]") if self._key and len(self._key) >= 16 else text

    def one_line(self, text: str) -> str:
        """Return the text as one printable line, the key hidden in it before it is cut."""
        text = (text.replace(self._key, "[key]") if self._key else text)[: 8 * MAX_DETAIL]
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return line if len(line) <= MAX_DETAIL else f"{line[: MAX_DETAIL - 1]}…"


class Tripped(asyncio.Event):
    """Set when an endpoint is given up; `reason` is then the error of whatever is waiting for it."""

    reason = ""


class CircuitBreaker:
    """The state of an endpoint, used in its event loop alone.

    A batch of requests takes the event `tripped` when it begins, and ends when that is set. A later batch gets another
    event and tries again; but one failed request trips that, until there is a better reply. `patience`: the seconds for
    which all requests may fail or find it too busy; `warn` says so meanwhile.
    """

    def __init__(self, patience: float, warn: Callable[[str], None]) -> None:
        self.tripped = Tripped()
        self._patience, self._warn = patience, warn
        self._batches = self._no_replies = self._refusals = 0
        self._since: float | None = None  # when it first said that it fails, since the last answer
        self._next_warning = 0.0
        self._was_failing = False  # given up for that

    @contextmanager
    def batch(self) -> Iterator[Tripped]:
        """Yield the event of a batch of requests that is sent in the block; time without a batch does not count."""
        if not self._batches:
            self._since = None
        self._batches += 1
        try:
            yield self.tripped
        finally:
            self._batches -= 1

    def note(self, reply: Reply) -> bool:
        """Note what came of an attempt. Return whether to probe: too many replies say nothing of their request."""
        if reply.status:
            self._no_replies = 0
        if reply.is_transient:
            self._note_failure(reply)
        elif reply.is_no_answer:
            self._refusals += 1
            return self._refusals % MAX_REFUSALS == 0
        else:  # about its request: the endpoint works
            self._refusals, self._since, self._was_failing = 0, None, False
        return False

    def note_probe(self, reply: Reply) -> None:
        """Note what came of a harmless request."""
        if reply.is_no_answer:
            self._trip(f"{reply.code}: stopped, since it answers no request: {reply.detail}")
            self._refusals = MAX_REFUSALS - 1
        elif not reply.is_transient:
            self.note(reply)

    def note_no_reply(self) -> None:
        """Note a request that got no reply at any attempt."""
        self._no_replies += 1
        if self._no_replies >= MAX_NO_REPLIES:
            self._trip(f"unreachable: stopped after {MAX_NO_REPLIES} requests in a row without a reply")
            self._no_replies = MAX_NO_REPLIES - 1

    def _note_failure(self, reply: Reply) -> None:
        now = time.monotonic()
        if self._since is None:
            if not reply.status:  # `note_no_reply` counts requests, which may take long
                return
            self._since, self._next_warning = now, now + FIRST_WARNING
        passed = now - self._since
        if self._was_failing or passed >= self._patience:
            self._trip(f"{reply.code}: stopped after {passed:.0f} s without an answer to any request: {reply.detail}")
            self._was_failing = True
        elif now >= self._next_warning:
            limit = f"curate gives up after {self._patience:.0f} s (patience)"
            self._warn(f"has answered no request for {passed:.0f} s: {reply.detail}; {limit}")
            self._next_warning = now + NEXT_WARNING

    def _trip(self, reason: str) -> None:
        self.tripped.reason = reason
        self.tripped.set()
        self.tripped = Tripped()


async def _limit_reply(response: Any) -> None:
    """Read one byte more than the limit at most, and let none be decompressed: identity was requested."""
    import httpx2

    limit, body = MAX_LIST if response.request.method == "GET" else MAX_REPLY, bytearray()
    response.headers.pop("content-encoding", None)
    async with aclosing(response.stream), aclosing(aiter(response.stream)) as blocks:
        async for block in blocks:
            body += block
            if len(body) > limit:
                break
    response.stream = httpx2.ByteStream(bytes(body[: limit + 1]))
