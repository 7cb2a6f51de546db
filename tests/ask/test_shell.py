"""The shell: where a statement ends, where answers and errors go, and that it neither leaves the run nor changes it."""

import io
import sys

from curate.ask.shell import is_complete, read_inputs, run_shell


class Answered:
    """The output of a shell for some input."""

    def __init__(self, url, text, monkeypatch, errors):
        file = io.StringIO()
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        self.failed = run_shell(url, "csv", file)
        self.out = file.getvalue().replace("\r\n", "\n")
        self.err = errors.readouterr().err


WHOLE = ["SELECT 1;", "SELECT 1; -- so", "SELECT ';';", "SELECT /* ; */ 1 ; /* why */", "SELECT $a$;$$;$a$;", ";"]
WHOLE += ["SELECT $$it's$$;", "SELECT ['a]b'];", 'SELECT ";" FROM x;\n']
PARTS = ["", "SELECT 1", "SELECT 1 -- ;", "SELECT ';", "SELECT 'it''s;", "SELECT /* ;", "SELECT $$;"]


def test_a_statement_ends_where_sql_says():
    assert [text for text in (*WHOLE, *PARTS) if is_complete(text)] == WHOLE


def test_inputs_are_whole_statements_and_dotted_lines():
    lines = iter(
        ["", "SELECT", ".5;", " .tables", "SELECT ';", "';", "SELECT", KeyboardInterrupt, "SELECT 2", EOFError]
    )
    prompts = []

    def read(prompt):
        prompts.append(prompt)
        line = next(lines)
        if isinstance(line, str):
            return line
        raise line

    assert list(read_inputs(read)) == ["SELECT\n.5;\n", ".tables", "SELECT ';\n';\n", "SELECT 2\n"]
    assert prompts[:3] == ["curate> ", "curate> ", "   ...> "]


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


def test_errors_go_to_standard_error_and_the_next_statement_is_executed(small, monkeypatch, capsys):
    text = "SELEC 1;\nfunel;\ntop_entries limt=1;\n.open x\nSELECT 3 AS c;\nexplain SELECT 1;\nexplain;\n"
    done = Answered(small, text, monkeypatch, capsys)
    assert done.failed == 5 and done.out.startswith("c\n3\n")
    assert done.err.count("curate: ") == done.err.count("\ncurate: ") + 1
    parts = ("syntax error", "did you mean funnel", "did you mean 'limit'", "accepted: .queries", "uid=… is missing")
    assert all(part in done.err for part in parts)


def test_its_commands(small, monkeypatch, capsys):
    done = Answered(small, ".help\n.tables\n.queries\n.format xml\n", monkeypatch, capsys)
    assert "Ctrl-D" in done.out and "\nverdicts\n" in done.out and "top_entries,limit=20 by=survivors," in done.out
    assert done.failed == 1 and "table|csv|json" in done.err


def test_nothing_gets_out_or_in(attacked, monkeypatch, capsys):
    monkeypatch.chdir(attacked.out)
    before = attacked.files()
    done = Answered(attacked.run, "".join(f"{attack};\n" for attack in attacked.attacks), monkeypatch, capsys)
    assert attacked.files() == before
    assert "secret\n1" not in done.out and "root:" not in done.out + done.err
    assert done.failed >= len([attack for attack in attacked.attacks if ";" not in attack]) > 15
