"""Find the columns of an input by the recipe's names, or by those that LAION, DataComp, and img2dataset use."""

import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.base.numeric.arrays import whole
from curate.read.errors import InputError
from curate.recipe.section import Section, find_twice

COLUMN_NAMES = {
    "caption": ("caption", "text", "alt_text", "alt"),
    "uid": ("uid",),
    "url": ("url", "image_url"),
    "key": ("key",),
    "width": ("width", "original_width"),
    "height": ("height", "original_height"),
    "language": ("language",),
    "image": ("image", "jpg", "image_bytes"),
}

BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)

NEEDED = dict.fromkeys((*COLUMN_NAMES, "file"), "text") | dict.fromkeys(("width", "height"), "a number")
NEEDED["image"] = "bytes, or a struct with a field 'bytes'"
_TEXT, _BINARY = (pa.types.is_string, pa.types.is_large_string, pa.types.is_null), BYTES[:2]
_FITTING: dict[str, tuple[Any, ...]] = {"image": _BINARY} | dict.fromkeys(("caption", "file"), _TEXT + _BINARY)
_FITTING |= dict.fromkeys(("width", "height"), (pa.types.is_integer, pa.types.is_floating))
_is_sha256 = re.compile(r"[0-9a-fA-F]{64}").fullmatch
# columns that another run of curate wrote, and that this run computes itself; by default, they are not scores
_DECIDED = "probability", "draw"


class Columns(Section):
    """Names of the input's columns, if they differ from the names that LAION, DataComp, and img2dataset use.

    curate finds these names itself, in upper or lower case:

    - caption: `caption`, `text`, `alt_text`, or `alt`
    - URL: `url` or `image_url`
    - width and height: `width` or `original_width`, `height` or `original_height`
    - image: `image`, `jpg`, or `image_bytes`
    - `uid`, `key`, and `language`

    If a rule names a column, as in `safe: NSFW = 'UNLIKELY'`, the column does not have to be in `scores`.
    """

    example: ClassVar[Any] = {"caption": "TEXT", "url": "URL", "scores": ["similarity"]}

    caption: str | None = Field(None, examples=["TEXT"])
    """Column with captions."""
    uid: str | None = Field(None, examples=["uid"])
    """Column with uids of 32 hex digits."""
    url: str | None = Field(None, examples=["URL"])
    """Column with URLs."""
    key: str | None = Field(None, examples=["key"])
    """Column with the samples' keys."""
    width: str | None = Field(None, examples=["WIDTH"])
    """Column with widths, for sources without images."""
    height: str | None = Field(None, examples=["HEIGHT"])
    """Column with heights, for sources without images."""
    language: str | None = Field(None, examples=["LANGUAGE"])
    """Column with the captions' languages."""
    image: str | None = Field(None, examples=["image"])
    """Column with images: bytes, or a struct that has a field `bytes`."""
    scores: tuple[str, ...] | None = Field(None, examples=[["similarity", "NSFW"]])
    """Columns that rules can use: numbers, text, booleans, dates, or lists of numbers. null: all float columns."""


def find_columns(schema: pa.Schema, wanted: Columns) -> Columns:
    """Return the column for each role. Raises InputError if there are no captions or a type does not fit."""
    if twice := find_twice(schema.names):
        raise InputError("wrong_type", f"two columns are named {twice!r}")
    roles = {part: find_column(schema, part, getattr(wanted, part), names) for part, names in COLUMN_NAMES.items()}
    if roles["caption"] is None:
        missing = f"no column {wanted.caption!r}" if wanted.caption else "no caption column"
        remedy = "" if wanted.caption else "; name it with columns: {caption: NAME}"
        raise InputError("no_caption_column", f"{missing}; columns: {', '.join(schema.names) or 'none'}{remedy}")
    floats = (field.name for field in schema if pa.types.is_floating(field.type))
    usual = (name for name in floats if name not in {*roles.values(), *_DECIDED})
    scores = usual if wanted.scores is None else wanted.scores
    return Columns(scores=tuple(name for name in scores if name in schema.names), **roles)


def find_column(schema: pa.Schema, part: str, requested: str | None, names: Sequence[str]) -> str | None:
    """Return the first column that has one of these names (lower case). Raises InputError if no column or two fit."""
    usual = [column for name in names for column in schema.names if column.lower() == name]
    candidates = [name for name in ([requested] if requested else usual) if name in schema.names]
    is_needed = part in ("caption", "file")
    fits = [name for name in candidates if _fits(part, plain_type(schema.field(name).type))]
    if candidates and not fits and (requested or is_needed):
        kind = schema.field(candidates[0]).type
        raise InputError("wrong_type", f"{part} column {candidates[0]!r} is {kind}, not {NEEDED[part]}")
    if is_needed and fits[1:] and fits[0].lower() == fits[1].lower():
        problem = f"columns {fits[0]!r} and {fits[1]!r} differ only in case"
        raise InputError("wrong_type", f"{problem}; name one with columns: {{{part}: {fits[0]}}}")
    return fits[0] if fits else None


