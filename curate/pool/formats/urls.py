"""Lists of URLs: what they name is downloaded by img2dataset into shards of its own, which are then read as the tars they are.

A part is some consecutive rows of a list, and a shard; what is tried again are parts of such rows alone, of any part. Where its files are and what they are called is determined by the list and
by all that has an influence on the bytes: a shard that is there is not downloaded again. Columns of rows are those of the list, so
that uids and scores are what they would be in a pool of text; what did not come is a row too, with the reason.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from itertools import chain, compress
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from curate import ids, schema
from curate.download.keys import NUMBERS, keys_of, row_of, shard_stem, stem_of
from curate.download.lists import KINDS, TABULAR, UrlList, describe_list, read_rows, read_some_rows, share_list
from curate.download.outlook import BYTES, STATISTICS, Rates, assumed_rates, measured_rates
from curate.download.policy import NetworkPolicy
from curate.errors import RecipeError
from curate.numeric.arrays import Mask
from curate.pool.columns import COLUMN_NAMES, Columns, find_columns, plain_type, score_type, valid_text
from curate.pool.faults import InputFault, retry
from curate.pool.formats.input_format import (
    Batch,
    FileColumns,
    InputFormat,
    InputPart,
    InputSample,
    Outlook,
    PartRows,
    PlannedSource,
    Retry,
)
from curate.pool.formats.run import SHA256, list_kept, see_columns, see_rows, which_columns
from curate.pool.formats.webdataset import WebdatasetInput, WebdatasetSource
from curate.pool.image import FORMATS, format_of, measure_image
from curate.pool.listing import list_source
from curate.process import process_cache
from curate.recipe.measure import Image as ImageOptions
from curate.recipe.measure import PrecomputedEmbeddings
from curate.recipe.section import UserPath, UserPaths, find_twice
from curate.recipe.source import Source
from curate.schema import INPUT_DECISIONS
from curate.store.downloads import log_download
from curate.store.layout import POOL
from curate.store.manifest import find_digest
from curate.store.store import RunStore
from curate.wording import one_line

if TYPE_CHECKING:
    from curate.download.fetch import Fetcher

Hash = Literal["md5", "sha256", "sha512"]
_TARS = WebdatasetInput()
_TEXTS = ("caption", "uid", "url", "language")
_AT_ONCE = 2  # shards of a unit: while the slowest servers of one are waited for, the next is begun
# Names that img2dataset gives its own columns
_ITS_OWN = {
    "url",
    "caption",
    "key",
    "status",
    "error_message",
    "width",
    "height",
    "original_width",
    "original_height",
    "exif",
}
_RESIZING = (
    *("resize_mode", "resize_only_if_bigger", "upscale_interpolation", "downscale_interpolation", "encode_quality"),
    *("encode_format", "skip_reencode", "min_image_size", "max_image_area", "max_aspect_ratio"),
)
_Interpolation = Literal["nearest", "linear", "cubic", "area", "lanczos", "lanczos4"]


class UrlsSource(Source):
    """A source that is lists of URLs with captions. Options under img2dataset's names are its own, with its defaults, but that images
    stay as they came where there is no `image_size`.

    The rows are those of lists (`path`), whose columns are `column_names` where CSV or TSV has no header line, or what a finished run over a list kept (`from`, here `from_run`). `network` says how servers are asked, `store` where the shards lie; None: in `pool/` of the run.
    """

    model_config = ConfigDict(serialize_by_alias=True)
    runtime_fields: ClassVar[frozenset[str]] = frozenset({"thread_count", "store"})
    optional_fields: ClassVar[frozenset[str]] = Source.optional_fields | {"path", "from", "column_names"}

    path: UserPaths = ()
    from_run: UserPath | None = Field(None, alias="from", min_length=1)
    columns: Columns = Columns()
    column_names: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(None, min_length=2)
    network: NetworkPolicy
    store: UserPath | None = None
    number_sample_per_shard: int = Field(1000, ge=2, le=100_000)
    thread_count: int = Field(256, ge=1)
    timeout: float = Field(10.0, gt=0)
    extract_exif: bool = True
    compute_hash: Hash | None = "sha256"
    verify_hash: tuple[Annotated[str, Field(min_length=1)], Hash] | None = None
    disallowed_header_directives: tuple[str, ...] | None = None
    image_size: int | None = Field(None, ge=1)
    resize_mode: Literal["no", "border", "keep_ratio", "keep_ratio_largest", "center_crop"] = "border"
    resize_only_if_bigger: bool = False
    upscale_interpolation: _Interpolation = "lanczos"
    downscale_interpolation: _Interpolation = "area"
    encode_quality: int = Field(95, ge=0, le=100)
    encode_format: Literal["jpg", "png", "webp"] = "jpg"
    skip_reencode: bool = False
    min_image_size: int = Field(0, ge=0)
    max_image_area: float | None = Field(None, gt=0)
    max_aspect_ratio: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one_list(self) -> Self:
        if bool(self.path) == bool(self.from_run):
            raise ValueError(
                "give either path, of lists of URLs, or from, the folder of a finished run over such lists"
            )
        if self.from_run and self.columns != Columns():
            raise ValueError(
                "columns: the run that the rows are from says which column holds what; accepted: with path"
            )
        if twice := find_twice(self.column_names or ()):
            raise ValueError(f"column_names: two columns are named {twice!r}")
        return self

    @property
    def input_run(self) -> str | None:
        """The run that the rows are from."""
        return self.from_run

    @model_validator(mode="after")
    def _resizes(self) -> Self:
        fields = type(self).model_fields
        named = [name for name in _RESIZING if getattr(self, name) != fields[name].default]
        if named and self.image_size is None:
            raise ValueError(
                f"{named[0]}: images stay as they came where there is no image_size; accepted: with image_size, or a rule such as "
                "min_side >= 100"
            )
        return self

    _run: str = PrivateAttr("")  # the folder of the run that reads it
    _reuse: str | None = PrivateAttr(None)  # and of one that may have its shards

    def placed_in(self, run: str, reuse: str | None = None) -> Self:
        """Return the source as this run reads it, in whose folder its shards are by default, or that of another to begin with."""
        placed = self.model_copy()
        placed._run, placed._reuse = run, reuse
        return placed

    def place(self, name: str) -> tuple[RunStore, str]:
        """Return the store that a file of a shard is in, and its path there."""
        return (RunStore(self.store), name) if self.store else (RunStore(self._run), f"{POOL}/{name}")

    def places(self) -> list[str]:
        """Return the folders in which shards may be, that of the run to reuse last."""
        return [self.store] if self.store else [f"{run}/{POOL}" for run in (self._run, self._reuse) if run]

    def take(self, stem: str) -> bool:
        """Put a shard of the run to reuse into place, and return True, where that has it as its manifest says."""
        if self.store or not self._reuse:
            return False
        old, store = RunStore(self._reuse), RunStore(self._run)
        names = [f"{POOL}/{stem}{ending}" for ending in (".tar", ".parquet", "_stats.json")]
        found = [(name, find_digest(old, name)) for name in names if old.exists(name)]
        digests = [(name, digest) for name, digest in found if digest is not None]
        if len(digests) < len(names):
            return False
        for name, digest in digests:
            store.adopt(old, name, name, digest)
        return True

    def url_of(self, name: str) -> str:
        """Return where a file of a shard is."""
        store, path = self.place(name)
        return f"{store.url}/{path}"

    def row_fields(self) -> dict[str, Any]:
        """Return what determines the rows: of how servers are asked, what they may refuse."""
        fields = super().row_fields()
        for name in ("thread_count", "store", "from"):
            fields.pop(name, None)
        network = {name: getattr(self.network, name) for name in ("robots", "opt_out")}
        return fields | {"columns": self.columns.model_dump(exclude={"scores"}), "network": network}


class UrlsInput(InputFormat):
    """Rows of lists, and the images that their URLs give."""

    key = "urls"
    section = UrlsSource
    has_members = True
    downloads = True

    def plan(self, source: UrlsSource, embeddings: Sequence[PrecomputedEmbeddings], content: bool) -> PlannedSource:
        """List the files, and count their rows; nothing is downloaded."""
        for package in ("img2dataset", "protego"):
            if find_spec(package) is None:
                raise RecipeError(
                    f"input {source.name!r}: format urls needs the package {package}; install it with: pip install 'curate[img2dataset]'"
                )
        parts: list[InputPart] = []
        kinds: dict[pa.Schema, FileColumns] = {}
        for file in list_kept(source) if source.from_run else list_source(source, content):
            whole = InputPart(file.path, 0, file.fingerprint, (0, 0), 0)
            urls = _list(source, whole)
            _check_kind(source, urls)
            try:
                columns, rows = retry(lambda: describe_list(urls))  # noqa: B023
                _check_header(source, urls, columns)
                found = _find(source, columns)
            except InputFault as fault:
                raise RecipeError(f"input {source.name!r}: {file.path}: {fault.detail}") from None
            except (pa.ArrowException, ValueError) as error:
                parts.append(replace(whole, fault=("unreadable_list", one_line(error, 300))))
                continue
            except OSError as error:
                parts.append(replace(whole, fault=("unreadable", one_line(error, 300))))
                continue
            if columns not in kinds:
                supplied = _file_columns(source, columns, found)
                kinds[columns] = see_columns(source, supplied) if source.from_run else supplied
            most = source.number_sample_per_shard
            for first in range(0, rows, most):
                count = min(most, rows - first)
                parts.append(replace(whole, groups=(first, first + count), rows=count, size=count * BYTES))
        if parts and not kinds:
            assert parts[0].fault is not None
            raise RecipeError(
                f"input {source.name!r}: none of {len(parts)} lists can be read: {parts[0].path}: {parts[0].fault[1]}"
            )
        return PlannedSource(tuple(parts), tuple(kinds.values()))

    def share(self, source: UrlsSource, parts: Sequence[InputPart], run: RunStore) -> None:
        """Put lists that are not Parquet there, as such."""
        for part in {part.path: part for part in parts if not part.fault}.values():
            share_list(_list(source, part), run)

    def fetch(self, source: UrlsSource, parts: Sequence[InputPart]) -> None:
        """Download what is not there yet. Raises OSError, RecipeError."""
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="shard") as pool:
            list(pool.map(lambda part: _shard(source, part), [part for part in parts if not part.fault]))

    def fetched(self, source: UrlsSource, parts: Sequence[InputPart]) -> list[tuple[Source, frozenset[InputPart]]]:
        """List the places of shards once, not shard by shard."""
        return [(source.model_copy(update={"store": place}), frozenset(some)) for place, some in _there(source, parts)]

    def outlook(self, source: UrlsSource, parts: Sequence[InputPart]) -> Outlook:
        """Go by what shards say that are there: of these parts, else any."""
        places = _there(source, parts)
        there = {part for _, some in places for part in some}
        left = [part for part in parts if part not in there and not part.fault]
        own = [(RunStore(place), [shard_stem(number) for number in some.values()]) for place, some in places]
        own.sort(key=lambda one: -len(one[1]))
        others = ((store, _shards_in(store)) for store, _ in own)
        measured = (measured_rates(store, stems) for store, stems in chain(own, others))
        rows, of_left = (sum(part.rows or 0 for part in some) for some in (parts, left))
        rates = next(filter(None, measured), None) or _assumed_rates(source, max(1, of_left) / max(1, len(left)))
        return Outlook(rows, of_left, len(left), _AT_ONCE, rates)

    def read(self, source: UrlsSource, part: InputPart, scores: pa.Schema, output: pa.Schema | None) -> Iterator[Batch]:
        """Read a shard, with the columns of its list."""
        number, rows = _shard(source, part), _rows(source, part)
        found = _find(source, rows.schema)
        keys = pa.array(keys_of(number, len(rows), source.number_sample_per_shard))
        texts = {
            name: valid_text(rows[column].combine_chunks())
            for name in ("caption", "url", "uid", "language")
            if (column := getattr(found, name))
        }
        left_out = pa.array(self.left_out_keys(source, part), pa.string())
        tar = InputPart(source.url_of(self.shard(source, part)), 0, "", listing_fingerprint="there")
        # Of rows that never come, too
        texts["uid"] = ids.make_uids(texts.get("uid"), texts["url"], None, texts["caption"])
        for whole in _TARS.read(_tar_source(source, tar.path), tar, pa.schema([]), None):
            stay = ~np.asarray(pc.is_in(whole.columns["key"], left_out))
            batch = whole if stay.all() else _only(whole, stay)
            places = pc.index_in(batch.columns["key"], keys)
            if places.null_count:
                raise InputFault("damaged_tar", f"{tar.path}: has samples that are not of its list")
            columns = batch.columns | {name: column.take(places) for name, column in texts.items()}
            supplied = {name: rows[name].take(places) for name in scores.names if name in rows.schema.names}
            yield replace(batch, columns=columns, scores=supplied)

    def reread(self, source: UrlsSource, part: InputPart, rows: PartRows) -> Iterator[InputSample]:
        """Read the members of samples by their offsets."""
        path = source.url_of(self.shard(source, part))
        return _TARS.reread(_tar_source(source, path), replace(part, path=path), rows)

    def reread_images(self, source: UrlsSource, part: InputPart, rows: PartRows) -> Iterator[bytes | None]:
        """Read images by their offsets."""
        path = source.url_of(self.shard(source, part))
        return _TARS.reread_images(_tar_source(source, path), replace(part, path=path), rows)

    def clear(self, source: UrlsSource, shard: str, keys: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[str]:
        """Make members zeros, and leave the keys alone in the Parquet file; in those of earlier rounds first, which know the URLs too."""
        from curate.download.shard import clear_samples, read_previous_keys

        store, stem = source.place(shard.removesuffix(".tar"))
        earlier: dict[str, list[str]] = {}
        for key in read_previous_keys(store, stem, keys):
            earlier.setdefault(f"{stem_of(key)}.tar", []).append(key)
        rewritten = [path for name, of_shard in earlier.items() for path in self.clear(source, name, of_shard, ())]
        rewritten += clear_samples(store, stem, keys, spans)
        return [] if source.store else rewritten

    def list_key(self, source: UrlsSource, part: InputPart) -> str:
        """Return the digest of the list and of what determines the rows of its shards."""
        return ids.digest([*_file(part), source.row_fields()])

    def list_row(self, source: UrlsSource, part: InputPart, key: str) -> int:
        """Return which row of its list the sample of a part with this key is."""
        assert part.groups is not None
        row = row_of(key, source.number_sample_per_shard)
        return part.retry.rows[row] if part.retry else part.groups[0] + row

    def retry_parts(self, source: UrlsSource, of: InputPart, retry: Retry, later: Collection[int]) -> list[InputPart]:
        """Return parts of as many rows as all others have."""
        parts, most = [], source.number_sample_per_shard
        for first in range(0, len(retry.rows), most):
            some = slice(first, first + most)
            rows, keys, attempts = retry.rows[some], retry.keys[some], retry.attempts[some]
            left_out = tuple(place for place, row in enumerate(rows) if row in later)
            part = replace(
                of, groups=(rows[0], rows[-1] + 1), retry=Retry(retry.round, rows, keys, attempts), left_out=left_out
            )
            parts.append(replace(part, rows=len(rows) - len(left_out), size=len(rows) * BYTES))
        return parts

    def left_out_keys(self, source: UrlsSource, part: InputPart) -> list[str]:
        """Return the keys of the samples that a part leaves out."""
        if not part.left_out:
            return []
        keys = keys_of(_number(source, part), part.left_out[-1] + 1, source.number_sample_per_shard)
        return [keys[row] for row in part.left_out]

    def read_attempts(self, source: UrlsSource, shard: str, keys: Sequence[str | None]) -> pa.Table:
        """Return schema.ATTEMPTS of samples, by the Parquet file beside their tar; null where it is missing."""
        store, stem = source.place(shard.removesuffix(".tar"))
        found = schema.ATTEMPTS.empty_table().append_column("key", pa.array([], pa.string()))
        if store.exists(f"{stem}.parquet"):
            found = store.read_parquet(f"{stem}.parquet", ["key", *schema.ATTEMPTS.names])
        return (
            found.take(pc.index_in(pa.array(keys, pa.string()), found["key"]))
            .select(schema.ATTEMPTS.names)
            .cast(schema.ATTEMPTS)
        )

    def shard(self, source: UrlsSource, part: InputPart) -> str:
        """Return the name of the shard in its store; that of a part is by what determines it, and one of no part is a name already."""
        return part.path if part.groups is None else f"{shard_stem(_number(source, part))}.tar"


def _tar_source(source: UrlsSource, path: str) -> WebdatasetSource:
    return WebdatasetSource(name=source.name, format=_TARS.key, path=path)


def _file(part: InputPart) -> list[str]:
    """Return what identifies the list that a part is of: its content, wherever it is, as far as that is known."""
    return [part.fingerprint] if part.fingerprint.startswith(SHA256) else [part.path, part.fingerprint]


def _number(source: UrlsSource, part: InputPart) -> int:
    """Return the number of a part's shard: of what determines it."""
    determining: list[Any] = [*_file(part), part.groups, source.row_fields()]
    determining += [part.retry.round, part.retry.rows] if part.retry else []
    return int(ids.digest(determining)[:15], 16) % NUMBERS


