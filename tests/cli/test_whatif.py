"""`curate whatif` as a command: what it prints where, and that a rerun agrees."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate import Run
from curate.ask.whatif.answer import LANGUAGES
from curate.base.errors import RecipeError
from curate.cli import whatif
from curate.cli.common import Format
from tests.kit.commands import Done

pytestmark = pytest.mark.usefixtures("without_beam")

Finished = dict[str, tuple[Path, Done]]


def ask(cli, run, *arguments):
    """The rows as JSON; nothing else may be on standard output."""
    done = cli("whatif", str(run), *arguments, "--format", "json")
    assert (done.status, done.err) == (0, ""), done
    return list(json.loads(done.out))


def section(rows, name):
    return {row["name"]: row for row in rows if row["section"] == name}


def refusal(cli, *arguments, status=2):
    done = cli("whatif", *arguments)
    assert (done.status, done.out) == (status, ""), done
    assert done.err.startswith("curate: ") and "Traceback" not in done.err
    return done.err


@pytest.mark.thorough
def test_languages_that_are_not_shown_are_counted(finished, capsys):
    run = whatif.open_finished(str(finished["texts"][0]))
    result = whatif.answer(run, [])
    numbers = {"pool": 1, "run": 1, "run_expected": 1.0, "whatif": 1.0, "change": 0.0}
    nothing = dict.fromkeys(numbers, 0) | {"pool": 1}  # is kept of the first
    rows = [{"language": f"l{i}", **(numbers if i else nothing)} for i in range(14)]
    languages = pa.Table.from_pylist(rows, LANGUAGES)
    whatif._print_answer(replace(result, languages=languages), run.recipe, None, None, None, Format.table)
    shown = capsys.readouterr().out
    assert re.search(r"^l0 +1 +0 +0 +0 +0$", shown, re.MULTILINE), shown
    assert "l11" in shown and "l12" not in shown and "\n2 more languages: --format csv or json\n" in shown


CHANGES = {"tars": ["rules.words=words > 3", "balance.t=6"], "texts": ["rules.best.top=0.5", "balance.t=12"]}


@pytest.mark.thorough
@pytest.mark.parametrize("name", CHANGES)
def test_a_rerun_agrees(cli, pool, finished, name, tmp_path):
    run = finished[name][0]
    changes = [option for override in CHANGES[name] for option in ("--set", override)]
    found = section(ask(cli, run, *changes), "funnel")
    for seed in (1, 2):
        out = tmp_path / str(seed)
        options = ["--out", str(out), "--reuse", str(run), "--set", f"seed={seed}", *changes]
        assert cli("run", str(pool / f"{name}.yaml"), *options).status == 0
        counts = json.loads((out / "run.json").read_text())["counts"]
        for rule, rows in counts.items():
            if rule in ("kept", "balance"):
                assert abs(rows - abs(found[rule]["whatif"])) <= 4 * found[rule]["error"]
            else:
                assert rows == -found[rule]["whatif"], rule
        assert len(np.load(out / "uids.npy")) == counts["kept"]


def test_a_rule_is_removed_alike_by_both_commands(cli, pool, finished, tmp_path):
    change = ["--set", "rules.words=null", "--set", "balance=null"]
    done = cli("run", str(pool / "texts.yaml"), "--out", str(tmp_path / "run"), *change)
    assert done.status == 0, done
    counts = json.loads((tmp_path / "run" / "run.json").read_text())["counts"]
    found = section(ask(cli, finished["texts"][0], *change), "funnel")
    assert {
        name: abs(row["whatif"]) for name, row in found.items() if row["whatif"] is not None and name != "pool"
    } == counts


def test_for_people(cli, finished):
    done = cli("whatif", str(finished["texts"][0]), "--set", "balance.t=12")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "--set balance.t=12" and lines[1].startswith("expected: ") and lines[1].endswith("t = 12")
    assert "one standard error" in lines[1]
    assert [line.split() for line in lines if line.startswith("rule ")] == [
        ["rule", "run", "run_expected", "whatif", "change"]
    ]
    assert any(line.startswith("whole_share") for line in lines) and "language" not in done.out
    cells = [line.split() for line in lines if re.match(r"(words|balance|kept) ", line)]
    numbers = {name: list(map(int, row)) for name, *row in cells}
    assert numbers["balance"][0] < 0 and all(row[3] == row[2] - row[1] for row in numbers.values())
    exact = section(ask(cli, finished["texts"][0], "--set", "balance.t=12"), "funnel")
    assert numbers.keys() == {"words", "balance", "kept"}
    assert {name: row[:3] for name, row in numbers.items()} == {
        name: [round(exact[name][column]) for column in ("run", "run_expected", "whatif")] for name in numbers
    }


def test_what_changes_nothing_and_what_is_new(cli, finished, caplog):
    tars, texts = (finished[name][0] for name in ("tars", "texts"))
    kept = json.loads((texts / "run.json").read_text())["counts"]["kept"]
    told = cli("whatif", str(texts), "--set", "rules.extra=words > 0").out
    assert f"the same rows reach balancing and t is the same: a run would keep the same {kept} rows" in told
    told = cli("whatif", str(tars), "--set", "rules.word=words > 3").out
    assert "a run would keep the same" not in told and "change: whatif minus run_expected" in told
    assert "rules.word is a new rule, after all others; did you mean 'words'?" in caplog.messages


def test_in_every_format(cli, finished):
    run = finished["tars"][0]
    as_json = ask(cli, run, "--set", "balance.t=3")
    as_csv = list(csv.DictReader(io.StringIO(cli("whatif", str(run), "--set", "balance.t=3", "--format", "csv").out)))
    assert [(row["section"], row["name"]) for row in as_csv] == [(row["section"], row["name"]) for row in as_json]
    assert float(as_csv[-2]["whatif"]) == as_json[-2]["whatif"]
    assert {row["section"] for row in as_json} == {"funnel", "sources", "facts", "changes"}
    assert section(as_json, "changes").keys() == {"balance.t=3"}
    assert section(as_json, "facts")["t"] == {
        "section": "facts", "name": "t", "pool": None, "run": 12, "run_expected": None, "whatif": 3, "change": None, "error": None,
    }  # fmt: skip


def test_a_target_size(cli, finished):
    run = finished["texts"][0]
    by_option, by_set = ask(cli, run, "--rows", "30"), ask(cli, run, "--set", "balance.rows=30")
    assert by_option == by_set and 0 < section(by_set, "funnel")["kept"]["whatif"] <= 30
    assert "the largest whose expected size is at most 30" in cli("whatif", str(run), "--rows", "30").out
    assert "no t keeps 5,000: fewer rows are left" in cli("whatif", str(run), "--rows", "5000").out
    by_rule = ask(cli, run, "--set", "balance=null", "--rows", "30", "--by", "rules.best.top")
    assert section(by_rule, "funnel")["kept"]["whatif"] == 30
    override = next(name for name in section(by_rule, "changes") if name.startswith("rules.best.top="))
    assert ask(cli, run, "--set", "balance=null", "--set", override) == by_rule
    shown = cli("whatif", str(run), "--set", "balance=null", "--set", override).out
    printed = re.search(r"\nbest: threshold (\S+)\n", shown)
    assert printed and section(by_rule, "thresholds")["best"]["whatif"] == float(printed[1])
    same = ask(cli, run, "--set", "balance=null", "--set", f"rules.best=clip_score >= {printed[1]}")
    assert section(same, "funnel")["kept"]["whatif"] == 30
    by_rows = ask(
        cli, run, "--set", "balance=null", "--set", "rules.best.rows=5", "--rows", "30", "--by", "rules.best.rows"
    )
    assert section(by_rows, "funnel")["kept"]["whatif"] <= 30


def test_a_sweep(cli, finished, tmp_path):
    run, plot = finished["texts"][0], tmp_path / "plot.svg"
    options = ("--sweep", "balance.t={1..200}", "--points", "6", "--format", "json", "--plot", str(plot))
    done = cli("whatif", str(run), *options)
    assert (done.status, done.err) == (0, f"wrote {plot}\n")
    rows = json.loads(done.out)
    own = json.loads((run / "run.json").read_text())["t"]
    assert [row["value"] for row in rows] == sorted({1, 3, 8, 20, 70, 200, own})
    assert list(rows[0]) == ["value", "expected", "error", "survivors", "dropped", "duplicate", "tail_share", "t"]
    assert plot.read_text().startswith("<svg")
    shown = cli("whatif", str(run), "--sweep", "rules.best=clip_score > {0.1..0.9}", "--points", "3").out
    assert shown.count("█") > 3 and "bars of expected" in shown and "(3 rows)" in shown
    assert "expected: rows kept" in shown and "dropped: by the swept rule" in shown
    assert "\n3 values of the range: --points N for more\nexpected: rows kept" in shown  # the run's rule is another


def test_a_sweep_shows_the_value_of_the_run_and_says_that_it_is_thinned(cli, finished):
    """With this value it gives what the run itself was expected to give."""
    run = finished["texts"][0]
    expected = section(ask(cli, run), "funnel")["kept"]["run_expected"]
    shown = cli("whatif", str(run), "--sweep", "rules.words=words > {0..99}", "--points", "2").out
    assert "\n3 of 100 values of the range: --points N for more; the run has 2\n" in shown
    [marked] = [row.split() for row in shown.splitlines() if row.endswith("← the run")]
    assert marked[:2] == ["2", str(round(expected))]
    whole = cli("whatif", str(run), "--sweep", "rules.words=words > {1..3}").out
    assert "of the range" not in whole and "\nthe run has 2\n" in whole


@pytest.mark.thorough
def test_a_sweep_of_the_tails_share(cli, finished, tmp_path):
    """Each as --tail-share gives it; a plot says where it is."""
    run, plot = finished["tars"][0], str(tmp_path / "share.html")
    done = cli("whatif", str(run), "--sweep", "balance.tail_share={0.2..0.8}", "--points", "3", "--plot", plot)
    assert (done.status, done.err) == (0, f"wrote {plot}\n") and Path(plot).exists()
    assert "tail_share" in done.out and "  t  " in done.out
    rows = ask(cli, run, "--sweep", "balance.tail_share={0.2,0.5}")
    for row in rows:
        facts = {one["name"]: one["whatif"] for one in ask(cli, run, "--tail-share", str(row["value"]))}
        assert (row["t"], row["tail_share"]) == (facts["t"], facts["tail_share"])
    assert [row["value"] for row in rows] == [0.2, 0.5]


@pytest.mark.thorough
def test_repeats_are_counted(cli, pool, tmp_path):
    """As long as uids.npy is, and as the run's probabilities say."""
    times = "CASE WHEN words > 3 AND rarest > 0 THEN 3 ELSE 1 END"
    done = cli("run", str(pool / "texts.yaml"), "--out", str(tmp_path / "run"), "--set", f"output.repeat={times}")
    assert done.status == 0, done.err
    [row] = [row for row in ask(cli, tmp_path / "run") if row["name"] == "in_uids"]
    assert row["run"] == len(np.load(tmp_path / "run/uids.npy")) > 60
    sql = "SELECT sum(probability * CASE WHEN words > 3 THEN 3 ELSE 1 END) AS n FROM verdicts"
    expected = json.loads(cli("sql", str(tmp_path / "run"), sql, "--format", "json").out)[0]["n"]
    assert row["whatif"] == pytest.approx(expected)
    shown = cli("whatif", str(tmp_path / "run")).out
    assert f"; {expected:,.0f} in uids.npy" in shown


