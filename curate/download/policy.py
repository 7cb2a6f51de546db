"""How a source of URLs may use the network: section `network`."""

import ipaddress
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from curate.recipe.section import Section

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"{error}; accepted: a network such as 127.0.0.0/8 or fd00::/8") from None


class NetworkPolicy(Section):
    """Whom to ask, how often and how much; `contact` goes to every server, so that its owner can write to you.

    `allow_networks` names networks that are not public and may be asked all the same. `robots` and `opt_out` say whether robots.txt
    and headers that refuse machine learning are respected or ignored. The other keys are limits: of one download in bytes, in
    redirects, and in seconds of work from the first look-up to the last byte; of the connections to one host at a time, per
    worker; and of the attempts at what may come later, with pauses of `pause`, 2 × `pause` … seconds, or what the server asks for.
    """

    runtime_fields: ClassVar[frozenset[str]] = frozenset({"contact", "per_host", "pause", "max_pause"})

    contact: Annotated[str, Field(pattern=r"^(https?://|mailto:)?[!-~]+[.@][!-~]+$")]
    allow_networks: tuple[Annotated[str, AfterValidator(_network)], ...] = ()
    robots: Literal["respect", "ignore"] = "respect"
    opt_out: Literal["respect", "ignore"] = "respect"
    max_bytes: int = Field(100_000_000, gt=0)
    max_seconds: float = Field(60.0, gt=0)
    max_redirects: int = Field(5, ge=0)
    per_host: int = Field(4, gt=0)
    attempts: int = Field(3, ge=1)
    pause: float = Field(1.0, gt=0)
    max_pause: float = Field(30.0, gt=0)

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks that may be asked though they are not public."""
        return tuple(map(ipaddress.ip_network, self.allow_networks))
