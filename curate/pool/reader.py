"""Input files read again, as they were when they were measured: what is put out, and what a model is shown.

The state that a file had is in the note of the unit's `samples`; another file in its place ends the run.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.pool.columns import Found
from curate.pool.formats.parquet import read_rows
from curate.pool.listing import check_state
from curate.pool.plan import Unit
from curate.run.context import RunContext


@contextmanager
def unchanged(context: RunContext, unit: Unit, path: str) -> Iterator[None]:
    """Raises RunError where an input file is another one than was measured, before or after it is read within."""
    states = context.note("samples", unit)["states"]
    piece, state = next(pair for pair in zip(unit.parts, states, strict=True) if pair[0].path == path)
    check_state(path, context.source(unit).storage, state, piece.fingerprint)
    yield
    check_state(path, context.source(unit).storage, state, piece.fingerprint)


def input_rows(context: RunContext, unit: Unit, places: npt.NDArray[np.int64]) -> Iterator[tuple[pa.Table, Found]]:
    """Rows of a Parquet unit, by their places (ascending), with all columns of the input, file by file; and what holds what."""
    first = 0
    for piece, rows in zip(unit.parts, context.note("samples", unit)["rows"], strict=True):
        here = places[(places >= first) & (places < first + rows)] - first
        first += rows
        if len(here):
            with unchanged(context, unit, piece.path):
                table, found = read_rows(piece, context.source(unit))
            yield table.take(pa.array(here)), found
