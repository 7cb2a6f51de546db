"""What one run keeps and another does not: answers by hand, other shardings, nested runs, hostile captions."""

import copy
import csv
import io
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from curate.ask.diff import CHANGES, GAINED, LOST, NOT_IN_POOL, SAMPLES, SETTINGS, changed_samples, diff_runs
from curate.ask.text_pages import render_page
from curate.base.errors import RecipeError, RunError
from curate.base.ids import uid_halves
from curate.publish.uids import PAIR
from tests.kit import make_samples, recipe_of, run_local, write_metadata, write_tars
from tests.kit import written_runs as runs
from tests.kit.commands import Done, finished, pool, run_command  # noqa: F401 (fixtures)
from tests.kit.written_runs import EVIL, sample, uid, verdict, write_bare, write_small, write_units


def page_of(diff):
    return str(render_page("diff", diff=diff))


def write_uids(url, rows):
    """uids.npy of the kept rows, each (sample, verdict)."""
    high, low = uid_halves(pa.array([of["uid"] for of, said in rows if said["kept"]], pa.string()))
    file = io.BytesIO()
    np.save(file, np.sort(np.array(list(zip(high, low, strict=True)), PAIR), order=("f0", "f1")))
    runs.RunStore(url).write_bytes("uids.npy", file.getvalue())


def write_a(url):
    write_small(url)
    write_uids(url, [row[:2] for unit in runs.SMALL for row in unit])
    return url


def write_b(url):
    """The same pool, but for a row less and a row more, decided otherwise."""
    first, second = copy.deepcopy(runs.SMALL)
    first[0] = (
        first[0][0],
        verdict("balance", 0.5, 1.5),
        *first[0][2:],
    )  # a1 is not drawn; its double stays a duplicate
    first[5] = (first[5][0], verdict("duplicate", of="b6"), *first[5][2:])
    second[1] = (second[1][0], verdict(None, 0.9, 0.8), *second[1][2:])
    del second[2]  # b3
    second.append((sample("c9", "a zebra, new", language=None), verdict(None, 1.0, 0.0), [3], 0.5))
    entries = [(*entry[:8], {"cat": 2, "zebra": 1}.get(entry[1], 0)) for entry in runs.ENTRIES]
    run = runs.RUN | {"name": "other", "recipe": runs.RUN["recipe"] | {"balance": {"t": 3}}, "t": 3}
    write_units(url, [second, first], run, entries)  # another order of units
    write_uids(url, [row[:2] for row in (*first, *second)])
    return url


@pytest.fixture(scope="module", params=["", "memory://"])
def pair(request, tmp_path_factory):
    """Two runs, once on this machine and once remote, which no test changes."""
    folder = f"{request.param}{tmp_path_factory.mktemp('pair')}"
    return write_a(f"{folder}/a"), write_b(f"{folder}/b")


def rows(table):
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def test_by_hand(pair):
    diff = diff_runs(*pair)
    assert (diff.lost, diff.gained, diff.shared) == (3, 2, 1)
    assert vars(diff.a) | {"url": ""} == {"url": "", "name": "small", "pool": 12, "failed": 1, "kept": 4, "uids": 4}
    assert (diff.b.name, diff.b.kept) == ("other", 3)
    assert rows(diff.settings) == [("balance.t", "2", "3")]
    assert rows(diff.rules) == [
        ("pool", 12, 12, None, None),
        ("failed", 1, 1, 0, 0),
        ("words", 1, 1, 0, 0),
        ("side", 1, 1, 0, 0),
        ("aligned", 1, 1, 0, 0),
        ("unmatched", 1, 1, 0, 0),
        ("duplicate", 2, 3, 1, 0),
        ("balance", 1, 1, 1, 1),
        (NOT_IN_POOL, None, None, 1, 1),
        ("kept", 4, 3, 3, 2),
    ]
    assert rows(diff.entries) == [
        ("cat", 3, 2, 2, 1),
        ("photo", 1, 0, 1, 0),
        ("red", 1, 0, 1, 0),
        ("zebra", 0, 1, 0, 1),
    ]
    assert rows(diff.sources) == [("web", 2, 2, 1, 1), ("photos", 2, 1, 2, 1)]
    assert rows(diff.languages) == [("en", 3, 2, 2, 1), ("fr", 1, 0, 1, 0), (None, 0, 1, 0, 1)]
    assert diff.settings.schema == SETTINGS
    assert {t.schema for t in (diff.rules, diff.entries, diff.sources, diff.languages)} == {CHANGES}
    assert not diff.is_same and not diff.shares_no_pool


