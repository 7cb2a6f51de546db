"""A shard of img2dataset's, made by its own downloader, resizer and writer, which fetch by ours.

In: rows of a list, with columns `url`, `caption` and others. Out: NUMBER.tar, NUMBER.parquet and NUMBER_stats.json, as img2dataset
writes them, the last one last: with it the shard is complete. Tar and Parquet are in the order of the rows, whatever ended first,
members have no time, `error_message` of what was not fetched is `reason: detail`, and the Parquet file also has, of each row, `reason`, `detail`, `attempts`, `attempted` and `may_pass` (see `fetch.Outcome`), and
`previous_key`, where the row is tried again. The
statistics also have `bytes`, of what came as servers sent it, and `reasons` with the URLs that failed for each.
"""

import io
import json
import os
import shutil
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import cache
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.base.errors import needing
from curate.pool.urls.download.connection import guard_thread
from curate.pool.urls.download.fetch import Downloads, Fetcher
from curate.pool.urls.download.keys import OUTCOMES, keys_of, shard_stem
from curate.pool.urls.download.log import by_frequency
from curate.store.facts import DownloadFacts
from curate.store.store import RunStore
from curate.tar.byte_sources import open_source
from curate.tar.index import index_tar
from curate.tar.writer import TarWriter

LOST = "lost"
# What img2dataset's resizer and hash check say, as reasons
_RESIZED = {
    "Image decoding error": "served_no_image",
    "image too small": "too_small",
    "image area too large": "too_large_area",
    "aspect ratio too large": "aspect_ratio",
    "hash mismatch": "hash_mismatch",
}

_OTHERWISE = {"failed_to_download": "bad_url", "failed_to_resize": "not_resized"}  # what never came to the fetcher

_PREVIOUS = "previous_key"


class Before(NamedTuple):
    """Of each row that is tried again, the key that it had, in another shard, and how many attempts there were."""

    keys: Sequence[str]
    attempts: Sequence[int]


_thread = threading.local()  # `downloads` of a thread that downloads


class _Opener:
    """The opener of `urllib.request`: in threads that download, its shard's; in all others, the one that was there."""

    def __init__(self) -> None:
        self._other = urllib.request.build_opener()

    def open(self, request: Any, data: Any = None, timeout: Any = None) -> Any:
        downloads: Downloads | None = getattr(_thread, "downloads", None)
        return (downloads or self._other).open(request, data, timeout)


def _begin(downloads: Downloads) -> None:
    """Make this thread one that downloads."""
    _thread.downloads = downloads
    guard_thread(downloads.networks)


@cache
def _img2dataset() -> Any:
    """Return img2dataset's modules, which fetch by ours where a thread downloads."""
    # A library of its resizer else asks the package index for its newest version when it is imported.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    with needing("input of format urls needs img2dataset", "'.[img2dataset]' in a checkout of curate"):
        from img2dataset import downloader, resizer, writer
    urllib.request.install_opener(_Opener())  # type: ignore[arg-type]
    # Its threads are told whose they are; and while it decodes, the process's standard error is not taken away.
    downloader.ThreadPool = lambda count: ThreadPool(count, initializer=_begin, initargs=(_thread.downloads,))
    resizer.SuppressStdoutStderr = nullcontext
    downloader.exifread = SimpleNamespace(process_file=_limited(downloader.exifread.process_file))
    return downloader.Downloader, resizer.Resizer, writer.WebDatasetSampleWriter


@contextmanager
def _downloading(fetcher: Fetcher) -> Iterator[Downloads]:
    """Have the threads that img2dataset starts in the block fetch by this."""
    _thread.downloads = Downloads(fetcher)
    try:
        yield _thread.downloads
    finally:
        del _thread.downloads
        fetcher.close()


class _Checked:
    """A resizer that refuses what `check` says no to, before anything is decoded, and leaves bytes as they are where there is no other."""

    def __init__(self, check: Callable[[bytes], str | None], resizer: Any) -> None:
        self._check, self._resizer = check, resizer

    def __call__(self, stream: IO[bytes], boxes: None = None) -> tuple[Any, ...]:
        data = stream.read()
        if error := self._check(data):
            return None, None, None, None, None, error
        return (data, None, None, None, None, None) if self._resizer is None else self._resizer(stream, boxes)


