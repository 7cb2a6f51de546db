"""`curate run`, `plan` and `demo`, whole."""

import contextlib
import io
import json
import re
import shutil
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.api import Run
from curate.ask.whatif import estimate as estimates
from curate.base.errors import RecipeError, RunError
from curate.base.wording import format_bytes
from curate.cli import common, progress
from curate.measure.part import measure_part
from curate.store.checkpoints import MEASURED, Checkpoints
from curate.store.store import RunStore
from tests.kit.commands import Done
from tests.kit.crawls import info, pack
from tests.kit.waiting import wait_until

CLIP = Path(__file__).resolve().parents[2] / "curate/demo/clip"


def tree(folder):
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def lines(text):
    """The lines of a summary, by their first word."""
    return {line.split()[0]: line for line in text.splitlines() if line.split()}


@pytest.mark.parametrize("name", ["tars", "texts"])
def test_a_run_says_what_came_out(finished, name):
    folder, done = finished[name]
    run = json.loads((folder / "run.json").read_text())
    said = lines(done.out)
    assert said["pool"].split()[1] == str(sum(run["counts"].values()))
    for rule, rows in run["counts"].items():
        assert said[rule].split()[1] == (str(rows) if rule == "kept" or not rows else f"−{rows}")
    assert f"balance: t = {run['t']:,}" in done.out
    assert "open_clip" not in done.out  # of so few samples
    assert f"curate sql {folder} funnel" in done.out
    assert ("threshold" in done.out) == (name == "texts")
    assert "measure" in done.err and "Traceback" not in done.err  # progress goes to standard error
    assert "metadata: 5 entries; dropped: 1 empty, 1 of one punctuation mark" in done.err
    assert (folder / "_SUCCESS").exists() and not (folder / "tmp").exists()
    sizes = json.loads((folder / "shards" / "sizes.json").read_text())
    assert sum(sizes.values()) == run["counts"]["kept"] > 0
    assert set(run["counts"]) == {"failed", *run["recipe"]["rules"], "duplicate", "balance", "kept", "unmatched"} & set(
        run["counts"]
    )
    if name == "tars":
        assert run["counts"]["failed"] == 3 and run["counts"]["words"] == 3 and run["counts"]["side"] == 3


def test_a_finished_run_is_left_alone(cli, pool, finished):
    folder = finished["texts"][0]
    before = tree(folder)
    done = cli("run", str(pool / "texts.yaml"), "--out", str(folder))
    assert done == Done(
        0, f"{folder}: this run is already finished; nothing to do (`curate verify {folder}` reads every byte)\n", ""
    )
    assert cli("run", str(pool / "texts.yaml"), "--out", str(folder), "--set", "max_failed=0.5").status == 0
    assert tree(folder) == before


@pytest.mark.thorough
@pytest.mark.usefixtures("without_beam")
def test_a_report_that_is_missing_or_damaged_makes_no_run_unfinished(cli, pool, finished, tmp_path):
    """A run does not write it; `verify` says what does."""
    out = tmp_path / "run"
    shutil.copytree(finished["texts"][0], out)
    report, listed = out / "report.html", (out / "manifest.parquet").read_bytes()
    assert cli("report", str(out)).status == 0
    report.unlink()
    for fault in ("is missing", "bytes, but the manifest says", "is not in the manifest"):
        before = tree(out)
        done = cli("run", str(pool / "texts.yaml"), "--out", str(out))
        assert (done.status, done.err) == (0, "") and "nothing to do" in done.out and tree(out) == before
        found = cli("verify", str(out))
        assert found.status == 1 and fault in found.err and f"`curate report {out}` writes it again" in found.err
        if report.exists():
            (out / "manifest.parquet").write_bytes(listed)
        report.write_text("a stranger's page")
    assert cli("report", str(out)).status == 0 and cli("verify", str(out)).status == 0


