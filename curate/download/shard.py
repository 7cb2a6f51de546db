"""Downloads rows of a list into a shard with img2dataset's layout.

A shard is complete if it has its NUMBER_stats.json, which is written last. The tar and the Parquet file have the rows
in order. The Parquet file has the columns of the list and of img2dataset (`error_message` is `reason: detail`), then
OUTCOMES, and `previous_key` if the rows are retried. Images wait in a temporary file, not in memory.
"""

import hashlib
import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from multiprocessing.pool import ThreadPool
from queue import SimpleQueue
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.base.schema import define
from curate.download.fetch import Fetcher, Outcome
from curate.download.fetch_error import FetchError
from curate.download.rates import by_frequency
from curate.download.resize import HASH_MISMATCH, Resize, Resized, read_exif, reason_of
from curate.download.retry_record import Retry
from curate.download.shard_names import OUTCOMES, STATISTICS, keys_of, shard_stem
from curate.download.source import UrlsSource
from curate.read.image import format_of
from curate.store.facts import DownloadFacts
from curate.store.local import Digest
from curate.store.store import RunStore
from curate.tar.writer import TarWriter

_log = logging.getLogger(__name__)

_PREVIOUS = "previous_key"
_SIZES = ("width", "height", "original_width", "original_height")


def download_shard(
    rows: pa.Table, number: int, source: UrlsSource, fetcher: Fetcher, resize: Resize, retry: Retry | None = None
) -> tuple[DownloadFacts, dict[str, Digest]]:
    """Download rows of a list into a shard. If another writer completes the shard first, its shard is kept.

    Returns what the kept shard records about its rows, and the digests of its files if this call wrote it.

    `rows` has the columns `url` and `caption`, a column with the hash to verify, named by its kind (string), and any
    others to copy. `number` is one of `shard_names.NUMBERS`; `retry` describes the rows before this retry. Raises
    RecipeError if img2dataset is not installed, and OSError if the store cannot be written.
    """
    (store, stem), began = source.place(shard_stem(number)), time.time()
    shard = _Shard(rows, keys_of(number, len(rows), source.number_sample_per_shard), source, resize)
    with store.temporary_folder() as folder, open(f"{folder}/images", "w+b") as images:
        for row, outcome in _fetch_all(rows["url"].to_pylist(), fetcher, source):
            shard.add(row, outcome, images)
        statistics = shard.statistics(began)
        with store.commit(stem, is_done=lambda: store.exists(f"{stem}{STATISTICS}")) as group:
            with group.create(f"{stem}.tar") as file:
                shard.write_tar(images, file)
            group.write_parquet(f"{stem}.parquet", shard.table(retry))
            group.write_bytes(f"{stem}{STATISTICS}", json.dumps(statistics, indent=4).encode())
    store.delete_commit(stem)
    digests = {name: Digest(*digest) for name, (_, *digest) in group.staged.items()}
    return _facts(statistics) if digests else read_facts(store, stem), digests


def _fetch_all(urls: Sequence[str | None], fetcher: Fetcher, source: UrlsSource) -> Iterator[tuple[int, Outcome]]:
    """Yield rows with their outcomes as they arrive. At most two rows per thread wait for the consumer."""
    outcomes: SimpleQueue[tuple[int, Outcome]] = SimpleQueue()

    def fetch(row: int, url: str | None) -> None:
        try:
            outcome = fetcher.fetch(url or "", source.timeout)
        except Exception as error:
            outcome = Outcome(None, _unforeseen(error), 1, time.time())
        outcomes.put((row, outcome))

    waiting = enumerate(urls)
    with fetcher.expecting(urls), ThreadPool(min(source.thread_count, max(1, len(urls)))) as pool:
        for task in islice(waiting, 2 * source.thread_count):
            pool.apply_async(fetch, task)
        for _ in urls:
            yield outcomes.get()
            for task in islice(waiting, 1):
                pool.apply_async(fetch, task)


def _unforeseen(error: Exception) -> FetchError:
    """Log an unexpected error, and return it as the row's outcome. So one URL does not end the download of a shard."""
    _log.error("downloading a URL failed", exc_info=error)
    return FetchError("lost", f"{type(error).__name__}: {error}")


