"""What a process makes once and its threads share: models, engines, indexes. A key names what is made, and all of it."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

Made = TypeVar("Made")

_made: dict[str, Any] = {}
_lock = threading.RLock()


def once(key: str, make: Callable[[], Made]) -> Made:
    """What `make` gives, made by the first thread that asks for the key."""
    with _lock:
        if key not in _made:
            _made[key] = make()
        made: Made = _made[key]
        return made