def test_how_often_samples_are_seen(cli, pool, finished):
    planned = cli("plan", str(pool / "texts.yaml"), "--seen", "1000", "--set", "output.repeat='2'").out
    assert re.search(
        r"seen +1,000 samples seen: each of \d+ kept ones [\d.]+ times on average, each of \d+ in", planned
    )
    run = str(finished["texts"][0])
    kept = json.loads((finished["texts"][0] / "run.json").read_text())["counts"]["kept"]
    found = section(ask(cli, Path(run), "--seen", "1000000"), "facts")["seen_each"]
    funnel = section(ask(cli, Path(run)), "funnel")["kept"]
    assert found["run"] == pytest.approx(1e6 / kept) and found["whatif"] == pytest.approx(1e6 / funnel["whatif"])
    assert (
        f"; 1,000,000 samples seen: each of {funnel['whatif']:,.0f} kept ones "
        in cli("whatif", run, "--seen", "1000000").out
    )
    swept = json.loads(cli("whatif", run, "--sweep", "balance.t=5,20", "--seen", "9000", "--format", "json").out)
    assert [row["seen_each"] for row in swept] == pytest.approx([9000 / row["expected"] for row in swept])


def test_a_sweep_from_python(cli, finished):
    """The same numbers."""
    for name, number in (("tars", "balance.t={1..200}"), ("texts", "rules.best=clip_score > {0.1,0.9}")):
        run = finished[name][0]
        options = ("--sweep", number, "--points", "5", "--set", "rules.words=words > 3")
        with Run(run) as opened:
            table = opened.sweep(number, {"rules.words": "words > 3"}, points=5)
            assert table.to_pylist() == ask(cli, run, *options) and len(table) > 1
            with pytest.raises(RecipeError, match="names no value to sweep"):
                opened.sweep("balance.t")


