"""`curate whatif` as a command: what it prints, and that a run agrees."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from curate import Run
from curate.base.errors import RecipeError
from tests.cli.shared import ask, changes, refusal

pytestmark = pytest.mark.usefixtures("without_beam")


@pytest.fixture
def texts(finished):
    """The folder of the finished run `texts`."""
    return finished["texts"][0]


def section(rows, name):
    return {row["name"]: row for row in rows if row["section"] == name}


def funnel(run, *options):
    return section(ask("whatif", run, *options), "funnel")


def counts_of(run):
    return json.loads((Path(run) / "run.json").read_text())["counts"]


def test_a_rule_is_removed_alike_by_both_commands(cli, pool, texts, tmp_path):
    change = changes("rules.words=null", "balance=null")
    assert cli("run", str(pool / "texts.yaml"), "--out", str(tmp_path / "run"), *change).status == 0
    found = {name: row["whatif"] for name, row in funnel(texts, *change).items() if name != "pool"}
    assert {name: abs(rows) for name, rows in found.items() if rows is not None} == counts_of(tmp_path / "run")


def test_the_table_has_the_rounded_numbers(cli, texts):
    done = cli("whatif", str(texts), *changes("balance.t=12"))
    lines = done.out.splitlines()
    assert (done.status, done.err) == (0, "") and lines[0] == "--set balance.t=12" and lines[1].endswith("t = 12")
    rows = [line.split() for line in lines if re.match(r"(words|balance|kept) ", line)]
    numbers = {name: list(map(int, row)) for name, *row in rows}
    assert numbers["balance"][0] < 0 and all(row[3] == row[2] - row[1] for row in numbers.values())
    exact = funnel(texts, *changes("balance.t=12"))
    columns = ("run", "run_expected", "whatif")
    assert numbers.keys() == {"words", "balance", "kept"}
    assert all(row[:3] == [round(exact[name][column]) for column in columns] for name, row in numbers.items())
    pasted = cli("whatif", str(texts), *changes("rules.more=words > 3")).out
    assert pasted.startswith("--set 'rules.more=words > 3'\n"), "as a shell reads it"


def test_what_changes_nothing_and_what_is_new(cli, finished, caplog):
    tars, texts = (finished[name][0] for name in ("tars", "texts"))
    same = f"a run would keep the same {counts_of(texts)['kept']} rows"
    assert same in cli("whatif", str(texts), *changes("rules.extra=words > 0")).out
    assert "a run would keep the same" not in cli("whatif", str(tars), *changes("rules.word=words > 3")).out
    assert "rules.word adds a new rule, after all other rules; did you mean 'words'?" in caplog.messages


def test_in_every_format(cli, finished):
    run = finished["tars"][0]
    as_json = ask("whatif", run, *changes("balance.t=3"))
    as_csv = list(csv.DictReader(io.StringIO(cli("whatif", str(run), *changes("balance.t=3"), "--format", "csv").out)))
    assert [(row["section"], row["name"]) for row in as_csv] == [(row["section"], row["name"]) for row in as_json]
    assert float(as_csv[-2]["whatif"]) == as_json[-2]["whatif"]
    assert {row["section"] for row in as_json} == {"funnel", "sources", "facts", "changes"}
    assert section(as_json, "changes").keys() == {"balance.t=3"}
    t = {"section": "facts", "name": "t", "run": 12, "whatif": 3}
    assert section(as_json, "facts")["t"] == dict.fromkeys(("pool", "run_expected", "change", "error")) | t


def test_a_target_size(cli, texts):
    by_option, by_set = (ask("whatif", texts, *words) for words in (["--rows", "30"], changes("balance.rows=30")))
    assert by_option == by_set and 0 < section(by_set, "funnel")["kept"]["whatif"] <= 30
    assert "no t keeps 5,000" in cli("whatif", str(texts), "--rows", "5000").out
    plain = changes("balance=null")
    by_rule = ask("whatif", texts, *plain, "--rows", "30", "--by", "rules.best.top")
    assert section(by_rule, "funnel")["kept"]["whatif"] == 30
    override = next(name for name in section(by_rule, "changes") if name.startswith("rules.best.top="))
    assert ask("whatif", texts, *plain, "--set", override) == by_rule
    printed = re.search(r"\nbest: threshold (\S+)\n", cli("whatif", str(texts), *plain, "--set", override).out)
    assert section(by_rule, "thresholds")["best"]["whatif"] == float(printed[1])
    assert funnel(texts, *plain, "--set", f"rules.best=clip_score >= {printed[1]}")["kept"]["whatif"] == 30
    by_rows = funnel(texts, *plain, "--set", "rules.best.rows=5", "--rows", "30", "--by", "rules.best.rows")
    assert by_rows["kept"]["whatif"] <= 30


def test_a_sweep(cli, texts, tmp_path):
    plot = tmp_path / "plot.svg"
    options = ("--sweep", "balance.t={1..200}", "--points", "6", "--format", "json", "--plot", str(plot))
    done = cli("whatif", str(texts), *options)
    assert (done.status, done.err) == (0, f"wrote {plot}\n") and plot.read_text().startswith("<svg")
    rows, t = json.loads(done.out), json.loads((texts / "run.json").read_text())["t"]
    assert [row["value"] for row in rows] == sorted({1, 3, 8, 20, 70, 200, t})
    assert list(rows[0]) == ["value", "expected", "error", "survivors", "dropped", "duplicate", "tail_share", "t"]
    shown = cli("whatif", str(texts), "--sweep", "rules.best=clip_score > {0.1..0.9}", "--points", "3").out
    assert shown.count("█") > 3 and "(3 rows)" in shown and "\n3 values of the range" in shown


def test_a_sweep_marks_the_value_of_the_run(cli, texts):
    """With it, the sweep gives what the run itself was expected to give."""
    expected = funnel(texts)["kept"]["run_expected"]
    shown = cli("whatif", str(texts), "--sweep", "rules.words=words > {0..99}", "--points", "2").out
    assert "\n3 of 100 values of the range" in shown
    [marked] = [row.split() for row in shown.splitlines() if row.endswith("← the run")]
    assert marked[:2] == ["2", str(round(expected))]


@pytest.mark.thorough
def test_repeats_are_counted(cli, pool, tmp_path):
    """The count equals that in uids.npy, and the sum of the run's probabilities."""
    run = tmp_path / "run"
    repeat = changes("output.repeat=CASE WHEN words > 3 AND rarest > 0 THEN 3 ELSE 1 END")
    assert cli("run", str(pool / "texts.yaml"), "--out", str(run), *repeat).status == 0
    [row] = [row for row in ask("whatif", run) if row["name"] == "in_uids"]
    assert row["run"] == len(np.load(run / "uids.npy")) > 60
    sql = "SELECT sum(probability * CASE WHEN words > 3 THEN 3 ELSE 1 END) AS n FROM verdicts"
    assert row["whatif"] == pytest.approx(ask("sql", run, sql)[0]["n"])


