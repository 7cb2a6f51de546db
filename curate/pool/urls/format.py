"""Reads lists of URLs: downloads the images into shards in img2dataset's format, and reads these as tars.

A part is a range of consecutive rows of a list, and is downloaded to one shard. The shard's name is a digest of the
list and of everything that affects the shard's bytes, so an existing shard is not downloaded again. Uids and scores are
the same as in a pool of text. A failed download is also a row, with the reason.
"""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain, compress
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids, schema
from curate.base.numeric.arrays import Mask, whole
from curate.base.process import in_threads, process_cache
from curate.base.wording import one_line
from curate.download.lists import share_list
from curate.download.rates import BYTES, DownloadForecast, assumed_rates, log_download, measured_rates
from curate.download.retry_record import Retry
from curate.download.shard_names import NUMBERS, STATISTICS, keys_of, row_of, shard_stem, stem_of
from curate.download.source import UrlsSource
from curate.pool.formats import input_format as interface
from curate.pool.formats.found_files import FoundFiles
from curate.pool.formats.input_format import Batches, InputPart, PartRows, PlannedSource
from curate.pool.formats.run import SHA256, list_kept
from curate.pool.formats.webdataset import WebdatasetInput, WebdatasetSource
from curate.pool.urls.rows import ORIGINAL, describe_rows, find_in_list, list_of, read_list, recognize_lists, with_url
from curate.read.columns import text_columns
from curate.read.errors import InputError
from curate.read.listing import HASHED, InputFile, list_source
from curate.recipe.source import Source
from curate.store.attempts import attempt
from curate.store.layout import HOSTS
from curate.store.local import Digest
from curate.store.store import RunStore

if TYPE_CHECKING:
    from curate.download.fetch import Fetcher

_TARS = WebdatasetInput()
_AT_ONCE = 2  # shards of a unit to download at once: while the slowest servers of one respond, the next starts


def _describe(source: UrlsSource, file: InputFile) -> tuple[list[InputPart], interface.FileColumns | None]:
    """Return a list's parts and its columns. For an unreadable list, return one part with the fault, and None."""
    part, max_rows = InputPart(file.path, 0, file.fingerprint, (0, 0), 0, file.fault), source.number_sample_per_shard
    if file.fault:
        return [part], None
    try:
        if not file.size:  # do not open it: reading the kernel's log, for example, would block
            raise pa.ArrowInvalid("it has 0 bytes")
        columns, rows = describe_rows(source, part)
    except InputError as problem:
        raise source.error(f"{file.path}: {problem.detail}") from None
    except (pa.ArrowException, ValueError, OSError) as error:
        reason = "unreadable_list" if isinstance(error, pa.ArrowException | ValueError) else "unreadable"
        return [replace(part, fault=(reason, one_line(error, 300)))], None
    spans = [(first, min(first + max_rows, rows)) for first in range(0, rows, max_rows)]
    return [replace(part, groups=(a, b), rows=b - a, size=(b - a) * BYTES) for a, b in spans], columns


