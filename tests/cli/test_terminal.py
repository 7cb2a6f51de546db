"""Commands escape control characters of the pool in what they print; data in a pipe stays as it is."""

import io
import json
import os
import pty
import shutil
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest

from curate.base.wording import CONTROL
from curate.cli.common import Escaped, plain
from tests import kit

ROOT = Path(__file__).parents[2]
CLEAR = "\x1b[2J\x9b31m\u202e"
NEXT = "-- the next --"
ONE_AFTER_THE_OTHER = f"""
import json, sys
from curate.cli.main import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["curate", *arguments]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, (arguments, ended)
    print({NEXT!r}, flush=True)
"""
SPELLED = "\\x1b[2J\\x9b31m\\u202e"


def test_escaped_writes_line_feeds_and_tabs_as_they_are():
    print("a", file=Escaped(None), flush=True)  # a stream that was closed before the start
    file = io.StringIO()
    print(f"a{CLEAR}\tb\r", "c", file=Escaped(Escaped(file)))
    assert file.getvalue() == f"a{SPELLED}\tb\\r c\n"
    assert plain(Escaped(file)) is file is plain(file)
    print("\ufeffcaption", file=Escaped(file))  # the mark of byte order, which nobody sees
    assert file.getvalue().endswith("c\n\\ufeffcaption\n")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_sentences_are_broken_between_words_and_commands_are_not(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    file = Terminal()
    sentence, command = "a note on words " * 12 + "x" * 90, f"  curate sql {'long/' * 20} funnel"
    print(f"{sentence}\n{command}", file=Escaped(file))
    *lines, last = file.getvalue().splitlines()
    assert last == command and " ".join(lines) == sentence
    assert max(map(len, lines[:-1])) <= 80 and lines[-1] == "x" * 90
    pipe = io.StringIO()
    print(sentence, file=Escaped(pipe))
    assert pipe.getvalue() == f"{sentence}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain", "RUN", CLEAR], ["explain", CLEAR, "a"], ["sql", "RUN", f"SELECT * FROM kept WHERE {CLEAR}"],
        ["sql", "RUN", f"SELECT '{CLEAR}' AS \"{CLEAR}\""], ["sql", "RUN", "--shell", CLEAR],
        ["sql", "RUN", "SELECT 1", "--param", f"a{CLEAR}"], ["sql", "RUN", f"SELECT '{CLEAR}'", "--format", "json"],
        ["whatif", "RUN", "--set", f"rules.{CLEAR}=words > 2"], ["whatif", "RUN", "--set", f"rules.w=words > {CLEAR}"],
        ["whatif", "RUN", "--set", f"rules.w=caption = '{CLEAR}'"], ["whatif", "RUN", "--sweep", f"rules.words={CLEAR}"],
        ["diff", "RUN", CLEAR], ["report", "RUN", "--against", CLEAR], ["forget", "RUN", "--uids", CLEAR], ["plan", CLEAR],
        ["plan", "RECIPE", "--set", f"input.path={CLEAR}"], ["plan", "RECIPE", "--set", f"{CLEAR}=1"],
        ["run", "RECIPE", "--out", "FOLDER/run", "--reuse", CLEAR], ["run", "RECIPE", "--out", "FOLDER/run", "--", CLEAR],
        ["init", CLEAR], ["metadata", "import", CLEAR], [CLEAR], ["run", f"--{CLEAR}"],
    ],
    ids=lambda arguments: ascii(" ".join(arguments))[1:-1],
)  # fmt: skip
def test_arguments(cli, finished, pool, tmp_path, arguments):
    names = {"RUN": str(finished["texts"][0]), "RECIPE": str(pool / "texts.yaml")}
    done = cli(*(names.get(word, word).replace("FOLDER", str(tmp_path)) for word in arguments))
    shown = done.out + done.err
    assert "x1b[2J" in shown or "u001b[2J" in shown or "--shell" in arguments
    assert not CONTROL.search(shown.replace("\n", "").replace("\t", "")), ascii(done)


def test_csv_in_a_pipe_is_data(cli, finished):
    assert cli("sql", str(finished["texts"][0]), f"SELECT '{CLEAR}' AS a", "--format", "csv").out == f"a\n{CLEAR}\n"


@pytest.mark.slow
def test_a_pool_of_hostile_names_on_a_terminal(pool, tmp_path):
    """Keys, captions, members of tars, and files have control characters. All commands escape them."""
    (tmp_path / "tars").mkdir()
    for tar_file in (pool / "tars").iterdir():
        shutil.copy(tar_file, tmp_path / "tars" / f"0{CLEAR}{tar_file.name}")
    with tarfile.open(tmp_path / "tars" / f"1{CLEAR}.tar", "w") as tar:
        for suffix, data in (("jpg", b"broken"), ("txt", CLEAR.encode()), ("json", b'{"url": "http://\\u001b[2J"}')):
            kit.add_member(tar, f"key{CLEAR}.{suffix}", data)
    (tmp_path / "tars" / f"2{CLEAR}.tar").write_bytes(b"no tar" * 1000)
    shutil.copy(pool / "entries.txt", tmp_path)
    recipe = (pool / "tars.yaml").read_text().replace("{00..02}", "*").replace("max_failed: 0.2", "max_failed: 1.0")
    (tmp_path / "r.yaml").write_text(recipe)

    def on_terminal(commands):
        ours, theirs = pty.openpty()
        command = [sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps(commands)]
        env = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
        running = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=env, cwd=tmp_path)
        os.close(theirs)
        data = b""
        with suppress(OSError):  # at the end
            while True:
                data += os.read(ours, 4096)
        os.close(ours)
        assert running.wait() == 0, data
        return data.decode()

    sql = "SELECT key, caption, error FROM measured"
    commands = [
        ["plan", "r.yaml"], ["run", "r.yaml", "--out", "out", "--set", "max_failed_files=1"], ["verify", "out"],
        ["sql", "out", sql], *(["sql", "out", sql, "--format", form] for form in ("csv", "json")), ["diff", "out", "out"],
        ["explain", "out", f"key{CLEAR}"], ["whatif", "out", "--set", "rules.words=words > 3"],
    ]  # fmt: skip
    shown = on_terminal(commands).split(NEXT)
    assert len(shown) == len(commands) + 1 and all(shown[:-1])
    for arguments, text in zip(commands, shown, strict=False):
        assert "\x1b[2J" not in text and "\x9b" not in text and "\u202e" not in text, (arguments, ascii(text))


@pytest.mark.slow
def test_a_run_goes_on_where_nobody_reads_what_it_prints(tmp_path):
    """`2>&1 | head -1` closes the pipe early."""
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(12)[:12], 2)
    (tmp_path / "r.yaml").write_text(f"input: {{name: pool, format: webdataset, path: '{path}'}}\n")
    read, write = os.pipe()
    os.close(read)
    arguments = ["run", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-m", "curate", *arguments], stdout=write, stderr=write, check=False)
    os.close(write)
    assert done.returncode == 0
    assert (tmp_path / "out" / "_SUCCESS").exists()
