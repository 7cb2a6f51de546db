"""Requests to language models, and their answers: the records that kinds, engines and the cache share.

A request is known by its digest: of the prompt, the sample, the model and the sampling. Requests with one digest have one
answer, which is cached.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

from curate import ids


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. `temperature` 0 takes the likeliest; `seed` makes draws differ, and makes them repeatable."""

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
    """A request for one text.

    Attributes:
        uid: of the sample, 32 hex.
        kind: what for: rewrite, recaption, fused, translation.
        style: the kind's style, or language.
        ordinal: numbers several texts of one style, from 0.
        prompt: what the model completes; None of a chat.
        messages: the chat; empty where it completes a prompt.
        image: the image's file as it came; it goes before the text of the last message of the user.
        picture: sha256 of that file, hex, where the request is to have one; the file itself comes when it is sent.
        sampling: how the answer is drawn.
        group: requests of one group begin alike; what caches prefixes gets them together.
    """

    uid: str
    kind: str
    style: str
    ordinal: int
    prompt: str | None = None
    messages: tuple[Message, ...] = ()
    image: bytes | None = field(default=None, repr=False)
    sampling: Sampling = Sampling()
    group: str = ""
    picture: str | None = None

    def digest(self, model: str) -> str:
        """Return 32 hex digits of all that determines the answer, and of what it is for.

        Args:
            model: the engine's name for its model, see `Engine.model`.
        """
        image = self.picture or (self.image and hashlib.sha256(self.image).hexdigest())
        asked = [self.prompt, [[m.role, m.text] for m in self.messages], image, asdict(self.sampling)]
        return ids.digest([self.uid, self.kind, self.style, self.ordinal, model, asked])


@dataclass(frozen=True)
class Answer:
    """What came back: a text, or the reason why there is none.

    Attributes:
        text: as the model gave it; None where it gave none.
        error: None, or one of `ERRORS`, a colon, and what happened in a line.
        tokens_in: tokens of the prompt, the image's included, as far as the engine says; else 0.
        tokens_out: tokens of the text, likewise.
        finish: why it ended: stop or length, as far as the engine says.
    """

    text: str | None
    error: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    finish: str | None = None


ERRORS = {
    "refused": "the endpoint, or the model, does not accept the request (a 4xx other than 408 and 429, a redirect, a refusal)",
    "busy": "the endpoint was too busy, or failed, at every attempt (429 or 5xx)",
    "timeout": "no answer came in time, at any attempt (or 408)",
    "unreachable": "the connection failed at every attempt",
    "malformed": "the answer is not what the protocol says",
    "empty": "the answer holds no text",
    "too_long": "the prompt is longer than the model's context",
    "engine": "the model itself failed on it",
    "no_image": "the image cannot be read again, or is of a kind that the engine does not take",
    "unknown": "the recorded answers hold none for it",
}


class Engine(Protocol):
    """What answers requests. One per process, shared by threads."""

    @property
    def model(self) -> str:
        """What names the model in tables and digests; equal names give equal answers, up to the model's own noise."""

    def check(self) -> None:
        """Raise RecipeError or RunError where it cannot work: no package, model, device, endpoint or key."""

    def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """Return one answer for each request, in order. A request that fails is an answer with an error, and costs no other."""

    def close(self) -> None:
        """Let go of what it holds."""
