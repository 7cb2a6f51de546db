import hashlib

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from curate.base import ids
from curate.base.numeric.elementary import mix64
from tests.base.uids import content_uid

HEX = "0123456789abcdef"
hexes = st.text(HEX, min_size=32, max_size=32)
texts = st.text(st.characters(codec="utf-8"), max_size=12)


def test_own_uid():
    assert ids.own_uid("0123456789abcdef" * 2) == ids.own_uid("0123456789ABCDEF" * 2) == "0123456789abcdef" * 2
    for value in ("0" * 31, "0" * 33, "g" * 32, "0" * 32 + "\n", "٠" * 32, "", None, 5, b"0" * 32):
        assert ids.own_uid(value) is None


@given(st.lists(st.tuples(st.none() | texts, st.none() | texts), max_size=8), st.integers(0, 4))
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_columns_are_hashed_as_pairs(kind, rows, skip):
    """Of slices, with nulls in either column."""
    first, second = (pa.array([row[side] for row in rows], kind)[skip:] for side in (0, 1))
    hashes = ids.hash_pairs(first, second)
    pairs = [(a or "", b) for a, b in rows[skip:]]
    expected = [None if b is None else xxhash.xxh3_128_hexdigest(f"{a}\0{b}".encode()) for a, b in pairs]
    assert (hashes.type, hashes.to_pylist()) == (pa.string(), expected)


def test_texts_of_all_lengths_are_hashed_as_by_the_library():
    """The compiled hash has three paths and the library the rest: 17 to 128 bytes, to 240, less, more."""
    octets = np.random.default_rng(7).integers(32, 127, 700, np.uint8).tobytes().decode()
    texts = [octets[start : start + length] for start, length in enumerate(range(600))]
    hashes = ids.hash_pairs(pa.nulls(len(texts), pa.string()), pa.array(texts))
    assert hashes.to_pylist() == [xxhash.xxh3_128_hexdigest(b"\0" + text.encode()) for text in texts]


def test_nulls_that_own_bytes_are_hashed_as_empty():
    owned = pa.array(["one", "two"])
    first = pa.Array.from_buffers(pa.string(), 2, [pa.py_buffer(b"\x02"), *owned.buffers()[1:]])
    uids = ids.hash_pairs(first, owned).to_pylist()
    assert uids == [xxhash.xxh3_128_hexdigest(b"\0one"), xxhash.xxh3_128_hexdigest(b"two\0two")]
    assert ids.hash_pairs(owned, first).to_pylist() == [None, uids[1]]


own = st.none() | hexes | hexes.map(str.upper) | texts | hexes.map(lambda h: h[:-1]) | hexes.map(lambda h: h + "\n")
digests = st.none() | st.text(HEX, min_size=64, max_size=64)
rows = st.lists(st.tuples(own, st.none() | texts, digests, st.none() | texts), max_size=12)


@given(rows, st.integers(0, 3), st.integers(0, 7))
def test_uids_of_columns_equal_uids_of_rows(found, skip, absent):
    columns = [pa.array([row[i] for row in found], pa.string())[skip:] for i in range(4)]
    given_columns = [None if absent & 1 << i else column for i, column in enumerate(columns[:3])]
    uids = ids.make_uids(*given_columns, columns[3])
    uids.validate(full=True)
    assert uids.type == pa.string()
    expected = []
    for values in found[skip:]:
        own_value, url, sha256 = (None if absent & 1 << i else value for i, value in enumerate(values[:3]))
        caption = values[3]
        of_content = None if caption is None else content_uid(url, sha256, caption)
        expected.append(ids.own_uid(own_value) or of_content)
    assert uids.to_pylist() == expected


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=10))
def test_halves_and_back(pairs):
    high, low = (np.array([pair[i] for pair in pairs], np.uint64) for i in (0, 1))
    uids = ids.hex_uids(high, low)
    assert uids.to_pylist() == [f"{h:016x}{lo:016x}" for h, lo in pairs]
    for column in (uids, pa.chunked_array([uids[:3], uids[3:]]), uids.cast(pa.large_string())):
        found = ids.uid_halves(column)
        assert found[0].tolist() == high.tolist() and found[1].tolist() == low.tolist()


