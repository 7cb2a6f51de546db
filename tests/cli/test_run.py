"""`curate run` as a whole."""

import json
import shutil
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.api import Run
from curate.base.errors import RunError
from curate.measure.part import measure_part
from tests.cli.shared import ask, by_first_word, changes, query, tree

DESCRIBED = {"run.json", "README.md", "croissant.json", "stats.duckdb", "manifest.parquet", "_SUCCESS"}


@pytest.fixture
def out(finished, tmp_path):
    """A copy of the finished run `texts`."""
    return shutil.copytree(finished["texts"][0], tmp_path / "run")


@pytest.mark.parametrize("name", ["tars", "texts"])
def test_a_run_prints_what_it_counted(finished, name):
    folder, done = finished[name]
    run, printed = json.loads((folder / "run.json").read_text()), by_first_word(done.out)
    counts = run["counts"]
    assert printed["pool"].split()[1] == str(sum(counts.values()))
    for rule, rows in counts.items():
        assert printed[rule].split()[1] == (str(rows) if rule == "kept" or not rows else f"−{rows}")
    assert f"balance: t = {run['t']:,}" in done.out and f"curate sql {folder} funnel" in done.out
    assert "measure" in done.err and "Traceback" not in done.err  # progress goes to standard error
    assert "metadata: 5 entries; dropped: 1 empty, 1 that are one punctuation mark" in done.err
    assert (folder / "_SUCCESS").exists() and not (folder / "tmp").exists()
    assert sum(json.loads((folder / "shards/sizes.json").read_text()).values()) == counts["kept"] > 0
    assert set(counts) <= {"failed", *run["recipe"]["rules"], "duplicate", "balance", "kept", "unmatched"}
    ids = {row["entry_id"]: row["pool"] for row in pq.read_table(folder / "entries.parquet").to_pylist()}
    assert [*ids] == [0, 1, 2, 6, 7], "an entry's ID is its position in the list"
    matched = query(folder, "FROM matched SELECT entry_id, count(*) AS n GROUP BY 1 ORDER BY 1")
    assert dict(matched) == {entry: rows for entry, rows in ids.items() if rows}
    if name == "tars":
        assert (counts["failed"], counts["words"], counts["side"]) == (3, 3, 3)


def test_a_finished_run_is_left_alone(cli, pool, finished):
    folder = finished["texts"][0]
    before = tree(folder)
    for options, status, part in (
        ([], 0, "nothing to do"), (changes("max_failed=0.5"), 0, "nothing to do"), (changes("seed=3"), 2, "seed"),
        (changes("balance.t=5"), 2, "balance.t"), (changes("rules.words=words > 3"), 2, "rules.words"),
        (changes("rules.new=words > 3"), 2, "rules.new"), (["--retry"], 2, "run into a new folder"),
        (changes("output.rows_per_shard=9"), 2, "output.rows_per_shard"),
    ):  # fmt: skip
        done = cli("run", str(pool / "texts.yaml"), "--out", str(folder), *options)
        assert done.status == status and part in done.out + done.err, done
        assert not status or f"--reuse {folder}" in done.err
    assert tree(folder) == before


@pytest.mark.thorough
@pytest.mark.usefixtures("without_beam")
def test_a_report_that_is_missing_or_damaged_makes_no_run_unfinished(cli, pool, out):
    """A run does not write the report; `verify` says which command does."""
    assert cli("report", str(out)).status == 0
    (out / "report.html").unlink()
    for error in ("is missing", "bytes, but the manifest says"):
        before = tree(out)
        done = cli("run", str(pool / "texts.yaml"), "--out", str(out))
        assert (done.status, done.err) == (0, "") and "nothing to do" in done.out and tree(out) == before
        found = cli("verify", str(out))
        assert found.status == 1 and error in found.err and f"`curate report {out}` writes it again" in found.err
        (out / "report.html").write_text("a stranger's page")
    assert cli("report", str(out)).status == 0 and cli("verify", str(out)).status == 0


