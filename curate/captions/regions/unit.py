"""Table `regions` of a unit: where in the kept images the phrases of their captions are.

In: the unit's kept rows. Out: `schema.REGIONS`, one row a kept row: the regions, empty where nothing was found, and null
with a reason where the image could not be read or its caption is not English. Regions of a row are cached by its digest
(image, caption, detector, options), in this run and in the one to reuse.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from curate import ids, schema
from curate.captions.engines import open_detector
from curate.captions.regions.phrases import noun_phrases
from curate.captions.regions.regions import find_regions, sample_phrases
from curate.captions.rows import Rows
from curate.captions.settings import CaptionSettings
from curate.pool.reader import UnitReader
from curate.store.tables import UnitTables

ENGLISH = "en"
NOT_ENGLISH = "language: the caption is not English"


def find_unit_regions(settings: CaptionSettings, tables: UnitTables, images: UnitReader, rows: Rows, key: str) -> None:
    """Write the unit's `regions`; `key` goes into the footer where no row failed."""
    options = settings.captions.regions
    assert options is not None
    model = settings.engine_ids["regions"]
    table = rows.table
    asked = [model, options.threshold, options.queries, settings.seed]
    columns = (table[name].to_pylist() for name in ("uid", "sha256", "caption"))
    digests = [ids.digest([*row, *asked]) for row in zip(*columns, strict=True)]
    english = [language in (ENGLISH, None) for language in table["language"].to_pylist()]
    known, failed = _read_known(tables), {}
    wanted = [place for place, digest in enumerate(digests) if english[place] and digest not in known]
    if wanted:
        missing = np.array(wanted, np.int64)
        phrases = noun_phrases(rows.column("caption").take(pa.array(missing)))
        phrases = sample_phrases(phrases, rows.column("uid").take(pa.array(missing)), options.queries, settings.seed)
        files = images.images(rows.rows[missing])
        found = find_regions(files, phrases, open_detector(options, model), options.threshold)
        for place, regions, error in zip(wanted, *(column.to_pylist() for column in found), strict=True):
            known[digests[place]], failed[digests[place]] = regions, error
    errors = [failed.get(digest) if own else NOT_ENGLISH for own, digest in zip(english, digests, strict=True)]
    own_regions = [known[digest] if own else None for own, digest in zip(english, digests, strict=True)]
    made = pa.table([table["uid"], digests, own_regions, [model] * len(digests), errors], schema=schema.REGIONS)
    note = {"content": ids.table_digest(made.select(["uid", "digest", "error"]))}
    tables.write("regions", made, "" if any(map(is_failure, errors)) else key, note)


def is_failure(error: str | None) -> bool:
    """Return whether a row's `error` says that detection failed: what is not English is left out for good."""
    return error is not None and error != NOT_ENGLISH


def _read_known(tables: UnitTables) -> dict[str, Any]:
    """Return the regions that were found before, by digest, but for what failed or was not English."""
    known: dict[str, Any] = {}
    for of_unit in (tables.reuse, tables):
        if of_unit is not None and of_unit.exists("regions"):
            known |= {row["digest"]: row["regions"] for row in of_unit.read("regions").to_pylist() if not row["error"]}
    return known
