"""A shard as of img2dataset: rows of a list, downloaded, resized, and written as its own command writes them.

In: rows of a list, with columns `url`, `caption` and others. Out: NUMBER.tar, NUMBER.parquet and NUMBER_stats.json, the
last one last: with it the shard is complete. Tar and Parquet are in the order of the rows, whatever ended first, and
members have no time. The Parquet file has the list's columns and img2dataset's, `error_message` being `reason: detail`,
then OUTCOMES, and `previous_key` where rows are tried again. The statistics also have `bytes`, of what came as servers
sent it, and `reasons` with the URLs that failed for each.

Trade-off: images wait in a temporary file until all are there, so that memory does not hold a shard.
"""

import hashlib
import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from multiprocessing.pool import ThreadPool
from queue import SimpleQueue
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from curate.pool.urls.download.download_log import by_frequency
from curate.pool.urls.download.fetch import Fetcher, Outcome
from curate.pool.urls.download.fetch_fault import FetchFault
from curate.pool.urls.download.resize import HASH_MISMATCH, Resize, Resized, read_exif, reason_of
from curate.pool.urls.download.shard_names import OUTCOMES, keys_of
from curate.store.facts import DownloadFacts
from curate.store.store import RunStore
from curate.tar.writer import TarWriter

_log = logging.getLogger(__name__)

_PREVIOUS = "previous_key"
_SIZES = ("width", "height", "original_width", "original_height")


@dataclass(frozen=True)
class ShardOptions:
    """How a shard is made, under img2dataset's names.

    Attributes:
        thread_count: downloads at a time.
        timeout: seconds that connecting and each wait for bytes may take.
        number_sample_per_shard: rows of a shard, at most.
        extract_exif: whether there is a column `exif`.
        compute_hash: the hash of the bytes as they came, which is also its column's name; None: none.
        verify_hash_type: the hash that a column of this name has, and that the bytes must have; None: none.
        encode_format: suffix of images.
        resize: what images become.
    """

    thread_count: int
    timeout: float
    number_sample_per_shard: int
    extract_exif: bool
    compute_hash: str | None
    verify_hash_type: str | None
    encode_format: str
    resize: Resize


class Before(NamedTuple):
    """Of each row that is tried again, the key that it had, in another shard, and how many attempts there were."""

    keys: Sequence[str]
    attempts: Sequence[int]


def download_shard(
    rows: pa.Table,
    number: int,
    place: tuple[RunStore, str],
    fetcher: Fetcher,
    options: ShardOptions,
    before: Before | None = None,
) -> None:
    """Download the rows of a list into a shard, unless another writer's is there by then: the first complete one stays.

    Args:
        rows: columns `url` and `caption` (string), and those that go along; at most `options.number_sample_per_shard`.
        number: of the shard, of `shard_names.NUMBERS`.
        place: the store of its files, and their path there without suffix.
        fetcher: what fetches.
        options: how it is made.
        before: what the rows were before, where they are tried again.

    Raises RecipeError where img2dataset is not installed, OSError where the store cannot be written.
    """
    (store, stem), began = place, time.time()
    keys = keys_of(number, len(rows), options.number_sample_per_shard)
    shard = _Shard(rows, keys, options)
    with store.temporary_folder() as folder, open(f"{folder}/images", "w+b") as images:
        for row, outcome in _fetch_all(rows["url"].to_pylist(), fetcher, options):
            shard.add(row, outcome, images)
        statistics = shard.statistics(began)
        with store.together(stem, done=lambda: is_complete(store, stem)) as together:
            with together.create(f"{stem}.tar") as file:
                shard.write_tar(images, file)
            together.write_parquet(f"{stem}.parquet", shard.table(before))
            together.write_bytes(_statistics_file(stem), json.dumps(statistics, indent=4).encode())


def _fetch_all(urls: Sequence[str | None], fetcher: Fetcher, options: ShardOptions) -> Iterator[tuple[int, Outcome]]:
    """Yield rows as they come, with what became of each; no more than two a thread are fetched, and not yet yielded."""
    outcomes: SimpleQueue[tuple[int, Outcome]] = SimpleQueue()

    def fetch(row: int, url: str | None) -> None:
        try:
            outcome = fetcher.fetch(url or "", options.timeout)
        except Exception as error:
            outcome = Outcome(None, _unforeseen(error), 1, time.time())
        outcomes.put((row, outcome))

    waiting = enumerate(urls)
    try:
        with ThreadPool(min(options.thread_count, max(1, len(urls)))) as pool:
            for task in islice(waiting, 2 * options.thread_count):
                pool.apply_async(fetch, task)
            for _ in urls:
                yield outcomes.get()
                for task in islice(waiting, 1):
                    pool.apply_async(fetch, task)
    finally:
        fetcher.close()


