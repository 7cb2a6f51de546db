"""Says what is wrong with a recipe: pydantic's faults, a line each with its key, what was found and is accepted.

Where a fault lies, and which keys are known there, is followed through the models' fields, so that a user's own name
(of a rule, a head, an engine) is never taken for that of a section.
"""

import re
import types
import typing
from collections import deque
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, Union

from pydantic import BaseModel, Tag, ValidationError

from curate.base.wording import did_you_mean
from curate.recipe.section import BuiltFrom, KindsSection
from curate.recipe.source import FORMATS, Source


class Place(NamedTuple):
    """Where a fault lies: the keys as a recipe has them, and the section that would hold the last of them."""

    keys: tuple[str, ...]
    section: type[BaseModel] | None


def explain_faults(model: type[BaseModel], error: ValidationError) -> Iterator[str]:
    """Yield one line per fault of a recipe, which is to be a `model`."""
    faults = error.errors()
    places = [locate(model, fault["loc"]) for fault in faults]
    texts: set[str] = set()
    within = {place.keys[:depth] for place in places for depth in range(len(place.keys))}
    ours = {place.keys for fault, place in zip(faults, places, strict=True) if fault["type"] == "fault"}
    for fault, place in zip(faults, places, strict=True):
        if fault["type"] != "fault" and place.keys in ours:
            continue  # of another form that the value may have, and it may hold a secret
        if len(fault["loc"]) > len(place.keys) and place.keys in within:
            continue  # of the forms that the value may have another one was meant, whose faults are reported
        if fault["type"] == "too_short" and fault["input"] and len(faults) > 1:
            continue  # pydantic counts only the items without a fault, and those are reported
        text = _describe(fault, place)
        is_again = fault["type"] == "extra_forbidden" and text in texts  # the long list of known keys
        yield f"{'.'.join(place.keys) or 'recipe'}{text.partition(';')[0] if is_again else text}"
        texts.add(text)


def locate(model: type[BaseModel], loc: tuple[int | str, ...]) -> Place:
    """Return where a pydantic location points: its keys, without the labels that pydantic puts in for unions."""
    keys: list[str] = []
    section, hint = None, model
    parts = deque(loc)
    while parts:
        if [*parts] == ["[key]"]:  # of a mapping: its key is at fault, not what it names
            keys.append("[key]")
            break
        forms = list(alternatives(hint))
        if len(forms) > 1:
            forms = _labelled(forms, str(parts.popleft()))
        if not parts:
            break
        form, key = forms[0][0] if len(forms) == 1 else None, parts.popleft()
        keys.append(str(key))
        section = form if is_section(form) else None
        hint = _inner(form, key)
    return Place(tuple(keys), section)


def _labelled(forms: list[tuple[Any, tuple[Any, ...]]], label: str) -> list[tuple[Any, tuple[Any, ...]]]:
    """Return the form of a union that pydantic's label names; for labels of pydantic's own the only one that fits."""
    tagged = [form for form in forms if label in (mark.tag for mark in form[1] if isinstance(mark, Tag))]
    return tagged or [form for form in forms if getattr(form[0], "__name__", "") == label.partition("[")[0]]


def _inner(form: Any, key: int | str) -> Any:
    """Return the type of what a form holds under a key; Any where that cannot be followed."""
    if is_section(form):
        field = form.model_fields.get(key)
        return Annotated[field.annotation, *field.metadata, None] if field else Any
    arguments = typing.get_args(form)
    if typing.get_origin(form) is dict:
        return arguments[1]
    if typing.get_origin(form) is tuple and isinstance(key, int):
        return arguments[0] if arguments[1:] == (...,) else dict(enumerate(arguments)).get(key, Any)
    return Any


def alternatives(hint: Any, outer: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield the types that a type hint allows but None, each with its annotations; unions are taken apart."""
    if typing.get_origin(hint) is Annotated:
        yield from alternatives(hint.__origin__, (*hint.__metadata__, *outer))
    elif typing.get_origin(hint) in (Union, types.UnionType):
        for form in typing.get_args(hint):
            yield from alternatives(form, outer)
    elif hint is not type(None):
        if built := [mark.make() for mark in outer if isinstance(mark, BuiltFrom)]:
            yield from alternatives(built[0], tuple(mark for mark in outer if not isinstance(mark, BuiltFrom)))
        else:
            yield hint, outer


def is_section(form: Any) -> bool:
    """Return whether a type is that of a section."""
    return isinstance(form, type) and issubclass(form, BaseModel)


def _describe(fault: Any, place: Place) -> str:
    if fault["type"] == "fault":
        key = fault["ctx"]["key"]
        return f"{'.' if key else ''}{key}: {fault['msg']}"
    if fault["type"] == "extra_forbidden":
        section, fields = place.section, place.section.model_fields if place.section else {}
        known = [field.alias or name for name, field in fields.items()]
        near = did_you_mean(place.keys[-1], known)
        broken = section.registry.broken if section and issubclass(section, KindsSection) else {}
        if why := broken.get(place.keys[-1]):
            return f": {why}"
        if section and issubclass(section, KindsSection) and section.holds_kinds:
            what = section.registry.what
            added = "" if near else f"; a package may add {what}s: is one not installed?"
            return f": no such {what}; {near}known: {', '.join(known)}{added}"
        more = "" if near or not broken else f"; or is it of what is missing? {'; '.join(broken.values())}"
        if section is Source and (package := FORMATS.package(kind := str(fault["loc"][-2]))):
            more += f"; input format {kind!r} of package {package} states no section, with keys of its own"
        return f": unknown key; {near}known keys: {', '.join(known) or 'none'}{more}"
    if fault["type"] == "missing":
        rule = len(place.keys) == 3 and place.keys[0] == "rules"
        forms = alternatives(_inner(place.section, place.keys[-1])) if place.section else ()
        keys = [key for form, _ in forms if is_section(form) for key in form.model_fields.items()]
        needed = [field.alias or name for name, field in keys if field.is_required()]
        mapping = needed and f"a mapping with {', '.join(needed)}"
        accepted = "{top: 0.3, of: COLUMN}, or an expression" if rule else mapping
        return f": is missing{f'; accepted: {accepted}' if accepted else ''}"
    value = "" if fault["type"] == "value_error" and len(place.keys) < 2 else f" (found {shorten(fault['input'])})"
    message = fault["msg"].removeprefix("Value error, ").replace("valid tuple", "list").replace("Tuple", "List")
    return f": {re.sub(r'valid dictionary( or instance of .*)?', 'mapping', message)}{value}"


def shorten(value: Any) -> str:
    """Return a value as messages show it, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
