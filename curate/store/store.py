"""Files of a run: written aside and put into place whole, so that a file that is there is complete.

A `RunStore` is a local folder or any fsspec URL. Locally a file is written in `tmp/` and renamed; on an object store it is
one PUT. Parquet files carry the key of what made them in their footer; a rerun skips a file that is there with its key.

Files are hashed as they are written. Until a run is published, and its manifest says it, what is in `tables/` and `shards/` has
its digest in `parts/digests`: it is put there first, so a file without one, or with another one, is not what was written.
"""

import hashlib
import io
import json
import logging
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import IO, Any, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from curate.errors import CurateError, DamagedError, RecipeError
from curate.process import temporary_folder
from curate.store.layout import digest_name
from curate.store.table_file import FOOTER_NOTE, KEY, SMALL, TableFile, footer_metadata, footer_text, write_table
from curate.wording import one_line

_BUFFER = 1 << 18  # bytes that are written at once: a copy in cache costs less than a system call a member of a shard
_TAIL = 1 << 16  # bytes that are read to find a footer: nearly all fit
_BLOCK = 1 << 22

_log = logging.getLogger(__name__)


class Digest(NamedTuple):
    """What a file was when it was written, or is now: its bytes, their sha256 (64 hex digits), and rows where it was written as a table."""

    bytes: int
    sha256: str
    rows: int | None = None


