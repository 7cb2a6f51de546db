"""Read the arrays of a .safetensors file, those of bfloat16 too, which numpy does not know."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_KINDS = {f"{kind.upper()}{8 * size}": f"<{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}
_KINDS |= {"F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8", "BOOL": "?", "BF16": "<u2"}


def read_safetensors(content: bytes) -> dict[str, Array]:
    """Return the arrays by name, those of bfloat16 as float32. Raises ValueError where it is none, or damaged."""
    import safetensors

    try:
        arrays: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
        return {name: _read(array) for name, array in sorted(arrays)}
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(f"no safetensors, or damaged ones ({error})") from None


def _read(array: dict[str, Any]) -> Array:
    numbers = np.frombuffer(array["data"], _KINDS[array["dtype"]]).reshape(array["shape"])
    return bfloat16(numbers) if array["dtype"] == "BF16" else numbers


def bfloat16(bits: Array) -> npt.NDArray[np.float32]:
    """Return numbers of bfloat16, given as uint16, as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
