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
import math
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from curate.recipe.files import open_zip

Array = npt.NDArray[Any]

_STORAGES = {"Double": "<f8", "Float": "<f4", "Half": "<f2", "Long": "<i8", "Int": "<i4", "Short": "<i2"}
_STORAGES |= {"Char": "<i1", "Byte": "<u1", "BFloat16": "bfloat16"}
_MOST_NAMES = 1 << 20  # bytes of what safetensors say of their arrays: thousands
_MAGIC = 0x1950A86A20F9469CFC6C
_SAFE = {f"{kind.upper()}{8 * size}": f"<{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}
_SAFE |= {"F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8", "BOOL": "?", "BF16": "bfloat16"}


def read_safetensors(content: bytes) -> dict[str, Array]:
    """Return the arrays by name. Raises ValueError where the file is none of safetensors, or damaged."""
    import safetensors

    if int.from_bytes(content[:8], "little") > _MOST_NAMES:
        raise ValueError(f"no safetensors, or over {_MOST_NAMES:,} bytes of names and shapes")
    try:
        arrays: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
        flat = {name: (_numbers(array["data"], _SAFE[array["dtype"]]), array["shape"]) for name, array in arrays}
        return {name: numbers.reshape(shape) for name, (numbers, shape) in sorted(flat.items())}
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(f"no safetensors, or damaged ones ({error})") from None


def read_torch_file(content: bytes, limit: int) -> Any:
    """Return what was saved. Raises ValueError where it is something else, or unpacks to more than `limit` bytes."""
    try:
        if not zipfile.is_zipfile(io.BytesIO(content)):
            return _read_old(content)
        with open_zip(io.BytesIO(content)) as opened:
            if sum(member.file_size for member in opened.infolist()) > limit:
                raise ValueError(f"it holds more than {limit:,} bytes, unpacked")
            names = [name for name in opened.namelist() if name.endswith("/data.pkl")]
            if len(names) != 1:
                raise ValueError("a zip that torch.save has not written")
            root = names[0].removesuffix("data.pkl")
            if f"{root}byteorder" in opened.namelist() and _member(opened, f"{root}byteorder") != b"little":
                raise ValueError("its numbers are big-endian")
            of_key: dict[str, _Storage] = {}

            def read(kind: str, key: str, count: int) -> _Storage:
                if key not in of_key:
                    of_key[key] = _Storage(_numbers(_member(opened, f"{root}data/{key}"), kind, count))
                return of_key[key]

            return _Unpickler(io.BytesIO(_member(opened, f"{root}data.pkl")), read).arrays()
    except ValueError:
        raise
    except Exception as error:  # of any kind, of hostile bytes
        raise ValueError(f"damaged, or not written by torch.save ({type(error).__name__})") from error


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        return file.read(archive.getinfo(name).file_size)  # as it states: it may unpack to more


def _read_old(content: bytes) -> Any:
    """Return what torch saved before 1.6: read twice, since the numbers come after what is made of them."""
    kinds: dict[str, str] = {}

    def expect(kind: str, key: str, count: int) -> _Storage:
        if not 0 <= count <= len(content):
            raise ValueError("a storage that is larger than the file")
        kinds[key] = kind
        return _Storage(np.zeros(count, "<f4" if kind == "bfloat16" else kind))

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
        storages[key] = _Storage(_numbers(file.read(count * size), kinds[key], count))
    file.seek(start)
    return _Unpickler(file, lambda kind, key, count: storages[key]).arrays()


def _numbers(raw: bytes, kind: str, count: int = -1) -> Array:
    """Return the numbers of a storage. Raises ValueError where they are fewer."""
    if kind == "bfloat16":
        return (np.frombuffer(raw, "<u2", count).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, kind, count)


class _Storage(NamedTuple):
    """The numbers of tensors, in one dimension: a class of its own, so that nothing else passes for one."""

    numbers: Array


class _Dtype:
    """Stands for numpy.dtype: a number's type, as its pickle tells it."""

    def __init__(self, name: str, *_: Any) -> None:
        self.name, self.order = name, ""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1] if state[1] in ("<", ">") else ""

    def array(self, raw: Any, shape: tuple[int, ...], order: str) -> Array:
        """Return numbers of this type. Raises ValueError where these are none, or do not fit the shape."""
        if not re.fullmatch("[fiu][1248]", self.name) or not isinstance(raw, bytes | bytearray):
            raise ValueError(f"an array of {str(self.name)[:80]}; accepted: of numbers")
        return np.frombuffer(raw, f"{self.order}{self.name}").reshape(shape, order="F" if order == "F" else "C")


