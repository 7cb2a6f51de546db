"""`curate sql`, `explain` and `metadata`, as commands: what they print where."""

import csv
import gzip
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import Run
from curate.base import schema
from tests.kit.commands import Done

Finished = dict[str, tuple[Path, Done]]


def ask(cli, run, *arguments):
    """The rows of a query, from JSON; nothing else may be on standard output."""
    done = cli("sql", str(run), *arguments, "--format", "json")
    assert (done.status, done.err) == (0, ""), done
    rows = json.loads(done.out)
    assert isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    return rows


def refusal(cli, *arguments):
    done = cli("sql", *arguments)
    assert (done.status, done.out) == (2, ""), done
    assert done.err.startswith("curate: ") and "Traceback" not in done.err
    return done.err


@pytest.mark.thorough
def test_every_named_query_answers(cli, run):
    """On one connection; that each is written as JSON is tested beside the answers by hand."""
    listed = ask(cli, run)
    assert len(listed) > 10 and {"funnel", "failures", "entries", "explain", "estimate"} <= {
        row["query"] for row in listed
    }
    uid = ask(cli, run, "SELECT uid FROM decisions WHERE kept LIMIT 1")[0]["uid"]
    answered = 0
    with Run(run) as opened:
        for row in listed:
            needs = [pair.partition("=")[0] for pair in row["parameters"].split() if pair.endswith("=…")]
            values = {name: uid if name == "uid" else "words" for name in needs}
            answered += bool(opened.sql(row["query"], **values).num_rows)
    assert answered > 10


def test_the_funnel_is_what_the_run_counted(cli, run):
    counts = json.loads((run / "run.json").read_text())["counts"]
    rows = ask(cli, run, "funnel")
    dropped = {row["rule"]: row["dropped"] for row in rows if row["dropped"]}
    assert dropped == {rule: n for rule, n in counts.items() if rule != "kept" and n}
    assert rows[0]["rows_in"] == sum(counts.values()) and rows[-1]["kept"] == counts["kept"]


def test_numbers_are_numbers_and_text_is_text(cli, run):
    query = (
        "SELECT 170141183460469231731687303715884105727::HUGEINT AS big, 18446744073709551615::UBIGINT AS phash, "
        "0.1::DECIMAL(3, 1) AS price, 'nan'::DOUBLE AS nothing, NULL AS none, [1, 2] AS list, {'a': 'é\n'} AS struct, true AS yes"
    )
    assert ask(cli, run, query) == [
        {
            "big": 170141183460469231731687303715884105727, "phash": 18446744073709551615, "price": 0.1, "nothing": None,
            "none": None, "list": [1, 2], "struct": {"a": "é\n"}, "yes": True,
        }
    ]  # fmt: skip
    assert ask(cli, run, "SELECT 1 AS a WHERE false") == []


def test_a_limit_that_cuts_rows_off_is_named(cli, run, tmp_path):
    [(total,)] = (row.values() for row in ask(cli, run, "SELECT count(*) FROM dropped"))
    note, page = f"the first 2 of {total} rows; --param limit={total} shows all", tmp_path / "page.html"
    dropped = ("sql", str(run), "dropped")
    assert cli(*dropped, "--param", "limit=2").err == f"{note}\n"
    done = cli(*dropped, "--param", "limit=2", "--images", "--out", str(page))
    assert done.out.endswith(f"open it in a browser; it has {note}\n") and f"<h2>{note}</h2>" in page.read_text()
    for limit in (total, total + 1, "null"):
        assert cli(*dropped, "--param", f"limit={limit}").err == ""
        assert len(ask(cli, run, "dropped", "--param", f"limit={limit}")) == total
    one_rule = ask(cli, run, "dropped", "--param", "rule=words", "--param", "limit=null")
    done = cli(*dropped, "--param", "rule=words", "--param", "limit=1")
    assert done.err == f"the first 1 of {len(one_rule)} rows; --param limit={len(one_rule)} shows all\n"


def test_parameters(cli, run):
    assert ask(cli, run, "SELECT $n + 1 AS n, $text AS text", "--param", "n=41", "--param", "text=a=b") == [
        {"n": 42, "text": "a=b"}
    ]
    assert ask(cli, run, "SELECT $n AS n", "--param", "n='5'") == [{"n": "5"}]
    assert len(ask(cli, run, "top_entries", "--param", "limit=2")) == 2


