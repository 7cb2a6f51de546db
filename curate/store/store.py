"""Writes files of a run to a temporary path, and moves complete files into place, so that no file there is incomplete.

A `RunStore` is a local folder or any fsspec URL. A local file is written in `tmp/` and renamed; in an object store, it
is one PUT. The footer of a Parquet file has a key, which identifies everything that its content depends on. A rerun
skips a file that has the wanted key.

**The first valid file wins** (`curate.store.validity`). Several attempts may do the same work at once, because the
engine speculates or a worker lost its connection, and their results may differ. A caller of `write_bytes` or of a
similar method passes a function `keep`. If it returns true, the existing file stays: a later attempt discards its own
file and reads the existing one.

To replace a file only once, or to write several files together, an attempt stages its files and makes a *commit*: a
file below `tmp/commits` that lists the staged files and their final names. Only the first attempt can make the commit
with a name. Any process that finds a commit completes it. `tmp` is emptied when a run starts, so a commit is valid
until the next start.

Files are hashed while they are written, and their digests are recorded before they are moved. A file without a digest
is not valid.
"""

import hashlib
import io
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import IO, Any, ClassVar

import pyarrow as pa

from curate.base.errors import is_disk_full
from curate.base.process import temporary_folder
from curate.recipe.clouds import OBJECT_STORES
from curate.store import local
from curate.store.layout import SUCCESS_FILE, commit_file, digest_name
from curate.store.local import Digest
from curate.store.stored_files import StoredFiles
from curate.store.table_file import footer_metadata, write_table

_BUFFER = 1 << 18  # bytes per write: copying in cache costs less than a system call for each member of a shard
_ATTEMPTS = 3  # attempts at a conditional PUT: S3 refuses it while another PUT is in progress

Keep = Callable[[], bool]  # returns whether an existing file should stay
Staged = Mapping[str, Sequence[Any]]  # final name → path and digest of the staged file