def _shard(source: UrlsSource, part: InputPart) -> int:
    """Return the number of a part's shard, which is downloaded unless it is there."""
    number = _number(source, part)
    store, stem = source.place(shard_stem(number))
    if not store.exists(f"{stem}_stats.json") and not source.take(shard_stem(number)):
        from curate.download.shard import Before, download_shard  # here: other pools have no use for what it imports

        rows = _with_url(source, _rows(source, part))
        before = Before(part.retry.keys, part.retry.attempts) if part.retry else None
        facts = download_shard(rows, number, store, stem, _fetcher(source), _check(source), _options(source), before)
        log_download(RunStore(source._run), shard_stem(number), facts)
    return number


def _there(source: UrlsSource, parts: Sequence[InputPart]) -> list[tuple[str, dict[InputPart, int]]]:
    """Return the places that shards may be in, each with those parts whose shard is there, and its number."""
    numbers = {part: _number(source, part) for part in parts if not part.fault}
    found = []
    for place in source.places():
        names = set(_shards_in(RunStore(place)))
        found.append((place, {part: number for part, number in numbers.items() if shard_stem(number) in names}))
    return found


def _assumed_rates(source: UrlsSource, urls: float) -> Rates:
    """Return assumptions for shards of so many URLs, on the average."""
    policy = source.network
    slowest = policy.attempts * source.timeout + sum(policy.pause * 2**n for n in range(policy.attempts - 1))
    return assumed_rates(urls, source.thread_count, slowest, source.image_size)


