"""A selection of another package that asks all units: runs, what-if, explain, the report and the card describe it."""

import json

import pytest
import yaml

from tests import kit
from tests.kit.commands import run_command
from tests.kit.packages import installed, lay_out

pytestmark = pytest.mark.slow

CODE = '''
from collections import Counter
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from curate.plugins import Choice, Fold, Section, Selection, SelectionWords, hash_uids


class EverySection(Section):
    """Every k-th row by hash, in each source."""

    k: int = Field(ge=1)


@dataclass(frozen=True)
class EveryChoice(Choice):
    k: int
    left: dict

    def inclusion(self, rows):
        return np.full(len(rows), 1 / self.k)

    def draws(self, rows):
        salt = sum(map(ord, rows.source))
        return (hash_uids(rows.uids, rows.seed + salt) % np.uint64(self.k)).astype(np.float64)

    @property
    def label(self):
        return f"k = {self.k}"


class Every(Selection):
    key, section = "every", EverySection
    meaning = "not every k-th row by hash"

    def choose(self, units, section, run, counts):
        left = units.ask("Every: count", count, run, combine=Fold())
        return units.get("Every: choose", EveryChoice, section.k, left)

    def words(self, outcome):
        of = ", ".join(f"{n} of {source}" for source, n in sorted(outcome.choice.left.items()))
        return SelectionWords(
            kept=": its hash is a multiple of k",
            dropped="its hash is {draw} modulo k",
            card=f"one row in {outcome.section.k} by hash ({of}); seed {outcome.seed}",
            summary=[f"every: k = {outcome.section.k}"],
        )


def count(tables, state, run):
    yield Counter({state.unit.source: len(run.rows_left(tables, state))})


SELECTION = Every()
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder, kinds = tmp_path_factory.mktemp("every"), {"every": "curate_every:SELECTION"}
    return lay_out(folder, "curate-every", "selections", kinds, curate_every=CODE)


def command(site, *words):
    """Run a command in this process, with the packages there; return what it printed."""
    with installed(site):
        done = run_command(*map(str, words))
    assert done.status == 0, done.err
    return done.out + done.err


@pytest.fixture(scope="module")
def run(site, tmp_path_factory):
    """A run over two sources, which keeps one row in three."""
    folder = tmp_path_factory.mktemp("run")
    sources = [
        {"name": name, "format": "parquet", "path": kit.write_parquets(folder / name, kit.make_rows(300, seed), 2)}
        for seed, name in enumerate(("one", "two"))
    ]
    recipe = {"input": sources, "rules": {"words": "words > 3"}, "every": {"k": 3}, "max_failed": 1.0}
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    assert "every: k = 3" in command(site, "run", folder / "r.yaml", "--out", folder / "run")
    return kit.Ran(folder / "run")


def test_a_run_draws_by_it(site, run):
    left = run.counts["every"] + run.counts["kept"]
    assert abs(run.counts["kept"] - left / 3) < 4 * (left * 2 / 9) ** 0.5
    assert run.run["selection"]["key"] == "every"
    drawn = run.table("decisions").to_pylist()
    assert {row["draw"] for row in drawn if row["rule"] == "every"} == {1.0, 2.0}
    assert {row["probability"] for row in drawn if row["kept"]} == {1 / 3}
    table = json.loads(command(site, "whatif", run.folder, "--set", "every.k=2", "--format", "json"))
    kept = next(row for row in table if (row["section"], row["name"]) == ("funnel", "kept"))
    assert kept["whatif"] == pytest.approx(left / 2)
    assert "k = 2" in command(site, "whatif", run.folder, "--set", "every.k=2")
    assert f"{left:,}" in command(site, "whatif", run.folder, "--set", "every=null")


def test_explain_report_and_card_say_why(site, run):
    rows = run.table("decisions").to_pylist()
    dropped = next(row for row in rows if row["rule"] == "every")
    text = f"dropped by every, its hash is {int(dropped['draw'])} modulo k"
    assert text in command(site, "explain", run.folder, dropped["uid"])
    kept = next(row for row in rows if row["kept"])
    assert "kept: its hash is a multiple of k" in command(site, "explain", run.folder, kept["uid"])
    assert "one row in 3 by hash" in (run.folder / "README.md").read_text()
    command(site, "report", run.folder)
    assert "not every k-th row by hash" in (run.folder / "report.html").read_text()
    assert "with k = 3" in command(site, "plan", run.folder.parent / "r.yaml")