@pytest.mark.thorough
def test_a_question_from_standard_input(finished):
    for text in ("SELECT count(*) AS n\nFROM kept -- all\n", "funnel\n"):
        asked = process(finished["texts"][0], "-", "--format", "json", stdin=subprocess.PIPE)
        out, err = asked.communicate(text.encode(), timeout=300)
        assert (asked.returncode, err) == (0, b"") and json.loads(out)


def test_the_list_of_queries_is_read_by_people_and_programs(cli, run):
    told, rows = cli("sql", str(run)).out, json.loads(cli("sql", str(run), "--format", "json").out)
    assert all(f"  {row['query']} " in told and row["answers"] in told and row["parameters"] in told for row in rows)


def test_the_same_rows_in_every_format(cli, run):
    query = "SELECT uid, caption, words FROM samples WHERE status = 'ok' ORDER BY uid LIMIT 5"
    rows = ask(cli, run, query)
    done = cli("sql", str(run), query, "--format", "csv")
    assert (done.status, done.err) == (0, "")
    assert [row | {"words": int(row["words"])} for row in csv.DictReader(io.StringIO(done.out))] == rows
    done = cli("sql", str(run), query)
    assert (done.status, done.err) == (0, "")
    assert "(5 rows)" in done.out and all(row["uid"] in done.out for row in rows)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["funel"], ["'funel'", "did you mean funnel, entry_funnel or source_funnel?", "`curate sql DIR` lists all"]),
        (["FROM"], ["no query named 'FROM'"]),
        (["SELECT"], ["no query named 'SELECT'"]),
        (["SELECT nothing FROM samples"], ["nothing"]),
        (["SELECT 1; SELECT 2"], ["2 statements", "one"]),
        ([""], ["0 statements"]),
        (["DROP TABLE samples"], ["read-only", "SELECT"]),
        (["COPY samples TO '/tmp/x.csv'"], ["read-only"]),
        (["SET memory_limit = '1GB'"], ["read-only"]),
        (["FROM read_text('/etc/passwd')"], ["read_text"]),
        (["FROM '/etc/passwd'"], ["/etc/passwd"]),
        (["funnel", "--param", "x"], ["--param x", "NAME=VALUE"]),
        (["funnel", "--param", "x=1"], ["--param x", "no parameters"]),
        (["top_entries", "--param", "limt=1"], ["'limit'"]),
        (["top_entries", "--param", "limit=many"], ["limit=many", "number"]),
        (["explain"], ["uid"]),
        (["SELECT $a"], ["--param a"]),
        (["--param", "x=1"], ["needs a query"]),
    ],
)
def test_wrong_questions(cli, finished, arguments, parts):
    message = refusal(cli, str(finished["texts"][0]), *arguments, "--format", "json")
    assert not [part for part in parts if part not in message], message
    assert "root:" not in message


@pytest.mark.thorough
def test_a_query_that_takes_all_memory_ends(cli, finished):
    done = cli("sql", str(finished["texts"][0]), "SELECT len(range(1000000000))")
    assert done.status == 1
    assert "could not be finished: Out of Memory Error" in done.err and "SET threads" not in done.err


def process(run, *arguments, **options):
    command = [sys.executable, "-m", "curate", "sql", str(run), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


@pytest.mark.thorough
@pytest.mark.parametrize("format", ["table", "csv", "json"])
def test_nothing_but_rows_goes_into_a_pipe(finished, format):
    query = "SELECT caption, words FROM samples ORDER BY uid LIMIT 3"
    out, err = process(finished["texts"][0], query, "--format", format).communicate(timeout=300)
    assert (
        err == b""
        and b"\x1b" not in out
        and out.startswith({"table": b"caption", "csv": b"capt", "json": b"["}[format])
    )
    assert len(out.splitlines()) == {"table": 6, "csv": 4, "json": 4}[format]


@pytest.mark.thorough
@pytest.mark.parametrize("format", ["csv", "json"])
def test_a_reader_that_has_enough_ends_it_quietly(finished, format):
    """Rows without end: they are printed as they are made."""
    query = "SELECT range AS i, repeat('x', 100) AS text FROM range(1_000_000_000)"
    running = process(finished["texts"][0], query, "--format", format)
    assert running.stdout and running.stderr
    assert len(running.stdout.read(1 << 16)) == 1 << 16
    running.stdout.close()
    assert running.wait(300) == 0 and running.stderr.read() == b""
    running.stderr.close()


@pytest.mark.thorough
@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_stops_a_query(finished):
    query = "SELECT 'begun' AS a UNION ALL SELECT sum(hash(range) % 7)::VARCHAR FROM range(1_000_000_000_000)"
    running = process(finished["texts"][0], query)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(4)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=300)
    finally:
        running.kill()
    assert (running.returncode, out, err) == (130, b"", b"curate: interrupted\n")


