"""Looks up the addresses of hosts, once in five minutes, and decides which addresses are public.

A URL must not reach the machine itself, its network, or a cloud's metadata service. An address is checked when a
connection to it is made. An IPv6 address that contains an IPv4 address is public only if the IPv4 address is public.
"""

import ipaddress
import socket
import time
from functools import lru_cache
from typing import Any

from curate.download.fetch_error import FetchError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Addresses = list[tuple[int, Any]]  # address families, and addresses as sockets expect them

_SECONDS = 300  # seconds for which a lookup is remembered
# Public numbers of services in the machine's cloud: Azure's, and Oracle's (in a block that RFC 6890 reserves)
_SERVICES = tuple(map(ipaddress.ip_network, ("168.63.129.16/32", "192.0.0.0/24")))
# IPv6 prefixes of an IPv4 address, and the bits after it: RFC 6052, RFC 3056, compatible and mapped ones (RFC 4291)
_PREFIXES = {"64:ff9b::/96": 0, "2002::/16": 80, "::/96": 0, "::ffff:0:0/96": 0}
_KINDS = ("unspecified", "loopback", "link_local", "site_local", "multicast", "reserved", "private")


def look_up(host: str, port: int) -> Addresses:
    """Return the address families and addresses of a host. Raises FetchError."""
    addresses = _resolve(host, port, int(time.monotonic() / _SECONDS))
    if isinstance(addresses, str):
        raise FetchError("dns", f"{host}: {addresses}")
    return addresses


@lru_cache(100_000)
def _resolve(host: str, port: int, period: int) -> Addresses | str:
    """Return a host's addresses, or a lasting error. Raises FetchError for a temporary error, which is not cached."""
    try:
        return [(info[0], info[4]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except socket.gaierror as error:
        message = error.strerror or str(error)
        if error.errno in (socket.EAI_AGAIN, socket.EAI_SYSTEM):
            raise FetchError("dns", f"{host}: {message}") from None
        return message
    except (OSError, UnicodeError) as error:
        return str(error)


@lru_cache(1 << 14)
def refusal(text: str, allowed: tuple[Network, ...] = ()) -> str | None:
    """Return the kind of a refused address, such as `loopback`; None if it is public or in an allowed network."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return "no address"
    meant = [address]
    if isinstance(address, ipaddress.IPv6Address) and int(address) > 1:  # not :: or ::1
        bits = next((bits for text, bits in _PREFIXES.items() if address in ipaddress.ip_network(text)), None)
        if address.teredo:
            meant = [*address.teredo]
        elif bits is not None:
            meant = [ipaddress.IPv4Address(int(address) >> bits & 0xFFFFFFFF)]
    if any(a in network for a in (address, *meant) for network in allowed):  # False for the other IP version
        return None
    return next((kind for address in meant if (kind := _kind(address))), None)


def _kind(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
    if any(address in network for network in _SERVICES):
        return "a cloud's own service"
    kind = next((name.replace("_", "-") for name in _KINDS if getattr(address, f"is_{name}", False)), None)
    return kind if kind or address.is_global else "private"
