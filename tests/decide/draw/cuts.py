"""The search for what is taken, over parts of keys, as units would answer it."""

from collections.abc import Sequence

import numpy as np

from curate.base.numeric.arrays import I64
from curate.decide.draw.smallest import Cut, Keys, Search


def find(parts: Sequence[Keys], wanted: I64, rounds: int = 1) -> Cut:
    search = Search.of(Cut.wanting(wanted))
    for _ in range(rounds):
        if not search.solved:
            search = search.narrow(np.sum([search.count(part.values[:, 0], part.groups) for part in parts], axis=0))
    return search.cut([search.inside(part) for part in parts] if search.left else [])
