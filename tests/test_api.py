"""`curate.Run`: a run from Python, read-only, local and remote."""

import subprocess
import sys

import pyarrow as pa
import pytest

import curate
from curate import Run
from curate.ask.diff import SAMPLES, changed_samples
from curate.base.errors import RecipeError, RunError
from tests.kit.commands import run_command, write_pool
from tests.kit.written_runs import EVIL, finish, uid, write_a, write_b, write_small


@pytest.fixture(scope="module", params=["", "memory://"])
def finished(request, tmp_path_factory):
    url = f"{request.param}{tmp_path_factory.mktemp('api')}/small"
    folder = write_small(url)
    counts = {"failed": 1, "words": 1, "side": 1, "aligned": 1, "unmatched": 1, "duplicate": 2, "balance": 1, "kept": 4}
    finish(folder, folder.read_json("run.json") | {"counts": counts})
    return url


@pytest.fixture
def small(finished):
    with Run(finished) as run:
        yield run


def test_sql(small):
    sql = "SELECT uid, words FROM kept WHERE words < $most AND source = $of ORDER BY uid"
    found = small.sql(sql, most=4, of="photos")
    assert found.to_pylist() == [{"uid": uid("a1"), "words": 3}, {"uid": uid("a6"), "words": 3}]
    assert small.sql("SELECT $text AS text", text="12").to_pylist() == [{"text": "12"}]  # not a number
    assert small.sql("SELECT 1 AS a, 2 AS a").column_names == ["a", "a_1"]
    assert small.sql("top_entries", limit=1)["entry"].to_pylist() == ["cat"]
    sums = "sum(words) AS words, sum(2::HUGEINT ** 62::HUGEINT)::HUGEINT AS large, 1::DECIMAL(38, 0) AS d"
    total = small.sql(f"SELECT {sums} FROM samples")
    assert total.schema.types == [pa.int64(), pa.decimal128(38, 0), pa.decimal128(38, 0)]
    assert total.to_pylist()[0]["words"] == sum(small.samples(columns=["words"])["words"].to_pylist())


def test_samples(small):
    assert small.samples().num_rows == 12
    assert {"uid", "caption", "clip_score", "kept", "rule", "duplicate_of", "draw"} <= set(small.samples().column_names)
    found = small.samples("kept AND clip_score > 0.5 -- a comment", ["uid", "caption", "clip_score"])
    assert found.column_names == ["uid", "caption", "clip_score"]
    assert found["uid"].to_pylist() == [uid("a6"), uid("b3")] and found["caption"][0].as_py() == EVIL
    assert small.samples(limit=3)["row"].to_pylist() == [0, 1, 2]
    with pytest.raises(RecipeError, match="to select dropped samples, write NOT kept"):
        small.samples("dropped")
    assert small.samples("NOT kept").num_rows == 8


def test_funnel(small):
    funnel = small.funnel()
    assert funnel["rule"].to_pylist()[0] == "pool" and funnel["kept"].to_pylist()[-1] == 4
    assert sum(funnel["dropped"].to_pylist()) == 8


def test_explain(small):
    page = small.explain(uid("a4"))
    assert "verdict: dropped by side" in str(page) and repr(page) == str(page)
    with pytest.raises(RunError, match="none of its 12 rows"):
        small.explain(uid("ff"))


def test_diff(tmp_path):
    write_a(f"{tmp_path}/a")
    write_b(f"{tmp_path}/b")
    with Run(tmp_path / "a") as a, Run(tmp_path / "b") as b:
        found = a.diff(b)
        assert (found.lost, found.gained) == (3, 2) == (a.diff(tmp_path / "b").lost, a.diff(f"{tmp_path}/b").gained)
        lost = pa.Table.from_batches(changed_samples(a.path, b.path, sides=["lost"]), SAMPLES)
        assert found.samples("lost").equals(lost)
        assert (len(found.samples("lost")), found.samples("gained", 1)["side"].to_pylist()) == (3, ["gained"])
        with pytest.raises(RecipeError, match="'kept' is not a side; accepted: 'lost', 'gained'"):
            found.samples("kept")
    assert repr(found) == "small → other: lost 3, gained 2, 1 in both"


def test_what_it_shows(small):
    assert repr(small) == f"Run({small.path!r}): 4 of 12 samples kept"
    shown = small._repr_html_()
    assert "<b>small</b>" in shown and "<td>side</td><td>1</td><td>9</td>" in shown
    small.facts["name"] = "<script>\x1b"
    assert "<b>&lt;script&gt;\\x1b</b>" in small._repr_html_()


def test_tables_outlive_the_run(small):
    found = small.samples()
    small.close()
    assert found["uid"].null_count == 1 and len(found.to_pylist()) == 12


QUERIES = (
    "DROP VIEW samples", "COPY samples TO 'x.csv'", "SET threads = 1", "ATTACH 'x.db'", "INSTALL httpfs", "SELECT 1; SELECT 2",
    "FROM read_text('/etc/passwd')", "FROM '/etc/passwd'", "WITH x AS (COPY samples TO 'x') FROM x", "CREATE TABLE x (a INT)",
)  # fmt: skip
CONDITIONS = ("true) UNION SELECT * FROM '/etc/passwd' --", "true); DROP VIEW samples; --", "nothing = 1", "'")


def test_it_only_reads(small):
    """Whatever was asked before, also on one connection."""
    for query in QUERIES:
        with pytest.raises(RecipeError):
            small.sql(query)
    for where in CONDITIONS:
        with pytest.raises(RecipeError):
            small.samples(where)
    assert small.samples().num_rows == 12


def test_what_is_no_run(tmp_path):
    with pytest.raises(RecipeError, match="no such folder"):
        Run(tmp_path / "nothing")


def test_importing_it_is_lazy():
    code = (
        "import sys, curate; assert 'pyarrow' not in sys.modules; from curate import Run; "
        "print(*sorted({'apache_beam', 'torch', 'pandas', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    assert "Run" in dir(curate)
    with pytest.raises(AttributeError, match="no attribute 'Rum'"):
        curate.Rum


def test_whatif(tmp_path):
    write_pool(tmp_path)
    command = ("run", str(tmp_path / "tars.yaml"), "--out", str(tmp_path / "run"), "--in-process")
    assert run_command(*command).status == 0
    with Run(tmp_path / "run") as run:
        same, more = run.whatif({}), run.whatif({"balance.t": 10**6, "rules.words": None})
        assert same.funnel["run"].to_pylist() == run.whatif({"balance.t": run.facts["t"]}).funnel["run"].to_pylist()
        assert more.t == 10**6 and more.error == 0
        sql = "SELECT (SELECT count(*) FROM survivors) + (SELECT count(*) FROM decisions WHERE rule = 'words') AS n"
        assert more.expected == run.sql(sql)["n"][0].as_py()
