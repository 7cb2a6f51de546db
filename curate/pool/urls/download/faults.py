"""Why a URL gave nothing, and what its owner does not want."""

import re
from collections.abc import Iterable
from email.message import Message

from curate.base.wording import escape, one_line
from curate.pool.urls.download.addresses import refusal
from curate.pool.urls.download.policy import NetworkPolicy

_DETAIL = 200  # characters
REFUSED_BY_LIMITS = ("refused_address", "too_large", "too_many_redirects")  # of `network`, which may change
_MAY_PASS = {"dns", "timeout", "http_408", "http_425", "http_429"}


class FetchFault(Exception):
    """A URL gave nothing: `reason` is of `schema.MISSING_REASONS`, `retry_after` the pause that the server asks for."""

    def __init__(self, reason: str, detail: object, retry_after: float | None = None) -> None:
        self.reason, self.detail, self.retry_after = reason, escape(one_line(detail, _DETAIL))[:_DETAIL], retry_after
        super().__init__(f"{reason}: {self.detail}" if self.detail else reason)

    def fresh(self) -> "FetchFault":
        """Return the fault alone, without the frames and the bytes in them that its traceback would keep in memory."""
        return FetchFault(self.reason, self.detail, self.retry_after)

    @property
    def may_pass(self) -> bool:
        """Whether another attempt may go better."""
        return self.reason in _MAY_PASS or self.reason.startswith("http_5")


def is_allowed_now(policy: NetworkPolicy, reason: str, detail: str) -> bool:
    """Return whether a URL was refused by a limit of another policy that this one does not have: an address, or a size or number."""
    if reason == "refused_address":
        found = _ADDRESS.search(detail)
        return found is not None and refusal(found[1], policy.networks) is None
    limit = {"too_large": policy.max_bytes, "too_many_redirects": policy.max_redirects}.get(reason)
    if limit is None or not (found := _NUMBER.fullmatch(detail)):
        return False
    return int(found[2].replace(",", "")) + bool(found[1]) <= limit


_ADDRESS = re.compile(r"(\S+) is ")
_NUMBER = re.compile(r"(more than )?([\d,]+)(?: bytes)?")  # as `fetch` says it
_NO_TRAINING = {"noai", "noimageai", "noindex", "noimageindex"}  # img2dataset's
_NONE = {"noindex", "nofollow"}  # what X-Robots-Tag: none stands for
_USES = {"train-ai", "train-genai", "ai", "genai", "tdm", "bots", "automated", "all"}
_TOKEN = re.compile(r"\s*([A-Za-z0-9_-]+)\s*:\s*(.*)")
_WITH_VALUES = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}


def opt_out(headers: Message, token: str, directives: Iterable[str] = _NO_TRAINING) -> str | None:
    """Return the header that reserves what it comes with from machine learning; None where there is none.

    X-Robots-Tag with one of the directives, for all or for the agent `token`, where `none` is noindex and nofollow (Google's
    definition); TDM-Reservation: 1 (W3C's TDM Reservation Protocol); Content-Usage with `train-ai=n` (IETF's
    draft-ietf-aipref-vocab-06) or, of its earlier drafts, a use that includes it. What is said elsewhere than in these headers
    is not looked for: /.well-known/tdmrep.json, rules `Content-Usage` of robots.txt, metadata inside of images.
    """
    unwanted = {directive.strip().lower() for directive in directives}
    unwanted |= {"none"} if not unwanted.isdisjoint(_NONE) else set()
    for value in headers.get_all("X-Robots-Tag", []):
        found = _TOKEN.fullmatch(value)
        is_named = found is not None and found[1].lower() not in _WITH_VALUES
        if found and is_named and found[1].lower() != token:
            continue
        text = found[2] if found and is_named else value
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