class _Metered(io.BytesIO):
    """An image whose EXIF is looked for, within limits: a directory may name the same bytes, and directories each other, endlessly."""

    reads, volume = 10_000, 50_000_000  # of bytes, that are left

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.reads, self.volume = self.reads - 1, self.volume - len(data)
        if min(self.reads, self.volume) < 0:
            raise _Endless
        return data


class _Endless(BaseException):
    """What the reader of EXIF does not catch itself."""


def _limited(process_file: Callable[..., Any]) -> Callable[..., Any]:
    """Return exifread's function, which raises ValueError where it reads too much."""

    def process(stream: io.BytesIO, **options: Any) -> Any:
        try:
            return process_file(_Metered(stream.getvalue()), **options)
        except _Endless:
            raise ValueError("it reads too much") from None

    return process


def download_shard(
    rows: pa.Table,
    number: int,
    store: RunStore,
    stem: str,
    fetcher: Fetcher,
    check: Callable[[bytes], str | None],
    options: Mapping[str, Any],
    before: Before | None = None,
) -> None:
    """Download the rows of a list into a shard, unless another writer's is there in the end: the first complete one stays.

    Args:
        rows: columns `url` and `caption` (string), and those that go along; at most `options["number_sample_per_shard"]`.
        number: of the shard, of `keys.NUMBERS`.
        store: where its files are put.
        stem: their path there, without suffix.
        fetcher: what fetches.
        check: says of bytes why they are no image, or none to decode; None where they are one.
        options: `resizer`, img2dataset's Resizer's own options or None, for bytes as they came; the others are the Downloader's.
        before: what the rows were before, where they are tried again.

    Raises RecipeError where img2dataset is not installed, OSError where the store cannot be written.
    """
    downloader_type, resizer_type, writer = _img2dataset()
    others = {name: value for name, value in options.items() if name != "resizer"}
    resizer = _Checked(check, None if options["resizer"] is None else resizer_type(**options["resizer"]))
    with store.temporary_folder() as folder:
        with pa.OSFile(f"{folder}/rows.arrow", "wb") as file, pa.ipc.new_file(file, rows.schema) as arrow:
            arrow.write_table(rows)
        downloader = downloader_type(
            sample_writer_class=writer,
            resizer=resizer,
            save_caption=True,
            output_folder=folder,
            column_list=rows.column_names,
            oom_shard_count=len(shard_stem(0)),
            retries=0,
            user_agent_token=None,
            disallowed_header_directives=None,
            **others,
        )
        with _downloading(fetcher) as downloads:
            downloader.download_shard((number, f"{folder}/rows.arrow"))
        keys = keys_of(number, len(rows), others["number_sample_per_shard"])
        found = pq.read_table(f"{folder}/{shard_stem(number)}.parquet")
        table = _sidecar(found, rows, keys, downloads, before)
        with open(f"{folder}/{shard_stem(number)}_stats.json", "rb") as file:
            statistics = json.load(file)
        came = table.filter(pc.equal(table["status"], "success"))["url"].to_pylist()
        statistics["bytes"] = sum(outcome.bytes for url in came if (outcome := downloads.outcome(url, "")))
        statistics["reasons"] = by_frequency(Counter(table["reason"].drop_null().to_pylist()))
        with store.together(stem, done=lambda: is_complete(store, stem)) as together:
            with together.create(f"{stem}.tar") as file:
                _sort_tar(f"{folder}/{shard_stem(number)}.tar", file)
            together.write_parquet(f"{stem}.parquet", table)
            together.write_bytes(_statistics_file(stem), json.dumps(statistics, indent=4).encode())


def is_complete(store: RunStore, stem: str) -> bool:
    """Return whether a shard is there, whole."""
    return store.exists(_statistics_file(stem))


def complete(store: RunStore, stem: str) -> bool:
    """Put into place what a writer had ended that was killed then; return whether the shard is there. None is at work on it afterwards."""
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


