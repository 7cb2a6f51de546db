"""Explains errors in a recipe. Each error gets one line with its key, what was found, and what is accepted."""

import re
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError


def explain_faults(error: ValidationError, data: Any) -> Iterator[str]:
    """Yield one line for each of pydantic's errors."""
    errors = [(problem, _find_keys(data, problem)) for problem in error.errors()]
    specific = {keys for problem, keys in errors if problem["type"] == "fault"}
    above = {keys[:depth] for _, keys in errors for depth in range(len(keys))}
    lists: set[str] = set()
    for problem, keys in errors:
        if problem["type"] != "fault" and keys in specific:
            continue  # from another form of the value; it could contain a secret
        if problem["type"] == "too_short" and keys in above:
            continue  # pydantic counts only valid items; the errors of the others are reported
        text = _describe(problem, keys)
        if problem["type"] == "extra_forbidden" and text in lists:  # the long list of known keys
            text = text.partition(";")[0]
        lists.add(text)
        yield f"{'.'.join(keys) or 'recipe'}{text}"


def locate(data: Any, loc: tuple[int | str, ...]) -> tuple[str, ...]:
    """Return the keys to an error's location, without pydantic's labels for forms of a value.

    A label is not in the data. `[key]` means that a key itself is wrong.
    """
    keys: list[str] = []
    for part in loc:
        is_key = part in data if isinstance(data, dict) else isinstance(data, list | tuple) and isinstance(part, int)
        if is_key:
            data = data[part]
        if is_key or isinstance(part, int) or part == "[key]":  # 0 if a single section replaces a list
            keys.append(str(part))
    return tuple(keys)


def _find_keys(data: Any, fault: Any) -> tuple[str, ...]:
    loc = fault["loc"]
    return (*locate(data, loc[:-1]), str(loc[-1])) if fault["type"] == "missing" else locate(data, loc)


def _describe(fault: Any, keys: tuple[str, ...]) -> str:
    if "text" in fault.get("ctx", {}):
        key = fault["ctx"].get("key", "")
        return f"{'.' if key else ''}{key}: {fault['ctx']['text']}"
    value = "" if fault["type"] == "value_error" and len(keys) < 2 else f" (found {shorten(fault['input'])})"
    if fault["type"] == "union_tag_invalid":  # a union by form: its tags are accepted
        forms = fault["ctx"]["expected_tags"].replace("'", "").replace(", ", " or ")
        return f": Input should be {forms}{value}"
    message = fault["msg"].removeprefix("Value error, ").replace("valid tuple", "list").replace("Tuple", "List")
    return f": {re.sub(r'valid dictionary( or instance of .*)?', 'mapping', message)}{value}"


def shorten(value: Any) -> str:
    """Return a value as text for a message, with at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