class _HashedFile(io.FileIO):
    """A file that is hashed as it is written, from its beginning to its end."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "wb")
        self._state, self._bytes = hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        written = super().write(data) or 0
        self._state.update(memoryview(data)[:written])
        self._bytes += written
        return written

    def digest(self, rows: int | None) -> Digest:
        return Digest(self._bytes, self._state.hexdigest(), rows)


@dataclass(frozen=True)
class RunStore:
    """A folder that holds a run, local or remote; small, and sent to workers as it is."""

    url: str
    storage: dict[str, Any] = field(default_factory=dict)

    def __reduce__(self) -> tuple[Any, ...]:
        return RunStore, (self.url, self.storage)

    @property
    def fs(self) -> Any:
        """Return the fsspec file system (fsspec caches one per process)."""
        return self._place[0]

    @cached_property
    def root(self) -> str:
        """Return the folder's path within its file system."""
        return str(self._place[1]).rstrip("/")

    @cached_property
    def _place(self) -> tuple[Any, Any]:
        if re.match(r"[A-Za-z]://", self.url):  # for fsspec a drive of Windows
            raise RecipeError(f"{self.url}: Protocol not known: {self.url[0]}")
        try:
            fs, root = fsspec.core.url_to_fs(self.url, **self.storage)
        except (ValueError, ImportError) as error:  # an unknown protocol, or its library is missing
            raise RecipeError(f"{self.url}: {error}") from None
        return fs, root

    @cached_property
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

    def state(self, name: str) -> str:
        """Return a text that is another one once the file is. Raises OSError where it is missing, or cannot be read now."""
        with self._reading(name):
            return str(sorted(self.fs.info(self.path(name)).items()))

    def names(self, folder: str) -> list[str]:
        """Return the names of what is directly in a folder, sorted; none where there is no such folder."""
        try:
            with self._reading(folder):
                found = self.fs.ls(self.path(folder), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(str(path).rstrip("/").rpartition("/")[2] for path in found)

    def files(self, name: str = "") -> list[str]:
        """Return all files below `name`, sorted, relative to the folder."""
        if self.is_local:  # not by fsspec, which looks at each file and makes a dictionary of what it sees
            return sorted(_walk(self.path(name).rstrip("/"), len(self.root) + 1))
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

    def delete_files(self, names: Collection[str]) -> None:
        """Remove files that are there, all at once: a request for each of thousands takes long."""
        if self.is_local:
            for name in names:
                os.unlink(self.path(name))
        elif names:
            self.fs.rm([self.path(name) for name in names])

    @contextmanager
    def create(self, name: str, rows: int | None = None) -> Iterator[IO[bytes]]:
        """Yield a file to write; it is put in place as `name` when the block ends without an error, and never in part.

        Its digest goes first, with `rows`, where it is one of a table's or a shard's.
        """
        with self._aside(name) as aside:
            hashed = _HashedFile(aside)
            with io.BufferedWriter(hashed, _BUFFER) as file:
                yield file
            self._note(name, hashed.digest(rows))

    def _note(self, name: str, digest: Digest) -> None:
        """Put the digest of a file that is about to be put in place where `written` finds it."""
        if note := digest_name(name):
            data = json.dumps(digest).encode()
            if self.is_local:
                _in_folder(self.path(note), lambda path: _write(path, data))
            else:
                self.fs.pipe_file(self.path(note), data)

    def written(self, name: str) -> Digest | None:
        """Return what the file was when it was written; None where that is not known, so that nobody can believe it.

        Raises OSError where it cannot be read now.
        """
        note = digest_name(name)
        if not note:
            return None
        try:
            with self._reading(note):
                data = self.read_bytes(note)
            return Digest(*json.loads(data))
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
            return None

    def digest(self, name: str) -> Digest:
        """Read all of a file, and return what it is now. Raises OSError."""
        state, size = hashlib.sha256(), 0
        with self._reading(name), self.open(name) as file:
            while block := file.read(_BLOCK):
                state.update(block)
                size += len(block)
        return Digest(size, state.hexdigest())

    @contextmanager
    def _aside(self, name: str) -> Iterator[str]:
        """Yield a local path; the file there is put in place as `name` when the block ends without an error."""
        if not self.is_local:  # an open remote file that an error closes would be there in part
            with temporary_folder() as folder:
                yield f"{folder}/file"
                self.fs.put_file(f"{folder}/file", self.path(name))
            return
        aside = self.path(f"tmp/{uuid.uuid4().hex}")
        if not os.path.isdir(self.path("tmp")):
            os.makedirs(self.path("tmp"), exist_ok=True)
        try:
            yield aside
            _in_folder(self.path(name), lambda path: os.replace(aside, path))
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(aside)
            raise

    @contextmanager
    def temporary_folder(self) -> Iterator[str]:
        """Yield a new folder on this machine, which is in `tmp` of a local run: there the next command removes what a kill left."""
        inside = self.path("tmp") if self.is_local else None
        if inside:
            os.makedirs(inside, exist_ok=True)
        with temporary_folder(inside) as folder:
            yield folder

    def spool(self) -> IO[bytes]:
        """Return a file without a name, for this process alone: in the run's `tmp`, or on this machine's disk."""
        aside = self.path("tmp") if self.is_local else None
        if aside:
            os.makedirs(aside, exist_ok=True)
        return tempfile.TemporaryFile(dir=aside)

    def write_bytes(self, name: str, data: bytes | memoryview, rows: int | None = None) -> None:
        """Put a small file into place, as `create` does."""
        with self._aside(name) as aside:
            _write(aside, data)
            self._note(name, Digest(len(data), hashlib.sha256(data).hexdigest(), rows))

    def log(self, name: str, line: str) -> None:
        """Add a line to a log, which many processes write; it may have any characters of a file's name.

        A log is a folder: where a file can be appended to, each process has one there; else a line is the name of an empty file.
        """
        if self.is_local:
            data = line.encode() + b"\n"
            _in_folder(self.path(f"{name}/{_process()}"), lambda path: _write(path, data, os.O_APPEND))
        else:
            self.fs.pipe_file(self.path(f"{name}/{line}"), b"")

    def read_log(self, name: str) -> list[str]:
        """Return the lines of a log, in any order; none where there is no log."""
        files = self.files(name)
        if self.is_local:
            return [line for file in files for line in self.read_bytes(file).decode().split("\n")[:-1]]
        return [file.rpartition("/")[2] for file in files]

    def write_json(self, name: str, value: Any) -> None:
        """Put a JSON file into place, keys in their order."""
        self.write_bytes(name, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())

    def write_parquet(
        self,
        name: str,
        table: pa.Table,
        key: str | None = None,
        note: str | None = None,
        groups: Sequence[int] | None = None,
    ) -> None:
        """Put a Parquet file into place, `key` and `note` in its footer. Equal tables give equal bytes.

        `groups` are the rows of each row group; None: one has all.
        """
        metadata = footer_metadata(key, note)
        if table.nbytes < SMALL:
            sink = pa.BufferOutputStream()
            write_table(sink, table, metadata, groups)
            self.write_bytes(name, memoryview(sink.getvalue()), len(table))
        else:
            with self.create(name, len(table)) as file:
                write_table(file, table, metadata, groups)

    def read_parquet(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Return the table, or some of its columns.

        Raises:
            OSError: the file is missing, or cannot be read now.
            DamagedError: it was read, and something else than us damaged it.
        """
        with self.open_parquet(name) as file:
            return file.read(columns)

    def open_parquet(self, name: str) -> TableFile:
        """Open a table; errors as of `read_parquet`."""

        def read_again() -> bytes:
            with self._reading(name):
                return self.read_bytes(name)

        return TableFile(self.path(name), self.open(name), read_again)

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
        return footer_text(values, KEY), footer_text(values, FOOTER_NOTE), metadata.num_rows

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
        if self.is_local and not self.exists(name):  # at a tenth of what an error costs
            return False
        try:
            return self.footer(name)[0] == key
        except (FileNotFoundError, NotADirectoryError):
            return False
        except DamagedError as error:
            _log.warning("%s; it is recomputed", error)
            return False

    def adopt(self, other: "RunStore", other_name: str, name: str, digest: Digest) -> None:
        """Put a file of another run, which has this digest, into place: a hard link where possible, else a copy."""
        if self.is_local and other.is_local:
            with self._aside(name) as aside:
                try:
                    os.link(other.path(other_name), aside)
                except OSError:
                    shutil.copyfile(other.path(other_name), aside)
                self._note(name, digest)
        else:
            with other.open(other_name) as source, self.create(name, digest.rows) as file:
                shutil.copyfileobj(source, file, 1 << 20)


def _walk(folder: str, skip: int) -> Iterator[str]:
    """Yield the paths of all files below a local folder, without the first `skip` characters; none where there is no folder."""
    try:
        found = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in found:
        if entry.is_dir():
            yield from _walk(entry.path, skip)
        else:
            yield entry.path[skip:]


@cache
def _process() -> str:
    """Return a name that no other process has, on whatever machine."""
    return uuid.uuid4().hex


def _in_folder(path: str, put: Callable[[str], None]) -> None:
    """Put a file at a path; its folder is made where it is missing."""
    try:
        put(path)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        put(path)


def _write(path: str, data: bytes | memoryview, mode: int = os.O_TRUNC) -> None:
    """Write a file at once, or with O_APPEND add to it: as `Path.write_bytes`, at a third of its cost."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | mode | os.O_CLOEXEC, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]
    finally:
        os.close(file)
