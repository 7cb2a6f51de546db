"""Rows of URL lists: finds the columns, and prepares rows for img2dataset."""

from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.base.numeric.arrays import whole
from curate.base.schema import INPUT_DECISIONS
from curate.base.wording import one_line, pluralize
from curate.download.lists import KINDS, TABULAR, UrlList, describe_list, kind_of, read_rows
from curate.download.source import UrlsSource
from curate.pool.formats.found_files import FoundFiles, find_urls, is_url, name_columns, read_head, texts_of
from curate.pool.formats.input_format import FileColumns, InputPart, Recognized
from curate.pool.formats.parquet import rename
from curate.pool.formats.run import read_run
from curate.read.columns import COLUMN_NAMES, Columns, find_columns, is_any, valid_text
from curate.read.errors import InputError, retry
from curate.store.store import RunStore

_TEXTS = ("caption", "uid", "url", "language")
# From img2dataset's json, for rules: pixels before it resized the image
ORIGINAL = ("original_width", "original_height")
# img2dataset's names for its own columns
_IMG2DATASET = {"url", "caption", "key", "status", "error_message", "width", "height", *ORIGINAL, "exif"}


def list_of(source: UrlsSource, part: InputPart) -> UrlList:
    """Return the list that contains a part."""
    named = [getattr(source.columns, name) for name in _TEXTS]
    texts = frozenset(name.lower() for name in chain(*(COLUMN_NAMES[name] for name in _TEXTS), filter(None, named)))
    return UrlList(part.path, part.fingerprint, source.storage, source.column_names, texts)


def describe_rows(source: UrlsSource, part: InputPart) -> tuple[FileColumns, int]:
    """Return what the list of a part supplies, and its number of rows.

    Raises RecipeError if it is not a list or a column name is wrong; InputError if columns are missing;
    pa.ArrowException or ValueError if it is damaged, and OSError.
    """
    urls = list_of(source, part)
    _check_kind(source, urls)
    schema, rows = retry(partial(describe_list, urls), urls.path)
    _check_header(source, urls, schema)
    roles = find_in_list(source, schema)
    if not source.from_run:
        _check_urls(source, urls, roles)
    columns = FileColumns.of(schema, _named_columns(source))
    others = [name for name in ORIGINAL if source.image_size is not None and name not in schema.names]
    for name in others:
        schema = schema.append(pa.field(name, pa.int64()))
    supplied, nameable = columns.supplied & {"uid", "url", "language"}, (*columns.nameable, *others)
    columns = replace(columns, has_images=True, schema=schema, supplied=supplied, nameable=nameable)
    if source.from_run:
        run = read_run(source)
        columns = run.see_columns(replace(columns, schema=rename(schema.empty_table(), run.names).schema))
        run.check_probability([columns])
    return columns, rows


def _named_columns(source: UrlsSource) -> Columns:
    return read_run(source).columns if source.from_run else source.columns


def _check_kind(source: UrlsSource, urls: UrlList) -> None:
    if urls.kind is None:
        problem = "not a list of URLs"
        if ".txt" in urls.path.lower():
            problem = "a text file of URLs has no captions, which curate needs"
        kinds = ", ".join(f".{name}" for name in KINDS)
        raise source.error(f"{urls.path}: {problem}; accepted: {kinds}, plain or compressed (.gz, .bz2, .xz, .zst)")
    if source.column_names and urls.kind not in TABULAR:
        accepted = "accepted: column_names only for CSV and TSV without a header line"
        raise source.error(f"{urls.path}: {KINDS[urls.kind]} already has column names; {accepted}")


def _check_header(source: UrlsSource, urls: UrlList, columns: pa.Schema) -> None:
    if urls.kind in TABULAR and (row := next(filter(is_url, columns.names), None)):
        accepted = f"such as column_names: [{', '.join(_name_cells(columns.names))}]"
        problem = f"its first line is a row, not a header ({row[:80]!r})"
        raise source.error(f"{urls.path}: {problem}; name its {len(columns)} columns in order, {accepted}")


def _name_cells(row: list[str]) -> list[str]:
    """Return column names for a list without a header line, from its first row."""
    url = next(index for index, cell in enumerate(row) if is_url(cell))
    others = sorted((len(cell), index) for index, cell in enumerate(row) if index != url)
    names = {url: "url"} | ({others[-1][1]: "caption"} if others else {})
    return [names.get(index, f"column{index + 1}") for index in range(len(row))]