def _sort_tar(path: str, out: IO[bytes]) -> None:
    """Copy a tar with its samples in the order of their keys, and without the times at which they came. Raises OSError."""
    source = open_source(path)
    index = index_tar(source)
    if index.damage:
        raise OSError(f"{path}: {index.damage[1]}")
    members = zip(index.names, index.offsets.tolist(), index.sizes.tolist(), strict=True)
    with TarWriter(out) as writer:
        for name, offset, size in sorted(members, key=lambda member: (member[0].partition(".")[0], member[1])):
            writer.add(name, source.read(offset, size))


def read_previous_keys(store: RunStore, stem: str, keys: Collection[str]) -> list[str]:
    """Return the keys that samples of a shard had in an earlier round, of those that had one."""
    if not store.exists(f"{stem}.parquet") or _PREVIOUS not in store.schema(f"{stem}.parquet").names:
        return []
    table = store.read_parquet(f"{stem}.parquet", ["key", _PREVIOUS])
    return list(table.filter(pc.is_in(table["key"], pa.array(keys, pa.string())))[_PREVIOUS].drop_null().to_pylist())


def clear_samples(store: RunStore, stem: str, keys: Collection[str], members: Iterable[tuple[int, int]]) -> list[str]:
    """Take samples out of a shard: members of the tar, at these offsets and of these sizes, become zeros, so that no other moves.

    Rows of the Parquet file keep the key alone. Returns the files that were rewritten.
    """
    rewritten = []
    if ranges := sorted(members):
        with store.open(f"{stem}.tar") as there, store.create(f"{stem}.tar") as file:
            for offset, size in ranges:
                _copy(there, file, offset - there.tell())
                file.write(bytes(size))
                there.seek(offset + size)
            shutil.copyfileobj(there, file, 1 << 20)
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


def _copy(there: IO[bytes], file: IO[bytes], count: int) -> None:
    while count > 0:
        data = there.read(min(count, 1 << 20))
        file.write(data)
        count -= len(data)


def _sidecar(found: pa.Table, rows: pa.Table, keys: list[str], downloads: Downloads, before: Before | None) -> pa.Table:
    """Return what img2dataset says of each row, in order, with what became of it; a row that it lost is told."""
    place = {key: row for row, key in enumerate(found["key"].to_pylist())}
    urls = rows["url"].to_pylist()
    said: dict[str, list[Any]] = {name: found[name].to_pylist() for name in found.column_names}
    given = {name: rows[name].to_pylist() for name in rows.column_names if name in said}
    records: list[dict[str, Any]] = []
    outcomes: list[tuple[str | None, str | None, int, datetime | None, bool]] = []
    for number, (key, url) in enumerate(zip(keys, urls, strict=True)):
        row = place.get(key)
        outcome = downloads.outcome(url, said["error_message"][row] or "" if row is not None else "")
        attempts = (before.attempts[number] if before else 0) + (outcome.attempts if outcome else 0)
        at = datetime.fromtimestamp(int(outcome.time), UTC) if outcome else None
        if row is None:
            detail = "img2dataset failed on it with an error that it printed"
            record = {"key": key, "status": "failed_to_download", "error_message": f"{LOST}: {detail}"}
            records.append({**dict.fromkeys(said), **{name: given[name][number] for name in given}, **record})
            outcomes.append((LOST, detail, attempts, at, False))
            continue
        record = {name: values[row] for name, values in said.items()}
        records.append(record)
        if record["status"] == "success":
            outcomes.append((None, None, attempts, at, False))
        elif outcome is not None and outcome.reason:
            outcomes.append((outcome.reason, outcome.detail, attempts, at, outcome.may_pass))
        else:
            message = record["error_message"] or ""
            reason = _RESIZED.get(message.partition(":")[0], _OTHERWISE[record["status"]])
            outcomes.append((reason, message, attempts, at, False))
    table = pa.Table.from_pylist(records, schema=found.schema)
    columns = zip(*outcomes, strict=True) if outcomes else [[]] * len(OUTCOMES)
    for field, column in zip(OUTCOMES, columns, strict=True):
        table = table.append_column(field, pa.array(column, field.type))
    return table if before is None else table.append_column(_PREVIOUS, pa.array(before.keys, pa.string()))
