"""Items are found exactly: against Python's sets, with nulls, empty URLs and values that end in zero bytes."""

import hashlib

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from curate.store.items import KINDS, NOTHING, Items, hash_url, hex_of

few = st.sampled_from([bytes(16), b"\0" * 15 + b"\1", b"\1" + bytes(15), b"\xff" * 16, b"ab" + bytes(14)])
uid_sets = st.lists(few | st.binary(min_size=16, max_size=16), max_size=20)


@given(uid_sets, uid_sets)
def test_items_are_sets(left, right):
    one, other = Items.of({"uid": left}), Items.of({"uid": right})
    assert hex_of((one | other).uid) == sorted(value.hex() for value in {*left, *right})
    assert hex_of((one - other).uid) == sorted(value.hex() for value in {*left} - {*right})
    assert len(one) == len({*left})


@given(uid_sets, st.lists(st.none() | few, max_size=20))
def test_rows_are_found(items, rows):
    column = pa.chunked_array([pa.array([row and row.hex() for row in rows], pa.string())])
    found = Items.of({"uid": items}).find("uid", column).tolist()
    assert found == [row is not None and row in items for row in rows]


@given(st.lists(st.none() | st.sampled_from(["", "http://a", "http://ü", "http://a "]), max_size=10), st.integers(0, 3))
def test_urls_are_found_as_they_are_spelled(rows, skipped):
    column = pa.array(rows, pa.string())[min(skipped, len(rows)) :]
    items = Items.of({"url": [hash_url(url.encode()) for url in ("", "http://a", "http://ü")]})
    assert items.find("url", column).tolist() == [url in ("http://a", "http://ü") for url in column.to_pylist()]


def test_nothing_is_in_nothing():
    column = pa.array([hashlib.sha256(b"x").hexdigest(), None])
    assert not any(NOTHING.find(kind, column).any() for kind in KINDS) and len(NOTHING) == 0
    assert len(NOTHING.find("url", pa.array([], pa.string()))) == 0


@given(st.lists(st.sampled_from([b"a" * 31, b"b" * 31]) | st.binary(min_size=31, max_size=31), max_size=20))
def test_values_that_begin_alike_are_in_order(values):
    ends = [value + end for value in values for end in (b"\1", b"\0", b"\1")]
    assert hex_of(Items.of({"url": ends}).url) == sorted(value.hex() for value in {*ends})
