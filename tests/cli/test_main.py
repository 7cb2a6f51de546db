"""Commands as users see them: exit statuses, output, errors, and no traceback for any argument."""

import io
import logging
import re
import subprocess
import sys

import pytest

from curate import __version__
from curate.base.errors import RunError
from curate.cli.common import HELP
from tests.cli.shared import changes, refusal
from tests.kit.commands import Done

SUBCOMMANDS = ["build", "import", "show"]
COMMANDS = [name for name in HELP if name not in ("shared", *SUBCOMMANDS)]


def test_version(cli):
    assert cli("--version") == Done(0, f"curate {__version__}\n", "")


def test_help_lists_the_commands_in_groups(cli):
    text = cli("--help").out
    assert cli().status == 2 and "Usage: curate" in "".join(cli()[1:])
    for name in COMMANDS:
        assert f"\n  {name:8}  {HELP[name]['help']}\n" in text.partition(f"\n{HELP[name]['group']}:")[2]


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), *(["metadata", name] for name in SUBCOMMANDS)])
def test_help_of_each_command(cli, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    done = cli(*command, "--help")
    assert (done.status, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= 80
    usage, *lines = done.out.splitlines()
    assert usage.startswith(" ".join(["Usage: curate", *command])) and not re.search("[{}<>]", usage)
    if command and command != ["metadata"]:
        assert HELP[command[-1]]["help"] in done.out
        assert done.out.index("Examples:\n    curate ") > done.out.index("Options:")
    without_text = [line for line in lines if re.fullmatch(r"  (-|[A-Z]+$)[^ ]*( [A-Z]+)?( *\[.*)?", line)]
    assert not without_text


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["nosuch"], ["nosuch"]), (["run"], ["RECIPE"]), (["run", "r.yaml"], ["--out"]), (["sql"], ["DIR"]),
        (["run", "r.yaml", "--out"], ["--out"]), (["run", "r.yaml", "--out", "o", "--bogus"], ["--bogus"]),
        (["run", "r.yaml", "--out", "o", "--fingerprint", "size"], ["--fingerprint", "'size'", "'stat', 'content'"]),
        (["plan"], ["RECIPE"]), (["sql", "o", "funnel", "--format", "xml"], ["xml", "table", "csv", "json"]),
        (["explain", "o"], ["UID"]), (["diff", "a"], ["DIR_B"]), (["verify"], ["DIR"]), (["verify", "a", "b"], ["b"]),
        (["diff", "a", "b", "--by", "shard"], ["shard", "rule", "entry", "source", "language", "sample"]),
        (["metadata", "nosuch"], ["nosuch"]), (["metadata", "import"], ["FILE"]),
        (["metadata", "show", "m", "--limit", "many"], ["--limit", "integer"]),
    ],
)  # fmt: skip
def test_usage(cli, arguments, parts):
    message = refusal(cli(*arguments))
    assert "Error: " in message and not [part for part in parts if part not in message], message


# ---- the arguments of run and plan


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["none.yaml"], ["none.yaml", "no such recipe"]), (["."], ["cannot be read as a recipe"]),
        (["nothing://r.yaml"], ["nothing"]), (["pool.parquet"], ["pool.parquet", "recipe"]),
        (["texts.yaml", "--set", "seed"], ["--set seed", "key=value"]),
        (["texts.yaml", "--set", "seeed=1"], ["seeed", "did you mean 'seed'?"]),
        (["texts.yaml", "--set", "input.path=none.parquet"], ["'urls'", "none.parquet", "no such file"]),
        (["texts.yaml", "--set", "input.path=entries.txt"], ["entries.txt", "curate cannot use any of 1 files"]),
        (["tars.yaml", "--set", "input.path=tars/{00..04}.tar"], ["03.tar and 1 more", "3 of the 5 named exist"]),
        (["texts.yaml", "--set", "input.path=nothing://x"], ["nothing://x", "cannot be listed"]),
        (["texts.yaml", *changes("input.path=x.parquet", "match.metadata=none.json")],
         ["'urls': ", "x.parquet: no such file", "match.metadata: ", "none.json: no such file"]),
        (["texts.yaml", "--set", "match.metadata=pool.parquet"], ["pool.parquet", "entry_id"]),
        (["texts.yaml", "--set", "rules.new=wrds > 1"], ["rules.new", "'wrds'", "did you mean 'words'?"]),
        (["texts.yaml", "--set", "rules.new=read_text('/etc/passwd') > ''"], ["rules.new", "read_text"]),
        (["texts.yaml", "--set", "dedup.by=[sha256]"], ["dedup.by", "images"]),
        (["texts.yaml", "--set", "dedup.prefer=caption"], ["dedup.prefer", "numbers"]),
        (["texts.yaml", "--reuse", "none"], ["--reuse none", "run.json"]),
        (["texts.yaml", "--reuse", "pool.parquet"], ["--reuse pool.parquet", "run.json"]),
        (["texts.yaml", "--reuse", "nothing://x"], ["nothing"]),
        (["texts.yaml", "another.yaml"], ["'another.yaml'", "one RECIPE"]),
        (["texts.yaml", "--", "--runner=Nosuch"], ["--runner=Nosuch", "DataflowRunner"]),
        (["texts.yaml", "--", "--direct_num_workers=many"], ["--direct_num_workers", "many"]),
    ],
)  # fmt: skip
def test_wrong_inputs(cli, pool, tmp_path, monkeypatch, command, arguments, parts):
    monkeypatch.chdir(pool)
    message = refusal(cli(command, "--out", str(tmp_path / "out"), *arguments))
    assert not [part for part in parts if part not in message], message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "out", ["pool.parquet", "pool.parquet/x", "tars", ".", "/dev/null/x", "/proc/nothing/x", "nothing://x"]
)
def test_an_out_that_cannot_be(cli, pool, monkeypatch, out):
    monkeypatch.chdir(pool)
    before = sorted(path.name for path in pool.rglob("*"))
    assert out in refusal(cli("run", "texts.yaml", "--out", out))
    assert sorted(path.name for path in pool.rglob("*")) == before


