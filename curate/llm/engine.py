"""The interface of an engine: its options, requests, and answers.

Requests with one digest (of prompt, sample, model and sampling) have one answer, which is cached.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

from curate.base import ids, schema
from curate.base.wording import one_line
from curate.recipe.section import Section


@dataclass(frozen=True)
class Sampling:
    """How tokens are sampled. `temperature` 0 takes the likeliest token; `seed` makes sampling repeatable."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 77
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Message:
    """One turn of a chat; `role` is system, user or assistant."""

    role: str
    text: str


@dataclass(frozen=True)
class Request:
    """A request for one text."""

    uid: str  # of the sample, 32 hex
    kind: str  # what for: rewrite, recaption, fused, translation
    style: str  # the kind's style, or language
    ordinal: int  # numbers several texts of one style, from 0
    prompt: str | None = None  # what the model completes; None of a chat
    messages: tuple[Message, ...] = ()  # the chat; empty where it completes a prompt
    image: bytes | None = field(default=None, repr=False)  # the file as it came; goes before the user's last text
    sampling: Sampling = Sampling()
    group: str = ""  # requests of one group begin alike; what caches prefixes gets them together
    picture: str | None = None  # sha256 of the image's file, hex, where it has one; the file comes when it is sent

    def digest(self, model: str) -> str:
        """Return 32 hex digits of all that determines a model's answer (see `Engine.model`), and of what it is for."""
        image = self.picture or (self.image and hashlib.sha256(self.image).hexdigest())
        content = [self.prompt, [[m.role, m.text] for m in self.messages], image, asdict(self.sampling)]
        return ids.digest([self.uid, self.kind, self.style, self.ordinal, model, content])


@dataclass(frozen=True)
class Answer:
    """What came back: a text as the model gave it, or the reason why there is none."""

    text: str | None
    error: str | None = None  # one of `ERRORS`, a colon, and what happened in a line
    tokens_in: int = 0  # tokens of the prompt, the image's included, as far as the engine says
    tokens_out: int = 0  # tokens of the text, likewise
    finish: str | None = None  # why it ended: stop or length, as far as the engine says

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "Answer":
        """Return the answer that a row of table `answers` holds."""
        return cls(row["answer"], row["error"], row["tokens_in"] or 0, row["tokens_out"] or 0, row["finish"])

    @classmethod
    def of_tokens(cls, text: str, tokens_in: int, tokens_out: int, finish: str | None) -> "Answer":
        """Return the answer that a model in this process gave; white space is no text."""
        error = None if text.strip() else f"empty: {tokens_out} tokens, but no text"
        return cls(None if error else text, error, tokens_in, tokens_out, finish)

    @classmethod
    def of_failure(cls, error: Exception) -> "Answer":
        """Return the answer to a request on which the model in this process failed."""
        message = one_line(error, 200) or type(error).__name__
        is_length = any(part in message for part in ("model length", "context length", "longer than"))
        return cls(None, f"{'too_long' if is_length else 'engine'}: {message}")


ERRORS = schema.ANSWER_REASONS


class Engine(Protocol):
    """Answers requests. There is one per process, shared by threads."""

    @property
    def model(self) -> str:
        """The model's name in tables and digests; equal names give equal answers, up to the model's own noise."""

    def check(self) -> None:
        """Load or connect. Raises RecipeError or RunError without a package, model, device, endpoint or key."""

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Yield an answer for each request, with its index, as they come; one that fails is an answer with an error."""

    def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """Return all answers, in the order of the requests."""
        answers = dict(self.answers(requests))
        return [answers[index] for index in range(len(requests))]


class EngineOptions(Section):
    """Base of the kinds of engines."""

    takes_words: ClassVar[bool] = True  # whether it takes a prompt or a chat; if not, an image and nothing else
    is_local: ClassVar[bool] = False  # whether its model runs in this process
    batch_size: ClassVar[int] = 256  # requests at a time, where a section of captions does not say

    @abstractmethod
    def open(self) -> Engine:
        """Return an engine that has loaded and connected nothing yet. Raises RecipeError."""

    def fingerprint(self) -> str:
        """Return what its answers depend on besides these options and its model's name, as it is now."""
        return ""


class EngineKind(NamedTuple):
    """A kind of engines: `key` names it in a recipe."""

    key: str
    section: type[EngineOptions]
