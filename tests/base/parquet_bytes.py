"""Parquet files written byte by byte, so that they may say what is not so: Thrift's structs, pages and footers."""

import struct as packing
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

DATA, DICTIONARY, DATA_V2 = 0, 2, 3
PLAIN, RLE, DELTA_BINARY_PACKED, DELTA_LENGTH_BYTE_ARRAY, DELTA_BYTE_ARRAY, RLE_DICTIONARY = 0, 3, 5, 6, 7, 8
INT32, BYTE_ARRAY = 1, 6
REQUIRED, REPEATED = 0, 2


class Struct(bytes):
    """A struct of Thrift's compact protocol."""


class Long(int):
    """A number of 64 bits."""


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def zigzag(value: int) -> bytes:
    return varint(value << 1 if value >= 0 else (-value << 1) - 1)


def _value(value: Any) -> tuple[int, bytes]:
    """Return the type of a value, and its bytes."""
    if isinstance(value, Struct):
        return 12, bytes(value)
    if isinstance(value, bool):
        return 1 if value else 2, b""
    if isinstance(value, int):
        return 6 if isinstance(value, Long) else 5, zigzag(value)
    if isinstance(value, bytes):
        return 8, varint(len(value)) + value
    kinds = [_value(item) for item in value]
    kind = kinds[0][0]
    head = bytes([len(kinds) << 4 | kind]) if len(kinds) < 15 else bytes([0xF0 | kind]) + varint(len(kinds))
    return 9, head + b"".join(data for _, data in kinds)


def struct(fields: dict[int, Any]) -> Struct:
    out, last = b"", 0
    for number, value in sorted(fields.items()):
        kind, data = _value(value)
        out += bytes([number - last << 4 | kind]) + data
        last = number
    return Struct(out + b"\0")


def page(
    body: bytes, values: int, encoding: int = PLAIN, kind: int = DATA, size: int | None = None, **header: Any
) -> bytes:
    """A page; `body` as it is stored, `size` unpacked."""
    details = {1: values, 2: encoding} | ({3: RLE, 4: RLE} if kind == DATA else {})
    field = 5 if kind == DATA else 7
    if kind == DATA_V2:
        field, details = 8, {1: values, 2: 0, 3: values, 4: encoding, 5: header["definition"], 6: 0}
    return struct({1: kind, 2: len(body) if size is None else size, 3: len(body), field: struct(details)}) + body


@dataclass
class Column:
    """A required column: what its footer says, of pages as they are."""

    pages: bytes
    values: int
    kind: int = BYTE_ARRAY
    codec: int = 0  # 6: zstd
    repetition: int = REQUIRED
    size: int | None = None  # unpacked
    more: Any = None  # further fields of its metadata
    chunk: Any = None  # and of the chunk


def parquet(rows: int, *columns: Column) -> bytes:
    """A file of one row group; columns are c0, c1 and so on."""
    body, chunks, schema = b"PAR1", [], [struct({4: b"root", 5: len(columns)})]
    for number, column in enumerate(columns):
        name, stored, at = b"c%d" % number, len(column.pages), len(body)
        schema.append(struct({1: column.kind, 3: column.repetition, 4: name}))
        size = stored if column.size is None else column.size
        fields = {1: column.kind, 2: [PLAIN, RLE], 3: [name], 4: column.codec, 5: Long(column.values), 6: Long(size)}
        fields |= {7: Long(stored), 9: Long(at)} | (column.more or {})
        chunks.append(struct({2: Long(at), 3: struct(fields)} | (column.chunk or {})))
        body += column.pages
    group = struct({1: chunks, 2: Long(len(body)), 3: Long(rows)})
    footer = struct({1: 1, 2: schema, 3: Long(rows), 4: [group]})
    return body + footer + packing.pack("<I", len(footer)) + b"PAR1"


def text(value: bytes) -> bytes:
    return packing.pack("<I", len(value)) + value


def run(count: int, value: int, width: int = 1) -> bytes:
    """A run of a hybrid of RLE and bit packing."""
    return varint(count << 1) + value.to_bytes((width + 7) // 8, "little")


def zeros(count: int) -> bytes:
    """So many deltas, all of them 0, in blocks of as many as fit."""
    block = (1 << 31) - 128
    return varint(block) + varint(1) + varint(count) + zigzag(0) + b"\0\0" * -(-max(0, count - 1) // block)


def deltas(values: list[int]) -> bytes:
    """Numbers as DELTA_BINARY_PACKED, as writers do."""
    out = varint(128) + varint(4) + varint(len(values)) + zigzag(values[0])
    steps = [b - a for a, b in pairwise(values)]
    for first in range(0, len(steps), 128):
        block = steps[first : first + 128]
        least = min(block)
        parts = [[step - least for step in block[i : i + 32]] for i in range(0, 128, 32)]
        widths = [max(part, default=0).bit_length() for part in parts]
        out += zigzag(least) + bytes(widths)
        for part, width in zip(parts, widths, strict=True):
            packed = sum(step << width * i for i, step in enumerate(part))
            out += packed.to_bytes(4 * width, "little")
    return out