def _unforeseen(error: Exception) -> FetchFault:
    """Return what a row has for an error that nobody foresaw, which is logged: one URL ends no shard."""
    _log.error("downloading a URL failed", exc_info=error)
    return FetchFault("lost", f"{type(error).__name__}: {error}")


class _Shard:
    """The rows of a shard: what is known of each besides the list's columns, and where its image waits."""

    def __init__(self, rows: pa.Table, keys: list[str], options: ShardOptions) -> None:
        self._rows, self._options = rows, options
        self._listed = {name: rows[name].to_pylist() for name in rows.column_names}
        schema = pa.schema(
            dict.fromkeys(("key", "status", "error_message"), pa.string()) | dict.fromkeys(_SIZES, pa.int32())
        )
        for name in ("exif" if options.extract_exif else None, options.compute_hash):
            schema = schema.append(pa.field(name, pa.string())) if name else schema
        self._schema = schema
        self._facts: dict[str, list[Any]] = {name: [None] * len(keys) for name in (*schema.names, *OUTCOMES.names)}
        self._facts["key"] = keys
        self._images: dict[int, tuple[int, int]] = {}  # by row, offset and size
        self._bytes = 0

    def add(self, row: int, outcome: Outcome, images: IO[bytes]) -> None:
        """Take in what became of a row's URL; its image goes to the end of a file."""
        fault, resized = outcome.fault, Resized(None)
        if outcome.data is not None:
            try:
                resized = self._resize(row, outcome.data)
            except Exception as error:
                fault = _unforeseen(error)
        facts: dict[str, Any] = {
            "status": "success",
            "attempts": outcome.attempts,
            "may_pass": fault is not None and fault.may_pass,
        }
        facts["attempted"] = datetime.fromtimestamp(int(outcome.time), UTC)
        if fault:
            facts |= {"reason": fault.reason, "detail": fault.detail}
            facts |= {"status": "failed_to_download", "error_message": str(fault)}
        elif message := resized.error:
            facts |= {"reason": reason_of(message), "detail": message, "error_message": message}
            facts["status"] = "failed_to_download" if message == HASH_MISMATCH else "failed_to_resize"
        else:
            assert outcome.data is not None and resized.data is not None
            facts |= {name: getattr(resized, name) for name in _SIZES} | self._describe(outcome.data)
            self._images[row] = images.tell(), len(resized.data)
            images.write(resized.data)
            self._bytes += len(outcome.data)
        for name, value in facts.items():
            self._facts[name][row] = value

    def _resize(self, row: int, data: bytes) -> Resized:
        verified = self._options.verify_hash_type
        if verified and hashlib.new(verified, data).hexdigest() != self._listed[verified][row]:
            return Resized(None, error=HASH_MISMATCH)
        return self._options.resize(data)

    def _describe(self, data: bytes) -> dict[str, str | None]:
        """Return the EXIF and the hash of the bytes as they came, as far as they are asked for."""
        exif = {"exif": read_exif(data)} if self._options.extract_exif else {}
        kind = self._options.compute_hash
        return exif | ({kind: hashlib.new(kind, data).hexdigest()} if kind else {})

    def write_tar(self, images: IO[bytes], file: IO[bytes]) -> None:
        """Write the samples that came, in the order of their rows."""
        listed = {name: values for name, values in self._listed.items() if name != self._options.verify_hash_type}
        fields = listed | {name: self._facts[name] for name in self._schema.names}
        with TarWriter(file) as writer:
            for row in sorted(self._images):
                offset, size = self._images[row]
                images.seek(offset)
                described = json.dumps({name: values[row] for name, values in fields.items()}, indent=4)
                members = {self._options.encode_format: images.read(size), "json": described.encode()}
                members["txt"] = (self._listed["caption"][row] or "").encode()
                for suffix in sorted(members):
                    writer.add(f"{self._facts['key'][row]}.{suffix}", members[suffix])

    def table(self, before: Before | None) -> pa.Table:
        """Return the Parquet file's columns."""
        if before:
            attempts = zip(before.attempts, self._facts["attempts"], strict=True)
            self._facts["attempts"] = [earlier + now for earlier, now in attempts]
        table = self._rows
        for field in (*self._schema, *OUTCOMES):
            column = pa.array(self._facts[field.name], field.type)
            place = table.schema.get_field_index(field.name)
            table = table.append_column(field, column) if place < 0 else table.set_column(place, field, column)
        return table if before is None else table.append_column(_PREVIOUS, pa.array(before.keys, pa.string()))

    def statistics(self, began: float) -> dict[str, Any]:
        """Return what img2dataset's statistics say, with the bytes that came and the reasons."""
        ended, statuses = time.time(), Counter(self._facts["status"])
        messages = zip(self._facts["status"], self._facts["error_message"], strict=True)
        return {
            "count": len(self._rows),
            "successes": statuses["success"],
            "failed_to_download": statuses["failed_to_download"],
            "failed_to_resize": statuses["failed_to_resize"],
            "duration": ended - began,
            "start_time": began,
            "end_time": ended,
            "status_dict": dict(Counter(message or status for status, message in messages)),
            "bytes": self._bytes,
            "reasons": by_frequency(Counter(filter(None, self._facts["reason"]))),
        }