def _check_urls(source: UrlsSource, urls: UrlList, roles: Columns) -> None:
    head = read_head(urls.path, urls.storage, source.column_names)
    texts = {} if head is None else texts_of(head)
    values = texts.get(roles.url or "", [])
    if not values or any("://" in value for value in values):
        return
    problem = f"column {roles.url!r} has {values[0][:80]!r}, but no URL in the first {pluralize(len(values), 'row')}"
    accepted = "URLs that begin with http:// or https://"
    if holder := find_urls(texts):
        accepted = f"columns: {{url: {holder}}}"
        if source.column_names:
            swapped = {roles.url: holder, holder: roles.url}
            order = ", ".join(str(swapped.get(name, name)) for name in source.column_names)
            accepted = f"the names in the order of the columns, such as column_names: [{order}]"
    raise source.error(f"{urls.path}: {problem}; accepted: {accepted}")


def recognize_lists(listed: FoundFiles) -> Recognized | None:
    """Return how to read the lists among some files, from the first one; None if it has no URLs or no captions."""
    first = next(filter(kind_of, listed.names), "")
    suffix = f".{first.rpartition('/')[2].partition('.')[2].lower()}"
    keys: dict[str, Any] = {"path": listed.pattern(suffix), "network": {"contact": "you@example.org"}}
    head = read_head(first, listed.storage)
    if head is not None and any(map(is_url, head.column_names)):
        keys["column_names"] = _name_cells(head.column_names)
        head = head.rename_columns(keys["column_names"])
    texts = {} if head is None else texts_of(head)
    if head is None or not (url := find_urls(texts)) or (columns := name_columns(texts, url=url)) is None:
        return None
    keys |= {"columns": columns} if columns else {}
    return Recognized(keys, len(listed.ending(suffix)), "urls", tuple(head.column_names))


def find_in_list(source: UrlsSource, columns: pa.Schema) -> Columns:
    """Find the columns by their roles. Raises InputError if URLs or captions are missing."""
    roles, names = find_columns(columns, _named_columns(source)), columns.names
    if roles.url is None:
        detail = f"no column with URLs; columns: {', '.join(names)}; name it with columns: {{url: NAME}}"
        raise InputError("wrong_type", detail)
    if source.verify_hash and source.verify_hash[0] not in names:
        detail = f"verify_hash: no column {source.verify_hash[0]!r}; columns: {', '.join(names)}"
        raise InputError("wrong_type", detail)
    return roles


def read_list(source: UrlsSource, part: InputPart) -> pa.Table:
    """Return a part's rows of its list, in plain types. Raises InputError if the list is damaged, and OSError."""
    assert part.groups is not None
    try:
        urls, run = list_of(source, part), RunStore(source._run) if not source._is_alone else None
        table = read_rows(urls, part.retry.rows if part.retry else range(*part.groups), run)
    except (pa.ArrowException, ValueError) as error:
        raise InputError("unreadable_list", one_line(error, 300)) from None
    return rename(table, read_run(source).names) if source.from_run else table


def with_url(source: UrlsSource, rows: pa.Table) -> pa.Table:
    """Return the columns that img2dataset accepts: numbers, texts, booleans, times, `caption`, a hash, and `url`.

    Times become text, since JSON has no such type. Times in zones other than UTC are left out.
    """
    roles = find_in_list(source, rows.schema)
    verified: dict[str, str | None] = {source.verify_hash[1]: source.verify_hash[0]} if source.verify_hash else {}
    columns_of: dict[str, str | None] = {"caption": roles.caption, **verified, "url": roles.url}
    reserved = {*_IMG2DATASET, *columns_of, *columns_of.values(), source.compute_hash}
    reserved |= set(INPUT_DECISIONS.values()) if source.from_run else set()
    numbers, texts = (pa.types.is_integer, pa.types.is_floating), (pa.types.is_string, pa.types.is_large_string)
    fields = [f.name for f in rows.schema if is_any(f.type, *numbers, *texts, pa.types.is_boolean)]
    columns = {name: whole(rows[name]) for name in fields if name not in reserved}
    times = [f.name for f in rows.schema if is_any(f.type, pa.types.is_date, pa.types.is_timestamp)]
    times = [name for name in times if getattr(rows.schema.field(name).type, "tz", None) in (None, "UTC")]
    for name in times:
        if name not in reserved:  # 2024-05-18 01:58:10, without a fraction of 0
            columns[name] = pc.replace_substring_regex(whole(rows[name]).cast(pa.string()), r"\.0+(Z?)$", r"\1")
    return pa.table(columns | {name: valid_text(whole(rows[column])) for name, column in columns_of.items() if column})
