"""`curate demo` as a whole, and the folders that it does not touch."""

import re
from pathlib import Path

import pytest

from curate.ask.text_pages import render_page
from curate.base.errors import RecipeError
from curate.demo.pool import write_pool
from curate.demo.score import Caught, rate_rules
from tests.cli.shared import ask, tree


@pytest.mark.slow
@pytest.mark.usefixtures("without_beam")
def test_demo(cli, tmp_path, monkeypatch):
    """The pool is smaller than the usual one."""
    monkeypatch.setattr("curate.cli.demo.write_pool", lambda pool, samples, seed, shards: write_pool(pool, 150, 0, 4))
    out = tmp_path / "demo"
    done = cli("demo", "--out", str(out))
    assert done.status == 0 and f"--out {out}/run2 --reuse {out}/run" in done.out, done.err
    assert (out / "recipe.yaml").exists() and (out / "run/report.html").exists()
    assert cli("verify", str(out / "run")).status == 0
    aligned = [line.split() for line in done.out.splitlines() if line.startswith("aligned ")][-1]
    assert aligned[-1] == "100.0%" and int(aligned[-2]) > 0  # all wrong captions that were injected
    near = next(line.split() for line in done.out.splitlines() if line.startswith("near-duplicates among them "))
    assert int(near[-2]) >= 3 and float(near[-1].rstrip("%")) > 50
    [dropped] = re.findall(r"^reencoded .* duplicate (\d+)", done.out, re.MULTILINE)
    kinds = {kind["match_type"]: kind["dropped"] for kind in ask("sql", out / "run", "duplicate_kinds")}
    assert kinds["near"] == int(near[-4]) + int(dropped)
    again = cli("demo", "--out", str(out))
    assert again.status == 0 and "nothing to do" in again.out and "generating" not in again.err


def test_each_defect_lists_the_rules_that_dropped_it():
    rules = ["failed", "words", "duplicate", "kept"]
    caught = [Caught("repeated", 4, {"duplicate": 3, "kept": 1, "words": 0}), Caught("cropped", 2, {"words": 2})]
    text = str(render_page("demo", caught=caught, rules=rules, rates=rate_rules(caught, rules)))
    lines = [line.split() for line in text.splitlines() if line.startswith(("repeated ", "cropped "))]
    assert lines == [["repeated", "4", "duplicate", "3,", "kept", "1"], ["cropped", "2", "words", "2"]]


@pytest.mark.parametrize("out", ["/dev/null/x", "/proc/nothing/x"])
def test_a_demo_that_cannot_be_written(cli, out):
    done = cli("demo", "--out", out)
    assert (done.status, done.out) == (2, "") and f"--out {out}: cannot be written" in done.err


@pytest.mark.parametrize("name", ["run", "pool/00000.tar", "recipe.yaml", ".hidden"])
def test_other_folders_are_left_alone(cli, finished, name, tmp_path):
    out = finished["tars"][0] if name == "run" else tmp_path
    if name != "run":
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("name: mine\n")
    before = tree(out)
    done = cli("demo", "--out", str(out))
    assert (done.status, done.out) == (2, "") and tree(out) == before
    assert ("is a run" if name == "run" else "and no earlier demo") in done.err


def test_an_interrupted_demo_continues(cli, tmp_path, monkeypatch):
    """The interrupt comes while the demo generates the pool: the recipe is there, the truth is not."""

    def fail(pool, **_):
        Path(pool).mkdir()
        (Path(pool) / "00000.tar").write_bytes(b"x")
        raise RecipeError("cut off")

    monkeypatch.setattr("curate.cli.demo.write_pool", fail)
    assert "cut off" in cli("demo", "--out", str(tmp_path)).err
    monkeypatch.setattr("curate.cli.demo.write_pool", lambda pool, **_: None)
    assert "earlier demo" not in cli("demo", "--out", str(tmp_path)).err