def _shards_in(store: RunStore) -> list[str]:
    return [name.removesuffix(STATISTICS) for name in store.names("") if name.endswith(STATISTICS)]


def _fetcher(source: UrlsSource) -> "Fetcher":
    """Return what fetches for a source, which all threads of the process share."""
    from curate.download.fetch import Fetcher

    key = ids.digest([source.network.model_dump(), source.disallowed_header_directives])
    return process_cache(f"fetcher {key}", lambda: Fetcher(source.network, source.disallowed_header_directives))


def _check(source: UrlsSource) -> Callable[[bytes], str | None]:
    """Return what says, in img2dataset's words, why bytes are no image, or one of too many pixels to be resized."""
    header = ImageOptions(decode=False)
    if source.max_image_area is not None:
        header = header.model_copy(update={"max_pixels": int(source.max_image_area)})

    def check(data: bytes) -> str | None:
        if not format_of(data[:64]):
            return f"Image decoding error: the bytes are no image of {', '.join(FORMATS)}"
        if source.image_size is not None and (facts := measure_image(data, header)).status == "too_many_pixels":
            return f"image area too large: {facts.error}"
        return None

    return check


def _options(source: UrlsSource) -> dict[str, Any]:
    """Return img2dataset's own options."""
    resizer = None
    if source.image_size is not None:
        values = {name: getattr(source, name) for name in ("image_size", *_RESIZING)}
        resizer = {name: math.inf if value is None else value for name, value in values.items()}
    return {
        "resizer": resizer,
        "thread_count": source.thread_count,
        "extract_exif": source.extract_exif,
        "timeout": source.timeout,
        "number_sample_per_shard": source.number_sample_per_shard,
        "compute_hash": source.compute_hash,
        "verify_hash_type": source.verify_hash and source.verify_hash[1],
        "encode_format": source.encode_format,
    }


