"""Read the arrays of a file that `torch.save` or safetensors wrote, without torch, and without code.

In: the bytes of a .pt file, which holds a pickle of arrays alone, or of a .safetensors file. Out: what was saved, with
numpy arrays for tensors and arrays, in dicts, lists and tuples; bfloat16 becomes float32. Names that a pickle asks for
are looked up in a list of a few, which are ours: nothing is imported, and nothing of a stranger's is called. torch's
own `weights_only` refuses pickles of protocol 4, which DataComp's centroids are.

Source: torch/serialization.py: a zip of ROOT/data.pkl, ROOT/byteorder and, of each storage, ROOT/data/KEY. Before torch
1.6: pickles of a magic number, a version, the machine, what was saved and the storages' keys; then of each its length
and numbers.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_STORAGES = {"Double": "<f8", "Float": "<f4", "Half": "<f2", "Long": "<i8", "Int": "<i4", "Short": "<i2"}
_STORAGES |= {"Char": "<i1", "Byte": "<u1", "BFloat16": "bfloat16"}
_MAGIC = 0x1950A86A20F9469CFC6C
_SAFE = {f"{kind.upper()}{8 * size}": f"<{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}
_SAFE |= {"F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8", "BOOL": "?", "BF16": "bfloat16"}


def read_safetensors(content: bytes) -> dict[str, Array]:
    """Return the arrays by name. Raises ValueError where the file is none of safetensors, or damaged."""
    import safetensors

    try:
        arrays: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
        return {
            name: _numbers(array["data"], _SAFE[array["dtype"]]).reshape(array["shape"])
            for name, array in sorted(arrays)
        }
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(f"no safetensors, or damaged ones ({error})") from None


def read_torch_file(content: bytes, limit: int) -> Any:
    """Return what was saved. Raises ValueError where it is something else, or unpacks to more than `limit` bytes."""
    try:
        if not zipfile.is_zipfile(io.BytesIO(content)):
            return _finished(_read_old(content))
        with zipfile.ZipFile(io.BytesIO(content)) as opened:
            if sum(member.file_size for member in opened.infolist()) > limit:
                raise ValueError(f"it holds more than {limit:,} bytes, unpacked")
            names = [name for name in opened.namelist() if name.endswith("/data.pkl")]
            if len(names) != 1:
                raise ValueError("a zip that torch.save has not written")
            root = names[0].removesuffix("data.pkl")
            if f"{root}byteorder" in opened.namelist() and opened.read(f"{root}byteorder") != b"little":
                raise ValueError("its numbers are big-endian")
            of_key = {}

            def read(kind: str, key: str, count: int) -> Array:
                if key not in of_key:
                    of_key[key] = _numbers(opened.read(f"{root}data/{key}"), kind, count)
                return of_key[key]

            return _finished(_Unpickler(io.BytesIO(opened.read(f"{root}data.pkl")), read).load())
    except ValueError:
        raise
    except Exception as error:  # of any kind, of hostile bytes
        raise ValueError(f"damaged, or not written by torch.save ({type(error).__name__})") from error


def _read_old(content: bytes) -> Any:
    """Return what torch saved before 1.6: read twice, since the numbers come after what is made of them."""
    kinds: dict[str, str] = {}

    def expect(kind: str, key: str, count: int) -> Array:
        if not 0 <= count <= len(content):
            raise ValueError("a storage that is larger than the file")
        kinds[key] = kind
        return np.zeros(count, "<f4" if kind == "bfloat16" else kind)

    file = io.BytesIO(content)
    magic, *_ = (_Unpickler(file, expect).load() for _ in range(3))
    if magic != _MAGIC:
        raise ValueError("a pickle that torch.save has not written")
    start = file.tell()
    _Unpickler(file, expect).load()
    storages = {}
    for key in _Unpickler(file, expect).load():
        count = int.from_bytes(file.read(8), "little")
        size = 2 if kinds[key] == "bfloat16" else np.dtype(kinds[key]).itemsize
        storages[key] = _numbers(file.read(count * size), kinds[key], count)
    file.seek(start)
    return _Unpickler(file, lambda kind, key, count: storages[key]).load()


def _numbers(raw: bytes, kind: str, count: int = -1) -> Array:
    """Return the numbers of a storage. Raises ValueError where they are fewer."""
    if kind == "bfloat16":
        return (np.frombuffer(raw, "<u2", count).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, kind, count)


class _Dtype:
    """Stands for numpy.dtype: a number's type, as its pickle tells it."""

    def __init__(self, name: str, *_: Any) -> None:
        self.name, self.order = name, ""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1] if state[1] in ("<", ">") else ""

    def array(self, raw: Any, shape: tuple[int, ...], order: str) -> Array:
        """Return numbers of this type. Raises ValueError where these are none, or do not fit the shape."""
        kind = np.dtype(f"{self.order}{self.name}")
        if kind.kind not in "fiu" or not isinstance(raw, bytes | bytearray):
            raise ValueError(f"an array of {kind}; accepted: of numbers")
        return np.frombuffer(raw, kind).reshape(shape, order="F" if order == "F" else "C")


class _Array:
    """Stands for numpy.ndarray: an array that is yet to get its numbers."""

    value: Array | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, is_fortran, raw = state
        self.value = kind.array(raw, shape, "F" if is_fortran else "C")


def _tensor(storage: Array, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Array:
    """Return a tensor of its storage, copied. Raises ValueError where it reaches beyond it."""
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or int(np.prod(size, dtype=object)) > len(storage):
        raise ValueError("a tensor that its storage does not hold")
    if 0 in size:
        return np.zeros(size, storage.dtype)
    if last >= len(storage):
        raise ValueError("a tensor that its storage does not hold")
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps).copy()


# By the last part of the module, which numpy renamed, and the name.
_NAMES: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_utils", "_rebuild_tensor_v2"): _tensor,
    ("_utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    ("multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numeric", "_frombuffer"): lambda raw, kind, shape, order: kind.array(raw, shape, order),
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),  # bytes, in pickles before protocol 3
    ("__builtin__", "bytes"): lambda: b"",
    **{("torch", f"{name}Storage"): kind for name, kind in _STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Gives what a pickle holds that names nothing but arrays and tensors."""

    def __init__(self, file: io.BytesIO, read: Callable[[str, str, int], Array]) -> None:
        """`read` gives the numbers of a storage: of a type, by its key, so many."""
        super().__init__(file)
        self._read = read

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name. Raises ValueError where it is none of arrays."""
        meaning = _NAMES.get((module.rpartition(".")[2], name))
        if meaning is None:
            accepted = "tensors and arrays of numbers, never code"
            raise ValueError(f"it asks for {f'{module}.{name}'[:80]!r}; accepted: {accepted}")
        return meaning

    def persistent_load(self, pid: Any) -> Array:
        """Return the numbers of a storage."""
        _, kind, key, _, count, *_ = pid
        return self._read(kind, key, count)


def _finished(value: Any) -> Any:
    """Return the value with numpy's arrays, in containers of any depth."""
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("an array without numbers")
        return value.value
    if isinstance(value, dict):
        return {key: _finished(item) for key, item in value.items()}
    return type(value)(map(_finished, value)) if isinstance(value, list | tuple) else value
