"""Law 1: nothing is lost silently, whatever the input: in = kept + dropped + failed, with a reason for each."""

import json
import os
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from curate.base.errors import RunError
from curate.base.schema import FILE_REASONS, SAMPLE_REASONS
from tests import kit
from tests.kit import conserved, loads

# Cases that leave open if a sample is kept, and why it is kept here.
KEPT_INSTEAD = {
    "not_adjacent.tar": "members are put together by key, in any order",
    "interleaved.tar": "members are put together by key, in any order",
    "hostile_paths.tar": "kept under the uid as its name",
}


def cases(kind):
    """Return the bad inputs of one kind; none without the shared data, and pytest then skips the tests."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    path = Path(os.environ.get("CURATE_SHARED_DATA", folder)) / "bad/cases.json"
    found = json.loads(path.read_text()) if path.exists() else []
    return [case for case in found if case["kind"] == kind]


TARS, PARQUETS = cases("tar"), cases("parquet")


@pytest.fixture(scope="session")
def bad(shared):
    return shared / "bad"


# ---------------------------------------------------------------- the shared bad inputs
@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in TARS if "packed" not in c], ids=lambda c: Path(c["path"]).stem)
def test_bad_tar(case, bad, tmp_path):
    name = Path(case["path"]).name
    paths = [str(bad / case["path"])]
    if name == "across_b.tar":
        paths.insert(0, str(bad / "tars/across_a.tar"))
    run = kit.run_local(kit.recipe_of(paths), tmp_path / "out")
    conserved(run)
    samples, outcomes, reasons = loads(run), run.outcomes, run.reasons
    kept = Counter(run.table("samples")["key"].filter(run.table("decisions")["kept"]).to_pylist())
    assert all(kept[key] == 1 for key in case["keep"])
    for key in case["report"]:
        reported = (name, None if key == "<file>" else key) in reasons
        dropped = outcomes.get((name, key)) == "duplicate"
        assert reported or dropped or (name in KEPT_INSTEAD and outcomes[name, key] == "kept"), key
    assert bool(case["report"]) or not reasons, "what is whole is not reported"
    if name not in ("hostile_paths.tar", "latin1_names.tar", "long_pax_names.tar"):
        assert {key for (_, key), outcome in outcomes.items() if outcome == "kept"} <= {*samples}


def test_bad_images(bad, tmp_path):
    run = kit.run_local(
        kit.recipe_of(f"{bad}/tars/all_images.tar", measure={"image": {"phash": True}}), tmp_path / "out"
    )
    rows = {row["key"]: row for row in run.table("samples").to_pylist()}
    for case, key, kept in check_outcomes(run, bad, "image", lambda path: path.name.replace(".", "__")):
        if kept:
            assert kept[Path(case["path"]).suffix[1:]] == (bad / case["path"]).read_bytes(), "original bytes"
            assert (case.get("width"), case.get("height")) in ((rows[key]["width"], rows[key]["height"]), (None, None))
        else:
            assert rows[key]["error"], case
    for name in ("bomb_30000x30000__png", "bomb_header__png"):
        assert run.by_key[name] == "too_many_pixels"


def test_bad_captions(bad, tmp_path):
    run = kit.run_local(kit.recipe_of(f"{bad}/tars/all_captions.tar"), tmp_path / "out")
    for case, _, kept in check_outcomes(run, bad, "caption", lambda path: path.stem):
        assert not kept or kept["txt"] == (bad / case["path"]).read_bytes(), "unchanged"


def check_outcomes(run, bad, kind, key_of):
    """Check the result of each case; yield the case, its key, and the members if the sample is kept."""
    conserved(run)
    samples, outcomes = loads(run), run.by_key
    for case in cases(kind):
        key = key_of(bad / case["path"])
        assert outcomes[key] == "kept" or case["result"] != "ok", case
        assert outcomes[key] in SAMPLE_REASONS or case["result"] != "reject", case
        yield case, key, samples[key] if outcomes[key] == "kept" else None


@pytest.fixture
def no_waits(monkeypatch):
    """Reads are retried without a pause."""
    monkeypatch.setattr("curate.read.errors.time", SimpleNamespace(sleep=lambda _: None))


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize("case", PARQUETS, ids=lambda c: Path(c["path"]).stem)
def test_bad_parquet(case, bad, tmp_path):
    name = Path(case["path"]).name
    paths = [str(bad / case["path"])]
    if case["file_reported"]:  # a source without another file would be refused before the run
        paths.append(str(bad / "parquet/good.parquet"))
    run = kit.run_local(kit.recipe_of(paths, "parquet"), tmp_path / "out")
    conserved(run)
    assert (run.reasons.get((name, None)) in FILE_REASONS) == case["file_reported"]
    if case["file_reported"] or name == "duplicate_urls.parquet":  # a uid names a pair of URL and caption
        assert run.counts == {"kept": 10}
    else:
        assert run.counts.get("kept", 0) == case["rows_ok"]
        assert run.counts.get("failed", 0) == case["rows_reported"]
        shards = (run.folder / "shards").glob("*.parquet")
        assert sum(pq.read_metadata(shard).num_rows for shard in shards) == case["rows_ok"]


@pytest.mark.thorough
def test_all_bad_inputs_through_beam(bad, tmp_path):
    """One run reads all tars, with every step on; another reads all Parquet files."""
    recipe = kit.recipe_of(
        f"{bad}/tars/*.tar", measure={"image": {"phash": True}, "language": {}}, balance={"t": 20, "one_per": "url"},
        match={"metadata": kit.write_metadata(tmp_path, ["a", "of", "box", "picture"])}, output={"rows_per_shard": 5},
        rules={"side": "least(width, height) >= 2", "best": {"top": 0.9, "of": "bytes"}},
        dedup={"by": ["uid", "sha256", "phash"]},
    )  # fmt: skip
    run = kit.run_beam(recipe, tmp_path / "tars")
    conserved(run)
    loads(run)
    files = {Path(p).name for p in run.table("samples")["shard"].to_pylist()} | {name for name, _ in run.reasons}
    assert files >= {Path(c["path"]).name for c in TARS} - {"no_members.tar"}
    run = kit.run_beam(kit.recipe_of(f"{bad}/parquet/*.parquet", "parquet"), tmp_path / "texts")
    conserved(run)
    assert run.counts["failed"] == sum(c["rows_reported"] for c in PARQUETS) - 3
    assert {n for (n, key) in run.reasons} >= {Path(c["path"]).name for c in PARQUETS if c["file_reported"]}


# ---------------------------------------------------------------- limits
@pytest.mark.thorough
def test_too_many_bad_files_fail_the_run(tmp_path):
    path = kit.write_tars(tmp_path / "pool", kit.make_samples(12)[:12], 3)
    (tmp_path / "pool/00001.tar").write_bytes(b"<html>" * 200)
    recipe = kit.recipe_of(path, max_failed=0.0, max_failed_files=0.3)
    match = r"(?s)1 of 3 files \(33.3%\).*max_failed_files is 0.3.*not_a_tar 1.*--set max_failed_files=0.34"
    with pytest.raises(RunError, match=match):
        kit.run_local(recipe, tmp_path / "out")
    assert not (tmp_path / "out/_SUCCESS").exists()
    run = kit.run_local(recipe.model_copy(update={"max_failed_files": 0.34}), tmp_path / "out")
    conserved(run)
    assert run.counts == {"kept": 8}


def test_a_limit_is_a_limit(tmp_path):
    """A run with exactly as many failures as allowed passes; a limit of 0 allows none."""
    samples = [s for s in kit.make_samples(24) if s.key.startswith("bad")] + kit.make_samples(24)[:18]
    path = kit.write_tars(tmp_path / "pool", samples, 2)
    assert kit.run_local(kit.recipe_of(path, max_failed=0.1), tmp_path / "a").counts == {"failed": 2, "kept": 18}
    with pytest.raises(RunError):
        kit.run_local(kit.recipe_of(path, max_failed=0.0999), tmp_path / "b")
    whole = kit.write_tars(tmp_path / "whole", samples[2:], 2)
    assert kit.run_local(kit.recipe_of(whole, max_failed=0, max_failed_files=0), tmp_path / "c").counts == {"kept": 18}


# ---------------------------------------------------------------- hostile names and bombs
@pytest.mark.thorough
def test_hostile_names_touch_nothing(bad, tmp_path):
    """Neither the run nor unpacking its shards writes outside the folder."""
    image = kit.encode(kit.picture(1))
    deep = tmp_path / "a/b/c"
    deep.mkdir(parents=True)
    names = [
        "../x", "/x", "/tmp/curate_hostile", "a/../../x", "%2fetc%2fx", "%2e%2e/x", "C:\\x", "\\\\host\\x", "x\ny",
        "~/x", "con", "-rf", " x", "a//b",
    ]  # fmt: skip
    with tarfile.open(deep / "hostile.tar", "w") as tar:
        for n, name in enumerate(names):
            members = {"jpg": image, "txt": f"a red dog {n}".encode(), "../../up": b"x", "a\nb": b"x"}
            for suffix, data in members.items():
                kit.add_member(tar, f"{name}.{suffix}", data)
    before = kit.files_of(tmp_path)
    run = kit.run_local(kit.recipe_of([str(deep / "hostile.tar"), str(bad / "tars/hostile_paths.tar")]), deep / "out")
    conserved(run)
    samples = loads(run)
    assert sum(b"a red dog" in members["txt"] for members in samples.values()) == len(names)
    unpacked = deep / "unpacked/here"
    for shard in run.folder.glob("shards/*.tar"):
        with tarfile.open(shard) as tar:
            tar.extraction_filter = lambda member, folder: member  # whatever it is; older Pythons have no filters
            tar.extractall(unpacked)
    inside = {p for p in kit.files_of(tmp_path) if p.startswith(("a/b/c/out/", "a/b/c/unpacked/here/"))}
    assert kit.files_of(tmp_path).keys() - inside == before.keys()
    for outside in ("/x.jpg", "/tmp/curate_hostile.jpg", "/tmp/make_bad_absolute.jpg"):
        assert not Path(outside).exists()


def test_a_key_cannot_take_anothers_name(tmp_path):
    """Pools choose keys and uids. If a key looks like another sample's uid, both samples stay."""
    uid = "ab" * 16
    image = [kit.encode(kit.picture(i)) for i in range(4)]
    keys, captions = ("../bad", uid, uid.upper(), "same"), ("first", "second", "third", "fourth")
    samples = [kit.Sample(*columns) for columns in zip(keys, image, captions, strict=True)]
    samples[0] = replace(samples[0], uid=uid)
    for n, order in enumerate((samples, samples[::-1])):
        path = kit.write_tars(tmp_path / f"pool{n}", order, 2)
        other = kit.write_tar(tmp_path / f"other{n}.tar", [kit.Sample("same", image[3], "fifth")])
        run = kit.run_local(kit.recipe_of([path, str(other)]), tmp_path / f"out{n}")
        conserved(run)
        found = {members["txt"].decode(): members["jpg"] for members in loads(run).values()}
        assert found == dict(zip((*captions, "fifth"), [*image, image[3]], strict=True))


def test_unreadable_rows_have_no_uid_and_no_probability(tmp_path):
    path = kit.write_tars(tmp_path / "pool", kit.make_samples(24), 2)
    recipe = kit.recipe_of(path, match={"metadata": kit.write_metadata(tmp_path)}, balance={"t": 5})
    run = kit.run_local(recipe, tmp_path / "out")
    decisions = run.table("decisions")
    failed = pc.equal(decisions["rule"], "failed")
    assert decisions.filter(failed)["uid"].null_count == run.counts["failed"] > 0
    assert decisions.filter(pc.invert(pc.fill_null(failed, False)))["uid"].null_count == 0
    dropped = decisions.filter(pc.is_in(decisions["rule"], pa.array(["failed", "duplicate", "unmatched"])))
    assert set(dropped["probability"].to_pylist()) == {0.0} and dropped["draw"].null_count == len(dropped)
