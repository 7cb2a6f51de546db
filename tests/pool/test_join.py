"""Joins find what a dictionary finds, for any kind of file and number of buckets, and refuse the rest."""

import gzip
import io

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from curate.base.errors import RecipeError, RunError
from curate.pool import join as module
from curate.pool.join import JoinTable, identify_join, open_join
from curate.publish.uids import sort_pairs, uid_pairs
from curate.recipe.source import Join


def write(path, table):
    """Write rows in the format that the name says."""
    if path.name.endswith(".parquet"):
        pq.write_table(table, path)
        return path
    sink = io.BytesIO()
    pcsv.write_csv(table, sink)
    pack = {".zst": zstandard.compress, ".gz": gzip.compress}.get(path.suffix, bytes)
    path.write_bytes(pack(sink.getvalue()))
    return path


def look_up(keys, path, on="key", **columns):
    """The join's columns for these keys."""
    join = Join(path=str(path), on=on, columns=columns)
    schema, digest = identify_join(join, "join")
    table = open_join(join, digest).look_up(pa.array(keys, pa.string()))
    assert table.schema == schema
    return table.to_pydict()


def refusal(path, on="key", columns=None):
    with pytest.raises(RecipeError) as caught:
        identify_join(Join(path=path, on=on, columns=columns or {"mine": "score"}), "input 'a': join.0")
    assert str(caught.value).startswith("input 'a': join.0")
    return str(caught.value)


def test_rows_are_found_by_key(tmp_path):
    table = pa.table({"key": ["00012", "00007", "x/1"], "score": [0.5, None, 2.0], "tag": ["a", "b", "c"]})
    for name in ("a.parquet", "a.csv", "a.csv.gz", "a.csv.zst"):
        path = write(tmp_path / name, table)
        found = look_up(
            ["x/1", None, "", "12", "00012", "00012", "00007"], path, mine="score", what="tag", listed="key"
        )
        assert found == {
            "mine": [2.0, None, None, None, 0.5, 0.5, None],
            "what": ["c", None, None, None, "a", "a", "b"],
            "listed": ["x/1", None, None, None, "00012", "00012", "00007"],
        }


KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=4)


@given(st.dictionaries(KEYS, st.integers(0, 9)), st.lists(KEYS), st.integers(1, 5))
def test_lookup_is_that_of_a_dictionary(rows, others, buckets):
    columns = pa.schema([("n", pa.int64())])
    items = list(rows.items())
    table = JoinTable("key", columns, buckets)
    batches = [
        (pa.array([k for k, _ in part], pa.string()), pa.table([pa.array([v for _, v in part], pa.int64())], columns))
        for part in (items[::2], items[1::2])
    ]
    assert table.fill(iter(batches)) is None
    asked = [*others, *rows]
    assert table.look_up(pa.array(asked, pa.string()))["n"].to_pylist() == [rows.get(key) for key in asked]