@dataclass(frozen=True)
class RunStore(StoredFiles):
    """The folder of a run, local or remote. The object is small, so that it can be sent to workers."""

    is_read_only: ClassVar[bool] = False
    """Whether nothing may be written to the folder, not even the times of steps."""

    def __reduce__(self) -> tuple[Any, ...]:
        return RunStore, (self.url, self.storage)

    def delete(self, name: str, files: Collection[str] | None = None) -> None:
        """Remove the file or folder if it exists. `files`, the complete content of a folder, saves a listing."""
        if not self.is_local:
            self.delete_files(self.files(name) if files is None else [f"{name}/{file}" for file in files])
        elif os.path.isdir(self.path(name)):
            local.remove_folder(self.path(name))
        else:
            self.delete_file(name)

    def delete_file(self, name: str) -> None:
        """Remove a file if it exists. This does not check for a folder."""
        with suppress(FileNotFoundError):
            os.unlink(self.path(name)) if self.is_local else self.fs.rm_file(self.path(name))

    def delete_files(self, names: Collection[str]) -> None:
        """Remove files, if they exist, in one request, because thousands of requests take a long time."""
        if self.is_local:
            for name in names:
                self.delete_file(name)
        elif names:
            with suppress(FileNotFoundError):  # if the response to the first request was lost, all are already gone
                self.fs.rm([self.path(name) for name in names])

    # ---- writing

    @contextmanager
    def create(self, name: str, rows: int | None = None) -> Iterator[IO[bytes]]:
        """Yield a file to write. When the block ends without an error, move the complete file to `name`.

        It replaces an existing file. Its digest is recorded before the move. For tables and shards, pass `rows`, which
        is recorded too.
        """
        with self._temp_path() as temp:
            hashed = local.HashedFile(temp)
            with io.BufferedWriter(hashed, _BUFFER) as file:
                yield file
            self._put(name, temp, hashed.digest(rows))

    def write_bytes(
        self, name: str, data: bytes | memoryview, rows: int | None = None, keep: Keep | None = None
    ) -> bool:
        """Write a small file like `create`. If `keep` returns true, an existing file stays.

        Returns whether this file is in place; otherwise, another attempt's file is.
        """
        with self._temp_path() as temp:
            return self._put(name, temp, _write(temp, data, rows), keep)

    def write_json(self, name: str, value: Any, keep: Keep | None = None) -> bool:
        """Write a JSON file that has its keys in the given order; see `write_bytes`."""
        return self.write_bytes(name, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode(), keep=keep)

    def write_parquet(
        self,
        name: str,
        table: pa.Table,
        key: str | None = None,
        note: str | None = None,
        groups: Sequence[int] | None = None,
        keep: Keep | None = None,
    ) -> bool:
        """Write a Parquet file that has `key` and `note` in its footer; see `write_bytes`.

        Equal tables give equal bytes. `groups` has the number of rows of each row group; None: a single group. With
        `keep`, a file without a key is valid until the run's next start.
        """
        with self._temp_path() as temp:
            hashed = local.HashedFile(temp)
            with io.BufferedWriter(hashed, _BUFFER) as file:
                write_table(file, table, footer_metadata(key, note), groups)
            return self._put(name, temp, hashed.digest(len(table)), keep, is_final=bool(key))

    def adopt(self, other: StoredFiles, other_name: str, name: str, digest: Digest, keep: Keep | None = None) -> None:
        """Copy a file of another run with its digest, as a hard link if possible. See `write_bytes`."""
        with self._temp_path() as temp:
            try:
                if not (self.is_local and other.is_local):
                    raise OSError
                os.link(other.path(other_name), temp)
            except OSError:
                with other.open(other_name) as source, open(temp, "wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
            self._put(name, temp, digest, keep)

    @contextmanager
    def _temp_path(self) -> Iterator[str]:
        """Yield a local path for a file that will be moved into place. The file is removed at the end of the block."""
        if not self.is_local:  # an error would close an open remote file, and leave a part of it
            with temporary_folder() as folder:
                yield f"{folder}/file"
            return
        temp = f"{self._local_tmp()}/{uuid.uuid4().hex}"
        try:
            yield temp
        except OSError as error:
            if is_disk_full(error):
                error.filename = self.root
            raise
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temp)

    def _local_tmp(self) -> str | None:
        """Return the `tmp` of a local run, and create it if it is missing; None if the run is remote."""
        tmp = self.path("tmp") if self.is_local else None
        if tmp and not os.path.isdir(tmp):
            os.makedirs(tmp, exist_ok=True)
        return tmp

    # ---- putting into place

    def _put(self, name: str, temp: str, digest: Digest, keep: Keep | None = None, is_final: bool = True) -> bool:
        """Move a local file into place, and return whether it was moved. A file that is not final gets a commit."""
        self._record(name, digest)
        if keep is None:
            self._replace(temp, name, digest)
            return True
        try:
            self._put_new(temp, name, digest)
        except FileExistsError:
            if self.exists(SUCCESS_FILE):  # another process published the run in the meantime
                self._drop_record(name, digest)
                return False
            if keep():
                return False
        else:
            if self.is_local and name.startswith("tables/") and self.exists(SUCCESS_FILE):  # and combined its tables
                self.delete_file(name)
                self._drop_record(name, digest)
                return False
            return is_final or self._commit_once(name, {})
        group = StagedGroup(self.url, self.storage)
        group._put(name, temp, digest)
        return self._commit_once(name, group.staged, group)

    def _replace(self, temp: str, name: str, digest: Digest) -> None:
        if self.is_local:
            local.in_folder(self.path(name), lambda path: os.replace(temp, path))
        else:
            with self._asking(name, "written"):
                self._writes.put_file(temp, self.path(name), **self._tags(digest.line))

    def _put_new(self, temp: str, name: str, digest: Digest) -> None:
        """Move a local file to a new name. Raises FileExistsError."""
        if self.is_local:
            local.in_folder(self.path(name), lambda path: local.move_to_new(temp, path))
            return
        if not self._has_conditional_put:
            if self.exists(name):
                raise FileExistsError(self.path(name))
            self._replace(temp, name, digest)
            return
        for attempt in range(_ATTEMPTS):
            try:
                with self._asking(name, "written"):
                    self._writes.put_file(temp, self.path(name), mode="create", **self._tags(digest.line))
                return
            except OSError as error:  # some S3 servers give no reason; or the response was lost
                if isinstance(error, FileExistsError) or self.exists(name):
                    raise FileExistsError(self.path(name)) from None
                if attempt == _ATTEMPTS - 1:
                    raise
            time.sleep(2**attempt / 4)

    @property
    def _has_conditional_put(self) -> bool:
        # A PUT that fails if the object exists. In other stores, the last of two simultaneous attempts wins.
        return not OBJECT_STORES.isdisjoint(self._protocols)

    def is_guarded(self) -> bool:
        """Return whether creating a file fails if it exists; this is tried out in `tmp`."""
        probe = f"tmp/{uuid.uuid4().hex}"
        try:
            with self._temp_path() as temp:
                local.write_at_once(temp, b"")
                if self.is_local:
                    os.link(temp, self.path(probe))
                    return True
                for _ in range(2 if self._has_conditional_put else 0):
                    self._put_new(temp, probe, Digest(0, ""))
        except FileExistsError:
            return True
        except OSError:  # no hard links
            if not self.is_local:
                raise
        finally:
            self.delete_file(probe)
        return False

    @contextmanager
    def commit(self, name: str, is_done: Callable[[], bool] | None = None) -> Iterator["StagedGroup"]:
        """Yield a store. When the block ends without an error, all files written to it are moved into place together.

        If another attempt has already made the commit with this name, its files are moved instead. If that commit was
        already deleted, `is_done` returns whether its files are in place. By default, they are if the run is published,
        because nothing replaces files in a published run.
        """
        group = StagedGroup(self.url, self.storage)
        with ExitStack() as stack:
            stack.callback(self.delete, group.folder)
            yield group
            stack.pop_all()
        if not self._commit_once(name, group.staged, group, is_done):
            group.staged.clear()

    def complete_commit(self, name: str) -> bool:
        """Move the files in this commit that are not in place yet. Return whether there is such a commit."""
        file = commit_file(name)
        try:
            with self._asking(file):
                staged = self.read_json(file)
        except (FileNotFoundError, NotADirectoryError):
            return False
        self._put_staged(staged)
        return True

    def _put_staged(self, staged: Staged) -> None:
        """Move each staged file to its final name. A file that is no longer staged is already in place."""
        for name, (temp, *digest) in staged.items():
            recorded = Digest(*digest)
            self._record(name, recorded)  # first, because curate recomputes a file without a digest
            with suppress(FileNotFoundError), self._asking(name, "written"):
                if self.is_local:
                    self._replace(self.path(temp), name, recorded)
                else:
                    self._writes.cp_file(self.path(temp), self.path(name), **self._tags(recorded.line))
                    self.delete_file(temp)

    def delete_commit(self, name: str) -> None:
        """Delete a commit. The caller knows that its files are in place."""
        self.delete_file(commit_file(name))

    def _commit_once(
        self, name: str, staged: Staged, group: "StagedGroup | None" = None, is_done: Callable[[], bool] | None = None
    ) -> bool:
        """Commit staged files unless another attempt has; then move the committed files.

        Returns whether this attempt's files are the ones in place.
        """
        is_ours = self._put_commit(name, staged)
        is_late = is_done() if is_done else self.exists(SUCCESS_FILE)
        if group is not None and (is_late or not is_ours):
            self.delete(group.folder)
        if is_ours and not is_late:
            self._put_staged(staged)
        elif is_ours:
            self.delete_commit(name)
        elif not is_late:
            self.complete_commit(name)
        return is_ours and not is_late

    def _put_commit(self, name: str, staged: Staged) -> bool:
        file = commit_file(name)
        with self._temp_path() as temp:
            try:
                self._put_new(temp, file, _write(temp, json.dumps(staged).encode(), None))
            except FileExistsError:  # it may be this attempt's file, if the store's response was lost
                with suppress(FileNotFoundError):
                    return bool(self.read_json(file) == {name: [*entry] for name, entry in staged.items()})
                return False
        return True

    def _record(self, name: str, digest: Digest) -> None:
        """Record a file's digest before the file is moved; `recorded` reads it."""
        if note := digest_name(name):
            if self.is_local:
                local.in_folder(self.path(note), lambda path: local.add_line(path, digest.line))
            elif not self._tags(""):
                self._writes.pipe_file(self.path(f"{note}/{digest.line}"), b"")

    def _drop_record(self, name: str, digest: Digest) -> None:
        """Remove a recorded digest from a published run, which does not need it."""
        if note := digest_name(name):
            if self.is_local:
                local.drop_line(self.path(note), digest.line)
            elif not self._tags(""):
                self.delete_file(f"{note}/{digest.line}")

    # ---- temporary files and logs

    def temporary_folder(self) -> AbstractContextManager[str]:
        """Create a local folder. For a local run, it is in `tmp`, where the next command removes leftover files."""
        return temporary_folder(self._local_tmp())

    def spool(self) -> IO[bytes]:
        """Return an unnamed temporary file for this process, in the run's `tmp` or on the local disk."""
        return tempfile.TemporaryFile(dir=self._local_tmp())

    def log(self, name: str, line: str) -> None:
        """Add a line to a log that many processes write.

        A log is a folder with one file for each process. In an object store, which cannot append, each process has a
        few files, see `StoredLog`.
        """
        if not self.is_local:
            self._logs.setdefault(name, local.StoredLog()).add(line, partial(self._put_log, name))
            return
        path, data = self.path(f"{name}/{_process()}"), line.encode() + b"\n"
        try:
            local.write_at_once(path, data, "a")
        except FileNotFoundError:
            if not self.exists(SUCCESS_FILE):  # otherwise, another process published the run and removed the log
                local.in_folder(path, lambda path: local.write_at_once(path, data, "a"))

    @cached_property
    def _logs(self) -> dict[str, local.StoredLog]:
        """The logs that this object writes. Logs of other objects may belong to another run."""
        return {}

    def _put_log(self, name: str, file: str, data: bytes) -> None:
        with self._asking(name, "written"):
            self._writes.pipe_file(self.path(f"{name}/{file}"), data)


@dataclass(frozen=True)
class StagedGroup(RunStore):
    """A store for files that are committed together. Before the commit, they are in a folder in `tmp`."""

    folder: str = field(default_factory=lambda: f"tmp/{uuid.uuid4().hex}")
    staged: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def _put(self, name: str, temp: str, digest: Digest, keep: Keep | None = None, is_final: bool = True) -> bool:
        path = f"{self.folder}/{uuid.uuid4().hex}"
        self._replace(temp, path, digest)
        self.staged[name] = path, *digest
        return True

    def recorded(self, name: str) -> Digest | None:
        return Digest(*self.staged[name][1:]) if name in self.staged else super().recorded(name)


def _write(path: str, data: bytes | memoryview, rows: int | None) -> Digest:
    local.write_at_once(path, data)
    return Digest(len(data), hashlib.sha256(data).hexdigest(), rows)


@cache
def _process() -> str:
    """Return a name for this process that is unique over all machines."""
    return uuid.uuid4().hex
