"""The costs that `curate plan` estimates, and those of the run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import kit
from tests.kit.commands import run_command, write_pool

pytestmark = pytest.mark.thorough
STEPS = ("start", "measure", "match", "rules", "duplicates", "decide", "emit", "audit", "publish", "engine")
ROOT = Path(__file__).resolve().parents[2]
PRICE = "{price: 3600, source: mine, date: 2000-01-01}"


@pytest.mark.slow
def test_a_plan_holds_what_the_run_uses(tmp_path):
    write_pool(tmp_path)
    recipe, out = str(tmp_path / "tars.yaml"), str(tmp_path / "out")
    prices = tmp_path / "prices.yaml"
    prices.write_text(f"currency: EUR\nengines: {{local: {{core_hour: {PRICE}}}}}\n")
    said = run_command("plan", recipe, "--prices", str(prices), "--measure", "20").out
    page = {line.split()[0]: line for line in said.partition("core-seconds")[2].splitlines() if line.strip()}
    assert {"start", "publish", "in", "time", "shuffled", "storage"} <= page.keys()
    assert "engines.local.core_hour is from 2000-01-01" in said
    assert "missing prices" not in said
    subprocess.run([sys.executable, "-m", "curate", "run", recipe, "--out", out], check=True, cwd=ROOT)
    rows = json.loads(run_command("sql", out, "costs", "--format", "json").out)
    used = {row["what"]: row for row in rows}
    assert list(used) == ["run", *STEPS]
    for step in STEPS[1:-2]:  # other processes may slow this machine; `publish` ends after its time is logged
        low, high = page[step].partition("[")[2].partition("]")[0].split(", ")
        assert float(low) / 3 - 0.2 <= 3600 * used[step]["core_hours"] <= 3 * float(high) + 0.3, (step, page)
    for line, column, steps in (
        ("shuffled", "shuffled_bytes", {"duplicates", "emit", "audit"}),
        ("storage", "stored_bytes", {"measure", "match", "decide", "emit"}),
    ):
        low, high = map(bytes_of, page[line].partition("[")[2].partition("]")[0].split(", "))
        assert low <= used["run"][column] == sum(row[column] for row in rows[1:]) <= high
        parts = dict(re.findall(r"(\w+) ([\d.]+ [kM]?B)(?:,|$)", page[line].partition("]")[2].strip()))
        assert parts.keys() == steps
        for step, size in parts.items():
            assert used[step][column] == pytest.approx(bytes_of(size), rel=0.1), (step, column)
    assert used["run"]["memory_hours"] > 0


def bytes_of(text):
    number, unit = text.split()
    return float(number) * {"B": 1, "kB": 1e3, "MB": 1e6}[unit]


def test_a_finished_run_predicts_the_costs_of_another(pool, finished):
    out = finished["tars"][0]
    words = ("--reuse", str(out), "--rows", "1000000000", "--set", "balance.t=3")
    said = run_command("plan", str(pool / "tars.yaml"), *words).out
    assert f"from 60 rows of {out}" in said and "about 1,000,000,000" in said
    page = {line.split()[0]: line for line in said.partition("core-")[2].splitlines() if line.strip()}
    assert "measure" not in page and "match" not in page and "rules" in page  # the run reuses these tables


@pytest.mark.slow
def test_of_a_pool_that_grew_new_shards_are_counted(tmp_path):
    """If the pool gets new shards after a run, a plan and a run that reuse it measure only the rows of these shards."""
    tars = Path(kit.write_tars(tmp_path / "all", kit.make_samples(120), 10)).parent
    (pool := tmp_path / "pool").mkdir()
    (tmp_path / "recipe.yaml").write_text(
        "input: {name: pool, format: webdataset, path: pool/*.tar}\ndedup: {by: [uid]}\nmax_failed: 1.0\n"
    )
    recipe, old, new = (f"{tmp_path}/{name}" for name in ("recipe.yaml", "old", "new"))

    def add(*numbers):
        for number in numbers:
            (tars / f"{number:05d}.tar").rename(pool / f"{number:05d}.tar")

    add(0, 1, 3, 4, 5, 6, 8, 9)
    assert run_command("run", recipe, "--out", old, "--in-process").status == 0
    add(2, 7)
    said = run_command("plan", recipe, "--reuse", old, "--measure", "40").out
    assert re.search(r"samples +8 of 10 units done", said)
    assert run_command("run", recipe, "--out", new, "--reuse", old, "--in-process").status == 0
    query = "SELECT count(*) AS rows FROM samples WHERE regexp_matches(shard, '0000[27]')"
    [row] = json.loads(run_command("sql", new, query, "--format", "json").out)
    [line] = re.findall(r"^  measure .*", said, re.MULTILINE)
    counts = re.findall(r"× ([\d,]+) (units|rows)", line)
    assert counts and {*counts} <= {("2", "units"), (str(row["rows"]), "rows")}, (line, row)


def test_prices_are_checked_first(tmp_path):
    (tmp_path / "prices.yaml").write_text("currency: EUR\nengine: {}\n")
    result = run_command("plan", f"{tmp_path}/none.yaml", "--prices", f"{tmp_path}/prices.yaml")
    assert result.status == 2 and "line 2: engine: unknown key; did you mean 'engines'?" in result.err


@pytest.mark.slow
def test_a_part_that_cannot_have_so_few_rows_is_measured(pool):
    """The part's share of `balance.rows` is smaller than what t = 1 keeps."""
    result = run_command("plan", str(pool / "tars.yaml"), "--set", "balance={rows: 4}", "--measure", "20")
    assert result.status == 0, result.err
    page = {line.split()[0]: line for line in result.out.partition("core-seconds")[2].splitlines() if line.strip()}
    assert "emit" in page and page["run"].endswith("all of these steps")
