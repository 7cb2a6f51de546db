"""Laws of forgetting: a request that is killed at any step can be completed, and what was forgotten never returns."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from curate.ask.query import find_run
from curate.ask.verify import verify_run
from curate.base.errors import RunError
from curate.cli.run import run as command
from curate.publish.forget.forget import forget
from curate.recipe.recipe import load_recipe
from curate.store.forgotten import Record
from curate.store.items import NOTHING
from curate.store.lock import locked
from curate.store.manifest import Lines, digest_file, read_manifest, write_manifest
from curate.store.store import RunStore
from pipelines import curate as pipeline
from pipelines import driver
from pipelines.claim import claim_folder, claimed
from pipelines.prepare import prepare
from tests import kit
from tests.kit import Ran, conserved
from tests.kit.forgetting import images, left_of, rows_of, sha256, told_apart, uids, urls
from tests.kit.kills import states_of

pytestmark = pytest.mark.thorough

SECTIONS = {
    "rules": {"words": "words > 4"}, "dedup": {"by": ["uid", "sha256", "phash"]},
    "measure": {"image": {"phash": True}}, "balance": {"t": 10}, "output": {"rows_per_shard": 6},
}  # fmt: skip


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    path = kit.write_tars(folder / "tars", told_apart(36), 3)
    return kit.recipe_of(path, match={"metadata": kit.write_metadata(folder)}, **SECTIONS)


@pytest.fixture(scope="module")
def original(recipe, tmp_path_factory):
    """A run, not to be changed."""
    return kit.run_local(recipe, tmp_path_factory.mktemp("original") / "run")


def copy_of(run, to):
    return Ran(Path(shutil.copytree(run.folder, to)))


def some(run):
    """A request, and the captions and URLs of its samples."""
    kept = [row for row in rows_of(run) if row["kept"] and row["url"]]
    one, two, three = kept[1], kept[len(kept) // 2], kept[-2]
    requested = uids(one["uid"]) | urls(two["url"]) | images(three["sha256"])
    return requested, [row[name] for row in (one, two, three) for name in ("caption", "url")]


def same(run, other):
    """Check that two runs hold the same, apart from times."""
    assert kit.lasting_files(run.folder) == kit.lasting_files(other.folder)
    assert set(kit.files_of(run.folder)) == set(kit.files_of(other.folder))
    tables = [r.table("forgotten").drop_columns(["time"]) for r in (run, other)]
    assert tables[0].equals(tables[1])
    assert run.counts == other.counts
    assert verify_run(str(run.folder))[1] == []


# ---------------------------------------------------------------- kills
class Killed(NamedTuple):
    """A request, texts of its samples, the undisturbed result, and what kills leave of the run."""

    requested: Any
    words: list[str]
    undisturbed: Ran
    states: list[Path]


@pytest.fixture
def killed(original, tmp_path):
    requested, words = some(original)
    undisturbed = copy_of(original, tmp_path / "undisturbed")
    with states_of(undisturbed.folder, tmp_path / "killed") as states:
        forget(str(undisturbed.folder), requested)
    assert len(states) > 20
    return Killed(requested, words, undisturbed, states)


@pytest.mark.slow
def test_a_request_that_was_killed_goes_on(killed):
    """Readers refuse the run. Any request first completes the interrupted one, if its record was written."""
    states, unfinished = [*killed.states[:3], *killed.states[3:-3:3], *killed.states[-3:]], 0
    for number, folder in enumerate(states):
        is_recorded = (folder / "forgotten.parquet").exists()
        if (folder / "_SUCCESS").exists():
            assert verify_run(str(folder))[1] == []
            assert bool(left_of(folder, killed.words)) != is_recorded
        else:
            unfinished += 1
            for reader in (verify_run, find_run):
                with pytest.raises(RunError, match="`curate forget` was interrupted"):
                    reader(str(folder))
            if number % 2 or not is_recorded:
                found = forget(str(folder), NOTHING)
                assert found.completed and verify_run(str(folder))[1] == []
                assert bool(left_of(folder, killed.words)) != is_recorded
                assert found.lost == (0 if is_recorded else len(killed.requested))
        forget(str(folder), killed.requested)
        same(Ran(folder), killed.undisturbed)
        assert left_of(folder, killed.words) == []
    assert unfinished > len(states) - 5


def test_a_run_of_the_recipe_goes_on_too(killed, recipe, tmp_path):
    """The run decides again, without the samples in the record."""
    fresh = None
    for folder in killed.states[4::12]:
        run = kit.run_local(recipe, folder)
        conserved(run)
        assert left_of(folder, killed.words) == [] and run.counts["forgotten"] >= 3
        again = kit.files_of(folder)
        assert not forget(str(folder), killed.requested).changes and kit.files_of(folder) == again
        blocking = recipe.model_copy(update={"blocklist": str(folder / "forgotten.parquet")})
        fresh = fresh or kit.run_local(blocking, tmp_path / "fresh")
        assert kit.lasting_files(folder) == kit.lasting_files(fresh.folder)


def test_a_run_does_not_begin_while_something_is_forgotten(original, recipe, tmp_path):
    """Otherwise it would overwrite the request's record."""
    run = copy_of(original, tmp_path / "run")
    requested, words = some(original)
    (run.folder / "shards/00001.tar").unlink()  # so that the run is not finished
    prepared = prepare(recipe, str(run.folder))
    with (
        locked(RunStore(str(run.folder)), "forget"),
        pytest.raises(RunError, match=r"curate forget \(process .* is running here"),
        claimed(prepared),
    ):
        pass
    shutil.copy(original.folder / "shards/00001.tar", run.folder / "shards/00001.tar")
    forget(str(run.folder), requested)
    files = kit.files_of(run.folder)
    with pytest.raises(RunError, match="samples were removed here while the run was being prepared; run again"):
        claim_folder(prepared)
    assert kit.files_of(run.folder) == files and left_of(run.folder, words) == []