@pytest.mark.thorough
@pytest.mark.usefixtures("without_beam")
def test_a_name_and_a_license_may_change(cli, pool, finished, tmp_path):
    """In place: what describes the run is written again, and nothing else."""
    out, described = tmp_path / "run", {"run.json", "README.md", "croissant.json", "stats.duckdb", "manifest.parquet"}
    shutil.copytree(finished["texts"][0], out)
    assert cli("report", str(out)).status == 0
    before, was = tree(out), json.loads((out / "run.json").read_text())
    drops = Run(str(out)).sql("FROM drops ORDER BY ALL"), Run(str(out)).sql("FROM sources"), Run(str(out)).funnel()
    change = ["--set", "name=better", "--set", "license=cc-by-4.0"]
    done = cli("run", str(pool / "texts.yaml"), "--out", str(out), *change)
    assert (done.status, done.err) == (0, "") and "updated its name and license" in done.out
    assert "rewrote report.html" in done.out
    after, now = tree(out), json.loads((out / "run.json").read_text())
    assert {name for name in before | after if before.get(name) != after.get(name)} == {
        *described, "report.html", "_SUCCESS",
    }  # fmt: skip
    recipe = was["recipe"] | {"name": "better", "license": "cc-by-4.0"}
    assert now == was | {"name": "better", "recipe": recipe}
    assert "better" in (out / "report.html").read_text() and "license: cc-by-4.0" in (out / "README.md").read_text()
    with Run(str(out)) as run:
        assert (run.sql("FROM drops ORDER BY ALL"), run.sql("FROM sources"), run.funnel()) == drops
        assert run.sql("SELECT value FROM run WHERE key = 'name'").to_pylist() == [{"value": "better"}]
    assert cli("verify", str(out)).status == 0
    again = cli("run", str(pool / "texts.yaml"), "--out", str(out), *change)
    assert "nothing to do" in again.out and tree(out) == after


@pytest.mark.thorough
@pytest.mark.parametrize("step", ["write_facts", "write_stats", "write_manifest", "mark_published"])
def test_a_stop_while_a_name_changes(cli, pool, finished, tmp_path, monkeypatch, step):
    """The same command completes it; it decides nothing again, which after `curate forget` could keep other rows."""
    out, uid = tmp_path / "run", tmp_path / "uid.txt"
    shutil.copytree(finished["texts"][0], out)
    with Run(str(out)) as run:
        uid.write_text(run.sql("SELECT uid FROM kept ORDER BY uid")["uid"][0].as_py())
    assert cli("forget", str(out), "--uids", str(uid)).status == 0
    before = tree(out)

    def fail(*arguments):
        raise RunError("stopped")

    monkeypatch.setattr(f"curate.publish.describe.{step}", fail)
    arguments = ["run", str(pool / "texts.yaml"), "--out", str(out), "--set", "name=better"]
    assert cli(*arguments).status == 1 and "not finished" in cli("sql", str(out), "funnel").err
    monkeypatch.undo()
    done = cli(*arguments)
    assert done.status == 0 and "already finished" in done.out and cli("verify", str(out)).status == 0
    assert json.loads((out / "run.json").read_text())["name"] == "better"
    changed = {name for name, content in tree(out).items() if before.get(name) != content}
    described = {"run.json", "README.md", "croissant.json", "stats.duckdb", "manifest.parquet", "_SUCCESS"}
    assert changed <= described and before.keys() == tree(out).keys()


def test_a_stop_while_a_name_changes_of_a_damaged_run(cli, pool, finished, tmp_path):
    """What cannot be completed is recomputed."""
    out = tmp_path / "run"
    shutil.copytree(finished["texts"][0], out)
    entries = out / "entries.parquet"
    entries.write_bytes(b"x" * entries.stat().st_size)
    arguments = ["run", str(pool / "texts.yaml"), "--out", str(out), "--set", "name=better"]
    assert cli(*arguments).status == 1 and not (out / "_SUCCESS").exists()
    entries.unlink()
    assert cli(*arguments).status == 0 and cli("verify", str(out)).status == 0
    assert not (out / "tmp").exists()


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("seed=3", "seed"),
        ("balance.t=5", "balance.t"),
        ("rules.words=words > 3", "rules.words"),
        ("rules.new=words > 3", "rules.new"),
        ("output.rows_per_shard=9", "output.rows_per_shard"),
    ],
)
def test_another_recipe_into_the_same_folder(cli, pool, finished, override, changed):
    folder = finished["texts"][0]
    before = tree(folder)
    done = cli("run", str(pool / "texts.yaml"), "--out", str(folder), "--set", override)
    assert (done.status, done.out) == (2, "")
    assert changed in done.err and f"--reuse {folder}" in done.err
    assert tree(folder) == before


