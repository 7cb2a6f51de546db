"""Two columns computed from an image's width and height: the shorter side, and the aspect ratio.

`min_side` is numpy's minimum, as in DataComp. It is null if one side is unknown, while DuckDB's `least` ignores nulls.
"""

import pyarrow as pa
import pyarrow.compute as pc

SQL = {
    "min_side": "CASE WHEN width IS NOT NULL AND height IS NOT NULL THEN least(width, height) END",
    "aspect": "CASE WHEN width > 0 AND height > 0 THEN greatest(width, height) / least(width, height) END",
}
"""The same columns in SQL, by their names."""


def min_side(width: pa.ChunkedArray, height: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the shorter side, with the same type as the sides; null if one side is null."""
    shorter: pa.ChunkedArray = pc.min_element_wise(width, height, skip_nulls=False)
    return shorter


def aspect(width: pa.ChunkedArray, height: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the longer side / the shorter side (float64, at least 1); null if a side is null or not positive."""
    shorter = min_side(width, height).cast(pa.float64())
    ratio = pc.divide(pc.max_element_wise(width, height, skip_nulls=False).cast(pa.float64()), shorter)
    positive: pa.ChunkedArray = pc.if_else(pc.greater(shorter, pa.scalar(0.0)), ratio, pa.scalar(None, pa.float64()))
    return positive
