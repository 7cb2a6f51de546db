"""The addresses of names, which are looked up once in five minutes."""

import socket
import time
from typing import Any, NamedTuple

from curate.pool.urls.download.fetch_fault import FetchFault

_FOUND_SECONDS, _MISSING_SECONDS = 300.0, 60.0
_AGAIN_SECONDS = 0.5  # that a failure which may pass is remembered, twice as long each time
_NAMES = 100_000  # that are remembered


class _Found(NamedTuple):
    """What looking up a name gave, families and addresses or what is wrong, for how long it is remembered, and until when."""

    addresses: list[tuple[int, Any]] | str
    seconds: float
    until: float


_names: dict[tuple[str, int], _Found] = {}


def look_up(host: str, port: int) -> list[tuple[int, Any]]:
    """Return families and addresses of a host. Raises FetchFault."""
    found, now = _names.get((host, port)), time.monotonic()
    if found is None or found.until < now:
        before = found.seconds if found and isinstance(found.addresses, str) else 0.0
        addresses, seconds = _resolve(host, port, before)
        found = _Found(addresses, seconds, time.monotonic() + seconds)
        if len(_names) >= _NAMES:
            _names.clear()
        _names[host, port] = found
    if isinstance(found.addresses, str):
        raise FetchFault("dns", f"{host}: {found.addresses}")
    return found.addresses


def _resolve(host: str, port: int, before: float) -> tuple[list[tuple[int, Any]] | str, float]:
    """Ask for a host's addresses. Return them, or what is wrong, and for how many seconds that holds.

    `before`: for how long the last failure held. A name that there is not is not asked for again in a minute; what may pass is
    asked for after a pause, which is longer each time.
    """
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [(info[0], info[4]) for info in infos], _FOUND_SECONDS
    except socket.gaierror as error:
        may_pass = error.errno in (socket.EAI_AGAIN, socket.EAI_SYSTEM)
        seconds = min(max(_AGAIN_SECONDS, 2 * before), _MISSING_SECONDS) if may_pass else _MISSING_SECONDS
        return error.strerror or str(error), seconds
    except (OSError, UnicodeError) as error:
        return str(error), _MISSING_SECONDS
