"""Files of a run: written to a temporary path and put into place whole, so that a file that is there is complete.

A `RunStore` is a local folder or any fsspec URL. Locally a file is written in `tmp/` and renamed; on an object store it
is one PUT. Parquet files carry the key of what made them in their footer; a rerun skips a file that has its key.

**The first valid file wins** (`curate.store.validity`). Several attempts may be at the same work at once (speculation,
a worker that was cut off), and their results may differ. With `keep`, a file that is there stays if that returns true:
a later attempt drops its own and reads that one. To replace a file once, and for files that belong together, an attempt
stages its files, and makes a *commit*: a file below `tmp/commits` that lists where the staged files are and where they
go. The first attempt makes the commit of a name; whoever finds one puts its files into place. `tmp` is emptied when a
run starts: a commit counts for that start.

Files are hashed as they are written, and their digests recorded before they are put into place: a file without one is
not valid.
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

_BUFFER = 1 << 18  # bytes that are written at once: a copy in cache costs less than a system call a member of a shard
_ATTEMPTS = 3  # at such a PUT: S3 refuses one while it is at another

Keep = Callable[[], bool]  # whether the file that is there stays
Staged = Mapping[str, Sequence[Any]]  # name → where the file lies that is to be put there, and its digest


@dataclass(frozen=True)
class RunStore(StoredFiles):
    """A folder that holds a run, local or remote; small, and sent to workers as it is."""

    is_read_only: ClassVar[bool] = False
    """Whether nothing may be written, not even how long steps take."""

    def __reduce__(self) -> tuple[Any, ...]:
        return RunStore, (self.url, self.storage)

    def delete(self, name: str, files: Collection[str] | None = None) -> None:
        """Remove the file or folder, if it is there; with `files`, all that this folder has, a store lists nothing."""
        if not self.is_local:
            self.delete_files(self.files(name) if files is None else [f"{name}/{file}" for file in files])
        elif os.path.isdir(self.path(name)):
            local.remove_folder(self.path(name))
        else:
            self.delete_file(name)

    def delete_file(self, name: str) -> None:
        """Remove a file, if it is there, without a look for a folder."""
        with suppress(FileNotFoundError):
            os.unlink(self.path(name)) if self.is_local else self.fs.rm_file(self.path(name))

    def delete_files(self, names: Collection[str]) -> None:
        """Remove files, those that are there, all at once: a request for each of thousands takes long."""
        if self.is_local:
            for name in names:
                self.delete_file(name)
        elif names:
            with suppress(FileNotFoundError):  # of all: a store's answer that they were removed may have been lost
                self.fs.rm([self.path(name) for name in names])

    # ---- writing

    @contextmanager
    def create(self, name: str, rows: int | None = None) -> Iterator[IO[bytes]]:
        """Yield a file to write; it is put in place as `name` when the block ends without an error, and never in part.

        It replaces one that is there. Its digest goes first, with `rows`, where it is one of a table's or a shard's.
        """
        with self._temp_path() as temp:
            hashed = local.HashedFile(temp)
            with io.BufferedWriter(hashed, _BUFFER) as file:
                yield file
            self._put(name, temp, hashed.digest(rows))

    def write_bytes(
        self, name: str, data: bytes | memoryview, rows: int | None = None, keep: Keep | None = None
    ) -> bool:
        """Put a small file into place, as `create` does; with `keep`, where that says so, the one that is there stays.

        Returns whether the file was put there: else another attempt's is.
        """
        with self._temp_path() as temp:
            return self._put(name, temp, _write(temp, data, rows), keep)

    def write_json(self, name: str, value: Any, keep: Keep | None = None) -> bool:
        """Put a JSON file into place, keys in their order; see `write_bytes`."""
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
        """Put a Parquet file into place, `key` and `note` in its footer; see `write_bytes`. Equal tables, equal bytes.

        `groups` are the rows of each row group; None: one has all. With `keep` a file without a key holds until the
        next start of the run: see `complete`.
        """
        with self._temp_path() as temp:
            hashed = local.HashedFile(temp)
            with io.BufferedWriter(hashed, _BUFFER) as file:
                write_table(file, table, footer_metadata(key, note), groups)
            return self._put(name, temp, hashed.digest(len(table)), keep, is_final=bool(key))

    def adopt(self, other: StoredFiles, other_name: str, name: str, digest: Digest, keep: Keep | None = None) -> None:
        """Put a file of another run, with its digest, into place: a hard link or else a copy. See `write_bytes`."""
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
        """Yield a path on this machine for a file that is to be put into place; what is left of it is removed."""
        if not self.is_local:  # an open remote file that an error closes would be there in part
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
        """Return the `tmp` of a local run, which is made where it is missing; None where the run is remote."""
        tmp = self.path("tmp") if self.is_local else None
        if tmp and not os.path.isdir(tmp):
            os.makedirs(tmp, exist_ok=True)
        return tmp

    # ---- putting into place

    def _put(self, name: str, temp: str, digest: Digest, keep: Keep | None = None, is_final: bool = True) -> bool:
        """Put a file of this machine into place, and return whether it was; one that is not final gets a commit."""
        self._record(name, digest)
        if keep is None:
            self._replace(temp, name, digest)
            return True
        try:
            self._put_new(temp, name, digest)
        except FileExistsError:
            if self.exists(SUCCESS_FILE):  # others published the run meanwhile
                self._drop_record(name, digest)
                return False
            if keep():
                return False
        else:
            if self.is_local and name.startswith("tables/") and self.exists(SUCCESS_FILE):  # and compacted its tables
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
        """Put a file of this machine into place where none is. Raises FileExistsError."""
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
            except OSError as error:  # not all S3 servers say what failed; or its answer was lost, and it is this one
                if isinstance(error, FileExistsError) or self.exists(name):
                    raise FileExistsError(self.path(name)) from None
                if attempt == _ATTEMPTS - 1:
                    raise
            time.sleep(2**attempt / 4)

    @property
    def _has_conditional_put(self) -> bool:
        # A PUT that fails where an object is: in other stores of two attempts in one moment the last wins.
        return not OBJECT_STORES.isdisjoint(self._protocols)

    def is_guarded(self) -> bool:
        """Return whether of two attempts to put a file into place in one moment the second fails, tried in `tmp`."""
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
        """Yield a store; the files that are written there are put into place when the block ends without an error.

        All of them are, or, if another attempt has the commit of this name, all of that attempt's are. After that,
        `is_done` says whether another attempt's files are in place already, though its commit was deleted; None:
        whether the run is published, of which nothing is replaced.
        """
        group = StagedGroup(self.url, self.storage)
        with ExitStack() as stack:
            stack.callback(self.delete, group.folder)
            yield group
            stack.pop_all()
        if not self._commit_once(name, group.staged, group, is_done):
            group.staged.clear()

    def complete_commit(self, name: str) -> bool:
        """Put into place what the commit of this name lists, as far as it is not; return whether there is one."""
        file = commit_file(name)
        try:
            with self._asking(file):
                staged = self.read_json(file)
        except (FileNotFoundError, NotADirectoryError):
            return False
        self._put_staged(staged)
        return True

    def _put_staged(self, staged: Staged) -> None:
        """Move each staged file to its name; one that is no longer staged is in place already."""
        for name, (temp, *digest) in staged.items():
            recorded = Digest(*digest)
            self._record(name, recorded)  # first: a file without a digest would be recomputed
            with suppress(FileNotFoundError), self._asking(name, "written"):
                if self.is_local:
                    self._replace(self.path(temp), name, recorded)
                else:
                    self._writes.cp_file(self.path(temp), self.path(name), **self._tags(recorded.line))
                    self.delete_file(temp)

    def delete_commit(self, name: str) -> None:
        """Delete a commit, once something else says that its files are in place."""
        self.delete_file(commit_file(name))

    def _commit_once(
        self, name: str, staged: Staged, group: "StagedGroup | None" = None, is_done: Callable[[], bool] | None = None
    ) -> bool:
        """Commit staged files, unless others have the commit; put its files into place. Returns whether it is ours."""
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
            except FileExistsError:  # perhaps ours, of which the store's answer was lost
                with suppress(FileNotFoundError):
                    return bool(self.read_json(file) == {name: [*entry] for name, entry in staged.items()})
                return False
        return True

    def _record(self, name: str, digest: Digest) -> None:
        """Record the digest of a file that is about to be put into place, for `recorded`."""
        if note := digest_name(name):
            if self.is_local:
                local.in_folder(self.path(note), lambda path: local.add_line(path, digest.line))
            elif not self._tags(""):
                self._writes.pipe_file(self.path(f"{note}/{digest.line}"), b"")

    def _drop_record(self, name: str, digest: Digest) -> None:
        """Remove a digest that was recorded for nothing, in a run that needs none any more."""
        if note := digest_name(name):
            if self.is_local:
                local.drop_line(self.path(note), digest.line)
            elif not self._tags(""):
                self.delete_file(f"{note}/{digest.line}")

    # ---- what is not put into place

    def temporary_folder(self) -> AbstractContextManager[str]:
        """Make a new folder on this machine: of a local run in `tmp`, where the next command removes leftovers."""
        return temporary_folder(self._local_tmp())

    def spool(self) -> IO[bytes]:
        """Return a file without a name, for this process alone: in the run's `tmp`, or on this machine's disk."""
        return tempfile.TemporaryFile(dir=self._local_tmp())

    def log(self, name: str, line: str) -> None:
        """Add a line to a log, which many processes write.

        A log is a folder, where each process has a file; in a store, which does not append, a few, see `StoredLog`.
        """
        if not self.is_local:
            self._logs.setdefault(name, local.StoredLog()).add(line, partial(self._put_log, name))
            return
        path, data = self.path(f"{name}/{_process()}"), line.encode() + b"\n"
        try:
            local.write_at_once(path, data, "a")
        except FileNotFoundError:
            if not self.exists(SUCCESS_FILE):  # else others published the run meanwhile, and removed the log
                local.in_folder(path, lambda path: local.write_at_once(path, data, "a"))

    @cached_property
    def _logs(self) -> dict[str, local.StoredLog]:
        """The logs that this object writes: what another one wrote may be of another run."""
        return {}

    def _put_log(self, name: str, file: str, data: bytes) -> None:
        with self._asking(name, "written"):
            self._writes.pipe_file(self.path(f"{name}/{file}"), data)


@dataclass(frozen=True)
class StagedGroup(RunStore):
    """The store of files that are put into place together: they are in a folder of `tmp` until then."""

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
    """Return a name that no other process has, on whatever machine."""
    return uuid.uuid4().hex