@pytest.mark.thorough
def test_ctrl_c_leaves_a_background_job_alone(finished):
    """A shell starts it with SIGINT ignored, so that Ctrl-C stops what is in the foreground only; SIGTERM stops it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # handed down to the process
    try:
        query = "SELECT range AS i, repeat('x', 100) AS text FROM range(1_000_000_000)"
        running = process(finished["texts"][0], query, "--format", "csv")
    finally:
        signal.signal(signal.SIGINT, before)
    assert running.stdout and running.stderr
    try:
        running.stdout.read(1 << 16)
        running.send_signal(signal.SIGINT)
        assert len(running.stdout.read(1 << 24)) == 1 << 24  # far beyond what a pipe and its buffers hold
        running.terminate()
        assert running.wait(300) == 143
    finally:
        running.kill()
        running.communicate()


def test_the_shell_answers_what_is_piped_into_it(finished, tmp_path):
    run = finished["texts"][0]
    text = f"SELECT count(*) AS n FROM kept;\nfunnel;\nCOPY samples TO '{tmp_path}/x.csv';\n.shell touch {tmp_path}/y\n"
    running = process(run, "--shell", "--format", "csv", stdin=subprocess.PIPE)
    out, err = running.communicate(text.encode(), timeout=300)
    kept = json.loads((run / "run.json").read_text())["counts"]["kept"]
    assert out.splitlines()[:2] == [b"n", str(kept).encode()] and b"\nkept," in out
    assert running.returncode == 1 and err.count(b"curate: ") == 2 and not list(tmp_path.iterdir())


def test_the_shell_takes_no_question(cli, finished):
    assert "standard input" in refusal(cli, str(finished["texts"][0]), "funnel", "--shell")


# ---- explain


@pytest.mark.thorough
def test_explain_of_every_verdict(cli, run):
    verdicts = ask(
        cli,
        run,
        "SELECT coalesce(rule, 'kept') AS rule, min(uid) AS uid FROM decisions WHERE uid IS NOT NULL GROUP BY ALL",
    )
    assert len(verdicts) >= 3
    for row in verdicts:
        done = cli("explain", str(run), row["uid"].upper())
        assert (done.status, done.err) == (0, "")
        assert done.out.startswith(f"uid {row['uid']}\n")
        caption = ask(cli, run, f"SELECT caption FROM samples WHERE uid = '{row['uid']}'")[0]["caption"]
        assert caption in done.out and row["rule"] in done.out
        assert all(rule in done.out for rule in json.loads((run / "run.json").read_text())["recipe"]["rules"])


@pytest.mark.parametrize(
    ("uid", "status", "part"), [("zz", 2, "32 hex digits"), ("", 2, "32 hex digits"), ("0" * 32, 1, "0" * 32)]
)
def test_explain_of_no_row(cli, run, uid, status, part):
    done = cli("explain", str(run), uid)
    assert (done.status, done.out) == (status, "") and part in done.err and "Traceback" not in done.err
    assert "no such folder" in cli("explain", f"{run}-nowhere", uid).err


# ---- metadata

REPORT = {"read": "8", "empty": "1", "punctuation": "1", "duplicates": "1", "entries": "5", "never": "1"}


def report(text):
    """The report's lines by their first word; numbers only."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if words and words[0] in REPORT:
            found[words[0]] = next(word for word in words if word.isdigit())
    return found


