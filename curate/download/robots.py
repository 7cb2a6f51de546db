"""What hosts forbid: robots.txt (RFC 9309), read once a day per process, and headers that opt images out."""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

from curate.base.errors import needing
from curate.base.process import Cache
from curate.download.fetch_error import FetchError

_SITES, _CHARACTERS = 1 << 16, 20_000_000  # limits of the cache: number of sites, and of characters in all their rules
_OVERHEAD = 300  # characters of overhead per site
_DAY = 86_400.0
# A line that names a user agent, and the product token in it
_AGENT = re.compile(r"\s*user[- ]?agent(?:\s*:|\s)\s*(\**([A-Za-z_-]*)[^#]*)(?:#.*)?", re.IGNORECASE)

NO_TRAINING = frozenset({"noai", "noimageai", "noindex", "noimageindex"})  # the same as in img2dataset
_NONE = {"noindex", "nofollow"}  # what `X-Robots-Tag: none` means
_USES = {"train-ai", "train-genai", "ai", "genai", "tdm", "bots", "automated", "all"}
_TAG_OF_AGENT = re.compile(r"\s*([A-Za-z0-9_-]+)\s*:\s*(.*)")
_WITH_VALUES = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}


@dataclass
class Robots:
    """The robots.txt of hosts (RFC 9309). Once a day, the first thread that needs one reads it."""

    agent: str
    _rules: Cache[Any] = field(default_factory=lambda: Cache(_SITES))
    _characters: int = 0

    def check(self, site: str, url: str, read: Callable[[str], bytes]) -> None:
        """Raise FetchError if the rules of a site (scheme, host, and port) forbid a URL, or if they cannot be read.

        `read` fetches robots.txt. A status of 4xx, except 429, allows everything. Any other error applies to each URL.
        """
        rules = self._rules.get((site, time.monotonic() // _DAY), lambda: self._parse(read, site))
        if rules is not None and not rules.can_fetch(url, self.agent):
            raise FetchError("robots", f"{site}/robots.txt")

    def _parse(self, read: Callable[[str], bytes], site: str) -> Any:
        with needing("the setting `robots: respect` needs another package", "'.[img2dataset]' in a checkout of curate"):
            from protego import Protego
        try:
            text = _of_agent(read(f"{site}/robots.txt").decode("utf-8-sig", "replace"), self.agent)
            self._count(len(text))
            return Protego.parse(text)
        except FetchError as error:
            if error.reason.startswith("http_4") and error.reason != "http_429":
                self._count(0)
                return None
            detail = error.detail if error.reason == "refused_address" else f"while reading robots.txt: {error.detail}"
            raise FetchError(error.reason, detail, error.retry_after) from None

    def _count(self, characters: int) -> None:
        """Forget all rules if they are too long in total."""
        self._characters += characters + _OVERHEAD
        if self._characters > _CHARACTERS:
            self._rules, self._characters = Cache(_SITES), 0


def _of_agent(text: str, agent: str) -> str:
    """Return a robots.txt that has only the agents `*`, this one, and `other`. Protego then merges all rules for each.

    An agent matches by its product token alone. Case does not matter, nor does anything after the token, such as a
    version (RFC 9309, 2.2.1).
    """
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if match := _AGENT.fullmatch(line):
            name = match[1].strip()
            lines[number] = f"User-agent: {'*' if name == '*' else agent if match[2].lower() == agent else 'other'}"
    return "\n".join(lines)


def opt_out(headers: Message, token: str, directives: Iterable[str] = NO_TRAINING) -> str | None:
    """Return the header that opts the content out of machine learning, or None.

    These headers do: X-Robots-Tag with one of the directives, for all agents or for the agent `token`, where `none`
    means noindex and nofollow (Google's definition); TDM-Reservation: 1 (W3C's TDM Reservation Protocol); Content-Usage
    with `train-ai=n` (IETF's draft-ietf-aipref-vocab-06), or with a more general use from its earlier drafts. This does
    not read /.well-known/tdmrep.json, rules `Content-Usage` in robots.txt, or metadata in images.
    """
    unwanted = {directive.strip().lower() for directive in directives}
    unwanted |= {"none"} if not unwanted.isdisjoint(_NONE) else set()
    for value in headers.get_all("X-Robots-Tag", []):
        match = _TAG_OF_AGENT.fullmatch(value)
        is_named = match is not None and match[1].lower() not in _WITH_VALUES
        if match and is_named and match[1].lower() != token:
            continue
        text = match[2] if match and is_named else value
        if not unwanted.isdisjoint(word.strip().lower() for word in text.split(",")):
            return f"X-Robots-Tag: {value}"
    for value in headers.get_all("TDM-Reservation", []):
        if value.strip() == "1":
            return f"TDM-Reservation: {value}"
    for value in headers.get_all("Content-Usage", []):
        for part in value.lower().split(","):
            use, _, answer = part.partition("=")
            if use.strip() in _USES and answer.partition(";")[0].strip() == "n":
                return f"Content-Usage: {value}"
    return None
