"""The robots.txt of hosts (RFC 9309), each read once a day in a process. Protego has the rules."""

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from curate.base.errors import needing
from curate.pool.urls.download.fetch_fault import FetchFault

_RULES = 20_000_000  # characters of robots.txt that are remembered
_OVERHEAD = 300  # of each site
_DAY = 86_400.0
_AGENT = re.compile(r"\s*user[- ]?agent(?:\s*:|\s)([^#]*)(?:#.*)?", re.IGNORECASE)
_TOKEN = re.compile(r"[A-Za-z_-]*")  # a product token
_NONE: Future[Any] = Future()  # of a site that was not asked


@dataclass
class Robots:
    """The robots.txt of hosts (RFC 9309), each read once a day by the first thread that needs it."""

    agent: str
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _sites: dict[str, tuple[float, Future[Any]]] = field(default_factory=dict)
    _characters: int = 0

    def check(self, site: str, url: str, read: Callable[[str], bytes]) -> float:
        """Raise FetchFault where the rules of a site (scheme, host and port) forbid a URL, or cannot be read.

        `read` fetches robots.txt: a fault of status 4xx, but 429, allows all; any other fault is that of each URL.
        Returns the seconds in which another thread read it.
        """
        began = time.monotonic()
        rules, is_mine = self._rules(site, read)
        waited = 0.0 if is_mine else time.monotonic() - began
        if rules is not None and not rules.can_fetch(url, self.agent):
            raise FetchFault("robots", f"{site}/robots.txt")
        return waited

    def _rules(self, site: str, read: Callable[[str], bytes]) -> tuple[Any, bool]:
        now = time.monotonic()
        with self._lock:
            until, rules = self._sites.get(site, (0.0, _NONE))
            if is_mine := until < now:
                rules = Future()
                self._sites[site] = now + _DAY, rules
        if is_mine:
            try:
                parsed, characters = self._parse(read, site)
                rules.set_result(parsed)
                with self._lock:
                    self._characters += characters
                    if self._characters > _RULES:
                        self._sites, self._characters = {site: (now + _DAY, rules)}, characters
            except BaseException as error:
                with self._lock:
                    self._sites.pop(site, None)
                rules.set_exception(error.fresh() if isinstance(error, FetchFault) else error)
        return rules.result(), is_mine

    def _parse(self, read: Callable[[str], bytes], site: str) -> tuple[Any, int]:
        """Return the rules of a site, None where all is allowed, and what they are counted as."""
        with needing("robots: respect needs another package", "'.[img2dataset]' in a checkout of curate"):
            from protego import Protego
        try:
            text = _of_agent(read(f"{site}/robots.txt").decode("utf-8-sig", "replace"), self.agent)
            return Protego.parse(text), len(text) + _OVERHEAD
        except FetchFault as fault:
            if fault.reason.startswith("http_4") and fault.reason != "http_429":
                return None, _OVERHEAD
            detail = fault.detail if fault.reason == "refused_address" else f"while reading robots.txt: {fault.detail}"
            raise FetchFault(fault.reason, detail, fault.retry_after) from None


def _of_agent(text: str, agent: str) -> str:
    """Return a robots.txt with agents `*`, this one and `other`: Protego gives each of them all rules of its group.

    An agent is meant by its product token alone, whatever its case and what follows it, such as a version (RFC 9309,
    2.2.1).
    """
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if match := _AGENT.fullmatch(line):
            name = match[1].strip()
            token = _TOKEN.match(name.lstrip("*"))
            is_mine = token is not None and token[0].lower() == agent
            lines[number] = f"User-agent: {'*' if name == '*' else agent if is_mine else 'other'}"
    return "\n".join(lines)