@pytest.mark.parametrize("form", ["text", "json", "json.gz"])
def test_metadata_import_and_show(cli, pool, tmp_path, form):
    path = pool / "entries.txt"
    entries = path.read_text().split("\n")[:-1]
    if form != "text":
        path = tmp_path / f"metadata.{form}"
        data = json.dumps(entries).encode()
        path.write_bytes(gzip.compress(data) if form.endswith("gz") else data)
    out = tmp_path / "entries.parquet"
    done = cli("metadata", "import", str(path), "--out", str(out), "--source", "mine", "--language", "de")
    assert (done.status, done.err) == (0, "")
    assert report(done.out) == REPORT and f"wrote {out}: 5 entries" in done.out
    assert "'cat'" in done.out and "'.'" in done.out and "'St. Louis'" in done.out
    table = pq.read_table(out)
    assert table.schema.remove_metadata() == schema.METADATA
    assert table["entry"].to_pylist() == ["cat", "dog", "photo", "St. Louis", "of"]
    assert table["entry_id"].to_pylist() == [0, 1, 2, 6, 7]
    assert set(table["source"].to_pylist()) == {"mine"} and set(table["language"].to_pylist()) == {"de"}
    done = cli("metadata", "show", str(out), "--find", "o", "--limit", "2")
    assert (done.status, done.err) == (0, "")
    assert [line.split() for line in done.out.splitlines()[-2:]] == [["1", "'dog'"], ["2", "'photo'"]]
    assert cli("metadata", "show", str(out), "--find", "kitten").out.endswith("\nno entry contains 'kitten'\n")


def test_imported_metadata_is_the_same_run(cli, pool, tmp_path):
    """A recipe may name the list or the imported table: the entries are what counts."""
    out = tmp_path / "entries.parquet"
    assert cli("metadata", "import", str(pool / "entries.txt"), "--out", str(out)).status == 0
    plans = [cli("plan", str(pool / "texts.yaml"), *more) for more in ([], ["--set", f"match.metadata={out}"])]
    kept = [[line for line in done.out.splitlines() if "kept" in line] for done in plans]
    assert kept[0] == kept[1] and kept[0]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["import", "none.txt"], ["none.txt", "no such file", "JSON list"]),
        (["import", "pool.parquet"], ["pool.parquet", "entry_id"]),
        (["import", "tars/00.tar"], ["tars/00.tar"]),
        (["import", "."], ["."]),
        (
            ["import", "entries.txt", "--out", "/proc/nothing/x.parquet"],
            ["/proc/nothing/x.parquet", "cannot be written"],
        ),
        (["import", "entries.txt", "--out", "tars"], ["tars", "cannot be written"]),
        (["import", "entries.txt", "--out", "nothing://x"], ["nothing"]),
        (["show", "none.txt"], ["none.txt", "no such file"]),
        (["show", "nothing://x"], ["nothing"]),
    ],
)
def test_wrong_metadata(cli, pool, monkeypatch, arguments, parts):
    monkeypatch.chdir(pool)
    done = cli("metadata", *arguments)
    assert (done.status, done.out) == (2, "") and done.err.startswith("curate: ") and "Traceback" not in done.err
    assert not [part for part in parts if part not in done.err], done.err


def test_metadata_of_several_languages(cli, tmp_path):
    """The same entry once a language: both stay, and one language is shown."""
    columns = {"entry": ["dog", "cat", "dog", "Hund", "dog"], "language": ["en", "en", "de", "de", "de"]}
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"entry_id": pa.array(range(5), pa.int32()), "source": ["s"] * 5, **columns}), path)
    done = cli("metadata", "show", str(path), "--language", "de")
    assert [line.split() for line in done.out.splitlines()[-2:]] == [["2", "de", "'dog'"], ["3", "de", "'Hund'"]]
    assert ["entries", "4", "2", "en,", "2", "de"] in [line.split() for line in done.out.splitlines()]
    assert "has no entry in it" in cli("metadata", "show", str(path), "--language", "fr").err


def test_what_never_matches_is_by_mode_and_language(cli, tmp_path):
    columns = {"entry": ["St. Louis", "cat", "你好。犬", "Dr. No"], "language": ["en", "en", "zh", "de"]}
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"entry_id": pa.array(range(4), pa.int32()), "source": ["s"] * 4, **columns}), path)
    for more, text in (
        (
            [],
            "3 kept, but no text can match them by the spacing rule of mode corrected (1 en, 1 zh, 1 de): 'St. Louis'",
        ),
        (
            ["--mode", "worldwide"],
            "2 kept, but no text can match them by the spacing rule of mode worldwide (1 en, 1 de)",
        ),
    ):
        assert text in " ".join(cli("metadata", "show", str(path), *more).out.split())
