"""Reads files from a local or remote folder: whole files, parts, or only footers.

In: names relative to the folder. Out: bytes, tables, digests. If a store does not respond, this is an error, and never
means that a file is missing: a failed read raises OSError, and a damaged file raises DamagedError.
"""

import hashlib
import io
import json
import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from curate.base.errors import CurateError, DamagedError, RecipeError, reraised
from curate.base.meter import METER
from curate.base.process import in_threads
from curate.recipe.secrets import refuse_password
from curate.store.layout import digest_name
from curate.store.local import Digest, read_lines, walk
from curate.store.table_file import FOOTER_NOTE, KEY, SMALL, TableFile, footer_text

_TAIL = 1 << 16  # bytes to read at the end of a file: nearly all footers are smaller
_BLOCK = 1 << 22  # bytes to read and hash at a time; in a store, each block is a request
_WRITTEN = ("mtime", "LastModified", "last_modified", "created")  # names of the modification time in file systems

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredFiles:
    """The files in a local folder or below any fsspec URL, with options for its file system."""

    url: str
    storage: dict[str, Any] = field(default_factory=dict)

    @property
    def fs(self) -> Any:
        """Return the fsspec file system. fsspec caches one per process."""
        return self._place[0]

    @property
    def _reads(self) -> Any:
        """The file system for one read request (GET or HEAD). The request is counted."""
        METER.count("reads")
        return self.fs

    @property
    def _writes(self) -> Any:
        """The file system for one write or list request, which is counted. Stores charge the same for both."""
        METER.count("writes")
        return self.fs

    @cached_property
    def root(self) -> str:
        return str(self._place[1]).rstrip("/")

    @cached_property
    def _place(self) -> tuple[Any, Any]:
        if re.match(r"[A-Za-z]://", self.url):  # fsspec would read it as a Windows drive
            raise RecipeError(f"{self.url}: Protocol not known: {self.url[0]}")
        refuse_password(self.url)
        with reraised(RecipeError, self.url, ValueError, ImportError):  # unknown protocol, or its library is missing
            fs, root = fsspec.core.url_to_fs(self.url, **self.storage)
        return fs, root

    @cached_property
    def is_local(self) -> bool:
        """Return whether files can be renamed, linked, and mapped into memory."""
        return isinstance(self.fs, LocalFileSystem)

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def exists(self, name: str) -> bool:
        """Return whether the file exists, or, except on S3, the folder.

        Raises an error if the store does not respond.
        """
        with suppress(FileNotFoundError, NotADirectoryError):
            if self.is_local:
                os.stat(self.path(name))
            elif "s3" in self._protocols:  # its `info` looks for a folder if there is no file
                self._get(name, 0, 1)
            else:  # not `fs.exists`, which returns False for any error
                with self._asking(name):
                    self._reads.info(self.path(name))
            return True
        return False

    def _get(self, name: str, start: int, end: int | None = None) -> bytes | None:
        """Return bytes of a remote file with one request; None if it has no such bytes. Raises OSError like `open`."""
        with self._asking(name):
            try:
                if start < 0 and "abfs" in self._protocols:  # Azure's library does not support negative offsets
                    start = max(0, start + self._reads.info(self.path(name))["size"])
                return bytes(self._reads.cat_file(self.path(name), start=start, end=end))
            except (FileNotFoundError, NotADirectoryError):
                raise
            except Exception:  # each library has its own error for an invalid range
                if self._reads.info(self.path(name))["size"]:
                    raise
                return None

    @contextmanager
    def _asking(self, name: str, action: str = "read") -> Iterator[None]:
        """Raise an OSError that names the file instead of any error from a store's library."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, FileExistsError, CurateError, pa.ArrowException):
            raise
        except Exception as error:
            if isinstance(error, OSError) and (self.is_local or self.path(name) in str(error)):
                raise
            raise OSError(f"{self.path(name)}: cannot be {action}: {str(error) or type(error).__name__}") from error

    def size(self, name: str) -> int:
        return int(self._reads.size(self.path(name)))

    def state(self, name: str) -> str:
        """Return a text that changes whenever the file changes. Raises OSError if it is missing or cannot be read."""
        with self._asking(name):
            return str(sorted(self._reads.info(self.path(name)).items()))

    def names(self, folder: str) -> list[str]:
        """Return the sorted names of a folder's entries; an empty list if there is no such folder."""
        try:
            with self._asking(folder):
                path = self.path(folder)
                paths = os.listdir(path) if self.is_local else self._writes.ls(path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(str(path).rstrip("/").rpartition("/")[2] for path in paths)

    def files(self, name: str = "") -> list[str]:
        """Return all files below `name`, sorted, relative to the folder."""
        if self.is_local:  # not with fsspec, which builds a dictionary for each file
            return sorted(walk(self.path(name).rstrip("/"), len(self.root) + 1))
        return sorted(path[len(self.root) + 1 :] for path in self._infos(name))

    def sizes(self) -> dict[str, int]:
        """Return the size of each file, by its path relative to the folder. A store's listing includes sizes."""
        if self.is_local:
            return {name: os.path.getsize(path) for name in self.files() if os.path.exists(path := self.path(name))}
        return {path[len(self.root) + 1 :]: int(info["size"]) for path, info in self._infos("").items()}

    def times(self, name: str) -> dict[str, float]:
        """Return the modification time of each file below `name`, in seconds since 1970, by path."""
        infos = self._infos(name).items()
        moments = {path: next(info[key] for key in _WRITTEN if info.get(key)) for path, info in infos}
        return {path: at.timestamp() if isinstance(at, datetime) else float(at) for path, at in moments.items()}

    def _infos(self, name: str) -> Mapping[str, Mapping[str, Any]]:
        """Return the file system's information about each file below `name`, by path."""
        self.fs.invalidate_cache()
        try:
            with self._asking(name):
                infos: Mapping[str, Any] = self._writes.find(self.path(name).rstrip("/"), detail=True)
        except FileNotFoundError:
            return {}
        # s3fs lists the folder itself if its first file appears between two requests
        return {path: info for path, info in infos.items() if info["type"] != "directory"}

    def open(self, name: str) -> Any:
        """Open the file for reading bytes.

        Raises OSError if it is a pipe or a device, because reading it may never end.
        """
        path = self.path(name)
        if not self.is_local:
            end = self._get(name, -SMALL)
            return self._reads.open(path, "rb") if end and len(end) >= SMALL else io.BytesIO(end or b"")
        status = os.stat(path)
        if stat.S_IFMT(status.st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            raise OSError(f"{path}: is not a regular file")
        if stat.S_ISREG(status.st_mode) and not status.st_size:  # such as the kernel log, where a read waits for data
            return io.BytesIO()
        return open(path, "rb")

    def read_bytes(self, name: str) -> bytes:
        with self.open(name) as file:
            return bytes(file.read())

    def read_json(self, name: str) -> Any:
        """Return the content of a JSON file. Raises DamagedError if it is not valid JSON."""
        with reraised(DamagedError, f"{self.path(name)}: is damaged (not JSON)", ValueError, RecursionError):
            return json.loads(self.read_bytes(name))

    def read_log(self, name: str) -> list[str]:
        """Return the lines of a log, in any order; an empty list if there is no log."""

        def read(file: str) -> list[str]:
            with suppress(FileNotFoundError):  # another attempt published the run and removed the log
                return self.read_bytes(file).decode().split("\n")[:-1]
            return []

        return [line for lines in in_threads(read, self.files(name)) for line in lines]

    def digest(self, name: str) -> Digest:
        """Read the whole file, and return its digest. Raises OSError."""
        with self._asking(name), self.open(name) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            return Digest(size, hashlib.file_digest(file, "sha256", _bufsize=min(_BLOCK, size + 1)).hexdigest())

    def recorded(self, name: str) -> Digest | None:
        """Return the digest that a file's writer recorded, before the run is published; None if there is none.

        If several attempts wrote the file, this reads it. Then its current digest is returned if one of the attempts
        recorded it. Raises OSError if the read fails.
        """
        if not (note := digest_name(name)):
            return None
        digests = []
        self.fs.invalidate_cache(self.path(note))
        for text in read_lines(self.path(note)) if self.is_local else self._digests(name, note):
            with suppress(ValueError):
                size, sha256, *rows = text.split("-")
                digests.append(Digest(int(size), sha256, *map(int, rows)))
        if len(digests) > 1:
            with suppress(FileNotFoundError):
                now = self.digest(name)
                digests = [digest for digest in digests if digest.is_of(now)] or digests
        return digests[-1] if digests else None

    def _digests(self, name: str, note: str) -> list[str]:
        if not self._tags(""):
            return self.names(note)
        with self._asking(name), suppress(FileNotFoundError, KeyError):
            return [self._reads.getxattr(self.path(name), "digest") or ""]
        return []

    def _tags(self, digest: str) -> dict[str, Any]:
        """Return options for a PUT that store a digest with the object; none if the store does not support that."""
        if "s3" in self._protocols:
            return {"Metadata": {"digest": digest}, "MetadataDirective": "REPLACE"}
        return {"metadata": {"digest": digest}} if "gs" in self._protocols else {}

    @property
    def _protocols(self) -> set[str]:
        return {self.fs.protocol} if isinstance(self.fs.protocol, str) else {*self.fs.protocol}

    def read_parquet(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Return the table, or some columns. Raises OSError if it cannot be read, DamagedError if it is damaged."""
        with self.open_parquet(name) as file:
            return file.read(columns)

    def open_parquet(self, name: str) -> TableFile:
        """Open a table. Raises the same errors as `read_parquet`."""

        def read_again() -> bytes:
            with self._asking(name):
                return self.read_bytes(name)

        return TableFile(self.path(name), self.open(name), read_again)

    def schema(self, name: str) -> pa.Schema:
        """Return the schema of a Parquet file. Raises the same errors as `read_parquet`."""
        with self.open_parquet(name) as file:
            return file.schema

    def footer(self, name: str) -> tuple[str | None, str | None, int]:
        """Return key, note and number of rows from a Parquet file's footer.

        Raises the same errors as `read_parquet`.
        """
        with self._asking(name):
            tail = self._read_end(name, _TAIL)
            length = int.from_bytes(tail[-8:-4], "little") + 8 if tail.endswith(b"PAR1") else 0
            if length > len(tail) == _TAIL:
                tail = self._read_end(name, length)
        # Parse it from memory: then an error comes from the file, and not from the disk or network.
        with reraised(DamagedError, f"{self.path(name)}: is damaged", pa.ArrowException, OSError, ValueError):
            metadata = pq.read_metadata(pa.BufferReader(tail))
        values = metadata.metadata or {}
        return footer_text(values, KEY), footer_text(values, FOOTER_NOTE), metadata.num_rows

    def _read_end(self, name: str, size: int) -> bytes:
        if not self.is_local:
            return self._get(name, -size) or b""
        with self.open(name) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return bytes(file.read())

    def key(self, name: str) -> str | None:
        """Return a Parquet file's key, empty if it has none; None if the file is missing, or damaged (which is logged).

        Raises OSError if the read fails. Then the content is unknown, so do not overwrite the file.
        """
        if self.is_local and not self.exists(name):  # costs a tenth of an exception
            return None
        try:
            return self.footer(name)[0] or ""
        except (FileNotFoundError, NotADirectoryError):
            return None
        except DamagedError as error:
            _log.warning("%s; curate recomputes it", error)
            return None
