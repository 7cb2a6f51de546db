"""The smallest keys of each group, against a sort, whatever the parts, bits and rounds."""

from itertools import groupby

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curate.decide.draw import smallest
from curate.decide.draw.smallest import Keys
from tests.decide.draw.cuts import find

ROWS = st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 2**64 - 1) | st.integers(0, 9)), max_size=60)


def keys_of(rows):
    """Of (group, order), in which a row's place tells equal ones apart."""
    values = [(order, place % 3, place) for place, (_, order) in enumerate(rows)]
    return Keys(np.array(values, np.uint64).reshape(-1, 3), np.array([group for group, _ in rows], np.int64))


def taken(cut, keys):
    return list((cut.draws(keys, np.full(len(keys.groups), 0.5)) < 1).tolist())


@example([(0, 0)] * 5, [2] * 5, 2, 5)  # more rounds than keys have bits
@given(ROWS, st.lists(st.integers(0, 15), min_size=5, max_size=5), st.integers(1, 4), st.integers(1, 5))
def test_so_many_of_each_group(rows, wanted, parts, rounds):
    keys = keys_of(rows)
    pieces = [Keys(keys.values[i::parts], keys.groups[i::parts]) for i in range(parts)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(smallest, "_FEW", 2)  # so that rounds are not skipped
        cut = find(pieces, np.array(wanted), rounds)
    places = sorted(range(len(rows)), key=lambda place: (rows[place][0], *keys.values[place].tolist()))
    expected = set()
    for group, of_group in groupby(places, key=lambda place: rows[place][0]):
        expected |= set(list(of_group)[: wanted[group]]) if group >= 0 else set()
    assert [place for place, is_in in enumerate(taken(cut, keys)) if is_in] == sorted(expected)
    counts = np.bincount([group for group, _ in rows if group >= 0], minlength=5)
    assert cut.rows.tolist() == counts.tolist() and cut.taken.tolist() == np.minimum(counts, wanted).tolist()


def test_many_groups_take_few_bits_a_round():
    rng = np.random.default_rng(0)
    values = np.stack([rng.integers(0, 2**64, 50_000, np.uint64), *np.zeros((2, 50_000), np.uint64)], axis=1)
    keys = Keys(values, rng.integers(0, 9000, 50_000))
    cut = find([keys], np.full(9000, 3), 4)
    order = np.lexsort((values[:, 0], keys.groups))
    rank = np.empty(50_000, int)
    rank[order] = np.arange(50_000) - np.searchsorted(keys.groups[order], keys.groups[order])
    assert (np.array(taken(cut, keys)) == (rank < 3)).all()
