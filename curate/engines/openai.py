"""The engine that asks an OpenAI-compatible HTTP endpoint: `vllm serve`, llama.cpp, Ollama or a hosted service.

In: requests. Out: one answer each, in order, a text or a code of `request.ERRORS` with a line of detail. Whatever the
endpoint does, one request's trouble is its own, and what was answered is not asked again.

- 408, 429, 5xx, failed connections and timeouts are tried again, with exponential back-off and full jitter, or as
  Retry-After says. A request keeps its place among `concurrency` while it waits: so an endpoint that says it is
  overloaded is asked less, which costs throughput where only single requests fail.
- Other 4xx are `refused` or `too_long` at once, as is a redirect; a 2xx without a text is `malformed`, `empty` or, where
  the endpoint says that the model refused, `refused`.
- When 8 requests in a row got no reply at any attempt, the endpoint is taken for dead: whatever is being asked then is
  `unreachable` at once. When 8 in a row got a reply that says nothing of them (401, 403, a redirect, a page of HTML), it
  is asked for a token in answer to a hello: if such a reply comes to that too, whatever is being asked is given up at
  once, with that reason; else each is asked to the end. A later `ask` tries again.

The key is in an environment variable, and shown nowhere.
"""

import asyncio
import contextlib
import difflib
import json
import logging
import random
import re
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import httpx2 as httpx

from curate.engines.endpoint import LARGEST_REPLY, Endpoint, NoReply, Reply, Tripped, back_off, read_key, wait
from curate.engines.openai_protocol import (
    OURS,
    UnsendableError,
    error_code,
    read_answer,
    read_error,
    read_models,
    write_call,
)
from curate.engines.request import Answer, Message, Request, Sampling
from curate.errors import RecipeError, RunError

T = TypeVar("T")

logging.getLogger("httpx2").setLevel(logging.WARNING)  # it would tell of every request

LONGEST_DETAIL = 300  # characters
_SECRET = re.compile(r"api_?key|authorization|secret|password", re.IGNORECASE)
_LONG_KEY = 16  # characters: a shorter key may be a word of a text

_HELLO = Request("0" * 32, "check", "", 0, messages=(Message("user", "Hello"),), sampling=Sampling(max_tokens=1))


@dataclass(frozen=True)
class HttpOptions:
    """An endpoint and how it is asked.

    Attributes:
        base_url: its address with the version: http://localhost:8000/v1. No user, password, query or fragment.
        model: as the endpoint knows it.
        key: the NAME of the environment variable that holds the key; None where the endpoint wants none.
        concurrency: requests at a time, over all threads of the process.
        timeout: seconds that one attempt may take, from connecting to the last byte.
        attempts: how often a request is tried before it is given up.
        extra: further fields of each request's body, such as top_k; they win over those of the sampling.

    Raises:
        RecipeError: one of them is wrong.
    """

    base_url: str
    model: str
    key: str | None = None
    concurrency: int = 16
    timeout: float = 60.0
    attempts: int = 6
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_address(self.base_url)
        if self.key is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key):
            # Not shown: it may be a key.
            raise RecipeError(
                "key: is not the name of an environment variable; accepted: a name such as OPENAI_API_KEY"
            )
        if not self.model:
            raise RecipeError("model: is empty; accepted: a name that the endpoint knows")
        if self.concurrency < 1 or self.attempts < 1 or not 0 < self.timeout < float("inf"):
            raise RecipeError(
                f"concurrency {self.concurrency}, attempts {self.attempts}, timeout {self.timeout:g}: "
                "accepted: 1 or more, 1 or more, and seconds above 0"
            )
        if secret := next((name for name in self.extra if _SECRET.search(name)), None):
            raise RecipeError(
                f"extra: {secret} looks like a secret, and would be written down; a key is given by `key`"
            )
        if ours := sorted(set(self.extra) & set(OURS)):
            raise RecipeError(f"extra: {', '.join(ours)} cannot be set; accepted: any field but {', '.join(OURS)}")
        try:
            json.dumps(dict(self.extra), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"extra: is not accepted in JSON: {error}") from None


def _check_address(base_url: str) -> None:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        raise RecipeError("base_url: is no address; accepted: one such as http://localhost:8000/v1") from None
    if url.userinfo or url.query or url.fragment:
        # Not shown, here and above: it may hold a key.
        raise RecipeError(
            "base_url: holds a user, a password, a query or a fragment; accepted: an address without, such as "
            "http://localhost:8000/v1; a key is given by `key`, the name of an environment variable"
        )
    if url.scheme not in ("http", "https") or not url.host or any(c.isspace() for c in base_url):
        raise RecipeError(f"base_url {base_url!r}: accepted: an address such as http://localhost:8000/v1")


