"""Table `regions` of a unit: where in the kept images the phrases of their captions are.

In: the unit's kept rows. Out: `schema.REGIONS`, one row a kept row: the regions, empty where nothing was found, and null
with a reason where the image could not be looked at or its caption is not English. A row whose digest (image, caption,
detector, options) stands in this run or in the one to reuse is not looked at again.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from curate import ids, schema
from curate.captions.engines import open_detector
from curate.captions.regions.phrases import noun_phrases
from curate.captions.regions.regions import find_regions, sample_phrases
from curate.captions.requests import Rows
from curate.pool.plan import Unit
from curate.pool.reader import UnitReader
from curate.run.context import RunContext

ENGLISH = "en"
NOT_ENGLISH = "language: the caption is not English"


def find_unit_regions(context: RunContext, unit: Unit, rows: Rows, key: str) -> None:
    """Write the unit's `regions`; `key` goes into the footer where no row failed."""
    assert context.recipe.captions is not None and context.recipe.captions.regions is not None
    options = context.recipe.captions.regions
    table = rows.table
    asked = [context.engine_ids["regions"], options.threshold, options.queries, context.recipe.seed]
    columns = (table[name].to_pylist() for name in ("uid", "sha256", "caption"))
    digests = [ids.digest([*row, *asked]) for row in zip(*columns, strict=True)]
    english = [language in (ENGLISH, None) for language in table["language"].to_pylist()]
    known = _known(context, unit)
    missing = np.array(
        [place for place, digest in enumerate(digests) if english[place] and digest not in known], np.int64
    )
    if len(missing):
        take = pa.array(missing)
        phrases = noun_phrases(rows.column("caption").take(take))
        phrases = sample_phrases(phrases, rows.column("uid").take(take), options.queries, context.recipe.seed)
        images = UnitReader(unit, context.source(unit), context.unit_tables(unit)).images(rows.rows[missing])
        regions, errors = find_regions(images, phrases, open_detector(options), options.threshold)
        for place, found, error in zip(missing.tolist(), regions.to_pylist(), errors.to_pylist(), strict=True):
            known[digests[place]] = found, error
    looked = [known[digest] if own else (None, NOT_ENGLISH) for own, digest in zip(english, digests, strict=True)]
    rows_out: dict[str, list[Any]] = {
        "uid": table["uid"].to_pylist(),
        "digest": digests,
        "regions": [found for found, _ in looked],
        "model": [context.engine_ids["regions"]] * len(digests),
        "error": [error for _, error in looked],
    }
    found = pa.table(rows_out, schema=schema.REGIONS)
    failed = any(map(is_failure, rows_out["error"]))
    note = {"content": ids.table_digest(found.select(["uid", "digest", "error"]))}
    context.write("regions", unit, found, "" if failed else key, note)


def is_failure(error: str | None) -> bool:
    """Whether a row's `error` says that looking failed: what is not English is not looked at, for good."""
    return error is not None and error != NOT_ENGLISH


def _known(context: RunContext, unit: Unit) -> dict[str, tuple[Any, str | None]]:
    """What was found before, by digest; what failed is looked at again, and so is what was not English."""
    known: dict[str, tuple[Any, str | None]] = {}
    tables = context.unit_tables(unit)
    for one in (tables.reuse, tables):
        if one is not None and one.exists("regions"):
            for row in one.read("regions").to_pylist():
                if row["error"] is None:
                    known[row["digest"]] = row["regions"], None
    return known
