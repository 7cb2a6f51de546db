"""A new balancing scheme, a class among KINDS, through the pipeline, what-if, and explain."""

import math

import numpy as np
import pyarrow as pa
import pytest

from curate.api import Run
from curate.base.registry import _load
from curate.decide.draw import schemes
from curate.decide.draw.schemes import Scheme
from tests import kit
from tests.kit import metaclip
from tests.kit.whatif import whatif

ENTRIES = ["cat", "dog", "a", "photo", "big"]


class ByParity(Scheme):
    """Entries with even ids may have t rows, the others half of that."""

    key = "by_parity"

    def groups(self, entries):
        return np.arange(len(entries.table), dtype=np.int32) % 2

    def limits(self, ts, counts, entries):
        assert len(counts) == len(entries.table) and entries.table.column_names == ["entry", "source", "language"]
        return np.stack([np.asarray(ts), np.maximum(1, np.asarray(ts) // 2)], axis=1)

    def highest(self, counts, entries):
        return 2 * int(np.max(counts, initial=0)) + 1


@pytest.fixture
def by_parity(monkeypatch):
    monkeypatch.setattr(schemes, "KINDS", (*schemes.KINDS, ByParity()))
    _load.cache_clear()
    yield
    monkeypatch.undo()
    _load.cache_clear()


def limits_of(t):
    return {e: max(1, t // 2) if e % 2 else t for e in range(len(ENTRIES))}


@pytest.mark.thorough
@pytest.mark.parametrize("balance", [{"t": 20}, {"rows": 150}])
def test_a_new_scheme_balances_locally_as_on_beam(by_parity, tmp_path, balance):
    words = np.random.default_rng(5).choice(ENTRIES, (300, 3), p=[0.1, 0.2, 0.4, 0.25, 0.05])
    captions = [f"{' '.join(row)} {i}" for i, row in enumerate(words)]
    path = kit.write_parquets(tmp_path / "pool", pa.table({"caption": captions}), 3)
    match = {"metadata": kit.write_metadata(tmp_path, ENTRIES)}
    recipe = kit.recipe_of(path, "parquet", match=match, balance={"scheme": "by_parity"} | balance)
    run = kit.run_beam(recipe, tmp_path / "beam")
    assert kit.run_local(recipe, tmp_path / "local").table("decisions").equals(run.table("decisions"))
    matches, t = run.table("matches")["entry_ids"].to_pylist(), run.run["t"]
    entries = run.table("entries").to_pylist()
    counts = [row["survivors"] for row in entries]
    expected = [limit / max(counts[e], limit) for e, limit in limits_of(t).items()]
    assert [row["probability"] for row in entries] == pytest.approx(expected)
    pi = [metaclip.inclusion(row, counts, limits_of(t)) for row in matches]
    assert run.table("decisions")["probability"].to_pylist() == pytest.approx(pi)
    if "rows" in balance:  # the largest t that gives at most the target
        assert sum(pi) <= 150 < sum(metaclip.inclusion(row, counts, limits_of(t + 1)) for row in matches)

    folder = str(run.folder)
    found = whatif(folder, [])
    assert found.is_same and found.t == t and found.expected == pytest.approx(sum(pi), abs=1e-6)
    assert whatif(folder, ["balance={scheme: by_parity, rows: " + f"{math.ceil(sum(pi))}}}"]).t >= t
    row = next(row for row in run.table("decisions").to_pylist() if row["rule"] == "balance")
    assert f"its draw u/p = {row['draw']:.6g} is not below 1" in str(Run(folder).explain(row["uid"]))