@given(st.lists(hexes | st.none(), max_size=10), st.integers(0, 4))
def test_halves_of_slices_with_nulls_and_upper_case(uids, skip):
    column = pa.array([uid and uid.upper() for uid in uids], pa.string())[skip:]
    high, low = ids.uid_halves(column)
    expected = [int(uid or "0", 16) for uid in uids[skip:]]
    assert [int(h) << 64 | int(lo) for h, lo in zip(high, low, strict=True)] == expected


def test_halves_of_what_is_no_uid():
    """Lower-casing by a bit would map control characters onto digits."""
    lengths, ends = ("0" * 31, "0" * 33, ""), ("0" * 31 + end for end in "éG/:")
    for bad in (*lengths, *ends, *(c * 32 for c in "g\x10\x11\x1a"), "A\x17" * 16):
        with pytest.raises(ValueError, match="is not 32 hex digits"):
            ids.uid_halves(pa.array(["0" * 32, bad, "1" * 32]))


def test_mix64_is_splitmix64():
    """The first outputs of splitmix64 seeded with 0, as published with the generator."""
    golden, mask = 0x9E3779B97F4A7C15, 2**64 - 1
    states = np.array([golden * n & mask for n in (1, 2, 3)], np.uint64)
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert mix64(states).tolist() == expected
    assert [int(mix64(state)) for state in states] == expected


@given(texts)
def test_entry_keys(text):
    expected = xxhash.xxh3_64_intdigest(text.encode())
    assert ids.hash64(text) == expected
    assert ids.entry_keys(pa.array([text])).tolist() == [expected]


def test_digest_knows_values_not_order():
    assert ids.digest({"a": 1, "b": [1, 2]}) == ids.digest({"b": [1, 2], "a": 1})
    different = [{"a": 1}, {"a": 2}, {"b": 1}, {"a": "1"}, {"a": None}, {"a": [1]}, {}, [], [[1], [2]], [[1, 2]]]
    assert len({ids.digest(value) for value in different}) == len(different)
    assert ids.own_uid(ids.digest("é")) == ids.digest("é")


def test_table_digest_knows_values_not_chunks():
    table = pa.table({"n": [1, 2, 3], "s": ["a", "bc", None]})
    pieces = pa.concat_tables([table[:1], table[1:]])
    assert ids.table_digest(pieces) == ids.table_digest(table)
    others = [
        {"n": [1, 2, 3], "s": ["ab", "c", None]}, {"n": [1, 2, 3], "s": ["a", "bc", ""]}, {"n": [1, 2], "s": ["a", "bc"]},
        {"m": [1, 2, 3], "s": ["a", "bc", None]}, {"n": [2, 1, 3], "s": ["a", "bc", None]},
        {"s": ["a", "bc", None], "n": [1, 2, 3]},
    ]  # fmt: skip
    assert len({ids.table_digest(pa.table(columns)) for columns in others} | {ids.table_digest(table)}) == 7


@given(st.lists(st.none() | texts), st.integers(0, 3))
def test_table_digest_is_that_of_its_definition(values, skipped):
    """Also of a slice, and of nulls that own bytes: of each column name, rows, lengths (-1 for null), and all text."""
    valid = pa.array([value is not None for value in values], pa.bool_())
    whole = pa.array(["owned" if value is None else value for value in values], pa.string())
    column = pa.Array.from_buffers(pa.string(), len(values), [valid.buffers()[1], *whole.buffers()[1:]])
    values = values[skipped:]
    octets = [(value or "").encode() for value in values]
    lengths = np.array([-1 if v is None else len(o) for v, o in zip(values, octets, strict=True)], "<i8").tobytes()
    expected = hashlib.sha256(f"s {len(values)}".encode() + lengths + b"".join(octets)).hexdigest()[:32]
    assert ids.table_digest(pa.table({"s": column})[skipped:]) == expected