def test_retry_is_for_urls(cli, pool, finished):
    folder = finished["tars"][0]
    done = cli("run", str(pool / "tars.yaml"), "--out", str(folder), "--retry")
    assert done.status == 2 and f"run into a new folder with --reuse {folder}" in done.err


@pytest.mark.usefixtures("without_beam")
def test_reuse_and_set(cli, pool, finished, tmp_path):
    old = finished["tars"][0]
    out = tmp_path / "new"
    options = [
        "--reuse",
        str(old),
        "--set",
        "balance.t=100",
        "--set",
        "rules.words=words > 0",
        "--set",
        "output.rows_per_shard=1000",
    ]
    planned = lines(cli("plan", str(pool / "tars.yaml"), "--out", str(out), *options, "--no-estimate").out)
    assert all(
        f"{planned[table].split()[1]} of {planned[table].split()[1]} " in planned[table]
        for table in ("samples", "members", "matches")
    )
    assert planned["decisions"].split()[1] == "0"
    assert not out.exists()
    assert cli("run", str(pool / "tars.yaml"), "--out", str(out), *options).status == 0
    assert cli("verify", str(out)).status == 0
    run = json.loads((out / "run.json").read_text())
    assert run["t"] == 100 and run["counts"]["balance"] == run["counts"]["words"] == 0
    assert [path.name for path in (out / "shards").glob("*.tar")] == ["00000.tar"]
    for path in (out / "tables" / "samples").iterdir():
        assert path.samefile(old / "tables" / "samples" / path.name)


@pytest.mark.thorough
@pytest.mark.usefixtures("without_beam")
def test_reuse_says_what_is_recomputed(cli, pool, finished, tmp_path):
    """All of it: here images are decoded again, though no signal is computed."""

    def said(name, *changes):
        words = [word for change in changes for word in ("--set", change)]
        out = str(tmp_path / name)
        done = cli("run", str(pool / "tars.yaml"), "--out", out, "--reuse", str(finished["tars"][0]), *words)
        assert done.status == 0
        return done.err

    units = len(list((finished["tars"][0] / "tables/samples").iterdir()))
    same = said("same", "balance.t=100")
    assert f"samples {units}/{units}, members {units}/{units}, matches {units}/{units} (units)" in same
    assert "\nrecomputed: decisions, shards\n" in same
    read = said("read", "measure.image.phash=false", "dedup.by=[uid]")
    assert "no complete table: it has the files, but not measured by the same keys of the source" in read
    assert "and libraries\nrecomputed: " in read and "are reused" not in read
    assert (
        f"recomputed: samples {units}/{units}, members {units}/{units}, matches {units}/{units}, decisions, shards"
        in read
    )
    more = said("more", "measure.language={}")
    assert f"scores {units}/{units}" in more and f"signals language {units}/{units}" in more
    assert "columns of the others" not in more  # there are none


@pytest.mark.thorough
@pytest.mark.usefixtures("without_beam")
def test_reuse_says_why_nothing_of_a_pool_is_reused(cli, pool, finished, tmp_path):
    """Of one that was moved all is reused, of one that was copied without its times nothing."""

    def said(name, copy, text=("", "")):
        shutil.copytree(pool, tmp_path / name, copy_function=copy)
        recipe = tmp_path / name / "tars.yaml"
        recipe.write_text(recipe.read_text().replace(*text))
        done = cli("run", str(recipe), "--out", str(tmp_path / f"{name} run"), "--reuse", str(finished["tars"][0]))
        assert done.status == 0
        return done.err

    units = len(list((finished["tars"][0] / "tables/samples").iterdir()))
    assert f"samples {units}/{units}, members {units}/{units} (units)\nrecomputed: matches" in said(
        "moved", shutil.copy2
    )
    later = said("copied", shutil.copyfile)
    assert (
        "it has no unit of the same files; a file is the same by name, size and time of change, or by content" in later
    )
    assert ": its sources have other names (" in said("renamed", shutil.copy2, ("name: ", "name: other_"))


