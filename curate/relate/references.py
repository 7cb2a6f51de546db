"""Rows of the pool that are chosen by a hash of their uids: the n smallest hashes, whatever the sharding.

Rows of one uid have one hash and count once: of several the one with the smallest bytes is taken.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.base.numeric.arrays import U64, distinct
from curate.relate.relation import Asking, EmbeddedRows
from curate.run.units import Answer, Fold

Chosen = tuple[U64, npt.NDArray[np.float16]]  # hashes, ascending, and of each its embeddings [n, sides, dimension]


def smallest_hashes(asking: Asking, what: str, seed: int, n: int) -> Answer[U64]:
    """Ask for the n smallest hashes of rows (uint64[n]), or all, where there are no more."""

    def hashes(rows: EmbeddedRows) -> Iterator[U64]:
        yield distinct(rows.hashes(seed))[:n]

    cut: Answer[U64] = asking.ask(
        f"{what}, hashes", hashes, combine=Fold(lambda a, b: distinct(np.concatenate([a, b]))[:n])
    )
    return cut


def rows_of(asking: Asking, what: str, seed: int, hashes: Answer[U64]) -> Answer[list[Chosen]]:
    """Ask for the rows with these hashes: what `join` makes one of."""

    def choose(rows: EmbeddedRows, hashes: U64) -> Iterator[Chosen]:
        of_rows = rows.hashes(seed)
        chosen = np.flatnonzero(np.isin(of_rows, hashes))
        if len(chosen):
            yield join([(of_rows[chosen], np.stack([side[chosen] for side in rows.sides], axis=1))])

    chosen: Answer[list[Chosen]] = asking.ask(what, choose, hashes)
    return chosen


def join(parts: Sequence[Chosen]) -> Chosen:
    """Return the rows of parts, which may share some, ascending by hash."""
    hashes = np.concatenate([part[0] for part in parts])
    sides = np.concatenate([part[1] for part in parts])
    data: Any = np.ascontiguousarray(sides.reshape(len(sides), -1)).view(f"V{sides[0].nbytes}")[:, 0]
    order = np.array(sorted(range(len(hashes)), key=lambda i: (hashes[i], data[i].tobytes())), np.int64)
    order = order[np.concatenate([[True], hashes[order][1:] != hashes[order][:-1]])]
    return hashes[order], sides[order]