@pytest.mark.thorough
def test_near_duplicates_stay_where_only_later_rules_change(cli, pool, tmp_path):
    changes = ["rules={once: dedup, words: words > 2}", "dedup.by=[{phash: {distance: 4}}]"]
    out, options = str(tmp_path / "out"), [word for change in changes for word in ("--set", change)]
    assert cli("run", str(pool / "tars.yaml"), "--out", out, *options).status == 0
    assert cli("whatif", out, "--set", "rules.words=words > 3").err == ""
    assert cli("whatif", out, "--sweep", "rules.words=words > {1..4}", "--points", "2").err == ""


@pytest.mark.thorough
def test_of_a_sampled_run(cli, pool, tmp_path):
    out = str(tmp_path / "out")
    done = cli("run", str(pool / "texts.yaml"), "--out", out, "--set", "balance=null", "--set", "sample.rows=20")
    assert done.status == 0
    counts = json.loads((tmp_path / "out/run.json").read_text())["counts"]
    left = counts["sample"] + 20
    told = cli("whatif", out, "--set", "rules.words=characters > 16").out
    after = section(ask(cli, Path(out), "--set", "rules.words=characters > 16"), "facts")["survivors"]["whatif"]
    assert f"expected: 20 rows, a sample of {after} (run: of {left})\n" in told and "whole_share" not in told
    funnel = {line.split()[0]: line.split()[1:] for line in told.splitlines() if line.strip()}
    assert (
        after < left and funnel["best"][:2] == [f"-{counts['best']}"] * 2 and funnel["kept"] == ["20", "20", "20", "0"]
    )
    swept = cli("whatif", out, "--sweep", "rules.words=characters > {1,99}").out.splitlines()
    assert swept[0].endswith("bars of survivors") and [line.count("█") > 20 for line in swept[2:4]] == [True, False]
    assert cli("whatif", out, "--sweep", "sample.rows=5,10").out.splitlines()[0].endswith("bars of expected")
    refused = refusal(cli, out, "--rows", "20", "--by", "rules.best.top")
    assert (
        "sample.rows is 20, so no value of rules.best.top keeps more; accepted: --by with --set sample=null" in refused
    )
    assert cli("whatif", out, "--rows", "19", "--by", "rules.best.top").status == 0


