"""Groups of close pairs equal the components that a search through a graph finds."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.decide.dedup.groups import Groups, label_hashes, row_ids, row_keys
from tests.decide.dedup.naive import FULL, assert_forest, groups_of, naive_groups

EDGES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=20)


@given(EDGES, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_groups_are_components_in_any_order(pairs, rng):
    edges = np.array(pairs, np.uint64).reshape(-1, 2)
    expected = naive_groups(range(13), pairs)
    assert groups_of(edges) == expected
    turned = [pair if rng.random() < 0.5 else pair[::-1] for pair in pairs for _ in range(rng.choice([1, 2]))]
    rng.shuffle(turned)
    assert groups_of(np.array(turned, np.uint64).reshape(-1, 2)) == expected


@given(EDGES, st.integers(1, 4), st.sampled_from([0, 3, 1 << 20]))
def test_parts_joined_have_the_same_groups(pairs, n_parts, merge):
    edges = np.array(pairs, np.uint64).reshape(-1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.decide.dedup.groups._MERGE", merge)
        groups = Groups.join(map(Groups.of, np.array_split(edges, n_parts)))
    assert_forest(groups.edges)
    assert groups_of(groups) == groups_of(edges)


def test_labels_of_nodes_in_and_out_of_groups():
    groups = Groups.of(np.array([[9, FULL], [5, 9], [3, 3]], np.uint64))
    asked = np.array([0, 3, 5, 6, 9, FULL, FULL - 1], np.uint64)
    assert groups.label(asked).tolist() == [0, 3, 5, 6, 5, 5, FULL - 1]
    assert Groups.of(np.zeros((0, 2), np.uint64)).label(asked).tolist() == asked.tolist()


def test_key_columns():
    groups = Groups.of(np.array([[8, 12]], np.uint64))
    column = pa.chunked_array([pa.array([12, None], pa.uint64()), pa.array([8, FULL], pa.uint64())])
    assert label_hashes(column, groups).to_pylist() == [8, None, 8, FULL]
    assert label_hashes(pa.array([], pa.uint64()), groups).to_pylist() == []
    nodes = np.concatenate([row_ids(1, np.array([0, 3])), row_ids(2, np.array([3]))])
    groups = Groups.of(np.array([[nodes[0], nodes[2]], [nodes[2], nodes[1]]]))
    assert row_keys(1, 4, groups).to_pylist() == [1 << 32, None, None, 1 << 32]
    assert row_keys(2, 4, groups).to_pylist() == [None, None, None, 1 << 32]
    assert row_keys(0, 2, groups).to_pylist() == [None, None]