def test_how_often_samples_are_seen(cli, pool, texts):
    planned = cli("plan", str(pool / "texts.yaml"), "--seen", "1000", *changes("output.repeat='2'")).out
    assert re.search(r"seen +1,000 samples seen: each of \d+ kept samples [\d.]+ times", planned)
    rows = ask("whatif", texts, "--seen", "1000000")
    seen, kept = section(rows, "facts")["seen_each"], section(rows, "funnel")["kept"]
    assert [seen[side] for side in ("run", "whatif")] == pytest.approx([1e6 / kept[side] for side in ("run", "whatif")])
    swept = ask("whatif", texts, "--sweep", "balance.t=5,20", "--seen", "9000")
    assert [row["seen_each"] for row in swept] == pytest.approx([9000 / row["expected"] for row in swept])


def test_a_sweep_from_python(finished):
    for name, number in (("tars", "balance.t={1..200}"), ("texts", "rules.best=clip_score > {0.1,0.9}")):
        run = finished[name][0]
        rows = ask("whatif", run, "--sweep", number, "--points", "5", *changes("rules.words=words > 3"))
        with Run(run) as opened:
            assert opened.sweep(number, {"rules.words": "words > 3"}, points=5).to_pylist() == rows and len(rows) > 1
            with pytest.raises(RecipeError, match="names no value to sweep"):
                opened.sweep("balance.t")


@pytest.mark.thorough
def test_a_sampled_run(cli, pool, tmp_path):
    out = str(tmp_path / "out")
    words = changes("balance=null", "sample.rows=20")
    assert cli("run", str(pool / "texts.yaml"), "--out", out, *words).status == 0
    counts, change = counts_of(out), changes("rules.words=characters > 16")
    after = section(ask("whatif", out, *change), "facts")["survivors"]["whatif"]
    assert after < counts["sample"] + 20
    shown = {line.split()[0]: line.split()[1:] for line in cli("whatif", out, *change).out.splitlines() if line.strip()}
    assert shown["best"][:2] == [f"-{counts['best']}"] * 2 and shown["kept"] == ["20", "20", "20", "0"]
    swept = cli("whatif", out, "--sweep", "rules.words=characters > {1,99}").out.splitlines()
    assert swept[0].endswith("bars of survivors") and [line.count("█") > 20 for line in swept[2:4]] == [True, False]
    refused = refusal(cli("whatif", out, "--rows", "20", "--by", "rules.best.top"))
    assert "sample.rows is 20" in refused and "--set sample=null" in refused
    assert cli("whatif", out, "--rows", "19", "--by", "rules.best.top").status == 0


def test_refusals(cli, texts, tmp_path):
    by, sweep = ["--by", "rules.best.top"], ["--sweep", "balance.t=1..5"]
    for options, part in (
        (["--set", "output.rows_per_shard=5"], "output cannot be changed without a run"), (by, "--by needs --rows"),
        (["--set", "rules.x=1; COPY samples TO 'x'"], "rules.x"), (["--plot", "x.svg"], "--plot needs --sweep"),
        ([*sweep, "--plot", "x.pdf"], "accepted: a name that ends in .svg, .png, .html"),
        ([*sweep, "--plot", f"{tmp_path}/no/x.svg"], "no folder"), (["--sweep", "balance.t"], "names no value to sweep"),
        (["--rows", "5", "--by", "rules.words"], "'rules.words' names no value to search"),
        (["--rows", "5", "--by", "balance.t=1..5"], "to search t, use --rows without --by"),
        (["--rows", "5", *by, *sweep], "cannot be combined"), (["--rows", "5", *by], "balance.rows is 60"),
        (["--rows", "5", "--sweep", "balance.rows=1..5"], "--rows"),
    ):  # fmt: skip
        assert part in refusal(cli("whatif", str(texts), *options)), options
    assert "no such folder" in refusal(cli("whatif", str(tmp_path / "nothing")))
    assert "even t = 1" in refusal(cli("whatif", str(texts), "--rows", "1"), 1)
    assert cli("whatif", str(texts), "--points", "1").status == cli("whatif").status == 2