@pytest.mark.thorough
@pytest.mark.usefixtures("without_beam")
def test_a_name_and_a_license_may_change(cli, pool, out):
    """curate writes only the files that describe the run again."""
    assert cli("report", str(out)).status == 0
    before, facts = tree(out), json.loads((out / "run.json").read_text())
    with Run(str(out)) as run:
        drops = run.sql("FROM drops ORDER BY ALL"), run.sql("FROM sources"), run.funnel()
    command = ["run", str(pool / "texts.yaml"), "--out", str(out), *changes("name=better", "license=cc-by-4.0")]
    assert cli(*command).status == 0
    after = tree(out)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed == DESCRIBED | {"report.html"}
    recipe = facts["recipe"] | {"name": "better", "license": "cc-by-4.0"}
    assert json.loads((out / "run.json").read_text()) == facts | {"name": "better", "recipe": recipe}
    assert "better" in (out / "report.html").read_text() and "license: cc-by-4.0" in (out / "README.md").read_text()
    with Run(str(out)) as run:
        assert (run.sql("FROM drops ORDER BY ALL"), run.sql("FROM sources"), run.funnel()) == drops
        assert run.sql("SELECT value FROM run WHERE key = 'name'").to_pylist() == [{"value": "better"}]
    assert cli("verify", str(out)).status == 0
    assert "nothing to do" in cli(*command).out and tree(out) == after


@pytest.mark.thorough
@pytest.mark.parametrize("step", ["write_facts", "write_stats", "write_manifest", "mark_published"])
def test_a_stop_while_a_name_changes(cli, pool, out, monkeypatch, step):
    """The same command completes the change. It does not decide again: after `curate forget`, that could keep other rows."""
    with Run(str(out)) as run:
        (out.parent / "uid.txt").write_text(run.sql("SELECT uid FROM kept ORDER BY uid")["uid"][0].as_py())
    assert cli("forget", str(out), "--uids", f"{out.parent}/uid.txt").status == 0
    before = tree(out)

    def fail(*arguments):
        raise RunError("stopped")

    monkeypatch.setattr(f"curate.publish.describe.{step}", fail)
    command = ["run", str(pool / "texts.yaml"), "--out", str(out), "--set", "name=better"]
    assert cli(*command).status == 1 and "not finished" in cli("sql", str(out), "funnel").err
    monkeypatch.undo()
    done = cli(*command)
    assert done.status == 0 and "already finished" in done.out and cli("verify", str(out)).status == 0
    assert json.loads((out / "run.json").read_text())["name"] == "better"
    after = tree(out)
    assert before.keys() == after.keys() and {name for name in after if before[name] != after[name]} <= DESCRIBED


def test_a_name_of_a_damaged_run_changes(cli, pool, out):
    """The run recomputes damaged files."""
    entries = out / "entries.parquet"
    entries.write_bytes(b"x" * entries.stat().st_size)
    command = ["run", str(pool / "texts.yaml"), "--out", str(out), "--set", "name=better"]
    assert cli(*command).status == 1 and not (out / "_SUCCESS").exists()
    entries.unlink()
    assert cli(*command).status == 0 and cli("verify", str(out)).status == 0 and not (out / "tmp").exists()


@pytest.mark.usefixtures("without_beam")
def test_reuse_and_set(cli, pool, finished, tmp_path):
    old, out = finished["tars"][0], tmp_path / "new"
    options = ["--reuse", str(old), *changes("balance.t=100", "rules.words=words > 0", "output.rows_per_shard=1000")]
    plan = by_first_word(cli("plan", str(pool / "tars.yaml"), "--out", str(out), *options, "--no-estimate").out)
    done = {table: plan[table].split()[1:4:2] for table in ("samples", "members", "matches", "decisions")}
    units = done["samples"][1]
    assert done == {"decisions": ["0", units]} | {name: [units, units] for name in ("samples", "members", "matches")}
    assert not out.exists()
    ran = cli("run", str(pool / "tars.yaml"), "--out", str(out), *options)
    assert ran.status == cli("verify", str(out)).status == 0
    assert f"samples {units}/{units}, members {units}/{units}, matches {units}/{units} (units)" in ran.err
    assert "\nrecomputed: decisions, shards\n" in ran.err
    run = json.loads((out / "run.json").read_text())
    assert run["t"] == 100 and run["counts"]["balance"] == run["counts"]["words"] == 0
    assert [path.name for path in (out / "shards").glob("*.tar")] == ["00000.tar"]
    for path in (out / "tables/samples").iterdir():
        assert path.samefile(old / "tables/samples" / path.name)


@pytest.mark.thorough
@pytest.mark.usefixtures("without_beam")
def test_a_run_prints_why_tables_are_not_reused(cli, pool, finished, tmp_path):
    for name, overrides, part in (
        ("decoded", ["measure.image.phash=false", "dedup.by=[uid]"], "measured them with another source"),
        ("scored", ["measure.language={}"], "signals language"),
        ("copied", [], "it has no unit with the same files"),
        ("renamed", ["input.name=others"], "its sources have other names"),
    ):
        recipe = pool / "tars.yaml"
        if name == "copied":  # without the files' times
            recipe = shutil.copytree(pool, tmp_path / "pool", copy_function=shutil.copyfile) / "tars.yaml"
        words = ["--out", str(tmp_path / name), "--reuse", str(finished["tars"][0]), *changes(*overrides)]
        done = cli("run", str(recipe), *words)
        assert done.status == 0 and part in done.err and "\nrecomputed: " in done.err, done