# ---------------------------------------------------------------- later runs
def test_a_damaged_file_brings_nothing_back(original, recipe, tmp_path):
    run = copy_of(original, tmp_path / "run")
    requested, words = some(original)
    forget(str(run.folder), requested)
    assert prepare(recipe, str(run.folder)).finished
    for name in ("shards/00001.tar", "tables/members/00002.parquet", "tables/samples/00000.parquet"):
        (run.folder / name).unlink()
    assert not prepare(recipe, str(run.folder)).finished
    kit.run_local(recipe, run.folder)
    conserved(run)
    assert left_of(run.folder, words) == []


def test_with_no_or_another_record_a_run_is_refused(original, recipe, tmp_path):
    """Losing or editing the record must not bring back what it blocks."""
    run = copy_of(original, tmp_path / "run")
    forget(str(run.folder), some(original)[0])
    path = run.folder / "forgotten.parquet"
    record, table = path.read_bytes(), pq.read_table(path)
    for other, match in (
        (None, "is missing"),
        (table.slice(1), "does not match its digest in run.json.*; restore it from a copy"),
        (pa.table({"uid": ["0" * 32]}), "is not a record.*; restore it from a copy"),
    ):
        path.unlink()
        if other:
            pq.write_table(other, path)
        for attempt in (
            lambda: prepare(recipe, str(run.folder)),
            lambda: prepare(recipe, str(tmp_path / "other"), str(run.folder)),
            lambda: forget(str(run.folder), uids("0" * 32)),
        ):
            with pytest.raises(RunError, match=f"forgotten.parquet {match}"):
                attempt()
        assert any("forgotten.parquet" in fault for fault in verify_run(str(run.folder))[1])
        path.write_bytes(record)
    assert prepare(recipe, str(run.folder)).finished
    path.unlink()
    (run.folder / "run.json").write_bytes(b"{")
    files = kit.files_of(run.folder)
    with pytest.raises(RunError, match=r"forgotten\.parquet .*restore it from a copy"):
        kit.run_local(recipe, run.folder)
    assert kit.files_of(run.folder) == files


def test_a_record_that_nothing_names_is_missed(original, tmp_path):
    """Even if run.json and the manifest do not name it, the verdicts show that there was one."""
    run = copy_of(original, tmp_path / "run")
    forget(str(run.folder), some(original)[0])
    (run.folder / "forgotten.parquet").unlink()
    folder = RunStore(str(run.folder))
    folder.write_json("run.json", {key: value for key, value in run.run.items() if key != "forgotten"})
    folder.delete("parts")
    lines = [line for line in read_manifest(folder) if line.path != "forgotten.parquet"]
    write_manifest(folder, Lines(digest_file(folder, line.path, line.rows) for line in lines))
    rows = run.counts["forgotten"]
    assert verify_run(str(run.folder))[1] == [f"forgotten.parquet: is missing, although {rows} rows are forgotten"]


