"""The engine behind an OpenAI-compatible HTTP endpoint: `vllm serve`, llama.cpp, Ollama or a hosted service.

In: requests. Out: one answer per request: a text, or a code of `engine.ERRORS` with a line of detail.

- The engine retries 408, 429, 5xx, failed connections and timeouts, after the time in Retry-After or with exponential
  backoff and full jitter. A waiting request keeps its `concurrency` slot, which takes load off a busy endpoint.
- Other 4xx replies and redirects immediately give the error `refused` or `too_long`. A 2xx reply without a text gives
  `malformed`, `empty` or, if the endpoint reports that the model refused, `refused`.
- `CircuitBreaker` decides when to give up on an endpoint; all waiting requests then end with its reason. If replies are
  errors that any request would get, such as 401, it first probes the endpoint with a request for one token.

The key is read from an environment variable and is never shown.

The client is the package openai, without its retries, which do not report failed attempts and stop at a Retry-After
over two minutes. All calls run in one event loop in its own thread, since only there can a hanging call be canceled.
Trade-off: one thread handles a few hundred calls per second.

Endpoints are untrusted: at most 1 MB of an answer is read (16 MB of a list of models), and redirects are not followed,
so that no other host gets the key. TLS certificates are verified. Proxies come from the environment.
"""

import asyncio
import contextlib
import difflib
import json
import logging
import os
import queue
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace
from functools import partial
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from curate.base import ids
from curate.base.errors import RecipeError, RunError, needing, reraised
from curate.base.process import Cache
from curate.base.wording import read_retry_after
from curate.llm.endpoint import CircuitBreaker, Tripped, limit_reply, read_key
from curate.llm.engine import Answer, Engine, EngineOptions, Message, Request, Sampling
from curate.llm.openai_protocol import Reply, UnsentError, read_models, write_chat
from curate.recipe.section import fault

# Body fields that options may not set, since the engine reads one whole answer to each request.
FIXED = ("model", "messages", "prompt", "stream", "n")
FIRST_PAUSE, MAX_PAUSE = 1.0, 60.0  # seconds
MAX_CONNECT = 10.0  # seconds, even if a reply may take longer
MAX_DETAIL = 300  # characters
_SECRET = re.compile(r"api_?key|authorization|secret|password", re.IGNORECASE)

_log = logging.getLogger(__name__)
_HELLO = Request("0" * 32, "check", "", 0, messages=(Message("user", "Hello"),), sampling=Sampling(max_tokens=1))
_HELLO_PROMPT = replace(_HELLO, prompt="Hello", messages=())


class OpenAI(EngineOptions):
    """An endpoint that speaks OpenAI's protocol, such as `vllm serve`, llama.cpp, Ollama, or a hosted service.

    Needs `pip install '.[captions]'`. The run stops in each of these cases:

    - The endpoint fails to reply 8 times in a row.
    - It answers every request with 401, 403, or an HTML page.
    - It returns only 408, 429, or 5xx for `patience` seconds.
    """

    example: ClassVar[Any] = {"base_url": "http://localhost:8000/v1", "model": "my-vlm", "key": "MY_KEY"}

    base_url: str = Field(examples=["http://localhost:8000/v1"])
    """Address of the endpoint, with the protocol version (`/v1`), but no user, password, query, or fragment."""
    model: str = Field(examples=["my-vlm"], min_length=1)
    """Name of the model at the endpoint."""
    key: str | None = Field(None, examples=["OPENAI_API_KEY"])
    """Name of the environment variable that has the API key. Never write the key itself. null: no key."""
    concurrency: int = Field(16, examples=[64], ge=1, le=4096, strict=True)
    """Number of requests that each process sends at the same time."""
    timeout: float = Field(60.0, examples=[120], gt=0, allow_inf_nan=False)
    """Maximum time for an attempt, in seconds, from connecting to the last byte."""
    attempts: int = Field(6, examples=[3], ge=1, le=100, strict=True)
    """Maximum number of attempts for a request."""
    patience: float = Field(600.0, examples=[60], gt=0, allow_inf_nan=False)
    """If an endpoint returns only 408, 429, or 5xx for this many seconds, the run stops."""
    extra: dict[str, Any] = Field({}, examples=[{"top_k": 40}])
    """Fields to add to the body of each request. They override the sampling settings."""

    @model_validator(mode="after")
    def _is_sound(self) -> "OpenAI":
        _check_address(self.base_url)
        if self.key is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key):
            # The value is not shown, since it may be a key.
            raise fault("key", "is not the name of an environment variable; accepted: a name such as OPENAI_API_KEY")
        if secret := next((name for name in self.extra if _SECRET.search(name)), None):
            raise fault("extra", f"{secret} looks like a secret, and the run folder would store it; use `key` instead")
        if fixed := sorted(set(self.extra) & set(FIXED)):
            raise fault("extra", f"{', '.join(fixed)} cannot be set; accepted: any field but {', '.join(FIXED)}")
        with reraised(partial(fault, "extra"), "is not accepted in JSON", TypeError, ValueError):
            json.dumps(self.extra, allow_nan=False)
        return self

    def open(self) -> "OpenAIEngine":
        return OpenAIEngine(self)

    def fingerprint(self) -> str:
        """See `EngineOptions`. A different key may be a different user."""
        return ids.digest(os.environ.get(self.key or "", ""))


