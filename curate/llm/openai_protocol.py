"""OpenAI's protocol: the chat of a request, and what the bytes of replies hold. Nothing here touches a network.

An endpoint is a stranger: whatever its bytes are, a function here returns, and never raises. The engine makes details
one line, after it has hidden its key in them.

Source: OpenAI's API reference, as `vllm serve`, llama.cpp, Ollama and hosted services speak it.
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

MAX_REPLY, MAX_LIST = 1_000_000, 16_000_000  # bytes that are read of an answer, and of a list of models
_IMAGES = ("jpeg", "png", "webp", "gif")
# How servers say that a prompt does not fit: OpenAI and vLLM in several versions, llama.cpp, Anthropic's endpoint.
_TOO_LONG = re.compile(
    r"(?i)context[ _](length|size|window)|maximum model length|max_tokens must be at least 1|prompt is too long"
)
_FINISH = re.compile(r"[A-Za-z_]{1,32}")


class UnsentError(Exception):
    """A request is not sent; the message is the error of its answer, code and detail."""


@dataclass(frozen=True)
class Reply:
    """What came back; where nothing whole did, `status` is 0 and `reason` an error of `engine.ERRORS`."""

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
        """Whether another attempt may do better."""
        return self.status in (0, 408, 429) or self.status >= 500

    @cached_property
    def answer(self) -> Answer:
        """The answer that it holds, or why it holds none."""
        if not self.status:
            return Answer(None, self.reason)
        if self.is_success:
            return read_answer(self.body)
        detail = read_error(self.body)
        if 300 <= self.status < 400:
            detail = f"a redirect to {self.location}, which is not followed, so that no other server gets the key"
        detail = f"{self.status} {self.reason}".strip() + (f": {detail}" if detail else "")
        return Answer(None, f"{error_code(self.status, detail)}: {detail}")

    @property
    def code(self) -> str:
        """One of `engine.ERRORS`; empty where it holds an answer."""
        return (self.answer.error or "").partition(": ")[0]

    @property
    def detail(self) -> str:
        """The status and what the endpoint says of it, or why none came; empty where it holds an answer."""
        return (self.answer.error or "").partition(": ")[2]

    @property
    def is_no_answer(self) -> bool:
        """Whether any request may get it: neither a 2xx nor one that finds fault with a request; or it is no answer."""
        if self.is_success:
            return self.code == "malformed"
        return not self.is_transient and self.status not in (400, 413, 422)


def write_chat(request: Request) -> list[dict[str, Any]]:
    """Return the messages of a chat, the image before the user's last text as a data URL, a third longer than the file.

    Raises UnsentError without messages, or where an image cannot be placed or is of no known kind.
    """
    if not request.messages:
        raise UnsentError("refused: not sent, since it holds neither a prompt nor messages")
    chat: list[dict[str, Any]] = [{"role": message.role, "content": message.text} for message in request.messages]
    if request.image is None:
        return chat
    kind = format_of(request.image)
    if kind not in _IMAGES:
        begin = request.image[:8].hex(" ")
        raise UnsentError(f"no_image: not sent, since it is neither JPEG, PNG, WebP nor GIF: it begins with {begin}")
    last = next((message for message in reversed(chat) if message["role"] == "user"), None)
    if last is None:
        raise UnsentError("refused: not sent, since it has no user message to add the image to")
    url = f"data:image/{kind};base64,{base64.b64encode(request.image).decode()}"
    last["content"] = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": last["content"]}]
    return chat


def _to_count(value: object) -> int:
    return value if isinstance(value, int) and 0 < value < 1 << 31 else 0


def read_answer(body: bytes) -> Answer:
    """Return the answer that the body of a 2xx holds: its first choice. Never raises.

    Content in parts is joined; parts that are not text (thoughts, say) are left out. A refusal that the endpoint tells
    apart (`message.refusal`) is `refused`; one that comes as text is a text, for the gates to see. A text of white
    space is `empty`. Tokens are counted whatever the answer is.
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
        return Answer(None, f"malformed: it holds no choice with a text{f'; it says: {message}' if message else ''}")
    finish = choice.get("finish_reason")
    finish = finish if isinstance(finish, str) and _FINISH.fullmatch(finish) else None
    if text.strip():
        return Answer(text, None, *tokens, finish)
    error = f"empty: the answer contains no text{f' (finish_reason {finish})' if finish else ''}"
    return Answer(None, f"refused: the model refused: {refusal}" if refusal else error, *tokens, finish)


def read_error(body: bytes) -> str:
    """Return what the body of an error says: message, type and code; nothing of a page of HTML. Never raises.

    It is {"error": {"message", "type", "code"}}, {"message"}, {"detail"}, {"error": text}, or plain text.
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
    """Return the code of `engine.ERRORS` for a status that is no success, with what `read_error` made of the body."""
    if status == 408:
        return "timeout"
    if status == 429 or status >= 500:
        return "busy"
    return "too_long" if status in (400, 413, 422) and _TOO_LONG.search(detail) else "refused"


def read_models(body: bytes) -> list[str] | None:
    """Return the names in a list of models; None where the body is no such list. Never raises."""
    with suppress(ValueError, TypeError, KeyError):
        return [str(model["id"]) for model in from_json(body)["data"]]
    return None