def test_samples(pair):
    batches = list(changed_samples(*pair))
    assert {batch.schema for batch in batches} == {SAMPLES}
    found = [row for batch in batches for row in batch.to_pylist()]
    assert [(row["side"], row["uid"], row["rule"], row["duplicate_of"]) for row in found] == [
        (LOST, uid("a1"), "balance", None),
        (LOST, uid("a6"), "duplicate", uid("b6")),
        (LOST, uid("b3"), NOT_IN_POOL, None),
        (GAINED, uid("b2"), "balance", None),
        (GAINED, uid("c9"), NOT_IN_POOL, None),
    ]
    assert [row["caption"] for row in found[1:3]] == [EVIL, "une photo de chien"]
    assert [(row["source"], row["language"], row["url"]) for row in found[2:4]] == [
        ("web", "fr", "http://x/b3"), ("web", "en", "http://x/b2"),
    ]  # fmt: skip
    few = [row for batch in changed_samples(*pair, limit=1) for row in batch.to_pylist()]
    assert few == [found[0], found[3]]


def test_samples_come_with_the_numbers_of_the_rule(tmp_path):
    a, b = write_a(f"{tmp_path}/a"), f"{tmp_path}/b"
    first, second = copy.deepcopy(runs.SMALL)
    for place, (rule, changes) in {0: ("words", {}), 5: ("side", {"width": 100, "height": 80})}.items():
        row, _, *rest = first[place]
        first[place] = (row | changes, verdict(rule), *rest)
    row, _, ids, _ = second[2]
    second[2] = (row, verdict("aligned"), ids, 0.1)
    write_units(b, [first, second], runs.RUN, runs.ENTRIES)
    write_uids(b, [row[:2] for row in (*first, *second)])
    found = {row["uid"]: (row["rule"], row["value"]) for batch in changed_samples(a, b) for row in batch.to_pylist()}
    assert found == {
        uid("a1"): ("words", "words = 3"),
        uid("a6"): ("side", "width = 100, height = 80"),
        uid("b3"): ("aligned", "clip_score = 0.1"),
    }


def test_the_other_way_round(pair):
    there, back = diff_runs(*pair), diff_runs(*reversed(pair))
    assert (back.lost, back.gained) == (there.gained, there.lost)
    for name in ("sources", "languages", "entries", "rules"):
        turned = {(row[0], row[2], row[1], row[4], row[3]) for row in rows(getattr(there, name))}
        assert set(rows(getattr(back, name))) == turned


def test_a_run_and_itself(pair):
    diff = diff_runs(pair[0], pair[0])
    assert diff.is_same and not diff.shares_no_pool and list(changed_samples(pair[0], pair[0])) == []
    assert "Both keep the same 4 samples." in (page_of(diff))


@pytest.mark.thorough
def test_repeats_are_compared(pair, tmp_path):
    again = write_a(f"{tmp_path}/again")
    store = runs.RunStore(again)
    with store.open("uids.npy") as file:
        uids = np.load(file)
    assert "uids.npy" not in (page_of(diff_runs(pair[0], again)))
    file = io.BytesIO()
    np.save(file, np.repeat(uids, [1, 3, 1, 2]))
    store.write_bytes("uids.npy", file.getvalue())
    diff = diff_runs(pair[0], again)
    assert (diff.a.uids, diff.b.uids, diff.repeated, diff.is_same) == (4, 7, 2, True)
    assert "uids.npy: 4 → 7 uids; repeats differ for 2 samples in both" in (page_of(diff))
    assert diff_runs(again, pair[1]).repeated == 1  # of the one sample that both keep


