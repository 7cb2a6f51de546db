"""Publishing: what is there before and after it, whatever stops it and where, and the numbers that it writes."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curate.base.errors import ConservationError, RunError
from curate.decide.draw.inclusion import ONE
from curate.publish import publish as module
from curate.publish import publish as steps
from curate.publish.audit import Audit, PublishSettings
from curate.publish.describe import mark_published
from curate.publish.publish import Results, _large_groups, publish
from curate.recipe.deciding import Dedup
from curate.store.layout import FAILURES_PARTS, NEW_FILE
from curate.store.manifest import Lines, Published
from curate.store.store import RunStore
from tests import kit
from tests.kit import make_rows, recipe_of, run_local, write_metadata, write_parquets


@dataclass
class Unpublished:
    """A run of which all but publishing is done, and what `publish` gets; each test publishes a copy."""

    folder: Path
    settings: PublishSettings
    results: Results
    lines: Sequence[Published]

    def copy(self, folder):
        shutil.copytree(self.folder, folder)
        store = replace(self.settings.store, url=str(folder))
        return replace(self, folder=folder, settings=replace(self.settings, store=store))

    def publish(self, **others):
        publish(self.settings, replace(self.results, **others), Lines(self.lines))

    @property
    def files(self):
        """All but what only works for the run, and run.json with what states its digest: it holds times."""
        names = kit.lasting_files(self.folder)
        return {name: digest for name, digest in names.items() if not name.startswith(("tmp/", "parts/"))}


@pytest.fixture(scope="module")
def unpublished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    kit.write_tars(folder / "pool", kit.make_samples(60), 2)
    (folder / "pool/00002.tar").write_bytes(b"<html>" * 200)
    sections = {"match": {"metadata": write_metadata(folder)}, "rules": {"words": "words > 3"}, "balance": {"t": 9}}
    taken = []

    def take(*arguments):
        *others, digests = arguments
        shutil.copytree(folder / "run", folder / "copy")
        taken.append(Unpublished(folder / "copy", *others, digests.below("")))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "publish", take)
        run_local(recipe_of(f"{folder}/pool/*.tar", **sections, output={"rows_per_shard": 8}), folder / "run")
    return taken[0]


def test_success_comes_last_and_the_manifest_lists_the_rest(unpublished, tmp_path):
    run = unpublished.copy(tmp_path / "run")
    before = set(kit.files_of(run.folder))
    run.publish()
    assert not (run.folder / "parts").exists()
    files = {name: digest for name, digest in kit.files_of(run.folder).items() if not name.startswith("tmp/")}
    listed = {row["path"]: row for row in pq.read_table(run.folder / "manifest.parquet").to_pylist()}
    assert files.keys() == listed.keys() | {"manifest.parquet", "_SUCCESS"}
    for name, row in listed.items():
        assert (row["bytes"], row["sha256"]) == ((run.folder / name).stat().st_size, files[name])
    times = {name: (run.folder / name).stat().st_mtime_ns for name in files.keys() - before}
    assert times["_SUCCESS"] == max(times.values()) and (run.folder / "_SUCCESS").read_bytes() == b""
    sizes = json.loads((run.folder / "shards/sizes.json").read_text())
    tars = [row for row in listed.values() if row["path"].endswith(".tar")]
    assert sizes == {row["path"].removeprefix("shards/"): row["rows"] for row in tars} and len(sizes) > 1
    assert listed["uids.npy"]["rows"] == sum(sizes.values())
    failures = pq.read_table(run.folder / "failures.parquet")
    assert [row["reason"] for row in failures.to_pylist() if row["row"] is None] == ["not_a_tar"]


def test_a_published_run_is_left_alone(unpublished, tmp_path):
    run, lines = unpublished.copy(tmp_path / "run"), Lines(unpublished.lines)
    publish(run.settings, run.results, lines)
    assert lines.below("") == run.lines  # which another attempt may use
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in run.folder.rglob("*")}
    replace(run, lines=[]).publish(audit=Audit())
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in run.folder.rglob("*")} == before


def test_strays_of_tables_and_shards_go_and_nothing_else(unpublished, tmp_path):
    run = unpublished.copy(tmp_path / "run")
    strays = ("tables/samples/00077.parquet", "tables/odd", "shards/00099.tar", "shards/00099_stats.json")
    for name in (*strays, "notes.txt", "logs/mine", "tmp/x"):
        (run.folder / name).parent.mkdir(exist_ok=True)
        (run.folder / name).write_bytes(b"x")
    run.publish()
    files = kit.files_of(run.folder)
    assert not files.keys() & set(strays) and files.keys() > {"notes.txt", "logs/mine"}
    assert not {"notes.txt", "logs/mine"} & set(pq.read_table(run.folder / "manifest.parquet")["path"].to_pylist())


@pytest.mark.parametrize("wrong", ["a shard less", "a row more", "a row of a rule less", "a unit twice"])
def test_sums_that_differ_publish_nothing(unpublished, tmp_path, wrong):
    run = unpublished.copy(tmp_path / "run")
    before, audit, lines = kit.files_of(run.folder), Audit(), list(run.lines)
    audit.add(run.results.audit)
    place = [line.path for line in lines].index("shards/00000.tar")
    if wrong == "a shard less":
        del lines[place]
    elif wrong == "a row more":
        lines[place] = replace(lines[place], rows=(lines[place].rows or 0) + 1)
    elif wrong == "a row of a rule less":
        audit.drops.subtract({("pool", "words"): 1})
    else:
        audit.drops.update(run.results.audit.drops)
    with pytest.raises(ConservationError, match="the sums do not match"):
        replace(run, lines=lines).publish(audit=audit)
    assert kit.files_of(run.folder) == before


STEPS = ("write_failures", "count_entries", "_summarize", "describe_run", "mark_published")


@pytest.fixture(scope="module")
def undisturbed(unpublished, tmp_path_factory):
    run = unpublished.copy(tmp_path_factory.mktemp("undisturbed") / "run")
    run.publish()
    return run.files


def stop(step, after):
    """A step that fails before or after its work."""

    def stopping(*arguments):
        if after:
            step(*arguments)
        raise OSError(28, "No space left on device")

    return stopping


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_whatever_stops_it_the_next_attempt_publishes_the_same(step, after, unpublished, undisturbed, tmp_path):
    run = unpublished.copy(tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, step, stop(getattr(module, step), after))
        with pytest.raises(OSError, match="No space left"):
            run.publish()
    assert (run.folder / "_SUCCESS").exists() == ((step, after) == ("mark_published", True))
    if step == "mark_published":  # nothing is described again, and no sums are compared
        run = replace(run, lines=[])
    run.publish()
    assert run.files == undisturbed


@pytest.mark.parametrize(
    ("place", "gone"),
    [("local", "entries.parquet"), *((place, gone) for place in ("local", "store") for gone in ("manifest.parquet", "shards", ""))],
)  # fmt: skip
def test_files_that_disappear_during_a_run_are_missed(place, gone, unpublished, tmp_path, monkeypatch):
    run = unpublished.copy(tmp_path / "run") if place == "local" else copy_to_store(unpublished, tmp_path, is_new=True)

    def mark(store, *words):
        store.delete(gone)
        mark_published(store, *words)

    monkeypatch.setattr(module, "mark_published", mark)
    with pytest.raises(RunError, match="files of the run are missing, such as"):
        run.publish()
    assert not run.settings.store.exists("_SUCCESS")


def copy_to_store(run, folder, is_new):
    here, store = RunStore(str(run.folder)), RunStore(f"memory://{folder}")
    for name in here.files():
        if digest := here.recorded(name):
            store.adopt(here, name, name, digest)
        elif not name.startswith("parts/"):
            store.write_bytes(name, here.read_bytes(name))
    if is_new:
        store.write_bytes(NEW_FILE, b"")
    return replace(run, settings=replace(run.settings, store=store))


@pytest.mark.parametrize("is_new", [True, False])
def test_files_of_an_earlier_start_are_removed_from_a_store(is_new, unpublished, undisturbed, tmp_path):
    """As a plan with more shards, or other chunks of units, leaves them."""
    run = copy_to_store(unpublished, tmp_path, is_new)
    store = run.settings.store
    for name in () if is_new else ("shards/00099.tar", "tables/samples/00000-00009.parquet"):
        store.write_bytes(name, b"")
    run.publish()
    published = {name for name in store.files() if not name.startswith(("tmp/", "parts/"))}
    lines = store.read_parquet("manifest.parquet")["path"].to_pylist()
    assert undisturbed.keys() <= published == {*lines, "manifest.parquet", "_SUCCESS"}
    assert store.files(FAILURES_PARTS) == []


NEAR = [{"phash": {"distance": 8}}]


def test_the_largest_near_group_is_named():
    """Over 5% of the rows, or with nearness the largest of 10 rows and 0.1%."""
    of_pass, stages, counts = [(9, "c"), (12, "b"), (12, "a")], ["duplicate", "kept"], Counter(duplicate=30, kept=900)
    for by, of, expected in (
        (["phash"], of_pass, []),
        (NEAR, of_pass, [("a", 12, 930)]),
        (NEAR, of_pass[:1], []),
        (["phash"], [*of_pass, (50, "d")], [("d", 50, 930)]),
    ):
        groups = _large_groups(of, stages, counts, Dedup.model_validate({"by": by}))
        assert [(group.uid, group.rows, group.reached) for group in groups] == expected
    near = Dedup.model_validate({"by": NEAR})
    for kept, rows in ((12_000, 12), (12_001, 0)):
        assert sum(group.rows for group in _large_groups(of_pass, stages, Counter(kept=kept), near)) == rows


# entries.parquet: against counts made by hand and by a plain loop


@pytest.mark.parametrize("t", [3, None])
def test_a_run_counts_as_a_plain_loop_does(tmp_path, t):
    """Rows of the pool before any rule; survivors after all of them; expected rows as the sum of π; kept rows."""
    path = write_parquets(tmp_path / "pool", make_rows(600), 3, 100)
    balance = {"balance": {"t": t}} if t else {}
    sections = {"match": {"metadata": write_metadata(tmp_path)}, "rules": {"words": "words > 3"}, **balance}
    recipe = recipe_of(path, "parquet", **sections)
    ran = run_local(recipe, tmp_path / "run")
    matches, decisions = ran.table("matches")["entry_ids"].to_pylist(), ran.table("decisions").to_pylist()
    table = ran.table("entries").to_pylist()
    pool, survivors, kept, expected = ([0] * len(table) for _ in range(4))
    for found, row in zip(matches, decisions, strict=True):
        for entry in found:
            pool[entry] += 1
            survivors[entry] += row["kept"] or row["rule"] == "balance"
            kept[entry] += row["kept"]
            expected[entry] += round(Fraction(row["probability"]) * ONE)
    assert [row["pool"] for row in table] == pool and [row["survivors"] for row in table] == survivors
    assert [row["kept"] for row in table] == kept
    assert [row["expected"] for row in table] == [total / ONE for total in expected]
    assert all(k <= s <= p for k, s, p in zip(kept, survivors, pool, strict=True))
    if t:
        assert sum(kept) < sum(survivors) < sum(pool)
    else:
        assert kept == survivors == [row["expected"] for row in table]
