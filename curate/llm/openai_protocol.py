"""OpenAI's protocol: write a request's chat and parse the bytes of replies. Nothing here uses the network.

Endpoints are untrusted: the functions that read replies return a value for any bytes, and never raise. The engine hides
its key in details and then cuts them to one line.

Source: OpenAI's API reference, as implemented by `vllm serve`, llama.cpp, Ollama and hosted services.
"""

import base64
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic_core import from_json

from curate.llm.engine import Answer, Request
from curate.read.image import format_of

MAX_REPLY, MAX_LIST = 1_000_000, 16_000_000  # maximum bytes of an answer, and of a list of models
_IMAGES = ("jpeg", "png", "webp", "gif")
# Servers' messages for a prompt that is too long: OpenAI and vLLM in several versions, llama.cpp, Anthropic.
_TOO_LONG = re.compile(
    r"(?i)context[ _](length|size|window)|maximum model length|max_tokens must be at least 1|prompt is too long"
)
_FINISH = re.compile(r"[A-Za-z_]{1,32}")


class UnsentError(Exception):
    """A request cannot be sent. The message is the error of its answer: a code and a detail."""


@dataclass(frozen=True)
class Reply:
    """A reply. If no complete one arrived, `status` is 0 and `reason` is an error of `engine.ERRORS`."""

    status: int
    reason: str
    body: bytes = b""
    retry_after: float | None = None  # seconds
    location: str = ""

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_transient(self) -> bool:
        """Whether another attempt may succeed."""
        return self.status in (0, 408, 429) or self.status >= 500

    @cached_property
    def answer(self) -> Answer:
        """The answer in it, or the reason why there is none."""
        if not self.status:
            return Answer(None, self.reason)
        if self.is_success:
            return read_answer(self.body)
        detail = read_error(self.body)
        if 300 <= self.status < 400:
            detail = f"redirects to {self.location}; curate does not follow redirects, to keep the key secret"
        detail = f"{self.status} {self.reason}".strip() + (f": {detail}" if detail else "")
        return Answer(None, f"{error_code(self.status, detail)}: {detail}")

    @property
    def code(self) -> str:
        """One of `engine.ERRORS`; empty for an answer."""
        return (self.answer.error or "").partition(": ")[0]

    @property
    def detail(self) -> str:
        """The status and the endpoint's message, or why there is no reply; empty for an answer."""
        return (self.answer.error or "").partition(": ")[2]

    @property
    def is_no_answer(self) -> bool:
        """Whether it says nothing about its request: it is a malformed 2xx, or an error that any request may get."""
        if self.is_success:
            return self.code == "malformed"
        return not self.is_transient and self.status not in (400, 413, 422)


def write_chat(request: Request) -> list[dict[str, Any]]:
    """Return a chat's messages. The image is a data URL before the user's last text, a third longer than the file.

    Raises UnsentError if there are no messages, no user message for the image, or if the image's format is unknown.
    """
    if not request.messages:
        raise UnsentError("refused: not sent, since the request has neither a prompt nor messages")
    chat: list[dict[str, Any]] = [{"role": message.role, "content": message.text} for message in request.messages]
    if request.image is None:
        return chat
    kind = format_of(request.image)
    if kind not in _IMAGES:
        begin = request.image[:8].hex(" ")
        raise UnsentError(f"no_image: not sent, since the image is not JPEG, PNG, WebP, or GIF; it begins with {begin}")
    last = next((message for message in reversed(chat) if message["role"] == "user"), None)
    if last is None:
        raise UnsentError("refused: not sent, since the request has no user message for the image")
    url = f"data:image/{kind};base64,{base64.b64encode(request.image).decode()}"
    last["content"] = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": last["content"]}]
    return chat


def _to_count(value: object) -> int:
    return value if isinstance(value, int) and 0 < value < 1 << 31 else 0


def read_answer(body: bytes) -> Answer:
    """Return the answer in the body of a 2xx: its first choice. Never raises.

    Text parts are joined; other parts, such as thoughts, are skipped. A marked refusal (`message.refusal`) is
    `refused`; a refusal written as text is a text, which gates see. White space alone is `empty`. Tokens are counted in
    every case.
    """
    if len(body) > MAX_REPLY:
        return Answer(None, f"malformed: the answer is longer than {MAX_REPLY:,} bytes")
    try:
        reply = from_json(body)
    except ValueError:
        return Answer(None, f"malformed: {'HTML, ' if body.lstrip()[:1] == b'<' else ''}not JSON")
    try:
        choice = reply["choices"][0]
        message = choice.get("message") or {"content": choice.get("text")}
        content = message.get("content") or ""
        parts = content if isinstance(content, list) else [{"text": content}]
        text = "".join(part.get("text") or "" for part in parts if part.get("type", "text") == "text")
        refusal = next(filter(None, (part.get("refusal") for part in (message, *parts))), None)
        usage = reply.get("usage") or {}
        tokens = _to_count(usage.get("prompt_tokens")), _to_count(usage.get("completion_tokens"))
    except (AttributeError, LookupError, TypeError):
        message = read_error(body)
        return Answer(None, f"malformed: it contains no choice with a text{f'; it says: {message}' if message else ''}")
    finish = choice.get("finish_reason")
    finish = finish if isinstance(finish, str) and _FINISH.fullmatch(finish) else None
    if text.strip():
        return Answer(text, None, *tokens, finish)
    error = f"empty: the answer contains no text{f' (finish_reason {finish})' if finish else ''}"
    return Answer(None, f"refused: the model refused: {refusal}" if refusal else error, *tokens, finish)


def read_error(body: bytes) -> str:
    """Return an error body's message, type and code; nothing for an HTML page. Never raises.

    Reads {"error": {"message", "type", "code"}}, {"message"}, {"detail"}, {"error": text}, and plain text.
    """
    try:
        reply = from_json(body)
    except ValueError:
        text = body.decode("utf-8", "replace").strip()
        return "" if text.startswith("<") else text
    if not isinstance(reply, dict):
        return ""
    error = reply.get("error") or reply
    if not isinstance(error, dict):
        return str(error)
    message = error.get("message") or error.get("detail") or ""
    kinds = ", ".join(error[name] for name in ("type", "code") if isinstance(error.get(name), str))
    return f"{message} ({kinds})".strip() if kinds else str(message)


def error_code(status: int, detail: str) -> str:
    """Return the code of `engine.ERRORS` for an error status; `detail` comes from `read_error`."""
    if status == 408:
        return "timeout"
    if status == 429 or status >= 500:
        return "busy"
    return "too_long" if status in (400, 413, 422) and _TOO_LONG.search(detail) else "refused"


def read_models(body: bytes) -> list[str] | None:
    """Return the names in a list of models; None if the body is not such a list. Never raises."""
    with suppress(ValueError, TypeError, KeyError):
        return [str(model["id"]) for model in from_json(body)["data"]]
    return None