def test_a_run_without_languages_is_named(pair):
    diff = diff_runs(*pair)
    known = CHANGES.empty_table()
    unknown = pa.Table.from_pylist([{"name": None, "a": 0, "b": 3}, {"name": "en", "a": 4, "b": 0}], CHANGES)
    assert "by language B measured no language" in " ".join((page_of(replace(diff, languages=unknown))).split())
    assert "by language" not in (page_of(replace(diff, languages=known)))


def test_runs_that_share_no_pool_nor_metadata(pair, tmp_path):
    other = f"{tmp_path}/bare"
    write_bare(other)
    write_uids(other, [(sample(f"c{i}", ""), {"kept": i > 0}) for i in range(3)])
    diff = diff_runs(pair[0], other)
    assert (diff.lost, diff.gained) == (4, 2) and diff.shares_no_pool
    assert rows(diff.entries)[0] == ("cat", 3, None, 3, None)  # nothing was matched there: not 0, but unknown
    assert "their pools have nothing in common" in (page_of(diff))


def test_another_sharding_keeps_the_same(tmp_path):
    samples, metadata = make_samples(60), write_metadata(tmp_path)
    sections = {"match": {"metadata": metadata}, "rules": {"words": "words > 3"}, "balance": {"t": 5}}
    one = run_local(recipe_of(write_tars(tmp_path / "one", samples, 2), **sections), tmp_path / "run1")
    other = run_local(recipe_of(write_tars(tmp_path / "other", samples[::-1], 5), **sections), tmp_path / "run2")
    diff = diff_runs(str(one.folder), str(other.folder))
    assert diff.is_same and diff.a.kept > 10
    assert [row[0] for row in rows(diff.settings)] == ["input.pool.path"]


def test_a_larger_t_only_gains(tmp_path):
    tars, metadata = write_tars(tmp_path / "pool", make_samples(60), 2), write_metadata(tmp_path)
    found = [
        run_local(recipe_of(tars, match={"metadata": metadata}, balance={"t": t}), tmp_path / f"run{t}")
        for t in (2, 10)
    ]
    diff = diff_runs(*(str(run.folder) for run in found))
    assert diff.lost == 0 and diff.gained == found[1].counts["kept"] - found[0].counts["kept"] > 0
    why = {row[0]: row[4] for row in rows(diff.rules) if row[4]}
    assert why == {"balance": diff.gained, "kept": diff.gained}
    by_name = {row[0]: row for row in rows(diff.entries)}
    for name, kept in zip(*(found[1].table("entries")[c].to_pylist() for c in ("entry", "kept")), strict=True):
        assert not kept or (by_name[name][2] == kept and by_name[name][1] + by_name[name][4] == kept)


def test_errors(pair, tmp_path):
    with pytest.raises(RecipeError, match="no such folder"):
        diff_runs(pair[0], f"{tmp_path}/nothing")
    unfinished = write_b(f"{tmp_path}/b")
    runs.RunStore(unfinished).delete("_SUCCESS")
    with pytest.raises(RunError, match="not finished"):
        next(changed_samples(pair[0], unfinished))


# ---- the command


def test_the_page(pair):
    done = run_command("diff", *pair)
    assert (done.status, done.err) == (0, "")
    words = [" ".join(line.split()) for line in done.out.splitlines()]
    for wanted in (
        "lost 3, gained 2, 1 in both",
        "balance.t 2 → 3",
        "balance −1 −1 1 1",
        "not in the pool 1 1",
        "photos 2 1 2 1 −50.0%",
        "unknown 0 1 0 1",
        "cat 3 2 2 1 −33.3%",
    ):
        assert wanted in words, done.out
    assert run_command("diff", pair[0], pair[0]).status == 0


