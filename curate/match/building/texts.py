"""Reads the texts of a part: articles of a dump, rows of Parquet, lines of JSON.

In: a part of a file. Out: texts, one after another. Parquet has a column `text` (string), as that of the data set
wikimedia/wikipedia; a line of JSON is an object with the key `text`, as wikiextractor writes it.
"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import fsspec
import orjson
import pyarrow as pa

from curate.base.decoded_size import MAX_DECODED, check_decoded, read_footer
from curate.base.errors import RunError
from curate.match.building.dumps import MAX_PAGE, Articles
from curate.match.building.parts import Part
from curate.match.building.wikitext import strip_markup


def read_texts(part: Part) -> Iterator[str]:
    """Yield the texts of a part. Raises RunError where the file is damaged."""
    try:
        with fsspec.open(part.path, "rb") as file:
            if part.kind == "dump":
                articles = Articles(file, part.path, part.start, part.stop)
                for text in articles:
                    yield strip_markup(text, articles.namespaces)
            elif part.kind == "parquet":
                footer = read_footer(file)
                for group in range(part.start, part.stop):
                    column = check_decoded(file, footer, [group], ["text"], MAX_DECODED).read_row_group(group, ["text"])
                    for text in column["text"]:
                        yield text.as_py() or ""
            else:
                yield from _read_lines(file, part.path)
    except (pa.ArrowException, EOFError, zlib.error, OSError) as error:
        raise RunError(f"{part.path}: damaged or cut off ({error}); download it again") from None


def _read_lines(file: Any, path: str) -> Iterator[str]:
    lines = gzip.GzipFile(fileobj=file) if path.lower().endswith(".gz") else file
    number = 0
    while line := lines.readline(4 * MAX_PAGE):
        number += 1
        record = None
        with suppress(orjson.JSONDecodeError):
            record = orjson.loads(line) if line.strip() else {"text": ""}
        if not isinstance(record, dict) or not isinstance(record.get("text"), str):
            what = f"line {number:,} is no JSON object with a text under the key text"
            raise RunError(f"{path}: {what}; accepted: a line a page, as wikiextractor --json writes it")
        yield record["text"]