def test_too_much_damage_fails_the_run_with_the_reasons(cli, pool, tmp_path):
    out = str(tmp_path / "out")
    done = cli("run", str(pool / "tars.yaml"), "--out", out, "--set", "max_failed=0.01")
    assert done.status == 1 and done.out == "" and "Traceback" not in done.err
    message = done.err[done.err.index("curate: ") :]
    assert "3 of 60 samples (5.0%)" in message and "not_an_image 3" in message and "--set max_failed=0.06" in message
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    now = cli("status", out)
    assert (
        now.status == 1 and f"{out}: ended with the error below, which says what to do; nobody works on it" in now.out
    )
    assert "3 of 60 samples (5.0%)" in now.out and "--set max_failed=0.06" in now.out, "which, and what to do"
    assert cli("run", str(pool / "tars.yaml"), "--out", out, "--set", "max_failed=0.06").status == 0
    assert cli("verify", out).status == 0


@pytest.mark.usefixtures("without_beam")
def test_content_fingerprints(cli, pool, tmp_path):
    """A file that was only touched is the same file by content, and another one by its times."""
    (tmp_path / "r.yaml").write_text("input: {name: urls, format: parquet, path: pool.parquet}\n")
    (tmp_path / "pool.parquet").write_bytes((pool / "pool.parquet").read_bytes())
    for kind, status in (("content", 0), ("stat", 2)):
        arguments = ["run", str(tmp_path / "r.yaml"), "--out", str(tmp_path / kind), "--fingerprint", kind]
        assert cli(*arguments).status == 0
        (tmp_path / "pool.parquet").touch()
        done = cli(*arguments)
        assert done.status == status, done
        assert "nothing to do" in done.out if kind == "content" else "inputs" in done.err


# ---- plan


def test_plan_says_what_a_run_would_do(cli, pool, tmp_path):
    before = tree(pool)
    done = cli("plan", str(pool / "texts.yaml"), "--out", str(tmp_path / "out"))
    assert (done.status, done.err) == (0, "")
    said = lines(done.out)
    assert "1 file " in said["urls"] and "parquet" in said["urls"]
    assert "0 of 1 unit done" in said["samples"] and "0 of 1 unit done" in said["decisions"]
    assert "200 samples in 1 unit" in said["estimate,"]
    assert said["kept"].split()[1] == "58" and "±" in said["kept"]  # t is whole: the largest that expects at most 60
    assert "metadata: 5 entries; dropped: 1 empty, 1 of one punctuation mark, 1 repeated; 1 can never" in done.out
    assert tree(pool) == before and list(tmp_path.iterdir()) == []
    short = cli("plan", str(pool / "texts.yaml"), "--no-estimate")
    assert short.status == 0 and "estimate" not in short.out


@pytest.mark.usefixtures("without_beam")
def test_plan_calls_uncompressed_what_is(cli, pool, tmp_path):
    recipe = tmp_path / "cc.yaml"
    recipe.write_text("input: {name: cc, format: commoncrawl, path: a.warc.gz}")
    pack(tmp_path / "a.warc.gz", [info("a.warc.gz")])
    size = (tmp_path / "a.warc.gz").stat().st_size
    said = lines(cli("plan", str(recipe), "--no-estimate").out)["cc"]
    assert said.split() == ["cc", "commoncrawl", "1", "file", *format_bytes(size).split(), "1", "unit"]
    assert " uncompressed " in lines(cli("plan", str(pool / "texts.yaml"), "--no-estimate").out)["urls"]


@pytest.mark.usefixtures("without_beam")
def test_plan_warns_of_too_many_failed_samples(cli, pool, tmp_path):
    recipe, few = str(pool / "tars.yaml"), ("--set", "max_failed=0.02")
    shown = cli("plan", recipe, *few).out
    assert "warning: 5.0% of the samples could not be read (mostly " in shown and ", and max_failed is 0.02" in shown
    assert cli("run", recipe, "--out", str(tmp_path / "out"), *few).status == 1
    [enough] = re.findall(r"--set (max_failed=[\d.]+) allows it", shown)
    assert "warning" not in cli("plan", recipe, "--set", enough).out


