"""The addresses of names, which are looked up once in five minutes."""

import socket
import time
from typing import Any

from curate.pool.urls.download.fetch_fault import FetchFault

# For how many seconds is remembered what was found, that there is no such name, and a failure which may pass
_FOUND_SECONDS, _MISSING_SECONDS, _AGAIN_SECONDS = 300.0, 60.0, 0.5
_NAMES = 100_000  # that are remembered

Addresses = list[tuple[int, Any]]  # families, and addresses as sockets take them
_names: dict[
    tuple[str, int], tuple[Addresses | str, float]
] = {}  # what is found, or what is wrong, and until when it holds


def look_up(host: str, port: int) -> Addresses:
    """Return families and addresses of a host. Raises FetchFault."""
    addresses, until = _names.get((host, port), ("", 0.0))
    if until < time.monotonic():
        addresses, seconds = _resolve(host, port)
        if len(_names) >= _NAMES:
            _names.clear()
        _names[host, port] = addresses, time.monotonic() + seconds
    if isinstance(addresses, str):
        raise FetchFault("dns", f"{host}: {addresses}")
    return addresses


def _resolve(host: str, port: int) -> tuple[Addresses | str, float]:
    """Return a host's addresses, or what is wrong, and for how many seconds that holds."""
    try:
        return [(info[0], info[4]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)], _FOUND_SECONDS
    except socket.gaierror as error:
        may_pass = error.errno in (socket.EAI_AGAIN, socket.EAI_SYSTEM)
        return error.strerror or str(error), _AGAIN_SECONDS if may_pass else _MISSING_SECONDS
    except (OSError, UnicodeError) as error:
        return str(error), _MISSING_SECONDS