def with_t(recipe, t):
    return recipe.model_copy(update={"balance": recipe.balance.model_copy(update={"t": t})})


@pytest.mark.slow
def test_a_chain_of_runs_keeps_them_out(original, recipe, tmp_path, monkeypatch):
    requested, words = some(original)
    first = copy_of(original, tmp_path / "first")
    forget(str(first.folder), requested)
    before = kit.files_of(first.folder)
    other = with_t(recipe, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.measure.unit.measure_part", None)  # nothing is measured
        second = kit.run_beam(other, tmp_path / "second", reuse=first.folder)
        third = kit.run_local(recipe, tmp_path / "third", reuse=second.folder)
    for run in (second, third):
        conserved(run)
        assert left_of(run.folder, words) == []
        assert run.counts["forgotten"] == first.counts["forgotten"]
        assert Record.read(RunStore(str(run.folder))).key == Record.read(RunStore(str(first.folder))).key
    assert kit.files_of(first.folder) == before, "a run that is reused is not changed"
    listed = recipe.model_copy(update={"blocklist": str(first.folder / "forgotten.parquet")})
    fresh = kit.run_beam(listed, tmp_path / "fresh")
    assert kit.lasting_files(fresh.folder) == kit.lasting_files(third.folder), "measured, or taken over: the same"
    # A run that was made before keeps its own tables, though some were the same files.
    heir = kit.run_local(other, tmp_path / "heir", reuse=original.folder)
    files = kit.files_of(original.folder)
    forget(str(heir.folder), requested)
    assert kit.files_of(original.folder) == files and left_of(heir.folder, words) == []


@pytest.mark.parametrize("before", ["measure", "emit"])
def test_what_is_forgotten_in_a_run_while_it_is_reused(original, recipe, tmp_path, before, monkeypatch):
    """The run ends with an error instead of mixing old and new tables; run again, it is like one that began later."""
    requested, words = some(original)
    old = copy_of(original, tmp_path / "old")
    other = with_t(recipe, 4)
    step = getattr(pipeline, before)

    def stepping(*arguments):
        forget(str(old.folder), requested)
        return step(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, before, stepping)
        with pytest.raises(RunError, match=r"old: `curate forget` removed \d+ items from this run while another"):
            kit.run_local(other, tmp_path / "new", reuse=old.folder)
    new = kit.run_local(other, tmp_path / "new", reuse=old.folder)
    conserved(new)
    assert left_of(new.folder, words) == []
    later = kit.run_local(other, tmp_path / "later", reuse=old.folder)
    assert kit.lasting_files(new.folder) == kit.lasting_files(later.folder)


@pytest.mark.slow
def test_the_command_takes_out_what_is_forgotten_meanwhile(original, recipe, tmp_path, monkeypatch, capsys):
    requested, words = some(original)
    old = copy_of(original, tmp_path / "old")
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=True)))
    begun = driver.run

    def beginning(*arguments, **more):
        if not len(Record.read(RunStore(str(old.folder)))):
            forget(str(old.folder), requested)
        begun(*arguments, **more)

    monkeypatch.setattr(driver, "run", beginning)
    command(str(tmp_path / "r.yaml"), str(tmp_path / "new"), reuse=str(old.folder), overrides=["balance.t=4"])
    assert "samples were removed from this run" in capsys.readouterr().err
    new = Ran(tmp_path / "new")
    conserved(new)
    assert left_of(new.folder, words) == []