def _list(source: UrlsSource, part: InputPart) -> UrlList:
    """Return the list that a part is of."""
    named = [getattr(source.columns, name) for name in _TEXTS]
    texts = frozenset(name.lower() for name in chain(*(COLUMN_NAMES[name] for name in _TEXTS), filter(None, named)))
    return UrlList(part.path, part.fingerprint, source.storage, source.column_names, texts)


def _check_kind(source: UrlsSource, urls: UrlList) -> None:
    """Raise RecipeError for a file that is no list, or whose columns have their names in it."""
    where = f"input {source.name!r}: {urls.path}"
    if urls.kind is None:
        accepted = f"accepted: {', '.join(f'.{name}' for name in KINDS)}, plain or with .gz, .bz2, .xz, .zst"
        if ".txt" in urls.path.lower():
            raise RecipeError(f"{where}: a list of URLs alone has no captions, by which rows are curated; {accepted}")
        raise RecipeError(f"{where}: no list of URLs by its name; {accepted}")
    if source.column_names and urls.kind not in TABULAR:
        raise RecipeError(
            f"{where}: {KINDS[urls.kind]} has names of columns of its own; accepted: column_names for CSV and TSV without a header line"
        )


def _check_header(source: UrlsSource, urls: UrlList, columns: pa.Schema) -> None:
    """Raise RecipeError where the first line of a list is not the names of its columns."""
    if urls.kind in TABULAR and (row := [name for name in columns.names if name.startswith(("http://", "https://"))]):
        raise RecipeError(
            f"input {source.name!r}: {urls.path}: its first line is no header but a row ({row[0][:80]!r}); name its "
            f"{len(columns)} columns in their order, such as column_names: [url, caption]"
        )