def test_refusals(cli, finished, tmp_path):
    run = str(finished["texts"][0])
    for options, part in (
        (["--set", "output.rows_per_shard=5"], "output cannot be changed without a run"),
        (["--set", "rules.x=1; COPY samples TO 'x'"], "rules.x"),
        (["--plot", "x.svg"], "--plot needs --sweep"),
        (["--sweep", "balance.t=1..5", "--plot", "x.pdf"], "accepted: a name that ends in .svg, .png, .html"),
        (["--sweep", "balance.t=1..5", "--plot", f"{tmp_path}/no/x.svg"], "no folder"),
        (["--sweep", "balance.t"], "names no value to sweep"),
        (["--by", "rules.best.top"], "--by needs --rows"),
        (
            ["--rows", "5", "--by", "rules.words"],
            "'rules.words' names no value to search; accepted: a rule with a range in braces",
        ),
        (["--rows", "5", "--by", "balance.t=1..5"], "for t give --rows alone"),
        (["--rows", "5", "--by", "rules.best.top", "--sweep", "balance.t=1..5"], "exclude each other"),
        (["--rows", "5", "--by", "rules.best.top"], "balance.rows is 60"),
        (["--rows", "5", "--sweep", "balance.rows=1..5"], "--rows"),
    ):
        assert part in refusal(cli, run, *options), options
    assert "no such folder" in refusal(cli, str(tmp_path / "nothing"))
    assert "even t = 1" in refusal(cli, run, "--rows", "1", status=1)
    assert cli("whatif", run, "--points", "1").status == cli("whatif").status == 2


def test_what_is_printed_can_be_pasted(cli, finished):
    done = cli("whatif", str(finished["texts"][0]), "--set", "rules.more=words > 3")
    assert done.status == 0 and done.out.startswith("--set 'rules.more=words > 3'\n")