def _fits(part: str, kind: pa.DataType) -> bool:
    if part == "image" and isinstance(kind, pa.StructType):
        return kind.get_field_index("bytes") >= 0
    return is_any(kind, *_FITTING.get(part, _TEXT))


def is_any(kind: pa.DataType, *tests: Callable[[pa.DataType], bool]) -> bool:
    """Return whether a type is accepted by one of these functions of `pa.types`."""
    return any(test(kind) for test in tests)


SCORE_TYPES = "numbers, text, booleans, dates, lists of numbers"  # the types that `score_type` accepts, for messages


def score_type(kind: pa.DataType) -> pa.DataType | None:
    """Return the type of a column in table `scores`; None if rules cannot use it (bytes, structs, lists of texts)."""
    kind = plain_type(kind)
    if pa.types.is_float16(kind):
        return pa.float32()  # DuckDB has no half-precision floats
    if pa.types.is_large_string(kind):
        return pa.string()
    if isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        inner = score_type(kind.value_type)
        return None if inner is None or pa.types.is_string(inner) else pa.list_(inner)
    plain = (pa.types.is_null, pa.types.is_string, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
    return kind if is_any(kind, *plain, pa.types.is_decimal, pa.types.is_date, pa.types.is_timestamp) else None


def unify_scores(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return columns for the table `scores`, with the same types in all files. A column of nulls becomes text.

    Raises pa.ArrowException.
    """
    columns = pa.unify_schemas(list(schemas), promote_options="permissive")
    return pa.schema([field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in columns])


def score_column(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return a column for the table `scores`, with a type from `score_type`.

    NaN and text that is not UTF-8 become null.
    """
    column = column.cast(plain_type(column.type))
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return valid_text(column) if pa.types.is_string(kind) else column.cast(kind, safe=False)


def plain_columns(table: pa.Table) -> pa.Table:
    """Return a table whose columns have plain types (see `plain_type`)."""
    return table.cast(pa.schema([field.with_type(plain_type(field.type)) for field in table.schema]))


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type without a dictionary and without views (see `_without_views`)."""
    return _without_views(kind.value_type if isinstance(kind, pa.DictionaryType) else kind)


def _without_views(kind: pa.DataType) -> pa.DataType:
    """Return the type with plain strings and binary instead of views, at any depth. Few Arrow kernels accept views."""
    match kind:
        case pa.StructType():
            return pa.struct([_plain_field(kind.field(i)) for i in range(kind.num_fields)])
        case pa.MapType():
            key, item = _plain_field(kind.key_field), _plain_field(kind.item_field)
            return pa.map_(key, item, kind.keys_sorted)  # type: ignore[call-overload,no-any-return] # takes fields too
        case pa.FixedSizeListType():
            return pa.list_(_without_views(kind.value_type), kind.list_size)  # the field in it has no name afterward
        case pa.LargeListType():
            return pa.large_list(_plain_field(kind.value_field))
        case pa.ListType():
            return pa.list_(_plain_field(kind.value_field))
    plain: dict[pa.DataType, pa.DataType] = {pa.string_view(): pa.string(), pa.binary_view(): pa.large_binary()}
    return plain.get(kind, kind)


def _plain_field(field: pa.Field) -> pa.Field:
    return field.with_type(_without_views(field.type))


def json_columns(table: pa.Table, image: str | None = None) -> list[pa.Field]:
    """Return the columns that become fields in the samples' JSON: all except images and bytes."""
    return [f for f in table.schema if f.name != image and not is_any(f.type, *BYTES)]


def stated_sha256(*values: Any) -> str | None:
    """Return the first value that is a sha256 (64 hex digits), in lower case; None if no value is."""
    return next((value.lower() for value in values if isinstance(value, str) and _is_sha256(value)), None)


def text_columns(table: pa.Table, roles: Columns, parts: Sequence[str]) -> dict[str, pa.Array]:
    """Return the parts of a sample that the table has columns for, as text. Text that is not UTF-8 becomes null."""
    columns = {part: getattr(roles, part) for part in parts}
    return {part: valid_text(whole(table[column])) for part, column in columns.items() if column}


def valid_text(column: pa.Array) -> pa.Array:
    """Return the column as strings; null where the bytes are not UTF-8."""
    column = column.cast(pa.string(), safe=False)  # this does not check for UTF-8
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        column = pa.array([_decode(value) for value in column.cast(pa.binary()).to_pylist()], pa.string())
    return column


def _decode(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def integers(column: pa.Array) -> pa.Array:
    """Return sizes in pixels as int32; null where the value is not a size."""
    values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    good = (values >= 0) & (values < 2**31)
    return pa.array(np.where(good, values, 0).astype(np.int32), mask=~good)
