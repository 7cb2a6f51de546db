"""Read the arrays in a file that numpy, `torch.save` or safetensors wrote, without torch, and without running code.

In: a .npy file, a .pt file whose pickle has only arrays, or a .safetensors file. Out: the saved object, with numpy
arrays for tensors and arrays, in dicts, lists, and tuples; bfloat16 becomes float32. A pickle can only use a short list
of names. torch's `weights_only` does the same, but refuses pickles of protocol 4, such as DataComp's centroids.

Source: torch/serialization.py, from torch 1.6 on. The file is a zip with ROOT/data.pkl, ROOT/byteorder, and
ROOT/data/KEY for each storage.
"""

import hashlib
import io
import lzma
import math
import pickle
import re
import zipfile
import zlib
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.base.errors import RecipeError, reraised
from curate.base.numeric.arrays import F32
from curate.base.wording import one_line
from curate.recipe.files import open_zip, read_npy, read_whole

Array = npt.NDArray[Any]

_STORAGES = {"Double": "<f8", "Float": "<f4", "Half": "<f2", "Long": "<i8", "Int": "<i4", "Short": "<i2"}
_STORAGES |= {"Char": "<i1", "Byte": "<u1", "BFloat16": "bfloat16"}
_KINDS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8", "BF16": "bfloat16"}
_MAX_BYTES = 8 << 30  # a million embeddings of 2,048 dimensions
_MAX_UNPACKED = 1 << 30  # of a compressed file, which torch never writes
ACCEPTED_ARRAY = "accepted: a .npy or .pt file"
_DAMAGED = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RuntimeError, TypeError, ValueError),
    *(pickle.PickleError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, BufferError, OSError),
)


def read_rows(where: str, path: str, shape: str, dimension: int | None = None) -> F32:
    """Return the rows of a .npy or .pt file (float32[n, dimension]); `shape` is for messages.

    Raises RecipeError, which begins with `where`, if they have another shape.
    """
    array = read_array(where, path)
    if array.ndim != 2 or array.dtype.kind != "f" or not array.size or dimension not in (None, array.shape[1]):
        raise RecipeError(f"{where}: {describe_array(path, array)}; accepted: floating-point numbers [{shape}]")
    return array.astype(np.float32)


def read_array(where: str, path: str) -> Array:
    """Return the array of a .npy or .pt file. Raises RecipeError, which begins with `where`."""
    is_torch = path.lower().endswith((".pt", ".pth"))
    try:
        content = read_whole(path, _MAX_BYTES)
        limit = max(_MAX_UNPACKED, 2 * len(content))
        array: Any = read_torch_file(content, limit) if is_torch else read_npy(content)
    except (OSError, ValueError, ImportError, MemoryError) as error:
        kind = ".pt file with an array" if is_torch else ".npy file"
        reason = f"{type(error).__name__}: {one_line(error, 200)}"
        raise RecipeError(f"{where}: {path} is not a {kind}: {reason}; {ACCEPTED_ARRAY}") from None
    if isinstance(array, dict):  # like DataComp's embeddings of ImageNet
        arrays = [value for value in array.values() if isinstance(value, np.ndarray)]
        array = array.get("image_features", arrays[0] if len(arrays) == 1 else None)
    if not isinstance(array, np.ndarray):
        raise RecipeError(f"{where}: {path} does not contain exactly one array; {ACCEPTED_ARRAY} with one array")
    numbers: Array = np.asarray(array)
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        raise RecipeError(f"{where}: {path} contains NaN or infinity")
    return numbers


def describe_array(path: str, array: Array) -> str:
    """Return a description of a file's array, for messages."""
    return f"{path} is {array.dtype} {list(array.shape)}"


def array_digest(array: Array) -> str:
    """Return the identity of an array."""
    return hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()


def read_safetensors(content: bytes) -> dict[str, Array]:
    """Return the arrays by name. Raises ValueError if the file is not safetensors, or is damaged."""
    import safetensors

    with reraised(ValueError, "damaged, or not a safetensors file of numbers", safetensors.SafetensorError, KeyError):
        arrays: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
        return {name: _numbers(a["data"], _KINDS[a["dtype"]]).reshape(a["shape"]) for name, a in sorted(arrays)}