class _Array:
    """Stands for numpy.ndarray: an array that is yet to get its numbers."""

    value: Array | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, is_fortran, raw = state
        self.value = kind.array(raw, shape, "F" if is_fortran else "C")


class _Unpickler(pickle.Unpickler):
    """Gives what a pickle holds that names nothing but arrays and tensors.

    What a name stands for is a bound method, a number's type, or a class with a `__setstate__`: of these a pickle can
    set no attributes.
    """

    def __init__(self, file: io.BytesIO, read: Callable[[str, str, int], _Storage]) -> None:
        """`read` gives the numbers of a storage: of a type, by its key, so many."""
        super().__init__(file)
        self._read = read
        # By the last part of the module, which numpy renamed, and the name.
        self._meanings: Mapping[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): self._dict,
            ("_utils", "_rebuild_tensor_v2"): self._tensor,
            ("_utils", "_rebuild_parameter"): self._parameter,
            ("multiarray", "_reconstruct"): self._reconstruct,
            ("numeric", "_frombuffer"): self._frombuffer,
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _Dtype,
            ("_codecs", "encode"): self._encode,
            ("__builtin__", "bytes"): self._no_bytes,
            **{("torch", f"{name}Storage"): kind for name, kind in _STORAGES.items()},
        }

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name. Raises ValueError where it is none of arrays."""
        meaning = self._meanings.get((module.rpartition(".")[2], name))
        if meaning is None:
            accepted = "tensors and arrays of numbers, never code"
            raise ValueError(f"it asks for {f'{module}.{name}'[:80]!r}; accepted: {accepted}")
        return meaning

    def persistent_load(self, pid: Any) -> _Storage:
        _, kind, key, _, count, *_ = pid
        if kind not in _STORAGES.values() or not isinstance(key, str):
            raise ValueError("a storage of other things than numbers, or without a name")
        return self._read(kind, key, count)

    def arrays(self) -> Any:
        """Return what the pickle holds, with numpy's arrays, in containers of any depth."""
        return self._finished(self.load())

    def _finished(self, value: Any) -> Any:
        if isinstance(value, _Array):
            if value.value is None:
                raise ValueError("an array without numbers")
            return value.value
        if isinstance(value, dict):
            return {key: self._finished(item) for key, item in value.items()}
        return type(value)(map(self._finished, value)) if isinstance(value, list | tuple) else value

    def _tensor(self, storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Array:
        """Return a tensor of its storage. Raises ValueError where it reaches beyond it, which numpy does not check."""
        numbers = storage.numbers
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        is_inside = 0 in size or (last < len(numbers) and math.prod(size) <= len(numbers))
        if min(offset, *size, *stride, 0) < 0 or not is_inside:
            raise ValueError("a tensor that its storage does not hold")
        steps = [step * numbers.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(numbers[offset:], size, steps)

    def _dict(self) -> Any:
        return OrderedDict()  # of no arguments: what is in it comes by `_set_items`

    def _parameter(self, tensor: Any, *_: Any) -> Any:
        return tensor

    def _reconstruct(self, *_: Any) -> _Array:
        return _Array()

    def _frombuffer(self, raw: Any, kind: _Dtype, shape: tuple[int, ...], order: str) -> Array:
        return kind.array(raw, shape, order)

    def _encode(self, text: str, _encoding: str) -> bytes:
        return text.encode("latin1")  # bytes, in pickles before protocol 3

    def _no_bytes(self) -> bytes:
        return b""