def is_complete(store: RunStore, stem: str) -> bool:
    """Return whether a shard is there, whole."""
    return store.exists(_statistics_file(stem))


def complete(store: RunStore, stem: str) -> bool:
    """Put into place what a killed writer left complete; return whether the shard is there. None works on it then."""
    if store.complete(stem):
        store.delete_ticket(stem)
    return is_complete(store, stem)


def read_facts(store: RunStore, stem: str) -> DownloadFacts:
    """Return what a shard says that its rows gave."""
    statistics, rows = store.read_json(_statistics_file(stem)), store.footer(f"{stem}.parquet")[2]
    return DownloadFacts(
        urls=rows,
        came=rows - sum(statistics["reasons"].values()),
        bytes=statistics["bytes"],
        began=statistics["start_time"],
        ended=statistics["end_time"],
        reasons=statistics["reasons"],
    )


def _statistics_file(stem: str) -> str:
    return f"{stem}_stats.json"


def read_previous_keys(store: RunStore, stem: str, keys: Collection[str]) -> list[str]:
    """Return the keys that samples of a shard had in an earlier round, of those that had one."""
    if not store.exists(f"{stem}.parquet") or _PREVIOUS not in store.schema(f"{stem}.parquet").names:
        return []
    table = store.read_parquet(f"{stem}.parquet", ["key", _PREVIOUS])
    return list(table.filter(pc.is_in(table["key"], pa.array(keys, pa.string())))[_PREVIOUS].drop_null().to_pylist())


def clear_samples(store: RunStore, stem: str, keys: Collection[str], members: Iterable[tuple[int, int]]) -> list[str]:
    """Take samples out of a shard: members of the tar, by offset and size, become zeros, so that no other moves.

    Rows of the Parquet file keep the key alone. Returns the files that were rewritten.
    """
    rewritten = []
    if ranges := sorted(members):
        with store.open(f"{stem}.tar") as old, store.create(f"{stem}.tar") as file:
            for offset, size in ranges:
                _copy(old, file, offset - old.tell())
                file.write(bytes(size))
                old.seek(offset + size)
            shutil.copyfileobj(old, file, 1 << 20)
        rewritten.append(f"{stem}.tar")
    table = store.read_parquet(f"{stem}.parquet")
    named = pc.is_in(table["key"], pa.array(keys, pa.string()))
    if pc.any(named).as_py():
        for place, field in enumerate(table.schema):
            if field.name not in ("key", "status"):
                blank = pa.scalar(None, field.type)
                table = table.set_column(place, field, pc.if_else(named, blank, table.column(place)))
        store.write_parquet(f"{stem}.parquet", table)
        rewritten.append(f"{stem}.parquet")
    return rewritten


def _copy(source: IO[bytes], file: IO[bytes], count: int) -> None:
    while count > 0:
        data = source.read(min(count, 1 << 20))
        file.write(data)
        count -= len(data)