def test_plan_takes_what_run_takes(cli, pool):
    recipe = str(pool / "texts.yaml")
    assert cli("plan", recipe, "--no-estimate", "--", "--runner=local").status == 0
    wrong = [cli(*words, "--", "--runner=Nosuch") for words in (("plan", recipe), ("run", recipe, "--out", "o"))]
    assert wrong[0] == wrong[1] and wrong[0].status == 2 and "no runner 'Nosuch'" in wrong[0].err
    assert "one RECIPE, then Beam options after --" in cli("plan", recipe, recipe).err


def test_plan_of_a_model_that_only_workers_can_run(cli, pool):
    """Here it is an error, and for another engine the reason why nothing is estimated."""
    sets = ["--set", f"measure.clip={{model: 'onnx:{CLIP}', device: cuda}}"]
    here = cli("plan", str(pool / "tars.yaml"), *sets)
    assert here.status == 2 and "device cuda is requested" in here.err
    beam = ["--", "--runner=PortableRunner", "--job_endpoint=localhost:1", "--environment_type=LOOPBACK"]
    there = cli("plan", str(pool / "tars.yaml"), *sets, *beam)
    assert there.status == 0, there.err
    assert "estimate: none on this machine: measure.clip 'clip': device cuda is requested" in there.out


def test_plan_of_tars_names_files_and_bytes(cli, pool):
    said = lines(cli("plan", str(pool / "tars.yaml")).out)
    assert "3 files" in said["photos"] and "images" in said["output"] and "members" in said


def test_plan_knows_the_rows_of_the_run_to_reuse(cli, pool, finished, monkeypatch):
    monkeypatch.setattr("curate.ask.whatif.estimate._BYTES", 1)
    said = lines(cli("plan", str(pool / "tars.yaml")).out)
    assert said["pool"].split()[1] == "about"
    assert (
        "at most" in said["kept"]
        and "with t = 12; duplicates of rows outside the sample are not counted" in said["kept"]
    )
    said = lines(cli("plan", str(pool / "tars.yaml"), "--reuse", str(finished["tars"][0])).out)
    assert said["pool"].split()[1] == "60"


def test_plan_of_a_finished_run(cli, pool, finished):
    done = cli("plan", str(pool / "texts.yaml"), "--out", str(finished["texts"][0]))
    assert (
        done.status == 0 and "finished: nothing to do" in done.out and "1 of 1 unit done" in lines(done.out)["samples"]
    )


def test_plan_names_files_that_cannot_be_read(cli, tmp_path, pool):
    (tmp_path / "a.parquet").write_bytes((pool / "pool.parquet").read_bytes())
    (tmp_path / "b.parquet").write_bytes(b"junk")
    (tmp_path / "r.yaml").write_text('input: {name: urls, format: parquet, path: "*.parquet"}\n')
    done = cli("plan", str(tmp_path / "r.yaml"), "--no-estimate")
    assert done.status == 0 and f"{tmp_path}/b.parquet: not_parquet" in done.out


@pytest.mark.usefixtures("without_beam")
def test_plan_of_an_empty_pool(cli, tmp_path, pool):
    pq.write_table(pq.read_table(pool / "pool.parquet")[:0], tmp_path / "pool.parquet")
    (tmp_path / "r.yaml").write_text("input: {name: urls, format: parquet, path: pool.parquet}\n")
    done = cli("plan", str(tmp_path / "r.yaml"))
    assert done.status == 0 and "none, since no row could be read" in done.out
    assert cli("run", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "out")).status == 0
    assert cli("verify", str(tmp_path / "out")).status == 0
    assert cli("sql", str(tmp_path / "out"), "funnel").status == 0


# ---- demo


