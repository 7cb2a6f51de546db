"""Finds what a Parquet source's columns hold: by the recipe's names, else by the spellings of LAION, DataComp, img2dataset.

Spellings are compared without regard to case, in order; see `SPELLINGS`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from curate.errors import CurateError
from curate.recipe.recipe import Columns

SPELLINGS = {
    "caption": ("caption", "text", "alt_text", "alt"),
    "uid": ("uid",),
    "url": ("url", "image_url"),
    "key": ("key",),
    "width": ("width", "original_width"),
    "height": ("height", "original_height"),
    "language": ("language",),
    "image": ("image", "jpg", "image_bytes"),
}

NEEDED = dict.fromkeys(SPELLINGS, "text") | {
    "width": "a number",
    "height": "a number",
    "image": "bytes, or a struct with a field 'bytes'",
}


class ColumnFault(CurateError):
    """A file's columns do not fit; `reason` is one of `curate.schema.FILE_REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Found:
    """The column of a file for each part of a sample, where there is one, and the score columns."""

    caption: str
    uid: str | None
    url: str | None
    key: str | None
    width: str | None
    height: str | None
    language: str | None
    image: str | None
    scores: tuple[str, ...]


def find_columns(schema: pa.Schema, wanted: Columns) -> Found:
    """Which column of `schema` holds what. Raises ColumnFault where the caption's is missing or a type does not fit."""
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise ColumnFault("wrong_type", f"two columns are named {twice[0]!r}")
    spelled: dict[str, str] = {}
    for name in schema.names:
        spelled.setdefault(name.lower(), name)
    found: dict[str, str | None] = {}
    for part, names in SPELLINGS.items():
        asked = getattr(wanted, part)
        candidates = [asked] if asked else [spelled[name] for name in names if name in spelled]
        candidates = [name for name in candidates if name in schema.names]
        fits = [name for name in candidates if _fits(part, schema.field(name).type)]
        if candidates and not fits and (asked or part == "caption"):
            kind = schema.field(candidates[0]).type
            raise ColumnFault("wrong_type", f"{part} column {candidates[0]!r} is {kind}, not {NEEDED[part]}")
        found[part] = fits[0] if fits else None
    if found["caption"] is None:
        sought = f"no column {wanted.caption!r}" if wanted.caption else "no caption column"
        raise ColumnFault("no_caption_column", f"{sought}; columns: {', '.join(schema.names) or 'none'}")
    taken = {name for name in found.values() if name}
    if wanted.scores is None:
        scores = tuple(f.name for f in schema if pa.types.is_floating(f.type) and f.name not in taken)
    else:
        scores = tuple(name for name in wanted.scores if name in schema.names)
    return Found(scores=scores, **found)  # type: ignore[arg-type]


def _fits(part: str, kind: pa.DataType) -> bool:
    kind = without_views(kind.value_type if pa.types.is_dictionary(kind) else kind)
    if part in ("width", "height"):
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
    if part == "image":
        return _image_type(kind)
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_null)
    return any(test(kind) for test in tests) or (
        part == "caption" and bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
    )


def _image_type(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def without_views(kind: pa.DataType) -> pa.DataType:
    """The type with string and binary views, for which Arrow has few kernels yet, as plain ones, at any depth."""
    tests = (pa.types.is_string_view, pa.types.is_binary_view, pa.types.is_struct, pa.types.is_map)
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    makers: list[Callable[[], pa.DataType]] = [
        pa.string,
        pa.large_binary,
        lambda: pa.struct([_plain(kind.field(i)) for i in range(kind.num_fields)]),
        lambda: pa.map_(_plain(kind.key_field), _plain(kind.item_field), kind.keys_sorted),
        lambda: pa.list_(_plain(kind.value_field)),
        lambda: pa.large_list(_plain(kind.value_field)),
        lambda: pa.list_(_plain(kind.value_field), kind.list_size),
    ]
    return next((make() for test, make in zip((*tests, *lists), makers, strict=True) if test(kind)), kind)


def _plain(field: pa.Field) -> pa.Field:
    return field.with_type(without_views(field.type))
