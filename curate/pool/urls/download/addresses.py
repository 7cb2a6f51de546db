"""Which addresses are public: URLs must not reach the machine itself, its network, or a cloud's metadata service.

An address is checked when a connection is made to it, not when a name is looked up: a name may have another address the
next time. Addresses of IPv6 that stand for one of IPv4 (mapped, translated, tunnelled) are as public as that.
"""

import ipaddress
from functools import lru_cache

from curate.pool.urls.download.policy import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Public by their numbers, and yet services of the machine's cloud: Azure's, and Oracle's (RFC 6890 reserves the block).
_SERVICES = tuple(map(ipaddress.ip_network, ("168.63.129.16/32", "192.0.0.0/24")))
# Prefixes of an address of IPv4, and the bits behind it: RFC 6052, RFC 3056, and IPv4-compatible ones (RFC 4291).
_PREFIXES = tuple(
    (ipaddress.ip_network(net), bits) for net, bits in (("64:ff9b::/96", 0), ("2002::/16", 80), ("::/96", 0))
)
_KINDS = ("unspecified", "loopback", "link_local", "multicast", "reserved", "private")


@lru_cache(1 << 14)
def refusal(text: str, allowed: tuple[Network, ...] = ()) -> str | None:
    """Return what a refused address is, such as `loopback`; None where it is public or in an allowed network."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return "no address"
    meant = _meant(address)
    if any(a in network for a in (address, *meant) for network in allowed):  # False for another version's
        return None
    return next((kind for address in meant if (kind := _kind(address))), None)


def _meant(address: Address) -> tuple[Address, ...]:
    """Return the addresses of IPv4 that one of IPv6 stands for; of any other, itself."""
    if isinstance(address, ipaddress.IPv6Address) and int(address) > 1:  # not :: and ::1
        if address.ipv4_mapped:
            return (address.ipv4_mapped,)
        if address.teredo:
            return address.teredo
        for network, bits in _PREFIXES:
            if address in network:
                return (ipaddress.IPv4Address(int(address) >> bits & 0xFFFFFFFF),)
    return (address,)


def _kind(address: Address) -> str | None:
    """Return why an address is not public."""
    if any(address in network for network in _SERVICES):
        return "a cloud's own service"
    kind = next((name.replace("_", "-") for name in _KINDS if getattr(address, f"is_{name}")), None)
    return kind if kind or address.is_global else "private"
