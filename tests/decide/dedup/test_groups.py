"""Groups of close pairs against a search through a graph, and which of a group's rows stays."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.base.ids import hex_uids
from curate.decide.dedup import exact
from curate.decide.dedup.groups import Groups, label_hashes, row_ids, row_keys
from tests.decide.dedup.naive import FULL, assert_forest, groups_of, hamming_groups, naive_groups

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


def test_row_ids_order_as_rows():
    units = [0, 1, 2**31 - 1]
    nodes = np.concatenate([row_ids(unit, np.array([0, 7, 2**31 - 1])) for unit in units])
    assert (np.diff(nodes.astype(object)) > 0).all()


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


# Winners, by way of `exact`


@dataclass(frozen=True)
class Row:
    uid: str
    sha256: str
    phash: int | None
    prefer: float | None = None


def survivors(rows, distance):
    """The uid that stands for each row after passes by uid, sha256 and close phash."""
    column = pa.array([row.phash for row in rows], pa.uint64())
    groups = hamming_groups(column.drop_null().to_numpy(), distance)
    columns = [pa.array([r.uid for r in rows]), pa.array([r.sha256 for r in rows]), label_hashes(column, groups)]
    prefer = exact.preferences(pa.array([row.prefer for row in rows], pa.float32()))
    content = np.zeros(len(rows), np.uint64)
    records = exact.make_records(0, np.arange(len(rows)), columns[0], columns, content, prefer)
    for i in range(len(columns)):
        records = exact.resolve(records, i)
    uids = hex_uids(records["rep_hi"], records["rep_lo"]).to_pylist()
    return [uid if dead else None for uid, dead in zip(uids, records["dead"], strict=True)]


def uid(number):
    return f"{number:032x}"


def test_the_smallest_uid_stays_and_null_takes_no_part():
    rows = [
        Row(uid(3 << 64), "a", 0b0), Row(uid(1), "b", 0b11), Row(uid(2), "c", 0b1111), Row(uid(0), "d", None),
        Row(uid(9), "e", FULL),
    ]  # fmt: skip
    assert survivors(rows, 2) == [uid(1), None, uid(1), None, None]
    assert survivors(rows, 1) == [None] * 5


def test_prefer_decides_and_ties_go_to_the_smallest_uid():
    rows = [Row(uid(1), "a", 0, 0.5), Row(uid(3), "b", 1, 0.9), Row(uid(2), "c", 3, 0.9), Row(uid(0), "d", 2, None)]
    assert survivors(rows, 1) == [uid(2), uid(2), None, uid(2)]


def test_a_loser_of_an_earlier_pass_follows_its_survivor():
    rows = [Row(uid(5), "a", 1 << 40), Row(uid(4), "a", 1 << 40), Row(uid(1), "b", 3 << 40)]
    assert survivors(rows, 1) == [uid(1), uid(1), None]