@pytest.mark.slow
@pytest.mark.usefixtures("without_beam")
def test_demo(cli, tmp_path, monkeypatch):
    """The whole of it, on a smaller pool."""
    from curate.demo.pool import write_pool

    monkeypatch.setattr(
        "curate.cli.demo.write_pool", lambda pool, samples, seed, shards: write_pool(pool, 150, seed, shards)
    )
    out = tmp_path / "demo"
    done = cli("demo", "--out", str(out))
    assert done.status == 0, done.err
    assert "generating a pool of" in done.err
    assert "Injected defects" in done.out and f"--out {out}/run2 --reuse {out}/run" in done.out
    assert (out / "recipe.yaml").exists() and (out / "run" / "_SUCCESS").exists()
    assert cli("verify", str(out / "run")).status == 0
    assert f"{out}/run/report.html in a browser" in done.out and (out / "run" / "report.html").exists()
    aligned = [line.split() for line in done.out.splitlines() if line.startswith("aligned ")][-1]
    assert aligned[-1] == "100.0%" and int(aligned[-2]) > 0  # all wrong captions that were injected
    near = next(line.split() for line in done.out.splitlines() if line.startswith("near-duplicates among them "))
    assert int(near[-2]) >= 3 and float(near[-1].rstrip("%")) > 50
    reencoded = next(line.split() for line in done.out.splitlines() if line.startswith("reencoded "))
    dropped = int(reencoded[reencoded.index("duplicate") + 1].rstrip(","))
    kinds = json.loads(cli("sql", str(out / "run"), "duplicate_kinds", "--format", "json").out)
    assert {kind["match_type"]: kind["dropped"] for kind in kinds}["near"] == int(near[-4]) + dropped
    assert "duplicate_kinds counts reencoded ones as near too" in " ".join(done.out.split())
    again = cli("demo", "--out", str(out))
    assert again.status == 0 and "nothing to do" in again.out and "synthetic" not in again.err


@pytest.mark.parametrize("out", ["/dev/null/x", "/proc/nothing/x"])
def test_a_demo_that_cannot_be_written(cli, out):
    done = cli("demo", "--out", out)
    assert (done.status, done.out) == (2, "") and f"--out {out}: cannot be written" in done.err


@pytest.mark.parametrize("held", ["a run", "a pool", "a recipe", "a file"])
def test_a_demo_touches_nothing_of_others(cli, finished, held, tmp_path):
    out = finished["tars"][0] if held == "a run" else tmp_path
    if held != "a run":
        name = {"a pool": "pool/00000.tar", "a recipe": "recipe.yaml", "a file": ".hidden"}[held]
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("name: mine\n")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    done = cli("demo", "--out", str(out))
    assert (done.status, done.out) == (2, "")
    assert "is a run" in done.err if held == "a run" else "and no earlier demo" in done.err
    assert done.err.endswith("; accepted: a new or empty folder, or the folder of an earlier demo\n")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_demo_that_was_cut_off_goes_on(cli, tmp_path, monkeypatch):
    """While it drew the pool: the recipe is there, the truth is not."""

    def cut(pool, **_):
        Path(pool).mkdir()
        (Path(pool) / "00000.tar").write_bytes(b"x")
        raise RecipeError("cut off")

    monkeypatch.setattr("curate.cli.demo.write_pool", cut)
    assert "cut off" in cli("demo", "--out", str(tmp_path)).err
    monkeypatch.setattr("curate.cli.demo.write_pool", lambda pool, **_: None)
    assert "earlier demo" not in cli("demo", "--out", str(tmp_path)).err


# ---- progress


class Terminal(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self):
        return True


def test_progress_on_a_terminal(tmp_path, monkeypatch):
    folder = RunStore(str(tmp_path))
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress.show_progress(folder, 7):
        folder.write_bytes("tables/samples/00000.parquet", b"")
        wait_until(lambda: "1/7" in terminal.getvalue())
    assert "measure" in terminal.getvalue()


def test_progress_elsewhere_is_plain_lines(tmp_path, capsys):
    folder = RunStore(str(tmp_path))
    with progress.show_progress(folder, 7):
        for name in ("tables/samples/00000.parquet", "tables/samples/00001.parquet", "shards/00000_stats.json"):
            folder.write_bytes(name, b"")
    assert capsys.readouterr().err.endswith("measure 2/7 units  decide 0/7 units  emit 1 shard\n")


def test_progress_within_a_unit_counts_its_images(tmp_path, capsys):
    folder = RunStore(str(tmp_path))
    steps = [pa.table({"n": list(range(512))})] * 3
    with progress.show_progress(folder, 2):
        work = Checkpoints(folder, MEASURED, 0, "key")
        assert len(work.complete("a tar", steps[0].schema, lambda first: steps)) == 1536
    last = capsys.readouterr().err.splitlines()[-1]  # on a crowded machine there is a line before
    assert last == "measure 0/2 units (1,536 images)  decide 0/2 units  emit 0 shards"
    folder.write_bytes("tables/samples/00000.parquet", b"")
    with progress.show_progress(folder, 1):
        work.complete("another", steps[0].schema, lambda first: steps)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "measure 1/1 units  decide 0/1 units  emit 0 shards"  # nothing is left to measure


