"""The differences between two runs: an answer by hand, other shards, runs without anything in common, the command."""

import copy
import csv
import io
import json

import numpy as np
import pytest

from curate.ask.diff import CHANGES, GAINED, LOST, NOT_IN_POOL, SAMPLES, SETTINGS, changed_samples, diff_runs
from curate.base.errors import RecipeError, RunError
from curate.store.store import RunStore
from tests.kit import make_samples, recipe_of, run_local, write_metadata, write_tars
from tests.kit.commands import run_command
from tests.kit.written_runs import (
    EVIL,
    SMALL,
    sample,
    uid,
    verdict,
    write_a,
    write_b,
    write_bare,
    write_small,
    write_uids,
    write_units,
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A local and a remote run; do not change them."""
    folder = tmp_path_factory.mktemp("pair")
    return write_a(f"{folder}/a"), write_b(f"memory://{folder}/b")


def rows(table):
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def samples(*pair, **options):
    return [row for batch in changed_samples(*pair, **options) for row in batch.to_pylist()]


def test_by_hand(pair):
    diff = diff_runs(*pair)
    assert (diff.lost, diff.gained, diff.shared) == (3, 2, 1)
    assert vars(diff.a) | {"url": ""} == {"url": "", "name": "small", "pool": 12, "failed": 1, "kept": 4, "uids": 4}
    assert (diff.b.name, diff.b.kept) == ("other", 3)
    assert rows(diff.settings) == [("balance.t", "2", "3")]
    assert rows(diff.rules) == [
        ("pool", 12, 12, None, None), ("failed", 1, 1, 0, 0), ("words", 1, 1, 0, 0), ("side", 1, 1, 0, 0),
        ("aligned", 1, 1, 0, 0), ("unmatched", 1, 1, 0, 0), ("duplicate", 2, 3, 1, 0), ("balance", 1, 1, 1, 1),
        (NOT_IN_POOL, None, None, 1, 1), ("kept", 4, 3, 3, 2),
    ]  # fmt: skip
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
    back = diff_runs(*reversed(pair))
    assert (back.lost, back.gained) == (diff.gained, diff.lost)
    for name in ("sources", "languages", "entries", "rules"):
        turned = {(row[0], row[2], row[1], row[4], row[3]) for row in rows(getattr(diff, name))}
        assert set(rows(getattr(back, name))) == turned


def test_samples(pair):
    assert {batch.schema for batch in changed_samples(*pair)} == {SAMPLES}
    found = samples(*pair)
    assert [(row["side"], row["uid"], row["rule"], row["duplicate_of"]) for row in found] == [
        (LOST, uid("a1"), "balance", None), (LOST, uid("a6"), "duplicate", uid("b6")),
        (LOST, uid("b3"), NOT_IN_POOL, None), (GAINED, uid("b2"), "balance", None),
        (GAINED, uid("c9"), NOT_IN_POOL, None),
    ]  # fmt: skip
    assert [row["caption"] for row in found[1:3]] == [EVIL, "une photo de chien"]
    places = [(row["source"], row["language"], row["url"]) for row in found[2:4]]
    assert places == [("web", "fr", "http://x/b3"), ("web", "en", "http://x/b2")]
    assert samples(*pair, limit=1) == [found[0], found[3]]


def test_samples_have_the_numbers_that_the_rule_reads(tmp_path):
    a, b = write_a(f"{tmp_path}/a"), f"{tmp_path}/b"
    first, second = copy.deepcopy(SMALL)
    for place, (rule, changes) in {0: ("words", {}), 5: ("side", {"width": 100, "height": 80})}.items():
        first[place] = (first[place][0] | changes, verdict(rule), *first[place][2:])
    second[2] = (second[2][0], verdict("aligned"), second[2][2], 0.1)
    write_units(b, [first, second])
    write_uids(b, [row[:2] for row in (*first, *second)])
    assert {row["uid"]: (row["rule"], row["value"]) for row in samples(a, b)} == {
        uid("a1"): ("words", "words = 3"),
        uid("a6"): ("side", "width = 100, height = 80"),
        uid("b3"): ("aligned", "clip_score = 0.1"),
    }


@pytest.mark.thorough
def test_repeats_are_compared(pair, tmp_path):
    again = write_a(f"{tmp_path}/again")
    diff = diff_runs(pair[0], again)
    assert diff.is_same and not diff.shares_no_pool and not diff.repeated and samples(pair[0], again) == []
    store = RunStore(again)
    with store.open("uids.npy") as file:
        uids = np.load(file)
    file = io.BytesIO()
    np.save(file, np.repeat(uids, [1, 3, 1, 2]))
    store.write_bytes("uids.npy", file.getvalue())
    diff = diff_runs(pair[0], again)
    assert (diff.a.uids, diff.b.uids, diff.repeated, diff.is_same) == (4, 7, 2, True)
    assert diff_runs(again, pair[1]).repeated == 1  # the one sample that both keep


def test_runs_with_neither_pool_nor_metadata_in_common(pair, tmp_path):
    other = f"{tmp_path}/bare"
    write_bare(other)
    write_uids(other, [(sample(f"c{i}", ""), {"kept": i > 0}) for i in range(3)])
    diff = diff_runs(pair[0], other)
    assert (diff.lost, diff.gained) == (4, 2) and diff.shares_no_pool
    assert rows(diff.entries)[0] == ("cat", 3, None, 3, None)  # nothing was matched there: not 0, but unknown


def test_other_shards_and_a_larger_t(tmp_path):
    made, metadata = make_samples(60), write_metadata(tmp_path)
    tars = [write_tars(tmp_path / "one", made, 2), write_tars(tmp_path / "other", made[::-1], 5)]
    small, same, large = (
        run_local(recipe_of(path, match={"metadata": metadata}, balance={"t": t}), tmp_path / f"run{i}")
        for i, (path, t) in enumerate([(tars[0], 2), (tars[1], 2), (tars[0], 10)])
    )
    diff = diff_runs(str(small.folder), str(same.folder))
    assert diff.is_same and diff.a.kept > 10 and [row[0] for row in rows(diff.settings)] == ["input.pool.path"]
    diff = diff_runs(str(small.folder), str(large.folder))
    assert diff.lost == 0 and diff.gained == large.counts["kept"] - small.counts["kept"] > 0
    assert {row[0]: row[4] for row in rows(diff.rules) if row[4]} == {"balance": diff.gained, "kept": diff.gained}
    by_name = {row[0]: row for row in rows(diff.entries)}
    for name, kept in zip(*(large.table("entries")[c].to_pylist() for c in ("entry", "kept")), strict=True):
        assert not kept or (by_name[name][2] == kept and by_name[name][1] + by_name[name][4] == kept)


def test_what_cannot_be_compared(pair, tmp_path):
    with pytest.raises(RecipeError, match="no such folder"):
        diff_runs(pair[0], f"{tmp_path}/nothing")
    other = write_small(f"{tmp_path}/other")
    for damage in (b"", b"\n", b"\x93NUMPY"):
        other.write_bytes("uids.npy", damage)
        with pytest.raises(RunError, match=r"uids\.npy is damaged"):
            diff_runs(pair[0], other.url)
    other.delete("_SUCCESS")
    with pytest.raises(RunError, match="not finished"):
        next(changed_samples(pair[0], other.url))


# ---- the command


@pytest.mark.thorough
def test_the_command(pair):
    def output(*arguments):
        done = run_command("diff", *pair, *arguments)
        assert (done.status, done.err) == (0, "")
        assert "csv" in arguments or ("\x1b" not in done.out and "\u202e" not in done.out)
        return done.out

    page = [" ".join(line.split()) for line in output().splitlines()]
    wanted = ("lost 3, gained 2, 1 in both", "balance.t 2 → 3", "balance −1 −1 1 1", "not in the pool 1 1")
    assert {*wanted, "photos 2 1 2 1 −50.0%", "unknown 0 1 0 1", "cat 3 2 2 1 −33.3%"} <= {*page}
    whole = json.loads(output("--format", "json"))
    assert (whole["lost"], whole["gained"], whole["b"]["kept"]) == (3, 2, 3)
    assert whole["entries"][0] == {"name": "cat", "a": 3, "b": 2, "lost": 2, "gained": 1}
    stacked = list(csv.DictReader(io.StringIO(output("--format", "csv"))))
    assert stacked[-1] == {"by": "language", "name": "", "a": "0", "b": "1", "lost": "0", "gained": "1"}
    assert {row["by"] for row in stacked} == {"rule", "entry", "source", "language"}
    for by, name in (("rule", "rules"), ("setting", "settings"), ("entry", "entries")):
        assert json.loads(output("--by", by, "--format", "json")) == whole[name]
    listed = csv.DictReader(io.StringIO(output("--by", "sample", "--format", "csv")))
    assert [row["uid"] for row in listed] == [row["uid"] for row in samples(*pair)]
    for arguments, uids in ((["--by", "sample", "--limit", "1"], ("a1", "b2")), (["--side", "gained"], ("b2", "c9"))):
        assert [row["uid"] for row in json.loads(output(*arguments, "--format", "json"))] == [*map(uid, uids)]
    assert "of 4 rows; print more with --limit" in output("--by", "entry", "--limit", "1")
    assert "\\x1b[31mred" in output("--by", "sample")


@pytest.mark.thorough
def test_a_page_of_the_lost(finished, pool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a, b = str(finished["tars"][0]), str(tmp_path / "b")
    changes = ["--reuse", a, "--set", "rules.words=characters > 14"]
    assert run_command("run", str(pool / "tars.yaml"), "--out", b, "--in-process", *changes).status == 0
    done = run_command("diff", a, b, "--side", "lost", "--images", "--limit", "3")
    assert (done.status, done.out) == (0, "wrote lost.html: open it in a browser\n")
    page = (tmp_path / "lost.html").read_text()
    lost = [row["uid"] for row in samples(a, b, limit=3, sides=[LOST])]
    assert len(lost) == page.count("data:image/jpeg;base64,") == 3 and all(one in page for one in lost)


def test_wrong_arguments(tmp_path):
    for arguments, part in (
        (["--limit", "3"], "--limit needs --by"), (["--by", "sample", "--format", "csv"], "no such folder"),
        (["--images"], "--images needs --side"), (["--out", "a.html"], "--out names the page of --images"),
        (["--side", "lost", "--by", "entry"], "--side lost lists samples"),
    ):  # fmt: skip
        done = run_command("diff", f"{tmp_path}/no", f"{tmp_path}/no", *arguments)
        assert (done.status, done.out) == (2, "") and part in done.err