class _Shard:
    def __init__(self, rows: pa.Table, keys: list[str], source: UrlsSource, resize: Resize) -> None:
        self._rows, self._source, self._resize = rows, source, resize
        self._verified = source.verify_hash and source.verify_hash[1]
        self._listed = {name: rows[name].to_pylist() for name in rows.column_names}
        optional = filter(None, ("exif" if source.extract_exif else None, source.compute_hash))
        texts, sizes = dict.fromkeys(("key", "status", "error_message"), pa.string()), dict.fromkeys(_SIZES, pa.int32())
        self._schema = define(**texts, **sizes, **dict.fromkeys(optional, pa.string()))
        self._facts: list[dict[str, Any]] = [{"key": key} for key in keys]  # by row
        self._images: dict[int, tuple[int, int]] = {}  # offset and size, by row
        self._bytes = 0

    def add(self, row: int, outcome: Outcome, images: IO[bytes]) -> None:
        problem, data, resized = outcome.fault, outcome.data, Resized(None)
        if data is not None:
            try:
                is_other = self._verified and _digest(self._verified, data) != self._listed[self._verified][row]
                resized = Resized(None, error=HASH_MISMATCH) if is_other else self._resize(data)
            except Exception as error:
                problem = _unforeseen(error)
        facts, may_pass = self._facts[row], problem is not None and problem.may_pass
        facts |= {"status": "success", "attempts": outcome.attempts, "may_pass": may_pass}
        facts["attempted"] = datetime.fromtimestamp(int(outcome.time), UTC)
        if problem:
            facts |= {"reason": problem.reason, "detail": problem.detail, "error_message": str(problem)}
            facts["status"] = "failed_to_download"
        elif message := resized.error:
            facts |= {"reason": reason_of(message), "detail": message, "error_message": message}
            facts["status"] = "failed_to_download" if message == HASH_MISMATCH else "failed_to_resize"
        else:
            assert data is not None and resized.data is not None
            facts |= {name: getattr(resized, name) for name in _SIZES}
            if self._source.extract_exif:
                facts["exif"] = read_exif(data)
            if kind := self._source.compute_hash:
                facts[kind] = _digest(kind, data)
            self._images[row] = images.tell(), len(resized.data)
            images.write(resized.data)
            self._bytes += len(data)

    def write_tar(self, images: IO[bytes], file: IO[bytes]) -> None:
        with TarWriter(file) as writer:
            for row in sorted(self._images):
                offset, size = self._images[row]
                images.seek(offset)
                fields = {name: values[row] for name, values in self._listed.items() if name != self._verified}
                fields |= {name: self._facts[row].get(name) for name in self._schema.names}
                image = images.read(size)
                kind = format_of(image[:64]) or self._source.encode_format
                members = {"jpg" if kind == "jpeg" else kind: image, "json": json.dumps(fields, indent=4).encode()}
                members["txt"] = (self._listed["caption"][row] or "").encode()
                for suffix in sorted(members):
                    writer.add(f"{self._facts[row]['key']}.{suffix}", members[suffix])

    def table(self, retry: Retry | None) -> pa.Table:
        table, facts = self._rows, self._facts
        if retry:
            before = zip(retry.attempts, facts, strict=True)
            facts = [of_row | {"attempts": attempts + of_row["attempts"]} for attempts, of_row in before]
        for field in (*self._schema, *OUTCOMES):
            column = pa.array([of_row.get(field.name) for of_row in facts], field.type)
            index = table.schema.get_field_index(field.name)
            table = table.append_column(field, column) if index < 0 else table.set_column(index, field, column)
        return table.append_column(_PREVIOUS, pa.array(retry.keys, pa.string())) if retry else table

    def statistics(self, began: float) -> dict[str, Any]:
        ended, statuses = time.time(), Counter(facts["status"] for facts in self._facts)
        return {
            "count": len(self._rows),
            "successes": statuses["success"],
            "failed_to_download": statuses["failed_to_download"],
            "failed_to_resize": statuses["failed_to_resize"],
            "duration": ended - began,
            "start_time": began,
            "end_time": ended,
            "status_dict": dict(Counter(facts.get("error_message") or facts["status"] for facts in self._facts)),
            "bytes": self._bytes,
            "reasons": by_frequency(Counter(facts["reason"] for facts in self._facts if "reason" in facts)),
        }


def _digest(kind: str, data: bytes) -> str:
    return hashlib.new(kind, data).hexdigest()


def read_facts(store: RunStore, stem: str) -> DownloadFacts:
    """Return what a shard records about its rows."""
    return _facts(store.read_json(f"{stem}{STATISTICS}"))


def _facts(statistics: Mapping[str, Any]) -> DownloadFacts:
    urls, size, reasons = statistics["count"], statistics["bytes"], statistics["reasons"]
    began, ended = statistics["start_time"], statistics["end_time"]
    came = urls - sum(reasons.values())
    return DownloadFacts(urls=urls, came=came, bytes=size, began=began, ended=ended, reasons=reasons)


def read_previous_keys(store: RunStore, stem: str, keys: Collection[str]) -> list[str]:
    """Return the keys that samples in a shard had in an earlier round, if they had one."""
    if not store.exists(f"{stem}.parquet") or _PREVIOUS not in store.schema(f"{stem}.parquet").names:
        return []
    table = store.read_parquet(f"{stem}.parquet", ["key", _PREVIOUS])
    previous = table.filter(pc.is_in(table["key"], pa.array(keys, pa.string())))[_PREVIOUS].to_pylist()
    return [key for key in previous if key is not None]


def clear_samples(store: RunStore, stem: str, keys: Collection[str], members: Iterable[tuple[int, int]]) -> list[str]:
    """Overwrite samples in a tar with zeros, by offset and size, and clear their rows in its Parquet file.

    Only their keys remain. Returns the changed files.
    """
    rewritten = []
    if ranges := sorted(members):
        with store.open(f"{stem}.tar") as old, store.create(f"{stem}.tar") as file:
            for offset, size in ranges:
                while data := old.read(min(max(0, offset - old.tell()), 1 << 20)):
                    file.write(data)
                file.write(bytes(size))
                old.seek(offset + size)
            shutil.copyfileobj(old, file, 1 << 20)
        rewritten.append(f"{stem}.tar")
    table = store.read_parquet(f"{stem}.parquet")
    named = pc.is_in(table["key"], pa.array(keys, pa.string()))
    if pc.any(named).as_py():
        for index, field in enumerate(table.schema):
            if field.name not in ("key", "status"):
                blank = pa.scalar(None, field.type)
                table = table.set_column(index, field, pc.if_else(named, blank, table.column(index)))
        store.write_parquet(f"{stem}.parquet", table)
        rewritten.append(f"{stem}.parquet")
    return rewritten