def test_files_of_several_buckets(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BUCKET", 100)
    urls = [f"https://example.com/{i}" for i in range(1000)]
    for n in range(2):
        rows = range(n * 500, n * 500 + 500)
        write(tmp_path / f"{n}.parquet", pa.table({"URL": [urls[i] for i in rows], "n": [i / (1 + n) for i in rows]}))
    found = look_up([*urls[::-1], "other"], tmp_path / "{0,1}.parquet", "url", n="n")["n"]
    assert found == [*(i / 2 for i in range(999, 499, -1)), *map(float, range(499, -1, -1)), None]


def test_uids_of_a_subset_file(tmp_path):
    """Also uids that share a half, in any case, as an input's own uids may: they are no hashes."""
    uids = [f"{high:016x}{low:016x}" for high in (0, 7) for low in (9, 3, 2**64 - 1)]
    path = write(tmp_path / "a.csv", pa.table({"uid": [uid.upper() for uid in uids], "n": range(6)}))
    asked = [*uids[::-1], f"{7:016x}{4:016x}", "f" * 32, f"{3:032x}"]
    assert look_up(asked, path, "uid", n="n") == {"n": [5, 4, 3, 2, 1, 0, None, None, 1]}
    np.save(tmp_path / "uids.npy", sort_pairs(uid_pairs(pa.array(uids))))
    found = look_up([uids[3], "f" * 32, None], tmp_path / "uids.npy", "uid", listed="uid")
    assert found == {"listed": [uids[3], None, None]}
    for version in ((2, 0), (3, 0)):
        with open(tmp_path / "uids.npy", "wb") as file:
            np.lib.format.write_array(file, sort_pairs(uid_pairs(pa.array(uids))), version)
        assert look_up([uids[3], "f" * 32, None], tmp_path / "uids.npy", "uid", listed="uid") == found
    np.save(tmp_path / "other.npy", np.zeros(3))
    assert "not an array of uids" in refusal(f"{tmp_path}/other.npy", "uid", {"listed": "uid"})


@pytest.mark.parametrize("rows_per_bucket", [1 << 20, 7])
def test_uids_that_repeat_in_lists(tmp_path, monkeypatch, rows_per_bucket):
    """In sorted and unsorted lists, counts add up over all files, for any number of buckets."""
    monkeypatch.setattr(module, "_BUCKET", rows_per_bucket)
    uids = [f"{i * 2**124 + i % 3:032x}" for i in range(16)]
    listed = [uid for i, uid in enumerate(uids[:12]) for _ in range(1 + i % 4)]
    np.save(tmp_path / "0.npy", sort_pairs(uid_pairs(pa.array(listed))))
    np.save(tmp_path / "1.npy", uid_pairs(pa.array([uids[3], uids[15], uids[3]])))
    expected = {uid: 1 + i % 4 for i, uid in enumerate(uids[:12])}
    first = look_up([*uids, None], tmp_path / "0.npy", "uid", listed="uid", times="times")
    assert first["listed"] == [*uids[:12], *[None] * 5]
    assert first["times"] == [expected.get(uid) for uid in [*uids, ""]]
    both = look_up(uids, tmp_path / "{0,1}.npy", "uid", n="times", again="times")
    assert both["n"] == both["again"] == [(expected | {uids[3]: 6, uids[15]: 1}).get(uid) for uid in uids]
    join = Join(path=f"{tmp_path}/0.npy", on="uid", columns={"n": "times"})
    assert identify_join(join, "join")[0] == pa.schema([("n", pa.int32())])


def test_where_uids_may_not_repeat(tmp_path):
    """Not in a list beside files with columns, whose rows would differ; these may have their own column `times`."""
    uid = f"{7:032x}"
    np.save(tmp_path / "0.npy", uid_pairs(pa.array([uid, uid])))
    write(tmp_path / "1.csv", pa.table({"uid": [f"{8:032x}"], "times": [5]}))
    columns = {"n": "times"}
    assert f"uid '{uid}' occurs twice" in refusal([f"{tmp_path}/0.npy", f"{tmp_path}/1.csv"], "uid", columns)
    assert look_up([f"{8:032x}"], tmp_path / "1.csv", "uid", n="times") == {"n": [5]}
    np.save(tmp_path / "0.npy", uid_pairs(pa.array([], pa.string())))
    assert look_up([uid], tmp_path / "0.npy", "uid", n="times", listed="uid") == {"n": [None], "listed": [None]}


def test_types_of_several_files_are_joined(tmp_path):
    write(tmp_path / "0.parquet", pa.table({"key": ["a"], "v": pa.array([1], pa.int32()), "t": pa.nulls(1)}))
    write(
        tmp_path / "1.parquet", pa.table({"key": ["b"], "v": [float("nan")], "t": pa.array(["x"]).dictionary_encode()})
    )
    found = look_up(["a", "b"], tmp_path / "*.parquet", v="v", t="t")
    assert found == {"v": [1.0, None], "t": [None, "x"]}
    write(tmp_path / "1.parquet", pa.table({"key": ["b"], "v": ["high"]}))
    assert "different types" in refusal(f"{tmp_path}/*.parquet", columns={"v": "v"})


REFUSED = [  # (rows of a.csv, on, columns, parts of the message)
    ("key,score\na,1\nb,2\na,1\n", "key", {"m": "score"}, ["key 'a' occurs twice: ", "a.csv (row 1) and ", "a.csv (row 3); accepted: one row for each key"]),
    ("key,score\na,1\n", "url", {"m": "score"}, ["no column url or image_url", "columns: key, score"]),
    ("key,score\na,1\n", "key", {"m": "scores"}, ["no column 'scores'", "did you mean 'score'?"]),
    ("uid,score\nabc,1\n", "uid", {"m": "score"}, ["a.csv, row 1: uid 'abc' is not 32 hex digits"]),
    ("key,score\na,1\nb\n", "key", {"m": "score"}, ["a.csv: cannot be read", "Expected 2 columns"]),
    ("key,score,score\na,1,2\n", "key", {"m": "score"}, ["a.csv has two columns 'score'"]),
    ("key,score,key\na,1,2\n", "key", {"m": "score"}, ["a.csv has two columns 'key'"]),
    ("", "key", {"m": "score"}, ["a.csv has 0 bytes", "accepted: Parquet, CSV, or a .npy of uids"]),
    ("PAR1, in name alone", "key", {"m": "score"}, ["a.csv: cannot be read"]),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "on", "columns", "parts"), REFUSED)
