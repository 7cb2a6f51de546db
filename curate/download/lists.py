"""Lists of URLs: Parquet, CSV, TSV and JSON lines, plain or compressed, read by ranges of rows.

A list that is not Parquet is made one, on the disk of the machine, by the first that needs it in a process: only so can rows in
the middle be read without all before them.
"""

import atexit
import bisect
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from curate.process import process_cache

KINDS = {
    "parquet": "Parquet",
    "csv": "CSV",
    "tsv": "TSV",
    "jsonl": "JSON lines",
    "ndjson": "JSON lines",
    "json": "JSON lines",
}
_COMPRESSED = ("gz", "bz2", "xz", "zst")
_GROUP = 10_000  # rows of a row group


def kind_of(path: str) -> str | None:
    """Return which of KINDS a file is by its name; None for another."""
    suffixes = path.rpartition("/")[2].lower().split(".")[1:]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in KINDS else None


def describe_list(path: str, fingerprint: str, storage: dict[str, Any]) -> tuple[pa.Schema, int]:
    """Return a list's columns and the number of its rows. Raises pa.ArrowException where it is damaged, and OSError."""
    with _opened(path, fingerprint, storage) as file:
        return file.schema_arrow.remove_metadata(), file.metadata.num_rows


def read_rows(path: str, fingerprint: str, storage: dict[str, Any], first: int, stop: int) -> pa.Table:
    """Return some rows of a list. Raises pa.ArrowException where it is damaged, and OSError."""
    with _opened(path, fingerprint, storage) as file:
        ends: list[int] = []
        for group in range(file.num_row_groups):
            ends.append(file.metadata.row_group(group).num_rows + (ends[-1] if ends else 0))
        begin = bisect.bisect_right(ends, first)
        end = bisect.bisect_left(ends, stop) + 1
        table = file.read_row_groups(list(range(begin, min(end, len(ends)))), use_threads=False)
        return table.slice(first - (ends[begin - 1] if begin else 0), stop - first)


@contextmanager
def _opened(path: str, fingerprint: str, storage: dict[str, Any]) -> Iterator[pq.ParquetFile]:
    """Yield a list as a Parquet file."""
    if kind_of(path) != "parquet":
        path = process_cache(f"list {path} {fingerprint}", lambda: _convert(path, storage))
        storage = {}
    with fsspec.open(path, "rb", **storage) as opened:
        yield pq.ParquetFile(opened, pre_buffer=False)


@cache
def _folder() -> str:
    folder = tempfile.mkdtemp(prefix="curate-lists-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _convert(path: str, storage: dict[str, Any]) -> str:
    """Write a list as Parquet, and return where."""
    file, name = tempfile.mkstemp(".parquet", dir=_folder())
    os.close(file)
    kind = kind_of(path)
    import pyarrow.csv  # here: they take time that lists of Parquet need not
    import pyarrow.json

    with fsspec.open(path, "rb", compression="infer", **storage) as opened:
        if kind in ("csv", "tsv"):
            parse = pyarrow.csv.ParseOptions(delimiter="\t" if kind == "tsv" else ",", newlines_in_values=kind == "csv")
            batches = pyarrow.csv.open_csv(opened, parse_options=parse)
        else:
            batches = pyarrow.json.open_json(opened)
        with pq.ParquetWriter(name, batches.schema) as writer:
            for batch in batches:
                writer.write_batch(batch, row_group_size=_GROUP)
    return name