def listed(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.slow
def test_a_blocklist_keeps_rows_and_their_duplicates_out(recipe, original, tmp_path):
    """Rows that are linked to listed ones stay out too, with Beam and without."""
    rows = rows_of(original)
    pairs = [
        (one, two) for one in rows for two in rows
        if one["kept"] and two["uid"] != one["uid"] and two["sha256"] == one["sha256"] and two["sha256"] and one["url"] != two["url"]
    ]  # fmt: skip
    one, two = pairs[0]
    url = next(row["url"] for row in rows if row["kept"] and row["url"] and row["sha256"] != one["sha256"])
    blocklist = listed(tmp_path / "list.txt", one["uid"], url, "0" * 64)
    blocking = recipe.model_copy(update={"blocklist": blocklist})
    run = kit.run_local(blocking, tmp_path / "run")
    conserved(run)
    outcome = {row["uid"]: row["rule"] for row in rows_of(run)}
    assert outcome[one["uid"]] == outcome[two["uid"]] == "forgotten"
    assert left_of(run.folder, [one["caption"], two["caption"], url]) == []
    assert {row["origin"] for row in run.table("forgotten").to_pylist()} == {"requested", "encountered"}
    beam = kit.run_beam(blocking, tmp_path / "beam")
    assert kit.lasting_files(beam.folder) == kit.lasting_files(run.folder)
    assert prepare(blocking, str(run.folder)).finished and prepare(recipe, str(run.folder)).finished


@pytest.mark.slow
def test_a_resumed_run_blocks_no_less_and_no_more_of_a_chain(tmp_path):
    """Images and URLs link rows in a chain. The chain is longer than the search has rounds."""
    pictures = [kit.encode(kit.picture(i)) for i in range(6)]
    chain = [
        kit.Sample(f"{i:02d}", pictures[i // 2], f"number {i} of the chain", f"https://example.com/{(i + 1) // 2}")
        for i in range(12)
    ]
    recipe = kit.recipe_of(kit.write_tars(tmp_path / "tars", chain, 4))
    first = rows_of(kit.run_local(recipe, tmp_path / "all"))[0]["uid"]
    blocking = recipe.model_copy(update={"blocklist": listed(tmp_path / "list.txt", first)})
    with states_of(tmp_path / "undisturbed", tmp_path / "killed") as states:
        undisturbed = kit.run_local(blocking, tmp_path / "undisturbed")
    assert undisturbed.counts["forgotten"] == 4
    for folder in states:
        if not (folder / "_SUCCESS").exists():
            same(kit.run_local(blocking, folder), undisturbed)


def test_a_longer_blocklist_decides_a_finished_run_anew(recipe, original, tmp_path):
    kept = [row for row in rows_of(original) if row["kept"]]
    path = tmp_path / "list.txt"
    blocking = recipe.model_copy(update={"blocklist": listed(path, kept[0]["uid"])})
    run = kit.run_local(blocking, tmp_path / "run")
    assert prepare(blocking, str(run.folder)).finished
    listed(path, kept[0]["uid"], kept[-1]["uid"])
    assert not prepare(blocking, str(run.folder)).finished
    kit.run_local(blocking, run.folder)
    conserved(run)
    assert left_of(run.folder, [kept[0]["caption"], kept[-1]["caption"]]) == []
    # What was blocked once stays out, though the list is gone.
    assert prepare(recipe, str(run.folder)).finished
    later = kit.run_local(recipe, tmp_path / "later", reuse=run.folder)
    assert {row["rule"] for row in rows_of(later) if row["uid"] in (kept[0]["uid"], kept[-1]["uid"])} == {"forgotten"}


def test_rows_that_come_later_are_blocked_by_url_and_image(tmp_path):
    samples = [s for s in told_apart(24) if s.caption and s.image and s.url and s.uid is None][:16]
    samples = [s for i, s in enumerate(samples) if sha256(s) not in {sha256(o) for o in samples[:i]}]
    path = kit.write_tars(tmp_path / "old", samples[:8], 1)
    old = kit.run_local(kit.recipe_of(path), tmp_path / "first")
    by_caption = {row["caption"]: row["uid"] for row in rows_of(old)}
    forget(str(old.folder), uids(by_caption[samples[0].caption], by_caption[samples[1].caption]))
    same_url = replace(samples[9], key="same-url", url=samples[0].url, caption="a new caption of it a")
    elsewhere = "https://elsewhere.example/1"
    same_image = replace(samples[1], key="same-image", url=elsewhere, caption="a new caption of it b")
    again = replace(samples[0], key="again")
    path = kit.write_tars(tmp_path / "new", [*samples[8:], same_url, same_image, again], 1)
    new = kit.run_local(kit.recipe_of(path), tmp_path / "second", reuse=old.folder)
    gone = {row["uid"] for row in rows_of(new) if row["rule"] == "forgotten"}
    assert len(gone) >= 3 and by_caption[samples[0].caption] in gone
    words = ["a new caption of it a", "a new caption of it b", elsewhere, samples[0].url or ""]
    assert left_of(new.folder, words) == []
    conserved(new)


def test_a_recipe_names_lists_beside_it(tmp_path):
    text = "input: {name: pool, format: webdataset, path: a.tar}\nblocklist: [gone.txt, /b.parquet]\n"
    (tmp_path / "recipe.yaml").write_text(text)
    assert load_recipe(str(tmp_path / "recipe.yaml")).blocklist == (f"{tmp_path}/gone.txt", "/b.parquet")