@pytest.mark.thorough
def test_formats(pair):
    whole = json.loads(run_command("diff", *pair, "--format", "json").out)
    assert (whole["lost"], whole["gained"], whole["b"]["kept"]) == (3, 2, 3)
    assert whole["entries"][0] == {"name": "cat", "a": 3, "b": 2, "lost": 2, "gained": 1}
    stacked = list(csv.DictReader(io.StringIO(run_command("diff", *pair, "--format", "csv").out)))
    assert stacked[-1] == {"by": "language", "name": "", "a": "0", "b": "1", "lost": "0", "gained": "1"}
    assert {row["by"] for row in stacked} == {"rule", "entry", "source", "language"}
    for by, name in (("rule", "rules"), ("setting", "settings"), ("entry", "entries")):
        assert json.loads(run_command("diff", *pair, "--by", by, "--format", "json").out) == whole[name]
    listed = run_command("diff", *pair, "--by", "sample", "--format", "csv").out
    assert [(row["side"], row["uid"]) for row in csv.DictReader(io.StringIO(listed))] == [
        (LOST, uid("a1")), (LOST, uid("a6")), (LOST, uid("b3")), (GAINED, uid("b2")), (GAINED, uid("c9")),
    ]  # fmt: skip
    as_json = json.loads(run_command("diff", *pair, "--by", "sample", "--format", "json", "--limit", "1").out)
    assert [row["uid"] for row in as_json] == [uid("a1"), uid("b2")]
    one = json.loads(run_command("diff", *pair, "--side", "gained", "--format", "json").out)
    assert [row["uid"] for row in one] == [uid("b2"), uid("c9")]
    assert "of 4 rows; print more with --limit" in run_command("diff", *pair, "--by", "entry", "--limit", "1").out


@pytest.mark.thorough
def test_a_page_of_the_lost(
    finished,  # noqa: F811
    pool,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    monkeypatch.chdir(tmp_path)
    a, b = str(finished["tars"][0]), str(tmp_path / "b")
    changes = ["--reuse", a, "--set", "rules.words=characters > 14"]
    assert run_command("run", str(pool / "tars.yaml"), "--out", b, *changes).status == 0
    done = run_command("diff", a, b, "--side", "lost", "--images", "--limit", "3")
    assert (done.status, done.out) == (0, "wrote lost.html: open it in a browser\n")
    page = (tmp_path / "lost.html").read_text()
    lost = [row["uid"] for batch in changed_samples(a, b, 3, [LOST]) for row in batch.to_pylist()]
    assert len(lost) == page.count("data:image/jpeg;base64,") == 3 and all(one in page for one in lost)


@pytest.mark.thorough
def test_strangers_cannot_steer_the_terminal(pair):
    for more in ([], ["--by", "sample"], ["--by", "sample", "--format", "json"]):
        done = run_command("diff", *pair, *more)
        assert done.status == 0 and "\x1b" not in done.out and "\u202e" not in done.out
    assert "\\x1b[31mred" in run_command("diff", *pair, "--by", "sample").out


@pytest.mark.parametrize("damage", [b"", b"\n", b"\x93NUMPY"])
def test_damaged_uids_are_told(tmp_path, damage):
    for name in ("a", "b"):
        write_small(str(tmp_path / name)).write_bytes("uids.npy", damage)
    with pytest.raises(RunError, match=r"uids\.npy is damaged"):
        diff_runs(str(tmp_path / "a"), str(tmp_path / "b"))


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (["--limit", "3"], "--limit needs --by"),
        (["--by", "sample", "--format", "csv"], "no such folder"),
        (["--images"], "--images needs --side"),
        (["--side", "lost", "--by", "entry"], "--side lost lists samples"),
        (["--out", "a.html"], "--out names the page of --images"),
    ],
)
def test_wrong_arguments(tmp_path, more, part):
    done = run_command("diff", f"{tmp_path}/no", f"{tmp_path}/no", *more)
    assert (done.status, done.out) == (2, "") and part in done.err
