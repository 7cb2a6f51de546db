"""`curate sql` and `curate explain` as commands: output, errors, and processes."""

import csv
import io
import json
import subprocess
import sys

import pytest

from tests.cli.shared import ask, query, refusal

ENDLESS = "SELECT range AS i, repeat('x', 100) AS text FROM range(1_000_000_000)"


def test_the_funnel_is_what_the_run_counted(run):
    counts = json.loads((run / "run.json").read_text())["counts"]
    rows = ask("sql", run, "funnel")
    dropped = {row["rule"]: row["dropped"] for row in rows if row["dropped"]}
    assert dropped == {rule: n for rule, n in counts.items() if rule != "kept" and n}
    assert rows[0]["rows_in"] == sum(counts.values()) and rows[-1]["kept"] == counts["kept"]


def test_numbers_are_numbers_and_text_is_text(run):
    sql = (
        "SELECT 170141183460469231731687303715884105727::HUGEINT AS big, 18446744073709551615::UBIGINT AS phash, "
        "0.1::DECIMAL(3, 1) AS price, 'nan'::DOUBLE AS nan, NULL AS none, [1, 2] AS list, {'a': 'é\n'} AS struct, true AS yes"
    )
    numbers = {"big": 170141183460469231731687303715884105727, "phash": 18446744073709551615, "price": 0.1, "nan": None}
    assert ask("sql", run, sql) == [numbers | {"none": None, "list": [1, 2], "struct": {"a": "é\n"}, "yes": True}]
    assert ask("sql", run, "SELECT 1 AS a WHERE false") == []


def test_a_limit_that_cuts_rows_off_is_named(cli, run, tmp_path):
    [(total,)] = query(run, "SELECT count(*) FROM dropped")
    note, page = f"the first 2 of {total} rows; --param limit={total} shows all", tmp_path / "page.html"
    dropped = ("sql", str(run), "dropped")
    assert cli(*dropped, "--param", "limit=2").err == f"{note}\n"
    assert note in cli(*dropped, "--param", "limit=2", "--images", "--out", str(page)).out and note in page.read_text()
    for limit in (total, total + 1, "null"):
        assert len(ask(*dropped, "--param", f"limit={limit}")) == total


def test_parameters(run):
    sql = ("sql", run, "SELECT $n + 1 AS n, $text AS text", "--param", "n=41", "--param", "text=a=b")
    assert ask(*sql) == [{"n": 42, "text": "a=b"}]
    assert ask("sql", run, "SELECT $n AS n", "--param", "n='5'") == [{"n": "5"}]
    assert len(ask("sql", run, "top_entries", "--param", "limit=2")) == 2


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["funel"], ["'funel'", "did you mean funnel, entry_funnel or source_funnel?"]),
        (["FROM"], ["no query named 'FROM'"]), (["SELECT"], ["no query named 'SELECT'"]),
        (["SELECT nothing FROM samples"], ["nothing"]), (["SELECT 1; SELECT 2"], ["2 statements", "one"]),
        ([""], ["0 statements"]), (["DROP TABLE samples"], ["read-only", "SELECT"]),
        (["COPY samples TO '/tmp/x.csv'"], ["read-only"]), (["SET memory_limit = '1GB'"], ["read-only"]),
        (["FROM read_text('/etc/passwd')"], ["read_text"]), (["FROM '/etc/passwd'"], ["/etc/passwd"]),
        (["funnel", "--param", "x"], ["--param x", "NAME=VALUE"]), (["funnel", "--param", "x=1"], ["no parameters"]),
        (["top_entries", "--param", "limt=1"], ["'limit'"]), (["explain"], ["uid"]), (["SELECT $a"], ["--param a"]),
        (["top_entries", "--param", "limit=many"], ["limit=many", "number"]), (["--param", "x=1"], ["needs a query"]),
        (["funnel", "--shell"], ["standard input"]),
    ],
)  # fmt: skip
def test_wrong_questions(cli, finished, arguments, parts):
    message = refusal(cli("sql", str(finished["texts"][0]), *arguments, "--format", "json"))
    assert not [part for part in parts if part not in message] and "root:" not in message, message


@pytest.mark.thorough
def test_a_query_that_takes_all_memory_ends(cli, finished):
    done = cli("sql", str(finished["texts"][0]), "SELECT len(range(1000000000))")
    assert done.status == 1 and "Out of Memory Error" in done.err and "SET threads" not in done.err


def process(run, *arguments, **options):
    command = [sys.executable, "-m", "curate", "sql", str(run), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("format", "lines", "first"), [("table", 6, b"caption"), ("csv", 4, b"capt"), ("json", 4, b"[")]
)
def test_only_rows_go_into_a_pipe(finished, format, lines, first):
    asked = process(finished["texts"][0], "-", "--format", format, stdin=subprocess.PIPE)
    sql = b"SELECT caption, words\nFROM samples ORDER BY uid LIMIT 3 -- from standard input\n"
    out, err = asked.communicate(sql, timeout=300)
    assert (asked.returncode, err) == (0, b"") and b"\x1b" not in out and out.startswith(first)
    assert len(out.splitlines()) == lines


@pytest.mark.thorough
@pytest.mark.parametrize("format", ["csv", "json"])
def test_it_ends_quietly_when_its_reader_does(finished, format):
    """The command prints rows as it computes them."""
    running = process(finished["texts"][0], ENDLESS, "--format", format)
    assert len(running.stdout.read(1 << 16)) == 1 << 16
    running.stdout.close()
    assert running.wait(300) == 0 and running.stderr.read() == b""
    running.stderr.close()


def test_the_shell_answers_what_is_piped_into_it(finished, tmp_path):
    run = finished["texts"][0]
    text = f"SELECT count(*) AS n FROM kept;\nfunnel;\nCOPY samples TO '{tmp_path}/x.csv';\n.shell touch {tmp_path}/y\n"
    running = process(run, "--shell", "--format", "csv", stdin=subprocess.PIPE)
    out, err = running.communicate(text.encode(), timeout=300)
    kept = json.loads((run / "run.json").read_text())["counts"]["kept"]
    assert out.splitlines()[:2] == [b"n", str(kept).encode()] and b"\nkept," in out
    assert running.returncode == 1 and err.count(b"curate: ") == 2 and not list(tmp_path.iterdir())


def test_csv_and_tables_have_the_same_rows(cli, run):
    sql = "SELECT uid, caption, words FROM samples WHERE status = 'ok' ORDER BY uid LIMIT 5"
    rows = ask("sql", run, sql)
    done = cli("sql", str(run), sql, "--format", "csv")
    assert [row | {"words": int(row["words"])} for row in csv.DictReader(io.StringIO(done.out))] == rows
    done = cli("sql", str(run), sql)
    assert "(5 rows)" in done.out and all(row["uid"] in done.out for row in rows)


@pytest.mark.parametrize(
    ("uid", "status", "part"), [("zz", 2, "32 hex digits"), ("", 2, "32 hex digits"), ("0" * 32, 1, "0" * 32)]
)
def test_explain_of_no_row(cli, run, uid, status, part):
    assert part in refusal(cli("explain", str(run), uid), status)
    assert "no such folder" in cli("explain", f"{run}-nowhere", uid).err
