"""A selection of another package, of two files, built and installed: a run, what-if, explain, the report and the card speak of it.

The package has a statistic too.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests import kit
from tests.kit import forked
from tests.kit.packages import needs_hatchling

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.slow, needs_hatchling]

CODE = '''
"""Every k-th row by hash, in each source."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from curate.plugins import Choice, ExactSums, Fold, Section, Selection, SelectionWords, Statistic, hash_uids


class EverySection(Section):
    """Every k-th row by hash, in each source."""

    k: int = Field(description="One row in so many is kept.", ge=1)


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


class Share(Statistic):
    key = "share"

    def fit(self, values):
        return ExactSums.of(values)

    def parameters(self, sums):
        return {"sum": sums.mean * sums.rows}

    def apply(self, values, parameters):
        return values / parameters["sum"]


SELECTION = Every()
STATISTIC = Share()
'''
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "curate-every"
version = "1.0"

[project.entry-points."curate.selections"]
every = "curate_every:SELECTION"

[project.entry-points."curate.statistics"]
share = "curate_every:STATISTIC"

[tool.hatch.build.targets.wheel]
include = ["curate_every.py"]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the package, built and installed."""
    folder = tmp_path_factory.mktemp("every")
    (folder / "package").mkdir()
    (folder / "package" / "curate_every.py").write_text(CODE)
    (folder / "package" / "pyproject.toml").write_text(PROJECT)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--target", folder / "site", folder / "package"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


def curate(site, *arguments):
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), "COLUMNS": "200"}
    done = forked.run(*arguments, env=env, cwd=site)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def run(site, tmp_path_factory):
    """A run over two sources, which keeps one row in three."""
    folder = tmp_path_factory.mktemp("run")
    write_recipe(folder)
    said = curate(site, "run", str(folder / "r.yaml"), "--out", str(folder / "run"))
    assert "every: k = 3" in said
    return folder / "run"


def write_recipe(folder):
    sources = [
        {"name": name, "format": "parquet", "path": kit.write_parquets(folder / name, kit.make_rows(300, seed), 2)}
        for seed, name in enumerate(("one", "two"))
    ]
    recipe = {
        "input": sources,
        "derive": {"part": "share(words)"},
        "rules": {"words": "words > 3"},
        "every": {"k": 3},
        "max_failed": 1.0,
    }
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))


def test_a_run_keeps_what_it_says(site, run):
    facts = json.loads((run / "run.json").read_text())
    left = facts["counts"]["every"] + facts["counts"]["kept"]
    assert abs(facts["counts"]["kept"] - left / 3) < 4 * (left * 2 / 9) ** 0.5
    assert facts["selection"]["key"] == "every" and facts["packages"]["curate-every"] == "1.0"
    drawn = pq.read_table(sorted(run.glob("tables/decisions/*.parquet"))[0]).to_pylist()
    assert {row["draw"] for row in drawn if row["rule"] == "every"} == {1.0, 2.0}
    assert {row["probability"] for row in drawn if row["kept"]} == {1 / 3}
    assert "nothing differs" in curate(site, "verify", str(run))


def test_its_statistic_is_of_all_rows(run):
    tables = [
        pq.read_table(path).append_column("words", pq.read_table(str(path).replace("derived", "samples"))["words"])
        for path in sorted(run.glob("tables/derived/*.parquet"))
    ]
    rows = [row for table in tables for row in table.to_pylist() if row["part"] is not None]
    [statistic] = json.loads((run / "run.json").read_text())["derived"][0]["statistics"]
    assert statistic["function"] == "share" and statistic["sum"] > 0
    assert all(row["part"] == row["words"] / statistic["sum"] for row in rows)


def test_what_if_expects_what_a_run_keeps(site, run):
    facts = json.loads((run / "run.json").read_text())
    left = facts["counts"]["every"] + facts["counts"]["kept"]
    table = json.loads(curate(site, "whatif", str(run), "--set", "every.k=2", "--format", "json"))
    kept = next(row for row in table if (row["section"], row["name"]) == ("funnel", "kept"))
    assert kept["whatif"] == pytest.approx(left / 2)
    assert "k = 2" in curate(site, "whatif", str(run), "--set", "every.k=2")
    assert f"{left:,}" in curate(site, "whatif", str(run), "--set", "every=null")


def test_explain_report_and_card_say_why(site, run):
    rows = pq.read_table(sorted(run.glob("tables/decisions/*.parquet"))[0]).to_pylist()
    dropped = next(row for row in rows if row["rule"] == "every")
    said = curate(site, "explain", str(run), dropped["uid"])
    assert f"dropped by every, its hash is {int(dropped['draw'])} modulo k" in said
    kept = next(row for row in rows if row["kept"])
    assert "kept: its hash is a multiple of k" in curate(site, "explain", str(run), kept["uid"])
    assert "one row in 3 by hash" in (run / "README.md").read_text()
    curate(site, "report", str(run))
    assert "not every k-th row by hash" in (run / "report.html").read_text()
    plan = curate(site, "plan", str(run.parent / "r.yaml"))
    assert "every" in plan and "with k = 3" in plan


def test_a_finished_run_is_readable_without_the_package(run):
    uid = next(row["uid"] for row in pq.read_table(next(run.glob("tables/decisions/*"))).to_pylist() if row["kept"])
    for command in (["sql", str(run), "funnel"], ["explain", str(run), uid], ["verify", str(run)]):
        curate(run.parent, *command)


@pytest.mark.runners
def test_on_spark_it_is_the_same(site, run):
    pytest.importorskip("pyspark")
    out = run.parent / "spark"
    options = ["--runner=spark", "--spark_master_url=local[2]", "--spark_conf=spark.ui.enabled=false"]
    curate(site, "run", str(run.parent / "r.yaml"), "--out", str(out), "--", *options)
    assert (out / "uids.npy").read_bytes() == (run / "uids.npy").read_bytes()
