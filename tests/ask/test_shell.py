"""The shell: what is a whole statement, what is answered where, and that it lets nothing out of the run or into it."""

import io
import os
import sys

import pytest

from curate.ask.shell import is_complete, read_inputs, run_shell
from curate.base.errors import RecipeError
from tests.ask.test_query import ATTACKS, attacked, everything
from tests.kit.written_runs import write_small

__all__ = ["attacked"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_small(str(tmp_path_factory.mktemp("small"))).url


class Answered:
    """What a shell said to some input."""

    def __init__(self, url, text, monkeypatch, errors):
        file = io.StringIO()
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        self.failed = run_shell(url, "csv", file)
        self.out = file.getvalue().replace("\r\n", "\n")
        self.err = errors.readouterr().err


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("SELECT 1;", True), ("SELECT 1", False), ("SELECT 1; -- so", True), ("SELECT 1 -- ;", False),
        ("SELECT ';", False), ("SELECT ';';", True), ("SELECT 'it''s;", False), ("SELECT \";\" FROM x;\n", True),
        ("SELECT /* ;", False), ("SELECT /* ; */ 1 ; /* why */", True), ("SELECT $$;", False), ("SELECT $a$;$$;$a$;", True),
        ("SELECT $$it's$$;", True), ("SELECT ['a]b'];", True), ("", False), (";", True),
    ],
)  # fmt: skip
def test_a_statement_ends_where_sql_says(text, whole):
    assert is_complete(text) is whole


def test_inputs_are_whole_statements_and_dotted_lines():
    lines = iter(["", "SELECT", ".5;", " .tables", "SELECT ';", "';", "SELECT 2"])
    prompts = []

    def read(prompt):
        prompts.append(prompt)
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    assert list(read_inputs(read)) == ["SELECT\n.5;\n", ".tables", "SELECT ';\n';\n", "SELECT 2\n"]
    assert prompts[:3] == ["curate> ", "curate> ", "   ...> "]


def test_a_key_stops_what_was_begun(capsys):
    answers = iter(["SELECT", KeyboardInterrupt, "SELECT 1;", EOFError])

    def read(_prompt):
        answer = next(answers)
        if isinstance(answer, str):
            return answer
        raise answer

    assert list(read_inputs(read)) == ["SELECT 1;\n"]


def test_it_answers(small, monkeypatch, capsys):
    text = "SELECT count(*) AS n\nFROM kept; SELECT 1 AS a;\ntop_entries limit=1;\nentries like='%o%' min_pool=0 limit=1;\n"
    done = Answered(small, text + ".format json\nSELECT NULL AS x;\n.quit\nSELECT 2;", monkeypatch, capsys)
    assert (done.failed, done.err) == (0, "")
    assert done.out.splitlines() == [
        "n", "4", "a", "1",
        "entry,pool,survivors,probability,expected,kept,thinned_to", "cat,7,4,0.5,2.5,3,0.75",
        "entry_id,entry,source,language,pool,survivors,probability,expected,kept", "2,photo,titles,en,1,1,1.0,1.0,1",
        "[", '{"x": null}]',
    ]  # fmt: skip


def test_what_is_wrong_goes_to_standard_error_and_the_next_is_answered(small, monkeypatch, capsys):
    text = "SELEC 1;\nfunel;\ntop_entries limt=1;\n.open x\nSELECT 3 AS c;\nexplain SELECT 1;\nexplain;\n"
    done = Answered(small, text, monkeypatch, capsys)
    assert done.failed == 5 and done.out.startswith("c\n3\n")
    assert [line for line in done.err.splitlines() if line.startswith("curate: ")] == [
        line for line in done.err.splitlines() if "curate: " in line
    ]
    for part in (
        "syntax error",
        "did you mean funnel",
        "did you mean 'limit'",
        "accepted: .queries",
        "uid=… is missing",
    ):
        assert part in done.err


def test_its_commands(small, monkeypatch, capsys):
    done = Answered(small, ".help\n.tables\n.queries\n.format xml\n", monkeypatch, capsys)
    assert "Ctrl-D" in done.out and "\nverdicts\n" in done.out and "top_entries,limit=20 by=survivors," in done.out
    assert done.failed == 1 and "table|csv|json" in done.err


def test_nothing_gets_out_or_in(attacked, monkeypatch, capsys):
    monkeypatch.chdir(attacked["out"])
    before = everything(attacked)
    attacks = [attack.format(**attacked) for attack in ATTACKS]
    done = Answered(attacked["run"], "".join(f"{attack};\n" for attack in attacks), monkeypatch, capsys)
    assert everything(attacked) == before
    assert "secret\n1" not in done.out and "root:" not in done.out + done.err
    one = [attack for attack in attacks if ";" not in attack]
    assert done.failed >= len(one) > 15


def test_another_shells_commands_are_none_here(small, monkeypatch, capsys, tmp_path):
    commands = [
        ".shell touch x",
        ".system touch x",
        ".read /etc/passwd",
        ".output x",
        ".once x",
        ".open x",
        ".import x y",
        ".cd /",
    ]
    monkeypatch.chdir(tmp_path)
    done = Answered(small, "\n".join(commands), monkeypatch, capsys)
    assert (done.failed, done.out, os.listdir(tmp_path)) == (len(commands), "", [])


def test_a_remote_run(monkeypatch, capsys):
    folder = write_small("memory://shell-run")
    try:
        done = Answered(folder.url, "funnel;\nFROM 'memory://shell-run/run.json';", monkeypatch, capsys)
        assert "\nkept,4,0,4," in done.out and done.failed == 1
    finally:
        folder.fs.rm("/shell-run", recursive=True)


def test_there_must_be_a_run(tmp_path):
    with pytest.raises(RecipeError, match="no such folder"):
        run_shell(str(tmp_path / "none"), "csv", io.StringIO())