def test_too_much_damage_fails_the_run_with_the_reasons(cli, pool, tmp_path):
    out = str(tmp_path / "out")
    done = cli("run", str(pool / "tars.yaml"), "--out", out, "--set", "max_failed=0.01")
    assert (done.status, done.out) == (1, "") and "not_an_image 3" in done.err and "Traceback" not in done.err
    now = cli("status", out)
    assert now.status == 1
    for text in (done.err, now.out):
        assert "3 of 60 samples (5.0%)" in text and "--set max_failed=0.06" in text
    assert not (tmp_path / "out/_SUCCESS").exists()
    assert cli("run", str(pool / "tars.yaml"), "--out", out, "--set", "max_failed=0.06").status == 0
    assert cli("verify", out).status == 0


def test_a_debugger_reaches_each_step(cli, pool, tmp_path, monkeypatch):
    command = ["run", str(pool / "texts.yaml"), "--out", str(tmp_path / "run"), "--in-process"]
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr("curate.measure.unit.measure_part", lambda *_: 1 // 0)
        cli(*command)
    threads = list[str]()

    def watched(*arguments):
        threads.append(threading.current_thread().name)
        return measure_part(*arguments)

    monkeypatch.setattr("curate.measure.unit.measure_part", watched)
    assert cli(*command).status == 0 and set(threads) == {"MainThread"}
    refused = cli(*command, "--detach")
    assert refused.status == 2 and "remove --detach" in refused.err


@pytest.mark.thorough
@pytest.mark.usefixtures("without_beam")
def test_rows_that_could_not_be_read_are_found(cli, tmp_path):
    """`explain` and SQL find them by uid, URL, or position. The summary does not count them as files."""
    uids = [f"{i:032x}" for i in range(9)]
    captions = [None if i in (3, 4) else f"a photo of {i}" for i in range(9)]
    urls = [None if i == 5 else f"http://x/{i}" for i in range(9)]
    pq.write_table(pa.table({"uid": uids, "url": urls, "text": captions}), tmp_path / "pool.parquet")
    recipe, out = tmp_path / "recipe.yaml", str(tmp_path / "out")
    recipe.write_text("input: [{name: own, format: parquet, path: pool.parquet}]\nmax_failed: 0.5\n")
    done = cli("run", str(recipe), "--out", out)
    assert done.status == 0 and "files not read" not in done.out, done
    for sample in (uids[4], "http://x/4"):
        found = cli("explain", out, sample)
        assert found.status == 0 and "verdict: failed" in found.out and "(unit 0, row 4)" in found.out
    rows = [(0, 3, uids[3], "no_caption"), (0, 4, uids[4], "no_caption"), (0, 5, uids[5], "no_url")]
    assert query(out, "FROM failures SELECT unit, row, uid, reason ORDER BY row") == rows
    counted = ask("sql", out, "failures")
    counts = [("sample", "no_caption", 2), ("sample", "no_url", 1)]
    assert [(row["kind"], row["reason"], row["count"]) for row in counted] == counts
    assert counted[0]["example"].endswith("pool.parquet unit 0 row 3")
    done = cli("run", str(recipe), "--out", str(tmp_path / "other"), "--set", "max_failed=0.1")
    assert done.status == 1 and "no_caption 2" in done.err and "pool.parquet unit 0 row 3" in done.err


@pytest.mark.thorough
def test_an_engine_is_chosen_by_a_file(cli, pool, tmp_path):
    recipe, out, engine = str(pool / "texts.yaml"), str(tmp_path / "run"), tmp_path / "engine.yaml"
    assert cli("init", "--on", "local", "--out", str(engine)).status == 0
    assert "0 of 1 unit done" in cli("plan", recipe, "--on", str(engine), "--no-estimate").out
    (tmp_path / "wrong.yaml").write_text("runner: sparc\n")
    for on, part in ((f"{tmp_path}/wrong.yaml", "did you mean 'spark'?"), ("spark", "`curate init --on ENGINE`")):
        done = cli("run", recipe, "--out", out, "--on", on)
        assert done.status == 2 and part in done.err and not (tmp_path / "run").exists()
    assert cli("run", recipe, "--out", out, "--on", str(engine), "--", "--runner=local").status == 0