class HttpEngine:
    """An engine behind HTTP; see the module. One for a process: its threads share connections, slots and patience."""

    def __init__(self, options: HttpOptions):
        self.options = options
        self._base_url = options.base_url.rstrip("/")
        self._lock = threading.Lock()
        self._endpoint: Endpoint | None = None

    @property
    def model(self) -> str:
        """The model and the extra fields, which determine answers; not the address, which does not."""
        extra = dict(self.options.extra)
        if not extra:
            return self.options.model
        return f"{self.options.model} {json.dumps(extra, sort_keys=True, ensure_ascii=False, separators=(',', ':'))}"

    def check(self) -> None:
        """Asks the endpoint for its models, or for one token where it lists none.

        Raises:
            RecipeError: the key is missing or not accepted, the model is not there, or it is no such endpoint.
            RunError: the endpoint cannot be reached, or fails.
        """
        self._run(self._check)

    def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer for each request, in order; requests of one group are sent together.

        Raises:
            RecipeError: the key is missing.
            RunError: the engine was closed meanwhile.
        """
        return self._run(lambda endpoint: self._ask(endpoint, requests))

    def close(self) -> None:
        """Ends what runs and closes the connections; a later `ask` opens them again."""
        with self._lock:
            endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            endpoint.close()

    def _run(self, work: Callable[[Endpoint], Coroutine[Any, Any, T]]) -> T:
        with self._lock:  # also while it is started, so that none is started after `close` has looked for all
            if self._endpoint is None:
                options = self.options
                key = read_key(options.key)
                self._endpoint = Endpoint(self._base_url, key, options.concurrency, options.timeout)
            future = self._endpoint.start(work(self._endpoint))
        return wait(future)

    async def _ask(self, endpoint: Endpoint, requests: Sequence[Request]) -> list[Answer]:
        answers: dict[int, Answer] = {}
        lost = endpoint.health.lost
        waiting = iter(sorted(range(len(requests)), key=lambda place: requests[place].group))

        async def work() -> None:
            for place in waiting:
                async with endpoint.slots:
                    answer = await self._answer(endpoint, requests[place], lost)
                if answer.error is not None:
                    answer = replace(answer, error=_line(endpoint, answer.error))
                answers[place] = answer

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self.options.concurrency, len(requests))):
                group.create_task(work())
        return [answers[place] for place in range(len(requests))]

    async def _answer(self, endpoint: Endpoint, request: Request, lost: Tripped) -> Answer:
        try:
            call = write_call(request, self.options.model, self.options.extra)
        except UnsendableError as error:
            return Answer(None, str(error))
        answer = Answer(None)
        for attempt in range(1, self.options.attempts + 1):
            if lost.is_set():
                return Answer(None, lost.why)
            reply = await endpoint.send("POST", call.path, call.body)
            if isinstance(reply, NoReply):
                answer, asked = Answer(None, f"{reply.code}: {reply.detail}"), None
            else:
                endpoint.health.replied()
                answer, asked = _hidden(_read_reply(reply), endpoint), reply.retry_after
                if not _is_passing(reply.status):
                    await self._watch(endpoint, request, reply, answer)
                    return answer
            if attempt < self.options.attempts:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(lost.wait(), back_off(attempt, asked, random.random()))
        if isinstance(reply, NoReply) and not lost.is_set():
            endpoint.health.silent()
        return replace(answer, error=f"{answer.error} (the last of {self.options.attempts} attempts)")

    async def _watch(self, endpoint: Endpoint, request: Request, reply: Reply, answer: Answer) -> None:
        """Gives the endpoint up where whatever it is asked gets no answer."""
        if not _is_no_answer(reply, answer):
            endpoint.health.accepted()
        elif endpoint.health.refused():
            hello = _HELLO if request.prompt is None else replace(_HELLO, prompt="Hello", messages=())
            call = write_call(hello, self.options.model, self.options.extra)
            found = await endpoint.send("POST", call.path, call.body)
            if isinstance(found, NoReply) or _is_passing(found.status):
                return
            said = _read_reply(found)
            if _is_no_answer(found, said):
                endpoint.health.refuses_all(said.error or "")
            else:
                endpoint.health.accepted()

    async def _check(self, endpoint: Endpoint) -> None:
        model = self.options.model
        reply = await endpoint.send("GET", "models", None)
        if isinstance(reply, Reply) and reply.status in (404, 405):
            await self._check_by_asking(endpoint)
            return
        names = read_models(self._accept(endpoint, reply, "models").body)
        if names is None:
            raise self._no_such_endpoint("models: the answer is no list of models")
        if model not in names:
            near = difflib.get_close_matches(model, names, 3, 0.4) or names[:3]
            more = f" (of {len(names)})" if len(names) > len(near) else ""
            raise RecipeError(
                _line(
                    endpoint,
                    f"{self._base_url}: has no model {model!r}; it has {', '.join(map(repr, near)) or 'none'}{more}",
                )
            )

    async def _check_by_asking(self, endpoint: Endpoint) -> None:
        for hello in (_HELLO, replace(_HELLO, prompt="Hello", messages=())):
            call = write_call(hello, self.options.model, self.options.extra)
            reply = await endpoint.send("POST", call.path, call.body)
            # A model without a chat template refuses chats, and an endpoint may have one of the two only.
            if isinstance(reply, Reply) and reply.status in (400, 404, 405) and hello is _HELLO:
                continue
            answer = read_answer(self._accept(endpoint, reply, call.path).body)
            if (answer.error or "").startswith("malformed"):
                raise self._no_such_endpoint(f"{call.path}: {_line(endpoint, f'the answer is {answer.error}')}")
            return

    def _accept(self, endpoint: Endpoint, reply: Reply | NoReply, path: str) -> Reply:
        """The reply, where it is a 2xx; else raises what that means before a run."""
        where = f"{self._base_url}/{path}"
        if isinstance(reply, NoReply):
            raise RunError(
                _line(
                    endpoint, f"{self._base_url}: cannot be reached ({reply.detail}); accepted: an endpoint that runs"
                )
            )
        if 200 <= reply.status < 300:
            return reply
        said = _describe(reply)
        if reply.status in (401, 403):
            key = self.options.key
            remedy = (
                f"the key in the environment variable {key} is not accepted for this"
                if key
                else "it wants a key: give `key`, the name of an environment variable that holds it"
            )
            raise RecipeError(f"{where}: {remedy}; {_line(endpoint, said)}")
        if 300 <= reply.status < 400:
            raise RecipeError(f"{where}: {_line(endpoint, said)}; give the address where it leads as base_url")
        if _is_passing(reply.status):
            raise RunError(f"{where}: the endpoint fails or is too busy; {_line(endpoint, said)}")
        raise self._no_such_endpoint(f"{path}: {_line(endpoint, said)}")

    def _no_such_endpoint(self, found: str) -> RecipeError:
        return RecipeError(
            f"{self._base_url}/{found}. Accepted: the address of an OpenAI-compatible endpoint, which mostly ends in /v1"
        )


def _is_passing(status: int) -> bool:
    """Whether another attempt may do better."""
    return status in (408, 429) or status >= 500


def _is_no_answer(reply: Reply, answer: Answer) -> bool:
    """Whether it may be what any request gets: no 2xx, and none of those that find fault with one; or what is no answer."""
    if 200 <= reply.status < 300:
        return (answer.error or "").startswith("malformed")
    return reply.status not in (400, 413, 422)


def _read_reply(reply: Reply) -> Answer:
    if not 200 <= reply.status < 300:
        said = _describe(reply)
        return Answer(None, f"{error_code(reply.status, said)}: {said}")
    if not reply.whole:
        return Answer(None, f"malformed: the answer is longer than {LARGEST_REPLY:,} bytes")
    return read_answer(reply.body)


def _hidden(answer: Answer, endpoint: Endpoint) -> Answer:
    """The answer without the key, which an endpoint may give back."""
    if answer.text is None or len(endpoint.key.value) < _LONG_KEY:
        return answer
    return replace(answer, text=endpoint.key.hide(answer.text))


def _describe(reply: Reply) -> str:
    """Status, and what the endpoint says of it."""
    said = f"{reply.status} {reply.reason}".strip()
    if 300 <= reply.status < 400:
        return f"{said}: a redirect to {reply.location}, which is not followed, lest the key go elsewhere"
    told = read_error(reply.body)
    return f"{said}: {told}" if told else said


def _line(endpoint: Endpoint, text: str) -> str:
    """The text as one printable line, the key hidden in it before it is cut."""
    text = endpoint.key.hide(text)[: 8 * LONGEST_DETAIL]
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= LONGEST_DETAIL else f"{line[: LONGEST_DETAIL - 1]}…"
