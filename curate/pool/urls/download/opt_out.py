"""Which headers reserve what they come with from machine learning."""

import re
from collections.abc import Iterable
from email.message import Message

NO_TRAINING = frozenset({"noai", "noimageai", "noindex", "noimageindex"})  # img2dataset's
_NONE = {"noindex", "nofollow"}  # what X-Robots-Tag: none stands for
_USES = {"train-ai", "train-genai", "ai", "genai", "tdm", "bots", "automated", "all"}
_TOKEN = re.compile(r"\s*([A-Za-z0-9_-]+)\s*:\s*(.*)")
_WITH_VALUES = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}


def opt_out(headers: Message, token: str, directives: Iterable[str] = NO_TRAINING) -> str | None:
    """Return the header that reserves what it comes with from machine learning; None where there is none.

    X-Robots-Tag with one of the directives, for all or for the agent `token`, where `none` is noindex and nofollow
    (Google's definition); TDM-Reservation: 1 (W3C's TDM Reservation Protocol); Content-Usage with `train-ai=n` (IETF's
    draft-ietf-aipref-vocab-06) or, of its earlier drafts, a use that includes it. Not read: /.well-known/tdmrep.json,
    rules `Content-Usage` of robots.txt, metadata inside of images.
    """
    unwanted = {directive.strip().lower() for directive in directives}
    unwanted |= {"none"} if not unwanted.isdisjoint(_NONE) else set()
    for value in headers.get_all("X-Robots-Tag", []):
        match = _TOKEN.fullmatch(value)
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
