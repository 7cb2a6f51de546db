"""A transport without a network, which answers from a table of URLs and records its requests."""

from contextlib import contextmanager
from email.message import Message

from curate.download.fetch import Fetcher
from curate.download.fetch_error import FetchError
from curate.download.source import NetworkPolicy
from curate.download.transport import Answer, HttpTransport


def answer(body=b"", status=200, **headers):
    """A response with a length; `_` in a header's name means `-`."""
    message = Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return Answer(status, "", message, len(body), iter([body]) if body else iter(()))


class FakeTransport(HttpTransport):
    """`gives` has bytes, the arguments of a response, or an error for each URL without port; all other URLs answer 404."""

    def __init__(self, gives):
        super().__init__((), {})
        self.gives, self.asked = gives, list[str]()

    @contextmanager
    def get(self, site, path, deadline):
        self.asked.append(f"{'https' if site.is_secure else 'http'}://{site.authority}{path}")
        given = self.gives.get(self.asked[-1], {"status": 404})
        if isinstance(given, FetchError):
            raise given
        yield answer(given) if isinstance(given, bytes) else answer(**given)


def fetcher(transport, **keys):
    return Fetcher(NetworkPolicy.model_validate({"contact": "me@example.org", "pause": 0.001} | keys), None, transport)
