"""entries.parquet: the numbers of each entry, against counts made by hand and by a plain loop."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base import schema
from curate.decide.draw.balance import ONE
from curate.decide.draw.schemes.metaclip import Metaclip
from curate.publish.publish import write_entries
from curate.store.store import RunStore
from tests.laws.pools import make_rows, recipe_of, run_local, write_metadata, write_parquets

ENTRIES = ["dog", "hot dog", "写真", "never"]


METADATA = pa.table({"entry": ENTRIES, "source": ["words"] * 4, "language": ["en"] * 4})


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    """An empty run folder."""
    return RunStore(str(tmp_path))


POOL, SURVIVORS = np.array([9, 4, 2**40, 0], np.int64), np.array([8, 3, 2**40 - 1, 0], np.int64)
SUMS = np.array([[4 * ONE + ONE // 4, 3 * ONE, 1, 0], [4, 3, 1, 0]], np.int64)


def test_the_numbers_are_those_given(store: RunStore) -> None:
    write_entries(store, METADATA, POOL, SURVIVORS, SURVIVORS, SUMS, Metaclip(), 4)
    table = pq.read_table(store.path("entries.parquet"))
    assert table.schema.remove_metadata() == schema.ENTRIES
    assert table.drop(["probability", "expected"]).to_pydict() == {
        "entry_id": [0, 1, 2, 3],
        "entry": ENTRIES,
        "source": ["words"] * 4,
        "language": ["en"] * 4,
        "pool": POOL.tolist(),
        "survivors": SURVIVORS.tolist(),
        "kept": [4, 3, 1, 0],
    }
    assert table["probability"].to_pylist() == [0.5, 1.0, 4 / (2**40 - 1), 1.0]
    assert table["expected"].to_pylist() == [4.25, 3.0, 2.0**-32, 0.0]


def test_without_balance_every_probability_is_one(store: RunStore) -> None:
    write_entries(store, METADATA, POOL, SURVIVORS, SURVIVORS, SUMS, None, None)
    assert pq.read_table(store.path("entries.parquet"))["probability"].to_pylist() == [1.0] * 4


def test_equal_numbers_give_equal_bytes(store: RunStore) -> None:
    write_entries(store, METADATA, POOL, SURVIVORS, SURVIVORS, SUMS, Metaclip(), 4)
    first = store.read_bytes("entries.parquet")
    write_entries(store, METADATA, POOL, SURVIVORS, SURVIVORS, SUMS, Metaclip(), 4)
    assert store.read_bytes("entries.parquet") == first


@pytest.mark.parametrize("t", [3, None])
def test_a_run_counts_as_a_plain_loop_does(tmp_path: Path, t: int | None) -> None:
    """Rows of the pool before any rule; survivors after all of them; expected rows as the sum of π; kept rows."""
    path = write_parquets(tmp_path / "pool", make_rows(600), 3, 100)
    balance = {"balance": {"t": t}} if t else {}
    recipe = recipe_of(
        path, "parquet", match={"metadata": write_metadata(tmp_path)}, rules={"words": "words > 3"}, **balance
    )
    ran = run_local(recipe, tmp_path / "run")
    matches, decisions = ran.table("matches")["entry_ids"].to_pylist(), ran.table("decisions").to_pylist()
    table = ran.table("entries").to_pylist()
    pool, survivors, kept, expected = ([0] * len(table) for _ in range(4))
    for found, row in zip(matches, decisions, strict=True):
        for entry in found:
            pool[entry] += 1
            survivors[entry] += row["kept"] or row["rule"] == "balance"
            kept[entry] += row["kept"]
            expected[entry] += round(Fraction(row["probability"]) * ONE)
    assert [row["pool"] for row in table] == pool and [row["survivors"] for row in table] == survivors
    assert [row["kept"] for row in table] == kept
    assert [row["expected"] for row in table] == [total / ONE for total in expected]
    assert all(k <= s <= p for k, s, p in zip(kept, survivors, pool, strict=True))
    if t:
        assert sum(kept) < sum(survivors) < sum(pool)
    else:
        assert kept == survivors == [row["expected"] for row in table]