def test_refusals(tmp_path, rows, on, columns, parts):
    (tmp_path / "a.csv").write_text(rows)
    message = refusal(str(tmp_path / "a.csv"), on, columns)
    assert not [part for part in parts if part not in message], message


def test_files_that_are_missing_or_of_other_types(tmp_path):
    assert "no such file" in refusal(f"{tmp_path}/none.csv")
    for key, message in (
        (1, "'key' is int64; accepted: text"),
        ("a", "'score' is struct<a: int64>; accepted: numbers, text, booleans"),
    ):
        path = write(tmp_path / "a.parquet", pa.table({"key": [key], "score": [{"a": 1}]}))
        assert message in refusal(str(path))


def test_files_that_change_after_the_plan(tmp_path):
    path = write(tmp_path / "a.csv", pa.table({"key": ["changed"], "score": [1]}))
    join = Join(path=str(path), on="key", columns={"mine": "score"})
    before = identify_join(join, "join")[1]
    write(path, pa.table({"key": ["changed"], "score": [2]}))
    assert identify_join(join, "join")[1] != before
    with pytest.raises(RunError, match="changed since the run was planned"):
        open_join(join, "a digest that no process has read")


def test_files_that_hold_more_or_fewer_than_they_say(tmp_path):
    """A dictionary with one long text for all rows, and arrays that are shorter or longer than stated."""
    texts = pa.DictionaryArray.from_arrays(pa.array(np.arange(60_000, dtype=np.int32) * 0), pa.array(["x" * 1_000_000]))
    pq.write_table(pa.table({"key": [str(i) for i in range(60_000)], "a": texts}), tmp_path / "a.parquet")
    assert "unpacked, it has more than 1,610,612,736 bytes" in refusal(str(tmp_path / "a.parquet"), columns={"a": "a"})
    for held, what in (4, "1 fewer uids"), (6, "1 more uids"):
        np.save(tmp_path / "uids.npy", np.zeros(5, "u8,u8"))
        content = (tmp_path / "uids.npy").read_bytes()
        (tmp_path / "uids.npy").write_bytes((content + bytes(16))[: len(content) + 16 * (held - 5)])
        assert f"{what} than its header says" in refusal(str(tmp_path / "uids.npy"), "uid", {"times": "times"})
