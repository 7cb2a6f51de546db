"""Samples that img2dataset failed to download, listed in the Parquet file beside a tar, or in its Parquet output.

The file has columns `key`, `status`, and `error_message`; without them it lists nothing.
"""

from collections.abc import Collection
from functools import partial
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.decoded_size import read_footer
from curate.base.errors import reraised
from curate.base.schema import DAMAGED_SIDECAR, MISSING_SAMPLE, OK, define
from curate.base.wording import one_line
from curate.download.shard_names import OUTCOMES
from curate.read.errors import InputError
from curate.recipe.files import read_columns

_MAX_BYTES = 1 << 28  # decompressed bytes to read from a file
_ERROR = 300  # characters
MISSING = define(**dict.fromkeys(("key", "url", "uid", "caption", "status", "error"), pa.string()))


def sidecar(path: str) -> str:
    """Return the path of img2dataset's list for a tar; empty if the name is not a tar's."""
    return f"{path.removesuffix('.tar')}.parquet" if path.endswith(".tar") else ""


def read_missing(path: str, storage: dict[str, Any], keys: Collection[str], caption: str) -> pa.Table:
    """Return the samples that are listed beside a tar but not in it, in the order of the list, with columns MISSING.

    `keys` are the samples in the tar; `caption` names the caption column, unless there is a column `caption`. Raises
    InputError if the list is damaged or may not be read (the tar's samples remain), OSError if it cannot be read now.
    """
    name = sidecar(path)
    damaged = partial(InputError, DAMAGED_SIDECAR)
    with reraised(damaged, name, PermissionError), fsspec.open(name, "rb", **storage) as opened:
        data = opened.read()
    with reraised(damaged, name, pa.ArrowException, ValueError, OSError):  # Arrow raises OSError for damaged pages
        table = _read_failed(data, caption)
    return table.filter(pc.invert(pc.is_in(table["key"], pa.array(keys, pa.string()))))


def _read_failed(data: bytes, caption: str) -> pa.Table:
    columns = read_footer(pa.BufferReader(data)).schema.to_arrow_schema()
    texts = [field.name for field in columns if field.type in (pa.string(), pa.large_string())]
    if not {"key", "status"} <= set(texts):
        return MISSING.empty_table()
    wanted = dict.fromkeys(("key", "status", "url", "uid", "error_message", "caption", caption))
    names = [name for name in wanted if name in texts]
    if set(OUTCOMES.names) <= set(columns.names):  # curate wrote it
        names += ["reason", "detail"]
    rows = read_columns(data, names, _MAX_BYTES)
    rows = rows.filter(pc.not_equal(rows["status"], pa.scalar("success")))  # null is unknown
    none = pa.nulls(len(rows), pa.string())

    def column(*names: str) -> pa.Array | pa.ChunkedArray:
        return next((rows[name].cast(pa.string()) for name in names if name in rows.column_names), none)

    if "reason" in rows.column_names:
        reasons, errors = column("reason"), column("detail")
    else:
        reasons = pa.repeat(pa.scalar(MISSING_SAMPLE), len(rows))
        errors = _errors(column("status"), column("error_message"))
    outcomes = [column("key"), column("url"), column("uid"), column("caption", caption), reasons, errors]
    table = pa.table(outcomes, schema=MISSING)
    table.validate(full=True)  # text that is not UTF-8
    return table


def missing_rows(rows: pa.Table, has_image: pa.Array) -> tuple[pa.Array, pa.Array] | None:
    """Return status and error of each row in img2dataset's Parquet output with images; None for other files.

    Rows without an image (`has_image`, bool) whose status is not `success` get the status MISSING_SAMPLE.
    """
    names = ("status", "error_message")
    if any(name not in rows.schema.names or not pa.types.is_string(rows.schema.field(name).type) for name in names):
        return None
    status, message = (rows[name].combine_chunks() for name in names)
    is_missing = pc.and_(pc.invert(has_image), pc.not_equal(status, pa.scalar("success"))).fill_null(False)
    none = pa.scalar(None, pa.string())
    statuses: pa.Array = pc.if_else(is_missing, pa.scalar(MISSING_SAMPLE), pa.scalar(OK))
    errors: pa.Array = pc.if_else(is_missing, _errors(status, message), none)
    return statuses, errors


def _errors(status: pa.Array | pa.ChunkedArray, message: pa.Array | pa.ChunkedArray) -> pa.Array:
    words = zip(status.to_pylist(), message.to_pylist(), strict=True)
    return pa.array([one_line(": ".join(filter(None, both)), _ERROR) for both in words], pa.string())
