"""A new balancing scheme, a class among KINDS, through the pipeline, what-if and explain."""

import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.api import Run
from curate.base.registry import _load
from curate.decide.draw import schemes
from curate.decide.draw.schemes import Scheme, stack_limits
from curate.match.unit import Entries
from curate.recipe.recipe import parse_recipe
from tests import kit
from tests.ask.whatif.asked import whatif
from tests.decide.by_parity import ByParity


@pytest.fixture
def by_parity(monkeypatch):
    monkeypatch.setattr(schemes, "KINDS", (*schemes.KINDS, ByParity()))
    _load.cache_clear()
    yield
    monkeypatch.undo()
    _load.cache_clear()


ROOT = Path(__file__).resolve().parents[3]
ENTRIES = ["cat", "dog", "a", "photo", "big"]


def asked(folder, **balance):
    rng = np.random.default_rng(5)
    words = rng.choice(ENTRIES, (300, 3), p=[0.1, 0.2, 0.4, 0.25, 0.05])
    captions = [f"{' '.join(row)} {i}" for i, row in enumerate(words)]
    for i in range(3):
        pq.write_table(pa.table({"caption": captions[100 * i : 100 * i + 100]}), folder / f"{i}.parquet")
    (folder / "entries.txt").write_text("\n".join(ENTRIES))
    source = {"name": "pool", "format": "parquet", "path": f"{folder}/*.parquet"}
    return parse_recipe({"input": source, "match": {"metadata": str(folder / "entries.txt")}, "balance": balance})


def expected_rows(matches, t):
    """The probability of each row and of each entry, by the definition."""
    counts = Counter(e for row in matches for e in row)
    limits = [max(1, t // 2) if e % 2 else t for e in range(len(ENTRIES))]
    p = [limit / max(counts[e], limit) for e, limit in enumerate(limits)]
    return [1 - math.prod(1 - p[e] for e in row) if row else 0.0 for row in matches], p


@pytest.mark.thorough
@pytest.mark.parametrize("balance", [{"t": 20}, {"t": 1}, {"rows": 150}, {"rows": 10_000}])
def test_a_new_scheme_balances_locally_as_on_beam(by_parity, tmp_path, balance):
    recipe = asked(tmp_path, scheme="by_parity", **balance)
    both = balance in ({"t": 20}, {"rows": 150})  # of each way to ask one
    beam = (kit.run_beam if both else kit.run_local)(recipe, tmp_path / "beam")
    if balance == {"t": 20}:
        assert kit.run_local(recipe, tmp_path / "local").table("decisions").equals(beam.table("decisions"))
    matches = beam.table("matches")["entry_ids"].to_pylist()
    t = beam.run["t"]
    pi, p = expected_rows(matches, t)
    assert beam.table("decisions")["probability"].to_pylist() == pytest.approx(pi)
    entries = pq.read_table(tmp_path / "beam" / "entries.parquet")
    assert entries["probability"].to_pylist() == pytest.approx(p)
    if "rows" in balance:  # the largest t that gives at most the target
        highest = 2 * max(entries["survivors"].to_pylist()) + 1
        fitting = [t for t in range(1, highest + 1) if sum(expected_rows(matches, t)[0]) <= balance["rows"]]
        assert t == max(fitting)
    if balance == {"t": 20}:
        assert 0 < beam.run["counts"]["balance"] < 300 and not np.allclose(
            p[1:4:2], [20 / max(20, c) for c in entries["survivors"].to_pylist()[1:4:2]]
        )
        assert beam.run["recipe"]["balance"] == {"t": 20, "rows": None, "scheme": "by_parity"}
        _check_questions(tmp_path / "beam", beam, sum(pi))


def _check_questions(folder, beam, expected):
    """What-if expects what the run did, and explain shows the draw that decided."""
    found = whatif(str(folder), [])
    assert found.t == 20 and found.expected == pytest.approx(expected, abs=1e-6)
    facts = {row["fact"]: (row["run"], row["whatif"]) for row in found.facts.to_pylist()}
    assert facts["whole_share"][0] == facts["whole_share"][1]
    assert facts["tail_share"][0] == facts["tail_share"][1]
    solved = whatif(str(folder), [f"balance.rows={math.ceil(found.expected)}"])
    assert solved.t is not None and solved.t >= 20
    row = next(row for row in beam.table("decisions").to_pylist() if row["rule"] == "balance")
    page = str(Run(str(folder)).explain(row["uid"]))
    assert f"its draw u/p = {row['draw']:.6g} is not below 1" in page
    smallest = next(line for line in page.splitlines() if "← smallest" in line)
    assert f"{row['draw']:.4g}" in smallest


def test_stacks_of_limits_are_those_of_each_t(monkeypatch):
    counts = np.arange(1, 8)
    entries = Entries(pa.table({"entry": ["e"] * 7, "source": ["s"] * 7, "language": ["l"] * 7}))
    monkeypatch.setattr(schemes, "STACK", 15)
    limits = ByParity().limits([1, 2, 5, 9, 30], counts, entries)
    stacks = list(stack_limits(limits, ByParity().groups(entries)))
    assert [len(stack) for stack in stacks] == [2, 2, 1]
    assert np.concatenate(stacks)[:, 1].tolist() == [1, 1, 2, 4, 15]
    [stack] = stack_limits(Scheme().limits([3, 4], counts, entries), Scheme().groups(entries))
    assert stack.tolist() == [[3], [4]]


def test_the_file_of_a_new_scheme_does_not_import_the_registry_that_imports_it():
    code = "import sys, tests.decide.by_parity; print('curate.decide.draw.registry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
