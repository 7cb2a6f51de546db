"""Read the arrays of a .safetensors file: eight bytes with the length of a JSON header, the header, and the numbers."""

import json
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_KINDS = {f"{kind.upper()}{8 * size}": f"<{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}
_KINDS |= {"F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8", "BOOL": "?", "BF16": "<u2"}


def read_safetensors(content: bytes) -> dict[str, Array]:
    """Return the arrays by name, those of bfloat16 as float32. Raises ValueError where it is something else, or damaged."""
    try:
        start = 8 + int.from_bytes(content[:8], "little")
        header: Any = json.loads(content[8:start]) if start <= len(content) else None
        return {name: _read(one, content[start:]) for name, one in sorted(header.items()) if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no safetensors, or damaged ones ({type(error).__name__})") from None


def _read(one: Any, numbers: bytes) -> Array:
    first, last = one["data_offsets"]
    kind = np.dtype(_KINDS[one["dtype"]])
    shape = tuple(one["shape"])
    if not 0 <= first <= last <= len(numbers) or any(side < 0 for side in shape):
        raise ValueError("an array beyond the file's end")
    found = np.frombuffer(numbers[first:last], kind).reshape(shape)
    return bfloat16(found) if one["dtype"] == "BF16" else found


def bfloat16(bits: Array) -> npt.NDArray[np.float32]:
    """Return numbers of bfloat16, given as uint16, as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
