"""How a source of URLs may use the network: section `network`."""

import ipaddress
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from curate.pool.urls.download.addresses import Network, refusal
from curate.recipe.section import Section

_CONTACT = r"^(https?://|mailto:)?[!-~]+[.@][!-~]+$"
# Of what FetchFaults say of a limit: an address, and how much there was
_ADDRESS, _NUMBER = re.compile(r"(\S+) is "), re.compile(r"(more than )?([\d,]+)(?: bytes)?")


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"{error}; accepted: a network such as 127.0.0.0/8 or fd00::/8") from None


def _contact(text: str) -> str:
    if not re.fullmatch(_CONTACT, text):
        raise ValueError("accepted: your email address, or the URL of a page about you")
    return text


class NetworkPolicy(Section):
    """How servers are asked for images: whom to ask, how often, and how much to take.

    Only http and https are used, and public addresses alone, checked when a connection is made, after redirects too.
    Headers that reserve an image from machine learning are X-Robots-Tag, TDM-Reservation and Content-Usage. Of
    X-Robots-Tag, img2dataset's words count, and `none`. /.well-known/tdmrep.json and rules `Content-Usage` of
    robots.txt are not read. A connection that a host leaves open is used again for some seconds.
    """

    runtime_fields: ClassVar[frozenset[str]] = frozenset(
        {
            *("contact", "allow_networks", "max_bytes", "max_seconds", "max_redirects"),
            *("per_host", "attempts", "pause", "max_pause"),
        }
    )
    example: ClassVar[Any] = {"contact": "you@example.org"}

    contact: Annotated[str, AfterValidator(_contact), Field(json_schema_extra={"pattern": _CONTACT})] = Field(
        examples=["you@example.org"]
    )
    """Your email address or page, sent to every server, so that its owner can write to you."""
    allow_networks: tuple[Annotated[str, AfterValidator(_network)], ...] = Field((), examples=[["10.0.0.0/8"]])
    """Networks that may be asked although they are not public; 127.0.0.0/8 is this machine."""
    robots: Literal["respect", "ignore"] = Field("respect", examples=["ignore"])
    """What to do with robots.txt."""
    opt_out: Literal["respect", "ignore"] = Field("respect", examples=["ignore"])
    """What to do with headers that reserve an image from machine learning."""
    max_bytes: int = Field(100_000_000, examples=[20_000_000], gt=0)
    """Bytes of one download, at most."""
    max_seconds: float = Field(60.0, examples=[30], gt=0)
    """Seconds of one download, from the first look-up to the last byte, at most."""
    max_redirects: int = Field(5, examples=[3], ge=0)
    """Redirects of one download, at most."""
    per_host: int = Field(4, examples=[2], gt=0)
    """Connections to one host at a time, per worker, at most."""
    attempts: int = Field(3, examples=[5], ge=1)
    """Attempts in a run, and in each `--retry`, after 408, 425, 429, 5xx, DNS errors and timeouts."""
    pause: float = Field(1.0, examples=[2], gt=0)
    """Seconds before the second attempt; doubles, unless the server says how long."""
    max_pause: float = Field(30.0, examples=[60], gt=0)
    """Seconds of a pause, at most."""

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks that may be asked though they are not public."""
        return tuple(map(ipaddress.ip_network, self.allow_networks))

    def allows_now(self, reason: str | None, detail: str | None) -> bool:
        """Return whether a URL was refused by limits that this policy does not have: of addresses, sizes or numbers."""
        if reason == "refused_address":
            address = _ADDRESS.search(detail or "")
            return address is not None and refusal(address[1], self.networks) is None
        limit = {"too_large": self.max_bytes, "too_many_redirects": self.max_redirects}.get(reason or "")
        number = _NUMBER.fullmatch(detail or "")
        if limit is None or number is None:
            return False
        return int(number[2].replace(",", "")) + bool(number[1]) <= limit
