"""Reads small files of the user, such as a list, a template, or a head, up to a limit. The pool is read elsewhere.

A file may be untrusted, or a device by mistake. Without a limit, it could fill all memory.
"""

import gzip
import io
import os
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import yaml
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import register_implementation

import curate
from curate.base.decoded_size import check_decoded, read_footer
from curate.base.errors import RecipeError, reraised
from curate.base.wording import did_you_mean
from curate.recipe.errors import shorten
from curate.recipe.strict_yaml import MAX_CHARACTERS, load_yaml, say_yaml_error

MAX_CONFIG = 1 << 24  # bytes in a model's configuration
_MAX_HEADER = 4096  # bytes in an array's header
_MAX_DIRECTORY = 1 << 24  # bytes in a zip's directory, which takes about twenty times as much memory
_end_record: Any = getattr(zipfile, "_EndRecData")  # noqa: B009 (not public: what says how long the directory is)

# fsspec's message if a package is missing; it imports one at the first URL of its kind.
for _scheme, _package, _name, _extra in (
    *((scheme, "gcsfs", "GCSFileSystem", "gcp") for scheme in ("gs", "gcs")),
    *((scheme, "s3fs", "S3FileSystem", "aws") for scheme in ("s3", "s3a")),
):
    _install = f"install it with: pip install '.[{_extra}]' in a checkout of curate"
    _error = f"{_scheme}:// needs {_package}; {_install}"
    register_implementation(_scheme, f"curate.recipe.clouds.{_name}", clobber=True, errtxt=_error)


for _scheme in ("http", "https"):
    register_implementation(_scheme, "curate.recipe.clouds.HTTPFileSystem", clobber=True)


def shipped_folder(name: str) -> Path:
    """Return a folder that comes with curate, such as `sql`: from the installed package, or else from the checkout."""
    package = Path(curate.__file__).parent
    return package / name if (package / name).is_dir() else package.parent / name


def read_whole(path: str, limit: int, storage: Mapping[str, Any] = {}) -> bytes:
    """Return all bytes of a local file or any fsspec URL, at most `limit`. `storage` has options for the file system.

    A local file must be a regular file: a pipe blocks, and a device may not end. Raises OSError if it is missing,
    unreadable, or not a regular file, ValueError if it is larger than the limit or the URL is malformed, ImportError if
    the package for such URLs is not installed.
    """
    # fsspec would split a path with :: into a chain of file systems
    fs, inner = (
        fsspec.core.url_to_fs(path, **storage) if "://" in path else (LocalFileSystem(), os.path.expanduser(path))
    )
    if isinstance(fs, LocalFileSystem):
        mode, *_, size, _, _, _ = os.stat(inner)
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a folder gives its own error
            raise OSError("it is a pipe or a device; accepted: a regular file")
        # The kernel's files are regular and may be endless; None while they have no bytes
        with open(inner, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as local:
            content: bytes | None = local.read(min(limit, size) + 1)
        if content is None or len(content) > size:
            raise OSError("its size does not match its number of bytes; accepted: a regular file")
    else:
        with fs.open(inner, "rb") as file:
            content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it has more than {limit:,} bytes; accepted: at most that")
    return content


def unpack(content: bytes, limit: int) -> bytes:
    """Decompress gzip; return other bytes as they are. Raises ValueError if it is damaged or too large."""
    if content[:2] != b"\x1f\x8b":
        return content
    with reraised(ValueError, "damaged gzip", OSError, EOFError, zlib.error):
        content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"unpacked, it has more than {limit:,} bytes")
    return content


def read_mapping(path: str, where: str, kind: str, accepted: str) -> tuple[dict[Any, Any], str]:
    """Return the mapping in a YAML file, and the file's text. For an empty file, the mapping is empty.

    Raises RecipeError that begins with `where`, names the `kind` of file, and says what is accepted.
    """
    try:
        data = load_yaml(text := read_whole(path, MAX_CHARACTERS).decode())
    except FileNotFoundError:
        names = (file.name for file in Path(path).parent.glob("*.y*ml"))
        near = did_you_mean(Path(path).name, names, lambda name: Path(name).stem.lower())
        raise RecipeError(f"{where}: no such {kind}; {near}accepted: {accepted}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: not valid YAML: {say_yaml_error(error)}") from None
    except (OSError, ValueError, ImportError) as error:
        raise RecipeError(f"{where}: cannot be read as a {kind}: {error}; accepted: {accepted}") from None
    if not isinstance(data, dict | None):
        raise RecipeError(f"{where}: contains {shorten(data)}; accepted: {accepted}")
    return data or {}, text


def read_columns(content: bytes, columns: list[str], limit: int) -> pa.Table:
    """Return columns of a small Parquet file. A few bytes of it may expand to any number of rows and to long texts.

    Raises ValueError if they expand to more than `limit` bytes; pa.ArrowException, OSError if they are damaged.
    """
    footer = read_footer(opened := pa.BufferReader(content))
    file = check_decoded(opened, footer, range(footer.num_row_groups), columns, limit)
    return file.read(columns, use_threads=False)


def open_zip(file: Any) -> zipfile.ZipFile:
    """Open an archive. Raises ValueError if it has too many members, zipfile.BadZipFile if it is invalid."""
    if (end := _end_record(file)) and end[5] > _MAX_DIRECTORY:
        raise ValueError(f"the zip's directory has {end[5]:,} bytes; accepted: at most {_MAX_DIRECTORY:,}")
    return zipfile.ZipFile(file)


def read_npy(content: bytes) -> npt.NDArray[Any]:
    """Return the array in a .npy file. Raises ValueError if it is invalid, or contains objects."""
    try:
        return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # any, because the header is an expression
        raise ValueError(f"{type(error).__name__} {error}".strip()) from None


def read_npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return the shape, Fortran order, and type of a .npy file, and move the file to its first number.

    Raises ValueError if it is invalid, or has a large header, which could announce gigabytes.
    """
    if (version := np.lib.format.read_magic(file)) not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"its header is of version {version}; accepted: (1, 0) to (3, 0)")
    parse = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    length = file.read(2 if version == (1, 0) else 4)  # 3.0 as 2.0: only the encoding of field names differs
    if (announced := int.from_bytes(length, "little")) > _MAX_HEADER:
        raise ValueError(f"its header has {announced:,} bytes; accepted: at most {_MAX_HEADER:,}")
    return parse(io.BytesIO(length + file.read(announced)), max_header_size=_MAX_HEADER)
