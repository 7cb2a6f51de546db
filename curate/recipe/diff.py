"""What differs between two recipes, or other plain data: the dotted keys, each with its old and its new value."""

from typing import Any, NamedTuple


class Change(NamedTuple):
    """A dotted key with its values; None where there is none."""

    key: str
    old: Any
    new: Any


def changes(old: Any, new: Any, at: str = "") -> list[Change]:
    """Return the keys in which two recipes differ; lists of one length item by item, and rules in their order too."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        inner = [c for key in keys for c in changes(old.get(key), new.get(key), f"{at}.{key}" if at else str(key))]
        if not inner and at == "rules" and list(old) != list(new):
            return [Change("the order of rules", list(old), list(new))]
        return inner
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [f for i, pair in enumerate(zip(old, new, strict=True)) for f in changes(*pair, f"{at}.{i}")]
    return [] if old == new else [Change(at, old, new)]
