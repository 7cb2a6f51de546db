"""The calls of OpenAI's protocol, and what the bytes of replies say: nothing here touches a network.

In: a request. Out: a call (path and JSON body), and from the bytes that come back an answer, the line of an error, or a
list of models. A prompt goes to /completions, a chat to /chat/completions, an image within it as a data URL, a third
longer than the file. An endpoint is a stranger: whatever its bytes are, a function here returns, and never raises. The
engine makes details one line, after it has hidden its key in them.

Source: OpenAI's API reference, as `vllm serve`, llama.cpp, Ollama and hosted services speak it.
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, TypeVar

from curate.llm.engine import Answer, Request
from curate.read.image import format_of

T = TypeVar("T")

# Fields of a body that options may not set: the engine reads one whole answer to one request.
OURS = ("model", "messages", "prompt", "stream", "n")
MAX_REPLY, MAX_LIST = 1_000_000, 16_000_000  # bytes that are read of an answer, and of a list of models
_IMAGES = ("jpeg", "png", "webp", "gif")

# How servers say that a prompt does not fit: OpenAI and vLLM in several versions, llama.cpp, Anthropic's endpoint.
_TOO_LONG = re.compile(
    r"(?i)context[ _](length|size|window)|maximum model length|max_tokens must be at least 1|prompt is too long"
)
_FINISH = re.compile(r"[A-Za-z_]{1,32}")
_INT32 = (1 << 31) - 1


@dataclass(frozen=True)
class Call:
    """What is sent: a path below the endpoint's address, and the JSON body; without one it is a GET."""

    path: str
    body: bytes | None = None


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


class UnsentError(Exception):
    """A request is not sent; the message is the error of its answer, code and detail."""


def write_call(request: Request, model: str, extra: Mapping[str, Any]) -> Call:
    """Return the call of a request to a model, as the endpoint knows it; fields in `extra` win over the sampling's.

    Raises UnsentError without a prompt or chat, or where an image cannot be placed or is of no known kind.
    """
    fields: dict[str, Any] = {"model": model, **asdict(request.sampling)}
    if not request.sampling.stop:
        del fields["stop"]
    if request.prompt is None:
        path, fields["messages"] = "/chat/completions", _write_chat(request)
    elif request.image is None:
        path, fields["prompt"] = "/completions", request.prompt
    else:
        raise UnsentError("refused: not sent, since a completion takes no image; use a chat")
    # In ASCII: openai's own JSON takes no lone surrogate.
    return Call(path, json.dumps({**fields, **extra}, separators=(",", ":")).encode())


def _write_chat(request: Request) -> list[dict[str, Any]]:
    if not request.messages:
        raise UnsentError("refused: not sent, since it holds neither a prompt nor messages")
    chat: list[dict[str, Any]] = [{"role": message.role, "content": message.text} for message in request.messages]
    if request.image is None:
        return chat
    kind = format_of(request.image)
    if kind not in _IMAGES:
        what = f"neither JPEG, PNG, WebP nor GIF: it begins with {request.image[:8].hex(' ')}"
        raise UnsentError(f"no_image: not sent, since it is {what}")
    users = [place for place, message in enumerate(request.messages) if message.role == "user"]
    if not users:
        raise UnsentError("refused: not sent, since it has no user message to add the image to")
    url = f"data:image/{kind};base64,{base64.b64encode(request.image).decode()}"
    last = chat[users[-1]]
    last["content"] = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": last["content"]}]
    return chat


def read_answer(body: bytes) -> Answer:
    """Return the answer that the body of a 2xx holds: its first choice. Never raises.

    A text is as the model gave it, but lone surrogates, which no file could hold, become U+FFFD. Content in parts is
    joined; parts that are not text (thoughts, say) are left out. A refusal that the endpoint tells apart
    (`message.refusal`) is `refused`; one that comes as text is a text, for the gates to see. A text of white space is
    `empty`. Tokens are counted whatever the answer is.
    """
    if len(body) > MAX_REPLY:
        return Answer(None, f"malformed: the answer is longer than {MAX_REPLY:,} bytes")
    reply = _parse(body)
    choices = _field(reply, "choices", list)
    if not choices:
        what = "it has no choices" if choices is None else "its choices are an empty list"
        if reply is None:
            what = "HTML, not JSON" if body.lstrip()[:1] == b"<" else "not JSON"
        detail = _say(reply)
        return Answer(None, f"malformed: {what}{'; it says: ' if detail else ''}{detail}")
    choice = choices[0] if isinstance(choices[0], dict) else {}
    message = _field(choice, "message", dict)
    text = _read_content(choice.get("text", ...) if message is None else message.get("content"))
    finish = _field(choice, "finish_reason", str)
    error = None
    if text is None:
        error = "malformed: the content of the first choice is not text"
    elif not text.strip():
        parts = [message, *(_field(message, "content", list) or [])]
        refusal = next(filter(None, (_field(part, "refusal", str) for part in parts)), None)
        error = f"empty: the answer contains no text{f' (finish_reason {finish})' if finish else ''}"
        error = f"refused: the model refused: {refusal}" if refusal else error
    tokens = _count(reply, "prompt_tokens"), _count(reply, "completion_tokens")
    return Answer(None if error else text, error, *tokens, finish if finish and _FINISH.fullmatch(finish) else None)


def _read_content(content: object) -> str | None:
    """Return its text, empty where there is none; None where it is of no known form."""
    parts = content if isinstance(content, list) else [{"text": "" if content is None else content}]
    texts = [_field(p, "text", str) for p in parts if not isinstance(p, dict) or p.get("type", "text") == "text"]
    if None in texts:
        return None
    return "".join(filter(None, texts)).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def read_error(body: bytes) -> str:
    """Return what the body of an error says: message, type and code; nothing of a page of HTML. Never raises."""
    reply = _parse(body)
    if reply is None:
        text = body.decode("utf-8", "replace").strip()
        return "" if text.startswith("<") else text
    return _say(reply)


def error_code(status: int, detail: str) -> str:
    """Return the code of `engine.ERRORS` for a status that is no success, with what `read_error` made of the body."""
    if status == 408:
        return "timeout"
    if status == 429 or status >= 500:
        return "busy"
    return "too_long" if status in (400, 413, 422) and _TOO_LONG.search(detail) else "refused"


def read_models(body: bytes) -> list[str] | None:
    """Return the names in a list of models; None where the body is no such list. Never raises."""
    models = _field(_parse(body), "data", list)
    return None if models is None else [name for model in models if (name := _field(model, "id", str))]


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _field(value: object, name: str, kind: type[T]) -> T | None:
    field = value.get(name) if isinstance(value, dict) else None
    return field if isinstance(field, kind) else None


def _say(reply: object) -> str:
    """Return what an error says: {"error": {"message", "type", "code"}}, {"message"}, {"detail"} or {"error": text}."""
    if not isinstance(reply, dict):
        return ""
    error = reply.get("error") or reply
    if not isinstance(error, dict):
        return str(error)
    message = next((error[name] for name in ("message", "detail") if error.get(name)), "")
    kinds = ", ".join(kind for name in ("type", "code") if (kind := _field(error, name, str)))
    return f"{message} ({kinds})".strip() if kinds else str(message)


def _count(reply: object, name: str) -> int:
    count = _field(_field(reply, "usage", dict), name, int)
    return count if count is not None and 0 < count <= _INT32 else 0