def _check_address(base_url: str) -> None:
    example = "an address such as http://localhost:8000/v1"
    try:
        url = urlsplit(base_url)
        _ = url.port
    except ValueError:
        raise fault("base_url", f"is not an address; accepted: {example}") from None
    if "@" in url.netloc or url.query or url.fragment:
        # The value is not shown, here and above, since it may contain a key.
        accepted = f"{example}, without these; for a key, set `key` to the name of an environment variable"
        raise fault("base_url", f"contains a user, a password, a query, or a fragment; accepted: {accepted}")
    if url.scheme not in ("http", "https") or not url.hostname or any(c.isspace() for c in base_url):
        raise fault("base_url", f"{base_url!r} is not an address; accepted: {example}")


class Endpoint:
    """Up to `concurrency` connections to one address, and its key, sent as a bearer token.

    Raises RecipeError if the key or a package is missing, or the environment's proxy cannot be used.
    """

    def __init__(self, options: OpenAI):
        self._options, self._key, self._base_url = options, read_key(options.key), options.base_url.rstrip("/")
        with needing("an HTTP endpoint needs another package", "'.[captions]' in a checkout of curate"):
            import httpx2
            import openai
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # it would log every request
        self._slots = asyncio.Semaphore(options.concurrency)
        self._breaker = CircuitBreaker(options.patience, self._warn)
        problem = f"{self._base_url}: the proxy that the environment names cannot be used"
        with reraised(RecipeError, problem, ImportError, ValueError):  # socks package missing, unknown scheme
            http = httpx2.AsyncClient(
                # No limit here: `_slots` limits connections, and httpcore may leak a bounded pool's slots on timeouts.
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=options.concurrency),
                timeout=httpx2.Timeout(None, connect=min(MAX_CONNECT, options.timeout / 2)),
                follow_redirects=False,
                event_hooks={"response": [limit_reply]},
            )
        omitted = ["OpenAI-Organization", "OpenAI-Project"]  # the environment's values are only for OpenAI
        headers = dict.fromkeys(omitted if self._key else [*omitted, "Authorization"], openai.Omit())
        self._headers: Any = {**headers, "Accept-Encoding": "identity"}
        calls: Any = {"base_url": self._base_url, "max_retries": 0, "timeout": http.timeout}
        self._client = openai.AsyncOpenAI(http_client=http, api_key=self._key or "none", **calls)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name=f"curate {self._base_url}", daemon=True).start()

    def check(self) -> None:
        """See `OpenAIEngine.check`."""
        asyncio.run_coroutine_threadsafe(self._check(), self._loop).result()

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Yield one answer per request. If the caller stops, for example by Ctrl-C, work in the loop is canceled."""
        results: queue.SimpleQueue[tuple[int, Answer] | Future[None]] = queue.SimpleQueue()
        future = asyncio.run_coroutine_threadsafe(self._answer_all(requests, results.put), self._loop)
        future.add_done_callback(results.put)  # the last item
        try:
            while not isinstance(item := results.get(), Future):
                yield item
            future.result()
        finally:
            future.cancel()

    async def _ask(self, request: Request) -> Reply:
        """Send a request once: a prompt to /completions, a chat to /chat/completions. `extra` overrides other fields.

        Raises UnsentError if there is no prompt or chat, or if the image cannot be added or has an unknown format.
        """
        fields = {"model": self._options.model, **asdict(request.sampling), "extra_body": self._options.extra}
        if not request.sampling.stop:
            del fields["stop"]
        if request.prompt is None:
            chats = self._client.chat.completions.with_raw_response
            return await self._send(partial(chats.create, messages=write_chat(request), **fields))
        if request.image is not None:
            raise UnsentError("refused: not sent, since a completion prompt cannot contain an image; use a chat")
        completions = self._client.completions.with_raw_response
        return await self._send(partial(completions.create, prompt=request.prompt, **fields))

    async def _send(self, call: Callable[..., Any]) -> Reply:
        """Call the endpoint once. This ends after `timeout` seconds, whatever the endpoint does."""
        import openai

        try:
            async with asyncio.timeout(self._options.timeout):
                response = (await call(extra_headers=self._headers)).http_response
        except TimeoutError:
            return Reply(0, f"timeout: no complete answer in {self._options.timeout:g} s")
        except openai.APIStatusError as error:
            response = error.response
        except (openai.APIConnectionError, OSError) as error:
            cause = error.__cause__ or error
            return Reply(0, f"unreachable: {type(cause).__name__}: {cause}".removesuffix(": "))
        retry_after = read_retry_after(response.headers.get("retry-after"), time.time())
        location = response.headers.get("location", "")
        return Reply(response.status_code, response.reason_phrase, response.content, retry_after, location)

    def _warn(self, text: str) -> None:
        _log.warning("%s: %s", self._base_url, self._one_line(text))

    def _hide_key(self, text: str) -> str:
        """Return the text without the key, which an endpoint may echo; a short key may be an ordinary word."""
        return text.replace(self._key, "[key]") if self._key and len(self._key) >= 16 else text

    def _one_line(self, text: str) -> str:
        """Return the text as one printable line; the key is hidden before the text is cut."""
        text = (text.replace(self._key, "[key]") if self._key else text)[: 8 * MAX_DETAIL]
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return line if len(line) <= MAX_DETAIL else f"{line[: MAX_DETAIL - 1]}…"

    async def _answer_all(self, requests: Sequence[Request], put: Callable[[Any], None]) -> None:
        async def work(index: int, tripped: Tripped) -> None:
            async with self._slots:
                answer = await self._answer(requests[index], tripped)
            if answer.error is not None:
                answer = replace(answer, error=self._one_line(answer.error))
            elif answer.text:
                answer = replace(answer, text=self._hide_key(answer.text))
            put((index, answer))

        with self._breaker.batch() as tripped:
            async with asyncio.TaskGroup() as group:
                for index in sorted(range(len(requests)), key=lambda index: requests[index].group):
                    group.create_task(work(index, tripped))

    async def _answer(self, request: Request, tripped: Tripped) -> Answer:
        hello, attempts = _HELLO if request.prompt is None else _HELLO_PROMPT, self._options.attempts
        for attempt in range(1, attempts + 1):
            if tripped.is_set():  # the breaker gave up
                return Answer(None, tripped.reason)
            try:
                reply = await self._ask(request)
            except UnsentError as error:
                return Answer(None, str(error))
            if self._breaker.note(reply):
                self._breaker.note_probe(await self._ask(hello))
            if not reply.is_transient:
                return reply.answer
            if attempt < attempts:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(tripped.wait(), choose_pause(reply.retry_after, attempt))
        if not reply.status and not tripped.is_set():
            self._breaker.note_no_reply()
        return replace(reply.answer, error=f"{reply.answer.error} (the last of {attempts} attempts)")

    async def _check(self) -> None:
        model = self._options.model
        reply = await self._send(self._client.models.with_raw_response.list)
        if reply.status in (404, 405):
            return await self._check_by_asking()
        self._check_reply(reply, "/models")
        names = read_models(reply.body)
        if names is None:
            raise self._no_such_endpoint("/models: the answer is not a list of models")
        if model not in names:
            near = difflib.get_close_matches(model, names, 3, 0.4) or names[:3]
            has = (", ".join(map(repr, near)) or "none") + (f" (of {len(names)})" if len(names) > len(near) else "")
            raise RecipeError(self._one_line(f"{self._base_url}: has no model {model!r}; it has {has}"))

    async def _check_by_asking(self) -> None:
        path, reply = "/chat/completions", await self._ask(_HELLO)
        if reply.status in (400, 404, 405):  # no chat template, or no such path
            path, reply = "/completions", await self._ask(_HELLO_PROMPT)
        self._check_reply(reply, path)
        if reply.is_no_answer:
            raise self._no_such_endpoint(f"{path}: {self._one_line(f'the answer is {reply.answer.error}')}")

    def _check_reply(self, reply: Reply, path: str) -> None:
        """Raise the error for a reply that is not 2xx, before a run."""
        if reply.is_success:
            return
        where, detail = f"{self._base_url}{path}", self._one_line(reply.detail)
        if not reply.status:
            raise RunError(f"{self._base_url}: cannot be reached ({detail}); accepted: a running endpoint")
        if reply.status in (401, 403):
            remedy = "the endpoint needs a key: set `key` to the name of an environment variable"
            if self._options.key:
                remedy = f"the key in the environment variable {self._options.key} is not accepted"
            raise RecipeError(f"{where}: {remedy}; {detail}")
        if 300 <= reply.status < 400:
            raise RecipeError(f"{where}: {detail}; set base_url to the address of the redirect")
        if reply.is_transient:
            raise RunError(f"{where}: the endpoint has an error or is too busy; {detail}")
        raise self._no_such_endpoint(f"{path}: {detail}")

    def _no_such_endpoint(self, problem: str) -> RecipeError:
        accepted = "the address of an OpenAI-compatible endpoint, which usually ends in /v1"
        return RecipeError(f"{self._base_url}{problem}. Accepted: {accepted}")


class OpenAIEngine(Engine):
    """An engine behind HTTP; see the module. A process has one. Its threads share connections, slots and patience."""

    def __init__(self, options: OpenAI):
        self.options = options
        self._opened = Cache[Endpoint]()

    @property
    def model(self) -> str:
        """The model and the extra fields, which determine answers. The address does not, so it is not included."""
        extra = self.options.extra
        if not extra:
            return self.options.model
        return f"{self.options.model} {json.dumps(extra, sort_keys=True, ensure_ascii=False, separators=(',', ':'))}"

    def check(self) -> None:
        """Ask the endpoint for its models, or for one token if it does not list models.

        Raises RecipeError if the key is missing or not accepted, the model does not exist, or the address is not such
        an endpoint; RunError if the endpoint cannot be reached or fails.
        """
        self._open().check()

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Yield one answer per request. Requests of a group are sent together. Raises RecipeError without a key."""
        yield from self._open().answers(requests)

    def _open(self) -> Endpoint:
        return self._opened.get("", partial(Endpoint, self.options))


def choose_pause(retry_after: float | None, attempt: int) -> float:
    """Return the seconds to wait after an attempt: as the endpoint asks, or exponential with full jitter.

    Up to `FIRST_PAUSE` is added to the endpoint's time, so that requests do not all return at once; the total is at
    most `MAX_PAUSE`. Source: Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015.
    """
    if retry_after is not None:
        return min(retry_after, MAX_PAUSE) + random.random() * FIRST_PAUSE
    return random.uniform(0, min(MAX_PAUSE, FIRST_PAUSE * 2 ** min(attempt - 1, 99)))
