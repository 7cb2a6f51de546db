"""What `curate plan` says of costs, and what the run then used."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import run_command, write_pool

pytestmark = pytest.mark.thorough
STEPS = ("start", "measure", "match", "rules", "duplicates", "decide", "emit", "audit", "publish", "engine")
ROOT = Path(__file__).resolve().parents[2]
PRICE = "{price: 3600, source: mine, date: 2000-01-01}"


@pytest.mark.slow
def test_a_plan_holds_what_the_run_uses(tmp_path: Path) -> None:
    write_pool(tmp_path)
    recipe, out = str(tmp_path / "tars.yaml"), str(tmp_path / "out")
    prices = tmp_path / "prices.yaml"
    prices.write_text(f"currency: EUR\nengines: {{local: {{core_hour: {PRICE}}}}}\n")
    said = run_command("plan", recipe, "--prices", str(prices), "--measure", "20").out
    page = {line.split()[0]: line for line in said.partition("core-seconds")[2].splitlines() if line.strip()}
    assert {"start", "publish", "in", "time", "shuffled", "storage"} <= page.keys()
    assert "engines.local.core_hour is of 2000-01-01" in said
    assert "missing prices" not in said
    subprocess.run([sys.executable, "-m", "curate", "run", recipe, "--out", out], check=True, cwd=ROOT)
    rows = json.loads(run_command("sql", out, "costs", "--format", "json").out)
    used = {row["what"]: row for row in rows}
    assert list(used) == ["run", *STEPS]
    for step in STEPS[
        1:-2
    ]:  # others may work on this machine, so that all takes longer; `publish` ends after it is told
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


def bytes_of(text: str) -> float:
    number, unit = text.split()
    return float(number) * {"B": 1, "kB": 1e3, "MB": 1e6}[unit]


def test_a_finished_run_tells_what_another_costs(tmp_path: Path) -> None:
    write_pool(tmp_path)
    recipe, out = str(tmp_path / "tars.yaml"), str(tmp_path / "out")
    assert run_command("run", recipe, "--out", out).status == 0
    said = run_command("plan", recipe, "--reuse", out, "--rows", "1000000000", "--set", "balance.t=3").out
    assert f"from 60 rows of {out}" in said and "about 1,000,000,000" in said
    page = {line.split()[0]: line for line in said.partition("core-")[2].splitlines() if line.strip()}
    assert "measure" not in page and "match" not in page and "rules" in page  # they are lent


def test_a_fault_of_prices_comes_first(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("currency: EUR\nengine: {}\n")
    result = run_command("plan", f"{tmp_path}/none.yaml", "--prices", f"{tmp_path}/prices.yaml")
    assert result.status == 2 and "line 2: engine: unknown key; did you mean 'engines'?" in result.err