def _find(source: UrlsSource, columns: pa.Schema) -> Columns:
    """Return which columns hold what. Raises InputFault where one of URLs or captions is missing."""
    found = find_columns(columns, which_columns(source) if source.from_run else source.columns)
    if found.url is None:
        raise InputFault(
            "wrong_type", f"no column of URLs; columns: {', '.join(columns.names)}; name it with columns: {{url: NAME}}"
        )
    if source.verify_hash and source.verify_hash[0] not in columns.names:
        raise InputFault(
            "wrong_type", f"verify_hash: no column {source.verify_hash[0]!r}; columns: {', '.join(columns.names)}"
        )
    return found


def _file_columns(source: UrlsSource, columns: pa.Schema, found: Columns) -> FileColumns:
    """Return what lists with these columns supply."""
    supplied = frozenset(name for name in ("uid", "url", "language") if getattr(found, name))
    scores = found.scores or ()
    others = tuple(field.name for field in columns if field.name not in scores and score_type(field.type) is not None)
    return FileColumns(True, columns, supplied, scores, others if source.columns.scores is None else ())


def _rows(source: UrlsSource, part: InputPart) -> pa.Table:
    """Return a part's rows of its list, in plain types. Raises InputFault where the list is damaged, and OSError."""
    assert part.groups is not None
    try:
        urls, run = _list(source, part), RunStore(source._run) if source._run else None
        table = read_some_rows(urls, part.retry.rows, run) if part.retry else read_rows(urls, *part.groups, run)
    except (pa.ArrowException, ValueError) as error:
        raise InputFault("unreadable_list", one_line(error, 300)) from None
    table = table.cast(pa.schema([field.with_type(plain_type(field.type)) for field in table.schema]))
    return see_rows(source, table) if source.from_run else table


