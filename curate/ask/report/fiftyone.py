"""Rows of a query with their images as a folder that FiftyOne opens: `curate sql RUN QUERY --fiftyone DIR`.

In: a run with images, and a query with a column `uid`. Out: `data/` with the original images, and `samples.json`, a
`fiftyone.types.FiftyOneDataset`: fields are the columns of the query, uid and caption; a tag says kept, or the rule.
"""

import json
import math
import os
from decimal import Decimal
from itertools import islice
from typing import Any

from curate.ask.output import Result
from curate.ask.report.look import samples_of, uid_column
from curate.ask.report.source import Run
from curate.ask.report.thumbnails import place_of, read_originals
from curate.base.errors import RecipeError
from curate.base.schema import KEPT

_TOGETHER = 256  # rows whose images are in memory
_RESERVED = ("id", "filepath", "tags", "metadata", "created_at", "last_modified_at")  # fields of FiftyOne's own


def export_rows(run: Run, result: Result, folder: str) -> tuple[int, int]:
    """Write a new folder of a query's rows; return how many samples it has, and how many rows have no readable image.

    Rows that share a uid are one sample. Raises RecipeError where the query yields no uid, the pool has no images, or
    the folder is not new or empty.
    """
    at = uid_column(result)
    if not run.has_images:
        accepted = "a run over tars, or over Parquet with images"
        raise RecipeError(f"--fiftyone: the pool of this run has no images; accepted: {accepted}")
    if os.path.isdir(folder) and os.listdir(folder):
        raise RecipeError(f"--fiftyone {folder}: holds {min(os.listdir(folder))!r}; accepted: a new or empty folder")
    os.makedirs(f"{folder}/data", exist_ok=True)
    samples: dict[str, dict[str, Any]] = {}
    missing, rows = 0, iter(result.rows)
    while batch := list(islice(rows, _TOGETHER)):
        known = samples_of(run, [row[at] for row in batch])
        images, _ = read_originals(run, list(known.values()))
        for row in batch:
            sample = known.get(row[at])
            data = images.get(place_of(sample)) if sample else None
            if sample is None or not data:
                missing += 1
            elif row[at] not in samples:
                path = f"data/{row[at]}.{sample['format'].replace('jpeg', 'jpg')}"
                with open(f"{folder}/{path}", "wb") as file:
                    file.write(data)
                values = zip(result.names, row, strict=True)
                fields = {_field(name): _value(value) for name, value in values if value is not None}
                standard = {"filepath": path, "tags": [sample["rule"] or KEPT], "caption": sample["caption"]}
                samples[row[at]] = fields | standard | {"uid": row[at]}
    with open(f"{folder}/samples.json", "w", encoding="utf-8") as file:
        json.dump({"samples": list(samples.values())}, file, ensure_ascii=False)
    return len(samples), missing


def _field(name: str) -> str:
    """Return the name of a column as FiftyOne takes it for a field."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name).lstrip("_") or "column"
    return f"{plain}_" if plain in _RESERVED else plain


def _value(value: Any) -> Any:
    """Return a value as JSON has it: what it has no word for as text, and numbers of SQL as plain ones."""
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_value(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _value(item) for key, item in value.items()}
    return str(value)