def read_torch_file(content: bytes, limit: int) -> Any:
    """Return the saved object. Raises ValueError for other files, or if it expands to more than `limit` bytes."""
    try:
        with open_zip(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > limit:
                raise ValueError(f"unpacked, it has more than {limit:,} bytes")
            [root] = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
            if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
                raise ValueError("its numbers are big-endian")
            return _Unpickler(archive, root).load()
    except _DAMAGED as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"damaged, or not written by torch.save of PyTorch 1.6 or later ({reason})") from error


def _numbers(raw: bytes, kind: str, count: int = -1) -> Array:
    if kind == "bfloat16":
        return (np.frombuffer(raw, "<u2", count).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, kind, count)


class _Dtype:
    """The type of an array's numbers. With numpy's own class, a pickle could place fields anywhere in memory."""

    def __init__(self, name: str, *_: Any) -> None:
        self._name, self._order = name, ""

    def __setstate__(self, state: Any) -> None:
        self._order = state[1] if state[1] in ("<", ">") else ""

    @property
    def kind(self) -> Any:
        """Return numpy's type. Raises ValueError if it is not a plain number."""
        if not re.fullmatch("[fiu][1248]", self._name):
            raise ValueError(f"it contains an array of {self._name[:80]}; accepted: arrays of numbers")
        return np.dtype(f"{self._order}{self._name}")


class _Array(np.ndarray):
    """An array whose numbers are in the pickle itself."""

    def __setstate__(self, state: Any) -> None:
        number, shape, kind, is_fortran, raw = state
        if not isinstance(raw, bytes):
            raise ValueError("it contains an array without numbers")
        super().__setstate__((number, shape, kind.kind, is_fortran, raw))


class _Unpickler(pickle.Unpickler):
    """Loads a pickle that only names arrays and tensors.

    Its stand-ins for these names allocate nothing, and never create numpy objects from the pickle's claims alone.
    """

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")))
        self._archive, self._root = archive, root
        self._storages: dict[str, Array] = {}
        # Keys: the last part of the module's name (numpy renamed the other parts), and the name in the module.
        self._names: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("_utils", "_rebuild_tensor_v2"): self._tensor,
            ("_utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            ("multiarray", "_reconstruct"): lambda *_: np.empty(0, "u1").view(_Array),
            ("numeric", "_frombuffer"): self._frombuffer,
            ("numpy", "ndarray"): "ndarray",  # a text, which a pickle cannot call
            ("numpy", "dtype"): _Dtype,
            ("_codecs", "encode"): lambda text, _: text.encode("latin1"),  # for bytes, in pickles before protocol 3
            ("__builtin__", "bytes"): lambda: b"",
            **{("torch", f"{name}Storage"): kind for name, kind in _STORAGES.items()},
        }

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name. Raises ValueError if it does not belong to arrays."""
        try:
            return self._names[module.rpartition(".")[2], name]
        except KeyError:
            asked = f"{module}.{name}"[:80]
            raise ValueError(f"it refers to {asked!r}; accepted: tensors and arrays of numbers, no code") from None

    def persistent_load(self, pid: Any) -> Array:
        _, kind, key, _, count, *_ = pid
        if key not in self._storages:
            self._storages[key] = _numbers(self._archive.read(f"{self._root}data/{key}"), kind, count)
        return self._storages[key]

    def _tensor(self, storage: Array, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Array:
        """Return a tensor from its storage. Raises ValueError if it exceeds the storage."""
        if math.prod(size) > storage.size:
            raise ValueError("it contains a tensor that is larger than its storage")
        steps = tuple(step * storage.itemsize for step in stride)
        return np.ndarray(size, storage.dtype, storage, offset * storage.itemsize, steps)

    def _frombuffer(self, raw: bytes, kind: Any, shape: tuple[int, ...], order: Any) -> Array:
        return np.frombuffer(raw, kind.kind).reshape(shape, order=order)