def _only(batch: Batch, stay: Mask) -> Batch:
    """Return some rows of a batch. What `fields` counts is of all: they have some name and type all the same."""
    rows, of_images = pa.array(stay), batch.images

    def images(wanted: Mask) -> Iterator[bytes | memoryview | None]:
        assert of_images is not None
        of_all = np.zeros(len(stay), bool)
        of_all[stay] = wanted
        return compress(of_images(of_all), stay)

    return replace(
        batch,
        columns={name: column.filter(rows) for name, column in batch.columns.items()},
        faults=batch.faults and (batch.faults[0].filter(rows), batch.faults[1].filter(rows)),
        images=of_images and images,
        members=batch.members and tuple(column.filter(rows) for column in batch.members),
    )


def _with_url(source: UrlsSource, rows: pa.Table) -> pa.Table:
    """Return the rows as img2dataset takes them: `url`, `caption` and, of the other columns, what its json has a word for."""
    found = _find(source, rows.schema)
    columns = {name: valid_text(rows[getattr(found, name)].combine_chunks()) for name in ("url", "caption")}
    if source.verify_hash:
        name, kind = source.verify_hash
        columns[kind] = valid_text(rows[name].combine_chunks())
    taken = {*_ITS_OWN, *columns, *filter(None, (found.url, found.caption, source.compute_hash))}
    taken |= {*INPUT_DECISIONS.values()} if source.from_run else {*()}
    for field in rows.schema:
        plain = (pa.types.is_string, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
        if field.name not in taken and any(test(field.type) for test in plain):
            columns[field.name] = rows[field.name].combine_chunks()
    return pa.table(columns)
