"""A transport without a network: URLs and what each gives. It notes what it is asked."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from typing import Any

from curate.download.fetch import Fetcher
from curate.download.fetch_error import FetchError
from curate.download.source import NetworkPolicy
from curate.download.transport import Answer, Deadline, HttpTransport, Site


def answer(body: bytes = b"", status: int = 200, **headers: str) -> Answer:
    """An answer with a length; `_` in a header's name is `-`."""
    message = Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return Answer(status, "", message, len(body), iter([body]) if body else iter(()))


class FakeTransport(HttpTransport):
    """`gives`: bytes, an answer's arguments, or a fault, by URL without the port; of all other URLs the answer is 404."""

    def __init__(self, gives: Mapping[str, bytes | dict[str, Any] | FetchError]) -> None:
        super().__init__((), {})
        self.gives, self.asked = gives, list[str]()

    @contextmanager
    def get(self, site: Site, path: str, deadline: Deadline) -> Iterator[Answer]:
        self.asked.append(f"{'https' if site.is_secure else 'http'}://{site.authority}{path}")
        given = self.gives.get(self.asked[-1], {"status": 404})
        if isinstance(given, FetchError):
            raise given
        yield answer(given) if isinstance(given, bytes) else answer(**given)


def fetcher(transport: FakeTransport, **keys: Any) -> Fetcher:
    return Fetcher(NetworkPolicy.model_validate({"contact": "me@example.org", "pause": 0.001} | keys), None, transport)