def test_a_sample_that_takes_long_shows_how_far_it_is(cli, pool, tmp_path, monkeypatch, capsys):
    folder = RunStore(str(tmp_path))
    with progress.show_sample(folder, 2):
        folder.write_bytes("tables/samples/00000.parquet", b"")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "_BETWEEN_LINES", 0.01)
    said = list[str]()
    with progress.show_sample(folder, 2):  # a line and its end are written one after the other
        wait_until(lambda: said.append(capsys.readouterr().err) or "".join(said) == "measure 1/2 units\n")
    measuring, begun = estimates.measure, list[str]()

    def slow(*measured):
        answer = measuring(*measured)
        time.sleep(0.5)
        return answer

    monkeypatch.setattr(estimates, "measure", slow)
    monkeypatch.setattr(common, "say_if_slow", lambda text: contextlib.nullcontext(begun.append(text)))
    done = cli("plan", str(pool / "texts.yaml"))
    assert begun[-1] == "measuring a sample of the pool to estimate the yield (skip this with --no-estimate)"
    assert re.fullmatch(r"measure (\d)/\1 units", done.err.splitlines()[-1])


def test_a_debugger_reaches_each_step(cli, pool, tmp_path, monkeypatch):
    out = str(tmp_path / "run")
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr("curate.measure.unit.measure_part", lambda *_: 1 // 0)
        cli("run", str(pool / "texts.yaml"), "--out", out, "--in-process")
    threads = list[str]()

    def watched(*known):
        threads.append(threading.current_thread().name)
        return measure_part(*known)

    monkeypatch.setattr("curate.measure.unit.measure_part", watched)
    assert cli("run", str(pool / "texts.yaml"), "--out", out, "--in-process").status == 0
    assert set(threads) == {"MainThread"} and cli("verify", out).status == 0
    refused = cli("run", str(pool / "texts.yaml"), "--out", out, "--in-process", "--detach")
    assert refused.status == 2 and "remove --detach" in refused.err


def test_slow_planning_says_what_it_does(monkeypatch, capsys):
    monkeypatch.setattr(common, "SLOW", 600)
    with common.say_if_slow("planning"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(common, "SLOW", 0.01)
    with common.say_if_slow("planning"):
        wait_until(lambda: "planning" in capsys.readouterr().err)


def test_progress_ends_with_an_error_too(tmp_path):
    with pytest.raises(RuntimeError, match="inside"), progress.show_progress(RunStore(str(tmp_path)), 1):
        raise RuntimeError("inside")


@pytest.mark.thorough
@pytest.mark.usefixtures("without_beam")
def test_rows_that_could_not_be_read_are_found(cli, tmp_path):
    """By their own uid, URL or place, in a pool without keys; and they are not taken for files."""
    uids = [f"{i:032x}" for i in range(9)]
    captions = [None if i in (3, 4) else f"a photo of {i}" for i in range(9)]
    urls = [None if i == 5 else f"http://x/{i}" for i in range(9)]
    pq.write_table(pa.table({"uid": uids, "url": urls, "text": captions}), tmp_path / "pool.parquet")
    recipe, out = tmp_path / "recipe.yaml", str(tmp_path / "out")
    recipe.write_text(f"input: [{{name: own, format: parquet, path: {tmp_path}/pool.parquet}}]\nmax_failed: 0.5\n")
    done = cli("run", str(recipe), "--out", out)
    assert done.status == 0 and "files not read" not in done.out, done
    for sample in (uids[4], "http://x/4"):
        found = cli("explain", out, sample)
        assert found.status == 0 and "verdict: failed" in found.out and "(unit 0, row 4)" in found.out
    asked = cli("sql", out, "FROM failures SELECT unit, row, uid, reason ORDER BY row", "--format", "json")
    assert [tuple(row.values()) for row in json.loads(asked.out)] == [
        (0, 3, uids[3], "no_caption"),
        (0, 4, uids[4], "no_caption"),
        (0, 5, uids[5], "no_url"),
    ]
    counted = json.loads(cli("sql", out, "failures", "--format", "json").out)
    assert [(row["kind"], row["reason"], row["count"]) for row in counted] == [
        ("sample", "no_caption", 2),
        ("sample", "no_url", 1),
    ]
    assert counted[0]["example"].endswith("pool.parquet unit 0 row 3")
    done = cli("run", str(recipe), "--out", str(tmp_path / "other"), "--set", "max_failed=0.1")
    assert done.status == 1 and "no_caption 2, such as" in done.err and "pool.parquet unit 0 row 3" in done.err


@pytest.mark.usefixtures("without_beam")
def test_an_entrys_id_is_its_place_in_the_list(cli, tmp_path):
    """Also where entries before it are dropped: in all tables, after balancing, what-if and forgetting."""
    listed = ["cat", ",", "cat", "", "dog", "a b", "zebra", "."]
    captions = [f"a {name} {i}" for i in range(30) for name in ("cat", "dog", "a b")] + ["nothing at all"]
    urls = [f"http://x/{i}" for i in range(len(captions))]
    pq.write_table(pa.table({"url": urls, "text": captions}), tmp_path / "pool.parquet")
    (tmp_path / "list.json").write_text(json.dumps(listed))
    (tmp_path / "recipe.yaml").write_text(
        "input: [{name: own, format: parquet, path: pool.parquet}]\nmatch: {metadata: list.json}\nbalance: {t: 10}\n"
    )
    out = tmp_path / "out"
    assert cli("run", str(tmp_path / "recipe.yaml"), "--out", str(out)).status == 0
    entries = pq.read_table(out / "entries.parquet").to_pylist()
    assert [(row["entry_id"], row["entry"], row["pool"]) for row in entries] == [
        (0, "cat", 30),
        (4, "dog", 30),
        (5, "a b", 30),
        (6, "zebra", 0),
    ]
    matched = json.loads(
        cli(
            "sql", str(out), "FROM matched SELECT entry_id, count(*) AS n GROUP BY 1 ORDER BY 1", "--format", "json"
        ).out
    )
    assert [tuple(row.values()) for row in matched] == [(0, 30), (4, 30), (5, 30)]
    kept = sum(row["kept"] for row in entries)
    assert 0 < kept < 60 and all(0 < row["kept"] < 30 for row in entries[:3])
    same = cli("whatif", str(out), "--set", "balance.t=1000")
    assert same.status == 0 and "90" in same.out
    gone = json.loads(
        cli("sql", str(out), "FROM kept SELECT uid WHERE caption LIKE '%dog%' LIMIT 1", "--format", "json").out
    )
    (tmp_path / "uids.txt").write_text(gone[0]["uid"])
    assert cli("forget", str(out), "--uids", str(tmp_path / "uids.txt")).status == 0
    after = pq.read_table(out / "entries.parquet").to_pylist()
    assert [a["kept"] - b["kept"] for a, b in zip(entries, after, strict=True)] == [0, 1, 0, 0]
    assert cli("verify", str(out)).status == 0


@pytest.mark.thorough
def test_an_engine_is_chosen_by_a_file(cli, pool, tmp_path):
    recipe, out, engine = str(pool / "texts.yaml"), str(tmp_path / "run"), tmp_path / "engine.yaml"
    assert cli("init", "--on", "local", "--out", str(engine)).status == 0
    assert "0 of 1 unit done" in cli("plan", recipe, "--on", str(engine), "--no-estimate").out
    engine.write_text("runner: sparc\n")
    for command in (("plan", recipe), ("run", recipe, "--out", out)):
        done = cli(*command, "--on", str(engine))
        assert done.status == 2 and "runner: no runner 'sparc'; did you mean 'spark'?" in done.err
    done = cli("run", recipe, "--out", out, "--on", "spark")
    assert done.status == 2 and "`curate init --on ENGINE` writes one" in done.err
    assert not (tmp_path / "run").exists()
    done = cli("run", recipe, "--out", out, "--on", str(engine), "--", "--runner=local")
    assert done.status == 0, done.err
    assert (tmp_path / "run/_SUCCESS").exists()
