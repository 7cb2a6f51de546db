"""Files of a run: written aside and put into place whole, so that a file that is there is complete.

A `RunStore` is a local folder or any fsspec URL. Locally a file is written in `tmp/` and renamed; on an object store it is
one PUT. Parquet files carry the key of what made them in their footer; a rerun skips a file that is there with its key.
"""

import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from curate.errors import CurateError, DamagedError, RecipeError
from curate.wording import one_line

KEY = b"curate.key"
FOOTER_NOTE = b"curate.note"
_BUFFER = 1 << 18  # bytes that are written at once: a copy in cache costs less than a system call a member of a shard
_TAIL = 1 << 16  # bytes that are read to find a footer: nearly all fit


@dataclass(frozen=True)
class RunStore:
    """A folder that holds a run, local or remote; small, and sent to workers as it is."""

    url: str
    storage: dict[str, Any] = field(default_factory=dict)

    @property
    def fs(self) -> Any:
        """Return the fsspec file system (fsspec caches one per process)."""
        return self._place[0]

    @property
    def root(self) -> str:
        """Return the folder's path within its file system."""
        return str(self._place[1]).rstrip("/")

    @property
    def _place(self) -> tuple[Any, Any]:
        if re.match(r"[A-Za-z]://", self.url):  # for fsspec a drive of Windows
            raise RecipeError(f"{self.url}: Protocol not known: {self.url[0]}")
        try:
            fs, root = fsspec.core.url_to_fs(self.url, **self.storage)
        except (ValueError, ImportError) as error:  # an unknown protocol, or its library is missing
            raise RecipeError(f"{self.url}: {error}") from None
        return fs, root

    @property
    def is_local(self) -> bool:
        """Return whether files can be renamed, linked and mapped."""
        return isinstance(self.fs, LocalFileSystem)

    def path(self, name: str) -> str:
        """Return the path of `name` within the file system."""
        return f"{self.root}/{name}"

    def exists(self, name: str) -> bool:
        """Return whether there is such a file or folder. A store that does not answer is an error, not an answer."""
        try:
            if self.is_local:
                os.stat(self.path(name))
            else:  # not `fs.exists`, which takes any error for a no
                with self._reading(name):
                    self.fs.info(self.path(name))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Raise what a store's library raises, of whatever kind, as OSError that names the file."""
        try:
            yield
        except (OSError, CurateError, pa.ArrowException):
            raise
        except Exception as error:
            raise OSError(f"{self.path(name)}: cannot be read: {error}") from error

    def size(self, name: str) -> int:
        """Return the bytes of the file."""
        return int(self.fs.size(self.path(name)))

    def files(self, name: str = "") -> list[str]:
        """Return all files below `name`, sorted, relative to the folder."""
        if not self.is_local:
            self.fs.invalidate_cache()
        if not self.exists(name):
            return []
        return sorted(str(found)[len(self.root) + 1 :] for found in self.fs.find(self.path(name).rstrip("/")))

    def open(self, name: str) -> Any:
        """Open the file for reading bytes."""
        return open(self.path(name), "rb") if self.is_local else self.fs.open(self.path(name), "rb")

    def read_bytes(self, name: str) -> bytes:
        """Return all bytes of the file."""
        with self.open(name) as file:
            return bytes(file.read())

    def read_json(self, name: str) -> Any:
        """Return the file as JSON. Raises DamagedError where something else than us damaged the file."""
        try:
            return json.loads(self.read_bytes(name))
        except ValueError as error:
            raise DamagedError(f"{self.path(name)}: is damaged (no JSON: {error})") from None

    def delete(self, name: str) -> None:
        """Remove the file or folder, if it is there."""
        if self.is_local:
            path = self.path(name)
            if os.path.isdir(path):
                shutil.rmtree(path, ignore_errors=True)
            elif os.path.lexists(path):
                os.unlink(path)
        elif self.fs.exists(self.path(name)):
            self.fs.rm(self.path(name), recursive=True)

    @contextmanager
    def create(self, name: str) -> Iterator[IO[bytes]]:
        """Yield a file to write; it is put in place as `name` when the block ends without an error, and never in part."""
        if self.is_local:
            with self._aside(name) as aside, open(aside, "wb", _BUFFER) as file:
                yield file
        else:  # a remote file that an error closes would be there in part; the upload of a finished one is not
            with tempfile.NamedTemporaryFile(buffering=_BUFFER) as file:
                yield file
                file.flush()
                self.fs.put_file(file.name, self.path(name))

    @contextmanager
    def _aside(self, name: str) -> Iterator[str]:
        """Yield a path in a local `tmp`; the file there is put in place as `name` when the block ends without an error."""
        aside = self.path(f"tmp/{uuid.uuid4().hex}")
        os.makedirs(os.path.dirname(aside), exist_ok=True)
        try:
            yield aside
            os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
            os.replace(aside, self.path(name))
        finally:
            if os.path.lexists(aside):
                os.unlink(aside)

    def spool(self) -> IO[bytes]:
        """Return a file without a name, for this process alone: in the run's `tmp`, or on this machine's disk."""
        aside = self.path("tmp") if self.is_local else None
        if aside:
            os.makedirs(aside, exist_ok=True)
        return tempfile.TemporaryFile(dir=aside)

    def write_bytes(self, name: str, data: bytes) -> None:
        """Put a small file into place."""
        with self.create(name) as file:
            file.write(data)

    def write_json(self, name: str, value: Any) -> None:
        """Put a JSON file into place, keys in their order."""
        self.write_bytes(name, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())

    def write_parquet(self, name: str, table: pa.Table, key: str | None = None, note: str | None = None) -> None:
        """Put a Parquet file into place, `key` and `note` in its footer. Equal tables give equal bytes."""
        metadata = {k: v.encode() for k, v in ((KEY, key), (FOOTER_NOTE, note)) if v is not None}
        plain = [f.name for f in table.schema if f.name in ("uid", "url", "caption", "sha256", "key", "duplicate_of")]
        repeating = [f.name for f in table.schema if f.name not in plain and pa.types.is_string(f.type)]
        with self.create(name) as file:
            pq.write_table(
                table.replace_schema_metadata(metadata or None),
                file,
                compression="zstd",
                compression_level=1,
                use_dictionary=repeating or False,
                write_page_checksum=True,
            )

    def read_parquet(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Return the table, or some of its columns.

        Raises:
            OSError: the file is missing, or cannot be read now.
            DamagedError: it was read, and something else than us damaged it.
        """
        try:
            with self.open(name) as file:
                return _parse_parquet(file, columns)
        except (pa.ArrowException, OSError):  # Arrow says of both, a failed read and damage, that it is an OSError
            with self._reading(name):
                data = self.read_bytes(name)
        try:
            return _parse_parquet(pa.BufferReader(data), columns)
        except (pa.ArrowException, OSError) as error:
            fault = one_line(error)
            raise DamagedError(f"{self.path(name)}: is damaged ({fault}); delete it and run again") from None

    def schema(self, name: str) -> pa.Schema:
        """Return the columns of a Parquet file."""
        with self.open(name) as file:
            return pq.read_schema(file)

    def footer(self, name: str) -> tuple[str | None, str | None, int]:
        """Return the key, the footer note and the rows of a Parquet file.

        Raises:
            OSError: the file is missing, or cannot be read now.
            DamagedError: it was read, and holds no complete footer.
        """
        with self._reading(name):
            tail = self._read_tail(name)
        try:  # from memory: what goes wrong now is the file's fault and not the disk's or the network's
            metadata = pq.read_metadata(pa.BufferReader(tail))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DamagedError(f"{self.path(name)}: is damaged ({one_line(error)})") from None
        values = metadata.metadata or {}
        key, note = values.get(KEY), values.get(FOOTER_NOTE)
        return key.decode() if key else None, note.decode() if note else None, metadata.num_rows

    def _read_tail(self, name: str) -> bytes:
        """Return the end of a file, which holds all of a Parquet file's footer, in one read or two."""
        with self.open(name) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            tail = bytes(file.read())
            length = int.from_bytes(tail[-8:-4], "little") + 8 if tail.endswith(b"PAR1") else 0
            if len(tail) < length <= size:
                file.seek(size - length)
                tail = bytes(file.read())
        return tail

    def is_current(self, name: str, key: str) -> bool:
        """Return whether the Parquet file is there, has a complete footer and was made with this key.

        Raises:
            OSError: it cannot be read now; what it holds is not known, and nothing may be made in its place.
        """
        try:
            return self.footer(name)[0] == key
        except (FileNotFoundError, NotADirectoryError, DamagedError):
            return False

    def adopt(self, other: "RunStore", other_name: str, name: str) -> None:
        """Put a file of another run into place: a hard link where possible, else a copy."""
        if self.is_local and other.is_local:
            with self._aside(name) as aside:
                try:
                    os.link(other.path(other_name), aside)
                except OSError:
                    shutil.copyfile(other.path(other_name), aside)
        else:
            with other.open(other_name) as source, self.create(name) as file:
                shutil.copyfileobj(source, file, 1 << 20)


def _parse_parquet(file: Any, columns: list[str] | None) -> pa.Table:
    """Return the table. Not by read_table: it reads ahead in threads, and one that lets go of a Python buffer while Python ends aborts the process."""
    opened = pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
    table = opened.read(columns, use_threads=False)
    return table if columns is None else table.select(columns)
