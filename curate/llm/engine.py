"""The interface of an engine: its options, requests, and answers.

Requests with the same digest (of prompt, sample, model and sampling) share one cached answer.
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

    uid: str  # the sample's, 32 hex digits
    kind: str  # rewrite, recaption, fused, translation
    style: str  # the kind's style, or the language
    ordinal: int  # numbers several texts of one style, from 0
    prompt: str | None = None  # text for the model to complete; None for a chat
    messages: tuple[Message, ...] = ()  # the chat; empty if there is a prompt
    image: bytes | None = field(default=None, repr=False)  # the encoded file; placed before the user's last text
    sampling: Sampling = Sampling()
    group: str = ""  # requests of one group share a prefix and are sent together
    picture: str | None = None  # sha256 of the image's file, hex; the file itself is added when it is sent

    def digest(self, model: str) -> str:
        """Return 32 hex digits: a hash of the request's purpose and of everything that determines its answer.

        For `model`, see `Engine.model`.
        """
        image = self.picture or (self.image and hashlib.sha256(self.image).hexdigest())
        content = [self.prompt, [[m.role, m.text] for m in self.messages], image, asdict(self.sampling)]
        return ids.digest([self.uid, self.kind, self.style, self.ordinal, model, content])


@dataclass(frozen=True)
class Answer:
    """An answer: the model's text, unchanged, or the reason why there is none."""

    text: str | None
    error: str | None = None  # one of `ERRORS`, a colon, and one line of detail
    tokens_in: int = 0  # tokens of the prompt and image, if the engine reports them
    tokens_out: int = 0  # tokens of the text, if the engine reports them
    finish: str | None = None  # why it ended, stop or length, if the engine reports it

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "Answer":
        """Return the answer in a row of table `answers`."""
        return cls(row["answer"], row["error"], row["tokens_in"] or 0, row["tokens_out"] or 0, row["finish"])

    @classmethod
    def of_tokens(cls, text: str, tokens_in: int, tokens_out: int, finish: str | None) -> "Answer":
        """Return the answer of a model in this process; white space alone is an error."""
        error = None if text.strip() else f"empty: {tokens_out} tokens, but no text"
        return cls(None if error else text, error, tokens_in, tokens_out, finish)

    @classmethod
    def of_failure(cls, error: Exception) -> "Answer":
        """Return the answer to a request that failed in this process's model."""
        message = one_line(error, 200) or type(error).__name__
        is_length = any(part in message for part in ("model length", "context length", "longer than"))
        return cls(None, f"{'too_long' if is_length else 'engine'}: {message}")


ERRORS = schema.ANSWER_REASONS


class Engine(Protocol):
    """Answers requests. Each process has one, shared by its threads."""

    @property
    def model(self) -> str:
        """The model's name in tables and digests; equal names give equal answers, up to the model's own noise."""

    def check(self) -> None:
        """Load or connect. Raises RecipeError or RunError if a package, model, device, endpoint or key is missing."""

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Yield each request's index and answer, as they arrive. A failed request has an answer with an error."""

    def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """Return all answers, in the order of the requests."""
        answers = dict(self.answers(requests))
        return [answers[index] for index in range(len(requests))]


class EngineOptions(Section):
    """The base class of the sections of engines."""

    takes_words: ClassVar[bool] = True  # whether it accepts a prompt or a chat; if not, only an image
    is_local: ClassVar[bool] = False  # whether its model runs in this process
    batch_size: ClassVar[int] = 256  # requests at a time, unless the caption section sets it

    @abstractmethod
    def open(self) -> Engine:
        """Return an engine, without loading or connecting anything. Raises RecipeError."""

    def fingerprint(self) -> str:
        """Return the current state of whatever else affects answers, besides the options and the model's name."""
        return ""


class EngineKind(NamedTuple):
    """A kind of engines: `key` names it in a recipe."""

    key: str
    section: type[EngineOptions]
