"""The search for what is taken, over parts of keys, as units would answer it."""

import numpy as np

from curate.decide.draw.smallest import Cut, Search


def find(parts, wanted, rounds=1):
    search = Search.of(Cut.wanting(wanted))
    for _ in range(rounds):
        if not search.solved:
            search = search.narrow(np.sum([search.count(part.values[:, 0], part.groups) for part in parts], axis=0))
    return search.cut([search.inside(part) for part in parts] if search.left else [])