def test_an_out_that_is_not_empty_and_no_run(cli, pool, tmp_path):
    (tmp_path / "mine.txt").write_text("do not touch")
    assert f"{tmp_path}" in refusal(cli("run", str(pool / "texts.yaml"), "--out", str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


# ---- the arguments of the commands that read a run


@pytest.mark.parametrize("command", [["sql"], ["sql", "funnel"], ["explain", "0" * 32], ["diff", "other"], ["verify"]])
def test_folders_without_a_finished_run(cli, pool, tmp_path, monkeypatch, command):
    monkeypatch.chdir(pool)
    for folder in ("none", "pool.parquet", "tars", "nothing://x", ""):
        assert folder in refusal(cli(command[0], folder, *command[1:]))
    (tmp_path / "run.json").write_text("{}")
    assert "not finished" in refusal(cli(command[0], str(tmp_path), *command[1:]), 1)


# ---- what may go wrong around a command


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (RunError("it went wrong"), 1, "curate: it went wrong\n"),
        (OSError(5, "Input/output error"), 1, "curate: [Errno 5] Input/output error\n"),
        (OSError(40, "Too many levels of symbolic links", "a"), 1, "curate: a: Too many levels of symbolic links\n"),
    ],
)
def test_errors_become_statuses(cli, monkeypatch, error, status, said):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("curate.cli.finished.verify_run", fail)
    assert cli("verify", "x") == Done(status, "", said)


def test_log_messages_go_where_standard_error_is(monkeypatch):
    """Progress bars replace standard error. If a message does not fit its arguments, logging shows its place."""
    monkeypatch.setattr(sys, "stderr", shown := io.StringIO())
    for arguments in ((), (UserWarning,)):
        logging.lastResort.emit(logging.makeLogRecord({"msg": "it is slow", "args": arguments}))
    assert shown.getvalue().startswith("it is slow\n") and "not all arguments converted" in shown.getvalue()


def test_arguments_that_are_no_utf8(cli):
    for command in COMMANDS:
        assert cli(command, "x\udcff") == Done(2, "", "curate: argument 'x\\udcff': is not valid UTF-8\n")


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
sys.argv[1:] = sys.argv[2:]
from curate.cli.main import main
main()
"""


@pytest.mark.slow
def test_a_limit_of_address_space_is_reported(finished):
    """Under 2 GB runs hung or aborted; under any limit, V8 ended a report by a signal."""

    def limited(size, *words):
        command = [sys.executable, "-c", LIMITED, str(size), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    run = str(finished["tars"][0])
    status, error = limited(2 << 30, "sql", run, "funnel")
    assert status == 1 and re.fullmatch(r"curate: this command needs [\d.]+ GB of address space, .*\n", error), error
    assert limited(2 << 30, "sql", "--help") == (0, "")
    status, error = limited(90 << 30, "report", run)
    assert status == 1 and "drawing charts needs 100 GB of address space" in error.splitlines()[-1], error
