"""The image files of kept rows, read again from the inputs: what a vision-language model is shown.

Only what is asked for is read, batch by batch; bytes are as they came, and never cross a shuffle.
"""

from collections.abc import Iterator
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.pool.byte_sources import open_source
from curate.pool.formats.parquet import image_bytes
from curate.pool.plan import Unit
from curate.pool.reader import input_rows, unchanged
from curate.run.context import RunContext


def read_images(context: RunContext, unit: Unit, rows: npt.NDArray[np.int64]) -> Iterator[bytes | None]:
    """The image file of each row of the unit (ascending), None where it cannot be read any more."""
    if context.source(unit).format == "webdataset":
        return _of_tars(context, unit, rows)
    return _of_parquet(context, unit, rows)


def _of_tars(context: RunContext, unit: Unit, rows: npt.NDArray[np.int64]) -> Iterator[bytes | None]:
    places = context.read("samples", unit, ["shard", "offset", "bytes"]).take(pa.array(rows))
    triples = zip(*(places[name].to_pylist() for name in ("shard", "offset", "bytes")), strict=True)
    for shard, group in groupby(triples, key=lambda place: place[0]):
        with unchanged(context, unit, shard), open_source(shard, context.source(unit).storage) as opened:
            for _, offset, size in group:
                data = bytes(opened.read(offset, size))
                yield data if len(data) == size else None


def _of_parquet(context: RunContext, unit: Unit, rows: npt.NDArray[np.int64]) -> Iterator[bytes | None]:
    for table, found in input_rows(context, unit, rows):
        assert found.image is not None
        yield from image_bytes(table[found.image])
