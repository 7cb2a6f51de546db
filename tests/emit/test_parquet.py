"""Shards of Parquet: all columns of a pool without images, and the uid."""

import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pytest

from tests.base.uids import content_uid
from tests.emit.written import STATS, emitted, parquets, sidecars
from tests.kit.written_runs import run_query


def test_imageless_pools_give_parquet_with_all_columns(tmp_path):
    own = "0123456789abcdef" * 2
    when = dt.datetime(2024, 5, 6, 7, 8, 9, tzinfo=dt.UTC)
    one = pa.table({
        "URL": ["http://x/1", "http://x/2", "http://x/3"], "TEXT": ["alpha one", "beta", "gamma three"],
        "site": pa.array(["a.example", None, "b.example"]).dictionary_encode(),
        "nested": pa.array([[{"a": 1, "b": ["x"]}], [], None]),
        "when": pa.array([when, None, when], pa.timestamp("us", "UTC")),
        "n": pa.array([1, 2, None], pa.int8()), "__index_level_0__": pa.array([5, 6, 7], pa.int64()),
    })  # fmt: skip
    two = pa.table({
        "uid": [own, None], "TEXT": ["delta four", "epsilon five"], "URL": ["http://x/4", "http://x/5"],
        "n": pa.array([70_000, -1], pa.int32()), "clip": pa.array([0.25, float("nan")], pa.float32()),
    })  # fmt: skip
    sources = parquets(tmp_path / "pool", one, two, group=2)
    ran = emitted(tmp_path / "run", sources, 3, rules={"words": "words > 1"})
    table = sidecars(ran)
    assert set(table.column_names) == {*one.column_names, *two.column_names, "probability"}
    rows = table.to_pylist()
    uids = [content_uid(f"http://x/{i}", None, text) for i, text in ((1, "alpha one"), (3, "gamma three"))]
    assert [row["uid"] for row in rows] == [*uids, own, content_uid("http://x/5", None, "epsilon five")]
    assert [row["TEXT"] for row in rows] == ["alpha one", "gamma three", "delta four", "epsilon five"]
    assert [row["nested"] for row in rows] == [[{"a": 1, "b": ["x"]}], None, None, None]
    assert [row["when"] for row in rows] == [when, when, None, None]
    assert [row["site"] for row in rows] == ["a.example", "b.example", None, None]
    assert [row["n"] for row in rows] == [1, None, 70_000, -1]
    assert table.schema.field("n").type == pa.int32()
    assert [row["__index_level_0__"] for row in rows] == [5, 7, None, None]
    assert rows[2]["clip"] == 0.25 and np.isnan(rows[3]["clip"])
    assert json.loads((ran.folder / "shards/sizes.json").read_text()) == {"00000.parquet": 3, "00001.parquet": 1}
    assert set(json.loads((ran.folder / "shards/00001_stats.json").read_text())) == STATS
    assert not list(ran.folder.glob("shards/*.tar"))


def test_a_uid_is_added_only_where_there_is_none(tmp_path):
    with_uid = pa.table({"uid": [f"{i:032x}" for i in range(3)], "text": ["a", "b", "c"]})
    ran = emitted(tmp_path / "has", parquets(tmp_path / "q", with_uid))
    assert sidecars(ran).drop_columns("probability").equals(with_uid)
    without = with_uid.select(["text"])
    ran = emitted(tmp_path / "lacks", parquets(tmp_path / "r", without))
    assert sidecars(ran).select(["text"]).equals(without)
    assert sidecars(ran)["uid"].to_pylist() == [content_uid(None, None, text) for text in "abc"]


@pytest.mark.parametrize(
    "values", [["AB" * 16, "CD" * 16, "EF" * 16], ["ab" * 16, "short", None], [1, 2, 3], [None] * 3]
)
def test_the_uid_is_curates_whatever_the_input_calls_so(tmp_path, values):
    for name in ("uid", "UID"):
        table = pa.table({"text": ["a", "b", "c"], name: values})
        ran = emitted(tmp_path / name, parquets(tmp_path / f"{name}s", table))
        uids = ran.table("samples")["uid"].to_pylist()
        assert sidecars(ran)["uid"].to_pylist() == uids
        query = "SELECT uid FROM published SEMI JOIN kept USING (uid) ORDER BY uid"
        assert run_query(str(ran.folder), query).rows == [(uid,) for uid in sorted(uids)]
        if name == "UID":
            assert sidecars(ran)["UID"].equals(table["UID"])