class UrlsInput(interface.InputFormat):
    """The rows of lists of URLs. The run downloads their images into files of its own.

    A run may retry rows in rounds. These rows are in parts of their own (`InputPart.retry`), and the earlier parts omit
    them. Methods that only this format has accept only its own sources (see `find_downloading`).
    """

    key = "urls"
    section = UrlsSource
    has_members = True

    def plan(self, source: UrlsSource, embeddings: interface.Embeddings, content: bool) -> PlannedSource:
        """List the files and count their rows; nothing is downloaded."""
        for package in ("img2dataset", "protego"):
            interface.need_package(source, package, "img2dataset")
        files = list_kept(source) if source.from_run else list_source(source, content)
        described = list(in_threads(partial(_describe, source), files))
        parts = tuple(part for of_file, _ in described for part in of_file)
        kinds = dict.fromkeys(columns for _, columns in described if columns)
        if parts and not kinds:
            assert parts[0].fault is not None
            raise source.error(f"none of {len(parts)} lists can be read: {parts[0].path}: {parts[0].fault[1]}")
        return PlannedSource(parts, tuple(kinds))

    def recognize(self, listed: FoundFiles) -> interface.Recognized | None:
        return recognize_lists(listed)

    def share(self, source: UrlsSource, parts: Sequence[InputPart], run: RunStore) -> None:
        """Convert lists to Parquet in the run's folder, unless this process does all the work."""
        to_share = () if source._is_alone else parts
        lists = {part.path: list_of(source, part) for part in to_share if not part.fault}
        deque(in_threads(partial(share_list, run=run), lists.values()), 0)

    def fetch(self, source: UrlsSource, parts: Sequence[InputPart]) -> None:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="shard") as pool:
            list(pool.map(lambda part: make_shard(source, part), [part for part in parts if not part.fault]))

    def fetched(self, source: Any, parts: Sequence[InputPart]) -> list[tuple[Source, frozenset[InputPart]]]:
        """Return, for each folder that may have shards, a source that reads them, and the parts whose shards it has."""
        folders = find_shards(source, parts)
        return [(source.model_copy(update={"store": folder}), frozenset(complete)) for folder, complete in folders]

    def outlook(self, source: Any, parts: Sequence[InputPart]) -> DownloadForecast:
        """Estimate what it takes to download parts, from the existing shards of these parts, or else of others.

        `source` must be placed in the run (see `placed_in`). Raises OSError.
        """
        folders = find_shards(source, parts)
        complete = {part for _, found_parts in folders for part in found_parts}
        remaining = [part for part in parts if part not in complete and not part.fault]
        stores = [(RunStore(folder), list(found_parts.values())) for folder, found_parts in folders]
        stores.sort(key=lambda stems: -len(stems[1]))
        others = ((store, shards_in(store)) for store, _ in stores)
        measured = (measured_rates(store, stems) for store, stems in chain(stores, others))
        rows, of_left = (sum(part.rows or 0 for part in found_parts) for found_parts in (parts, remaining))
        rates = next(filter(None, measured), None) or assumed_rates(source, max(1, of_left) / max(1, len(remaining)))
        return DownloadForecast(rows, of_left, len(remaining), _AT_ONCE, rates)

    def read(self, source: UrlsSource, part: InputPart, scores: pa.Schema, output: pa.Schema | None) -> Batches:
        """Read a part's tar, which is downloaded first if it is missing. Texts and scores come from the list, by key.

        Rows that a later round retries are left out.
        """
        number, rows = make_shard(source, part), read_list(source, part)
        listed, roles = set(rows.schema.names), find_in_list(source, rows.schema)
        keys = pa.array(keys_of(number, len(rows), source.number_sample_per_shard))
        assert roles.caption is not None
        texts = text_columns(rows, roles, ("caption", "url", "uid", "language"))
        left_out = pa.array(self.left_out_keys(source, part), pa.string())
        # The uid hashes URL and caption, so that failed downloads have one, too.
        texts["uid"] = ids.make_uids(texts.get("uid"), texts["url"], None, texts["caption"])
        # The uid uses the repaired caption; the row keeps the original, whose errors decide its status.
        texts["caption"] = whole(rows[roles.caption])
        # Sizes before resizing come from img2dataset's json, unless the list has these columns. `_tar` declares them as
        # columns of the tar, so the schema for `_TARS.read` is empty.
        of_json = [name for name in scores.names if name in ORIGINAL and name not in listed]
        tar_source, tar_part = self._tar(source, part, of_json)
        for batch in _TARS.read(tar_source, tar_part, pa.schema([]), None):
            stay = ~np.asarray(pc.is_in(batch.columns["key"], left_out))
            batch = batch if stay.all() else _only(batch, stay)  # noqa: PLW2901
            positions = pc.index_in(batch.columns["key"], keys)
            if positions.null_count:
                raise InputError("damaged_tar", f"{tar_part.path}: has samples that are not in its list")
            columns = batch.columns | {name: column.take(positions) for name, column in texts.items()}
            supplied = {name: rows[name].take(positions) for name in scores.names if name in listed}
            no_sizes = pa.chunked_array([pa.nulls(len(positions), pa.int64())])  # if no json in the batch has them
            supplied |= {name: batch.scores.get(name, no_sizes) for name in of_json}
            # If it cannot be decoded, the server sent something other than an image.
            yield replace(batch, columns=columns, scores=supplied, damaged="served_no_image")

    def reread(self, source: UrlsSource, part: InputPart, rows: PartRows) -> Iterator[interface.InputSample]:
        return _TARS.reread(*self._tar(source, part), rows)

    def reread_images(self, source: UrlsSource, part: InputPart, rows: PartRows) -> Iterator[bytes | None]:
        return _TARS.reread_images(*self._tar(source, part), rows)

    def _tar(
        self, source: UrlsSource, part: InputPart, numbers: Sequence[str] = ()
    ) -> tuple[WebdatasetSource, InputPart]:
        store, name = source.place(self.shard(source, part))
        path, columns = f"{store.url}/{name}", dict.fromkeys(numbers, "int")
        tar = WebdatasetSource(name=source.name, format=_TARS.key, path=path, columns=columns)
        return tar, InputPart(path, 0, "", listing_fingerprint="there", limit=part.limit)

    def clear(self, source: Any, shard: str, keys: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[str]:
        """Remove samples from a shard (see `shard`), and return the rewritten files.

        `spans` are the offsets and sizes of the samples' members, which become zeros. The Parquet files keep only the
        samples' keys. If samples were retried, their rows in shards of earlier rounds are removed first. `source` must
        be placed in a run (see `placed_in`).
        """
        from curate.download.shard import clear_samples, read_previous_keys

        store, stem = source.place(shard.removesuffix(".tar"))
        earlier: dict[str, list[str]] = {}
        for key in read_previous_keys(store, stem, keys):
            earlier.setdefault(f"{stem_of(key)}.tar", []).append(key)
        rewritten = [path for name, of_shard in earlier.items() for path in self.clear(source, name, of_shard, ())]
        rewritten += clear_samples(store, stem, keys, spans)
        return [] if source.store else rewritten

    def list_key(self, source: Any, part: InputPart) -> str:
        """Return the digest of a part's list, and of the settings that determine its rows."""
        return ids.digest([*identify_list(part), source.row_fields()])

    def list_row(self, source: Any, part: InputPart, key: str) -> int:
        """Return the row number in its list for a sample's key."""
        assert part.groups is not None
        row = row_of(key)
        return part.retry.rows[row] if part.retry else part.groups[0] + row

    def retry_parts(self, source: Any, example: InputPart, retry: Retry, later: Collection[int]) -> list[InputPart]:
        """Return parts to retry these rows of a list, except rows in `later`. `example` is any part of the list."""
        parts, max_rows = [], source.number_sample_per_shard
        for first in range(0, len(retry.rows), max_rows):
            span = slice(first, first + max_rows)
            rows, keys, attempts = retry.rows[span], retry.keys[span], retry.attempts[span]
            left_out = tuple(position for position, row in enumerate(rows) if row in later)
            again = Retry(retry.round, rows, keys, attempts)
            part = replace(example, groups=(rows[0], rows[-1] + 1), retry=again, left_out=left_out)
            parts.append(replace(part, rows=len(rows) - len(left_out), size=len(rows) * BYTES))
        return parts

    def left_out_keys(self, source: Any, part: InputPart) -> list[str]:
        """Return the keys of the samples that a part omits."""
        if not part.left_out:
            return []
        keys = keys_of(number_of(source, part), part.left_out[-1] + 1, source.number_sample_per_shard)
        return [keys[row] for row in part.left_out]

    def read_attempts(self, source: Any, shard: str, keys: Sequence[str | None]) -> pa.Table:
        """Return schema.ATTEMPTS for samples of a shard, from its Parquet file; null for samples that it lacks.

        Raises OSError.
        """
        store, stem = source.place(shard.removesuffix(".tar"))
        names, of_keys = ["key", "reason", "detail", *schema.ATTEMPTS.names], dict[str | None, dict[str, Any]]()
        if store.exists(f"{stem}.parquet"):
            table = store.read_parquet(f"{stem}.parquet", names)
            rows = table.filter(pc.is_in(table["key"], pa.array(keys, pa.string()))).to_pylist()
            of_keys = {row["key"]: row for row in rows}
            for row in rows:
                if row["may_pass"] is False:
                    row["may_pass"] = source.network.allows_now(row["reason"], row["detail"])
        return pa.Table.from_pylist([of_keys.get(key, {}) for key in keys], schema.ATTEMPTS)

    def resized(self, source: UrlsSource, path: str) -> str:
        side, mode = source.image_size, source.resize_mode
        if side is None or source.resize_only_if_bigger or mode not in ("border", "center_crop"):
            return ""
        return f"image_size with resize_mode {mode} makes every image {side} x {side}"

    def shard(self, source: Any, part: InputPart) -> str:
        """Return the name of a part's shard; for parts of other formats, the path."""
        return part.path if part.groups is None else f"{shard_stem(number_of(source, part))}.tar"


def _only(batch: interface.Batch, stay: Mask) -> interface.Batch:
    """Return some rows of a batch. `fields` still counts all rows: their names and types are the same."""
    rows, of_images, errors, members = pa.array(stay), batch.images, batch.faults, batch.members

    def images(wanted: Mask) -> Iterator[bytes | memoryview | None]:
        assert of_images is not None
        of_all = np.zeros(len(stay), bool)
        of_all[stay] = wanted
        return compress(of_images(of_all), stay)

    return replace(
        batch,
        columns={name: column.filter(rows) for name, column in batch.columns.items()},
        faults=errors and (errors[0].filter(rows), errors[1].filter(rows)),
        scores={name: column.filter(rows) for name, column in batch.scores.items()},
        images=of_images and images,
        members=members and (members[0].filter(rows), members[1].filter(rows), members[2].filter(rows)),
    )


def identify_list(part: InputPart) -> list[str]:
    """Return the identity of a part's list: the digest of its content, or its path and version if that is unknown."""
    return [part.fingerprint] if part.fingerprint.startswith((SHA256, HASHED)) else [part.path, part.fingerprint]


def number_of(source: UrlsSource, part: InputPart) -> int:
    """Return the number of a part's shard, from everything that determines it."""
    determining: list[Any] = [*identify_list(part), part.groups, source.row_fields()]
    determining += [part.retry.round, part.retry.rows] if part.retry else []
    return int(ids.digest(determining)[:15], 16) % NUMBERS


def make_shard(source: UrlsSource, part: InputPart) -> int:
    """Return the number of a part's shard, and download it if it is missing."""
    number = number_of(source, part)
    store, stem = source.place(shard_stem(number))
    if not store.exists(f"{stem}{STATISTICS}") and not source.adopt(shard_stem(number)):
        # a slow import that other pools do not need
        from curate.download.resize import resizing
        from curate.download.shard import download_shard, read_facts

        if store.complete_commit(stem):  # a killed writer left it
            store.delete_commit(stem)
            facts, digests = read_facts(store, stem), dict[str, Digest]()
        else:
            rows = with_url(source, read_list(source, part))
            with attempt(source.run_store, f"shard-{number}") as killed, resizing(source, killed) as resize:
                facts, digests = download_shard(rows, number, source, _fetcher(source), resize, part.retry)
        log_download(source.run_store, shard_stem(number), facts, {} if source.store else digests)
    return number


def find_shards(source: UrlsSource, parts: Sequence[InputPart]) -> list[tuple[str, dict[InputPart, str]]]:
    """Return each folder that may have shards, with the parts whose shards it has, and the shards' names."""
    stems = {part: shard_stem(number_of(source, part)) for part in parts if not part.fault}
    folders = [(folder, set(shards_in(RunStore(folder)))) for folder in source.places()]
    return [(folder, {part: stem for part, stem in stems.items() if stem in names}) for folder, names in folders]


def shards_in(store: RunStore) -> list[str]:
    """Return the paths without suffix of the shards in a store."""
    return [name.removesuffix(STATISTICS) for name in store.names("") if name.endswith(STATISTICS)]


def _fetcher(source: UrlsSource) -> "Fetcher":
    """Return a source's fetcher. All threads of a process share it, and all processes of a run share its hosts."""
    from curate.download.fetch import Fetcher

    policy, directives = source.network, source.disallowed_header_directives
    key = ids.digest([policy.model_dump(), directives])
    queues = None if source._is_alone else (RunStore(source._run), f"{HOSTS}/{key}")
    return process_cache(f"fetcher {key} {queues}", lambda: Fetcher(policy, directives, queues=queues))
