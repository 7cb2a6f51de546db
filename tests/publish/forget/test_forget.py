"""What `forget` takes out of a run, what it leaves as it was, and that nothing of a forgotten sample is left in any byte."""

import hashlib
import json
import os
import shutil
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset

from curate.ask.explain import explain_sample
from curate.ask.report import page
from curate.ask.verify import verify_run
from curate.base.errors import RecipeError, RunError
from curate.publish.forget.forget import forget
from curate.store.forgotten import Record
from curate.store.items import NOTHING, hex_of
from curate.store.manifest import Lines, digest_file, write_manifest
from curate.store.store import RunStore
from tests import kit
from tests.kit import Ran, conserved
from tests.kit.forgetting import images, left_of, rows_of, sha256, told_apart, uids, urls
from tests.kit.written_runs import run_query

SECTIONS = {
    "measure": {"image": {"phash": True}, "language": {}}, "rules": {"words": "words > 5"}, "balance": {"t": 12},
    "dedup": {"by": ["uid", "sha256", "phash"]}, "output": {"rows_per_shard": 8},
}  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A run over tars with images; not to be changed."""
    folder = tmp_path_factory.mktemp("original")
    path = kit.write_tars(folder / "tars", told_apart(), 3)
    match = {"metadata": kit.write_metadata(folder)}
    return kit.run_local(kit.recipe_of(path, match=match, **SECTIONS), folder / "run")


@pytest.fixture
def run(original, tmp_path):
    return Ran(Path(shutil.copytree(original.folder, tmp_path / "run")))


def kept_rows(run):
    return [row for row in rows_of(run) if row["kept"]]


def content_of(row):
    """What must not be found of a row, in text or bytes."""
    words = [row["caption"], row["url"], row["sha256"] and bytes.fromhex(row["sha256"])]
    words += [sample.image[-300:-20] for sample in told_apart() if sample.image and sha256(sample) == row["sha256"]]
    return [word for word in words if word]


def by_key(run):
    """The members of each published sample, by its uid."""
    samples = {}
    for name, data in run.members:
        samples.setdefault(name.partition(".")[0], []).append((name, data))
    uids_of = {
        key: json.loads(data)["uid"] for key, members in samples.items() for name, data in members if "json" in name
    }
    return {uid: samples[key] for key, uid in uids_of.items()}


@pytest.mark.thorough
def test_nothing_is_left_in_any_byte(run):
    """Of samples that are published, of duplicates, and of one that was dropped, asked for in three ways."""
    before = rows_of(run)
    kept = [row for row in before if row["kept"] and row["url"]]
    dropped = next(row for row in before if row["rule"] == "words")
    requested = uids(kept[1]["uid"], dropped["uid"]) | urls(kept[12]["url"]) | images(kept[20]["sha256"])
    found = forget(str(run.folder), requested)
    after = rows_of(run)
    gone = {(row["unit"], row["row"]) for row in after if row["rule"] == "forgotten"}
    assert len(gone) == found.rows.requested + found.rows.linked - found.rows.failed >= 4
    victims = [row for row in before if (row["unit"], row["row"]) in gone]
    assert {kept[1]["uid"], dropped["uid"], kept[12]["uid"], kept[20]["uid"]} <= {row["uid"] for row in victims}
    words = [word for row in victims for word in content_of(row)]
    assert left_of(run.folder, words) == []
    for old, new in zip(before, after, strict=True):
        if (old["unit"], old["row"]) in gone:
            stays = {name: old[name] for name in ("unit", "row", "uid", "source", "shard", "status")}
            verdict = {"kept": False, "rule": "forgotten", "duplicate_of": None, "probability": 0.0, "draw": None}
            assert new == dict.fromkeys(old) | stays | verdict
        elif new != old:  # could not be read, and has the URL or the image of one of them
            assert (new["rule"], new["status"], new["caption"], new["url"]) == ("failed", old["status"], None, None)
            assert any(old[name] == row[name] for row in victims for name in ("url", "sha256") if row[name])
    for name, column in (("scores", "language_score"), ("matches", "entry_ids"), ("members", "offset")):
        for row in run.table(name).to_pylist():
            assert (row["unit"], row["row"]) not in gone or row[column] in (None, [])
    conserved(run)
    assert found.rows.kept == sum(row["kept"] for row in victims)
    assert run.counts["forgotten"] == len(gone)


def test_what_stays_is_byte_for_byte_as_it_was(original, run):
    rows = rows_of(original)
    victim = next(
        row for row in kept_rows(original)
        if sum(row["sha256"] == r["sha256"] or row["url"] == r["url"] or row["uid"] == r["duplicate_of"] for r in rows) == 1
    )  # fmt: skip
    found = forget(str(run.folder), uids(victim["uid"]))
    assert len(found.shards) == 1
    stem = f"shards/{found.shards[0].partition('.')[0]}"
    before, after = kit.files_of(original.folder), kit.files_of(run.folder)
    changed = {path for path in before if before[path] != after.get(path)}
    unit = f"{victim['unit']:05d}.parquet"
    assert {path for path in changed if path.startswith("shards/")} == {
        f"{stem}.tar", f"{stem}.parquet", f"{stem}_stats.json", "shards/sizes.json",
    }  # fmt: skip
    touched = {row["unit"] for row in rows_of(run) if row["rule"] == "forgotten"}
    assert {path.rpartition("/")[2] for path in changed if path.startswith("tables/")} == {
        f"{u:05d}.parquet" for u in touched
    }
    assert unit in {f"{u:05d}.parquet" for u in touched} and len(touched) < 3
    old, new = by_key(original), by_key(run)
    assert new == {uid: members for uid, members in old.items() if uid in new}
    assert set(old) - set(new) == {row["uid"] for row in kept_rows(original)} - {row["uid"] for row in kept_rows(run)}
    assert [m for m in original.members if m in set(run.members)] == run.members, "the order is as it was"
    rows = {row["uid"] for row in pq.read_table(run.folder / f"{stem}.parquet").to_pylist()}
    assert rows == set(pq.read_table(original.folder / f"{stem}.parquet")["uid"].to_pylist()) - {victim["uid"]}
    stats = json.loads((run.folder / f"{stem}_stats.json").read_text())
    assert (stats["count"], stats["successes"], stats["status_dict"]) == (len(rows), len(rows), {"success": len(rows)})
    assert stats.keys() == json.loads((original.folder / f"{stem}_stats.json").read_text()).keys()
    footers = [pq.read_schema(r.folder / f"{stem}.parquet").metadata for r in (original, run)]
    assert footers[0][b"curate.key"] == footers[1][b"curate.key"]


def test_entries_and_uids_follow(original, run):
    gone = [row["uid"] for row in kept_rows(original)[:5]]
    forget(str(run.folder), uids(*gone))
    before, after = original.table("entries"), run.table("entries")
    assert before.drop_columns(["kept"]).equals(after.drop_columns(["kept"])), "the draw is what it was"
    kept = {}
    for row in run.table("matches").to_pylist():
        if (row["unit"], row["row"]) in {(r["unit"], r["row"]) for r in kept_rows(run)}:
            for entry in row["entry_ids"]:
                kept[entry] = kept.get(entry, 0) + 1
    assert after["kept"].to_pylist() == [kept.get(i, 0) for i in range(len(after))] != before["kept"].to_pylist()
    pairs = [(int(r["uid"][:16], 16), int(r["uid"][16:], 16)) for r in kept_rows(run)]
    assert np.load(run.folder / "uids.npy").tolist() == sorted(pairs)
    funnel = run_query(str(run.folder), "SELECT rule, rows FROM funnel").rows
    assert [rule for rule, _ in funnel][:3] == ["pool", "failed", "forgotten"]
    assert dict(funnel)["pool"] == sum(rows for rule, rows in funnel if rule != "pool")


def test_a_pool_that_is_not_deduplicated_loses_all_copies(tmp_path):
    """Pictures that are published twice, under another caption and URL."""
    path = kit.write_tars(tmp_path / "tars", told_apart(36), 2)
    run = kit.run_local(kit.recipe_of(path, dedup={"by": ["uid"]}), tmp_path / "run")
    rows = kept_rows(run)
    times = [sum(row["sha256"] == other["sha256"] for other in rows) for row in rows]
    victim = rows[times.index(2)]
    found = forget(str(run.folder), uids(victim["uid"]))
    assert (found.rows.requested, found.rows.linked, found.rows.kept) == (1, 1, 2) and found.changes
    conserved(run)
    assert victim["sha256"] not in {row["sha256"] for row in rows_of(run)}


def test_near_duplicates_go_and_their_representative_is_named(original, tmp_path):
    """What had lost to a forgotten row would come in its place; what it had lost to is for people to look at."""
    rows = rows_of(original)
    lost = next(
        row for row in rows
        if row["rule"] == "duplicate" and row["sha256"] not in {r["sha256"] for r in rows if r["uid"] == row["duplicate_of"]}
    )  # fmt: skip
    one = Ran(Path(shutil.copytree(original.folder, tmp_path / "one")))
    found = forget(str(one.folder), uids(lost["duplicate_of"]))
    assert found.rows.representatives == () and lost["uid"] in {
        row["uid"] for row in rows_of(one) if row["rule"] == "forgotten"
    }
    other = Ran(Path(shutil.copytree(original.folder, tmp_path / "other")))
    found = forget(str(other.folder), uids(lost["uid"]))
    assert found.rows.representatives == (lost["duplicate_of"],)
    assert lost["duplicate_of"] in {row["uid"] for row in kept_rows(other)}


def test_samples_that_could_not_be_read_are_cleared_too(tmp_path):
    samples, secret = [s for s in told_apart(24) if s.caption], {"key": "secret-name", "caption": "a secret caption"}
    bad = kit.replace(samples[5], image=b"<html>", url="https://secret.example/x", **secret)
    path = kit.write_tars(tmp_path / "tars", [*samples[:5], bad, *samples[5:], bad], 1)
    run = kit.run_local(kit.recipe_of(path), tmp_path / "run")
    assert len(left_of(run.folder, ["secret-name", "secret caption"])) > 3
    found = forget(str(run.folder), urls("https://secret.example/x"))
    assert found.rows.failed >= 1 and found.rows.kept == 0
    assert left_of(run.folder, ["secret-name", "secret.example", "secret caption"]) == []
    conserved(run)
    assert run.counts.get("forgotten") is None, "they stay failed"


def test_a_name_in_the_report_of_damage_goes(tmp_path):
    samples = [s for s in told_apart(12) if s.caption and s.image][:8]
    last = kit.replace(samples[-1], key="secret-name", url="https://secret.example/x")
    path = kit.write_tar(tmp_path / "a.tar", [*samples[:-1], last])
    with tarfile.open(path) as tar:
        member = tar.getmember("secret-name.json")
    end = member.offset_data + -(-member.size // 512) * 512
    path.write_bytes(path.read_bytes()[:end] + b"no header" * 100)
    run = kit.run_local(kit.recipe_of(str(path)), tmp_path / "run")
    assert any("secret-name" in str(row["detail"]) for row in run.table("failures").to_pylist())
    forget(str(run.folder), urls("https://secret.example/x"))
    assert left_of(run.folder, ["secret-name"]) == []
    conserved(run)


@pytest.fixture
def beside(tmp_path):
    """A tar in which samples 1 and 2 have another picture beside their own, and the pictures."""
    pictures = [kit.encode(kit.picture(i)) for i in range(5)]
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for i, other in enumerate((None, pictures[0], pictures[2], b"something else")):
            files = {"jpg": pictures[4] if i == 2 else pictures[i], "txt": f"picture {i}".encode(), "mask.png": other}
            for suffix, data in files.items():
                if data:
                    kit.add_member(tar, f"{i}.{suffix}", data)
    return str(tmp_path / "0.tar"), pictures


def check_gone(run, keys, picture):
    assert {row["key"] for row in kept_rows(run)} == set("0123") - set(keys)
    assert left_of(run.folder, [picture]) == []
    conserved(run)


@pytest.mark.thorough
@pytest.mark.parametrize("rows", [1, 100])
def test_a_sample_that_has_the_image_beside_its_own_goes_too(beside, tmp_path, rows):
    """Requested by the uid of the image's sample, or by the image alone, which may be nobody's own; or by a blocklist."""
    path, pictures = beside
    recipe = kit.recipe_of(path, output={"rows_per_shard": rows})
    first, second = (kit.run_local(recipe, tmp_path / name) for name in ("first", "second"))
    uid = {row["key"]: row["uid"] for row in rows_of(first)}
    by_uid = forget(str(first.folder), uids(uid["0"]))
    by_image = forget(str(second.folder), images(hashlib.sha256(pictures[2]).hexdigest()))
    assert [found.rows.requested + found.rows.linked for found in (by_uid, by_image)] == [2, 1]
    check_gone(first, "01", pictures[0])
    check_gone(second, "2", pictures[2])
    (tmp_path / "gone.txt").write_text(hashlib.sha256(pictures[0]).hexdigest())
    check_gone(
        kit.run_local(kit.recipe_of(path, blocklist=f"{tmp_path}/gone.txt"), tmp_path / "later"), "01", pictures[0]
    )


def test_imageless_pools(tmp_path):
    rows = kit.make_rows(400)
    path = kit.write_parquets(tmp_path / "rows", rows, 2)
    match = {"metadata": kit.write_metadata(tmp_path)}
    recipe = kit.recipe_of(path, "parquet", match=match, balance={"t": 60}, output={"rows_per_shard": 40})
    run = kit.run_local(recipe, tmp_path / "run")
    before = {path: digest for path, digest in kit.files_of(run.folder).items() if path.startswith("shards/")}
    one, other = kept_rows(run)[3], kept_rows(run)[70]
    notes = {row["url"]: row["note"] for row in rows.to_pylist()}
    assert len(left_of(run.folder, [f"'{one['url']}'", f"'{notes[other['url']]}'"])) >= 3
    found = forget(str(run.folder), uids(one["uid"]) | urls(other["url"], "https://nowhere.example/x"))
    assert found.rows.kept == 2 and len(found.absent) == 1 and len(found.absent.url) == 1
    assert left_of(run.folder, [f"'{word}'" for row in (one, other) for word in (row["url"], notes[row["url"]])]) == []
    conserved(run)
    after = kit.files_of(run.folder)
    assert len(found.shards) == 2 and all(name.endswith(".parquet") for name in found.shards)
    same = {path for path in before if before[path] == after[path]}
    statistics = {f"{name.partition('.')[0]}_stats.json" for name in found.shards}
    assert set(before) - same == {f"shards/{name}" for name in {*found.shards, *statistics, "sizes.json"}}


def test_what_is_derived_of_nothing_is_null(tmp_path):
    """A run that reuses this one derives it anew, of nulls, and may make a number of them."""
    path = kit.write_parquets(tmp_path / "rows", kit.make_rows(40), 1)
    recipe = kit.recipe_of(path, "parquet", derive={"length": "2 * coalesce(characters, 0)"})
    run = kit.run_local(recipe, tmp_path / "run")
    gone = kept_rows(run)[3]["uid"]
    forget(str(run.folder), uids(gone))
    again = kit.run_local(recipe.model_copy(update={"seed": 1}), tmp_path / "again", reuse=run.folder)
    conserved(again)
    assert {row["uid"]: row["length"] for row in again.table("derived").to_pylist()}[gone] is None


def test_a_shard_may_end_empty(run):
    """webdataset reads over it, and names stay contiguous."""
    last = sorted(json.loads((run.folder / "shards/sizes.json").read_text()))[1]
    sidecar = pq.read_table(run.folder / f"shards/{last.partition('.')[0]}.parquet")
    forget(str(run.folder), uids(*sidecar["uid"].to_pylist()))
    sizes = json.loads((run.folder / "shards/sizes.json").read_text())
    assert sizes[last] == 0 and len(sizes) > 2
    conserved(run)
    paths = [str(run.folder / "shards" / name) for name in sorted(sizes)]
    read = list(webdataset.WebDataset(paths, shardshuffle=False).decode("pil").to_tuple("jpg;jpeg;png", "txt"))
    assert len(read) == sum(sizes.values()) == run.counts["kept"]
    with tarfile.open(run.folder / "shards" / last) as tar:
        assert tar.getnames() == []
    forget(str(run.folder), uids(*(row["uid"] for row in kept_rows(run))))
    conserved(run)
    assert "kept" not in run.counts and len(np.load(run.folder / "uids.npy")) == 0


def test_the_same_request_twice_changes_nothing(run):
    victim, other = (kept_rows(run)[i]["uid"] for i in (2, 30))
    unknown = "0" * 31 + "9"
    (run.folder / "report.html").write_text("pictures")
    planned = forget(str(run.folder), uids(victim, unknown), dry_run=True)
    first = forget(str(run.folder), uids(victim, unknown))
    assert planned.rows == first.rows and first.report_deleted and not (run.folder / "report.html").exists()
    assert hex_of(first.absent.uid) == [unknown] and first.already_recorded == 0
    files = kit.files_of(run.folder)
    again = forget(str(run.folder), uids(victim, unknown))
    assert not again.changes and again.already_recorded == 2 and kit.files_of(run.folder) == files
    then = forget(str(run.folder), uids(victim, other))
    assert then.changes and then.already_recorded == 1 and then.rows.kept == 1
    record = Record.read(RunStore(str(run.folder)))
    assert record.facts.requests == 2
    conserved(run)


def test_the_record_names_what_was_asked_and_what_was_found(run):
    victim = next(row for row in kept_rows(run) if row["url"])
    forget(str(run.folder), uids(victim["uid"]))
    rows = {(row["kind"], row["origin"]) for row in run.table("forgotten").to_pylist()}
    assert {("uid", "requested"), ("url", "linked"), ("sha256", "linked")} <= rows
    assert run.run["forgotten"] == Record.read(RunStore(str(run.folder))).facts.to_json()
    assert "forgotten.parquet" in run.table("manifest")["path"].to_pylist()
    assert victim["caption"] not in str(explain_sample(str(run.folder), victim["uid"]))
    with pytest.raises(RunError, match="`curate forget` removed this URL on 20"):
        explain_sample(str(run.folder), victim["url"])
    sql = "SELECT count(*) FROM forgotten WHERE kind = 'uid' AND time > '2020-01-01'"
    assert run_query(str(run.folder), sql).rows[0][0] >= 1


def verified_anew(run):
    """What `verify` finds of a run whose manifest is made of its files as they are now."""
    store, manifest = RunStore(str(run)), pq.read_table(run / "manifest.parquet").select(["path", "rows"]).to_pydict()
    write_manifest(store, Lines(digest_file(store, *file) for file in zip(*manifest.values(), strict=True)))
    return verify_run(str(run))[1]


def put_value(column, value, row=0):
    """A change of a Parquet file: another value in a row."""

    def change(path):
        table = pq.read_table(path)
        values = table[column].to_pylist()
        values[row] = value
        position, field = table.column_names.index(column), table.schema.field(column)
        pq.write_table(table.set_column(position, field, pa.array(values, field.type)), path)

    return change


def test_verify_finds_what_is_put_back(run):
    victim = next(row for row in kept_rows(run) if row["url"])
    forget(str(run.folder), uids(victim["uid"]))
    assert "1 item requested" in verify_run(str(run.folder))[0][-1]

    def fault_of(path, change):
        copy = Path(shutil.copytree(run.folder, run.folder.parent / f"copy{len(os.listdir(run.folder.parent))}"))
        change(copy / path)
        return [fault.partition(": ")[0] for fault in verified_anew(copy)]

    image = next(s.image for s in told_apart() if s.image and sha256(s) == victim["sha256"])

    def put_back(path):
        with tarfile.open(path, "a") as tar:
            name = tar.getnames()[0].partition(".")[0]
            kit.add_member(tar, f"{name}.seg.png", image)

    table = f"tables/samples/{victim['unit']:05d}.parquet"
    for path, change in (
        ("shards/00000.tar", put_back), (table, put_value("url", victim["url"])),
        (table, put_value("caption", "hello", victim["row"])), (table, put_value("sha256", victim["sha256"], 1)),
        (table.replace("samples", "scores"), put_value("language_score", 0.5, victim["row"])),
        ("shards/00001.parquet", put_value("url", victim["url"])), ("forgotten.parquet", put_value("value", "0" * 32)),
    ):  # fmt: skip
        assert path in fault_of(path, change)


def test_remote_runs(original):
    fs = fsspec.filesystem("memory")
    fs.put(str(original.folder), "/forget-remote", recursive=True)
    victim = kept_rows(original)[9]
    forget("memory://forget-remote", uids(victim["uid"]))
    assert verify_run("memory://forget-remote")[1] == []
    assert run_query("memory://forget-remote", f"SELECT count(*) FROM kept WHERE uid = '{victim['uid']}'").rows == [
        (0,)
    ]
    fs.rm("/forget-remote", recursive=True)


def test_what_cannot_be(run, tmp_path):
    with pytest.raises(RecipeError, match="not a run folder"):
        forget(str(tmp_path), uids("0" * 32))
    with pytest.raises(RecipeError, match="the request names no rows"):
        forget(str(run.folder), NOTHING)
    (run.folder / "_SUCCESS").unlink()
    with pytest.raises(RunError, match="the run is not finished"):
        forget(str(run.folder), uids("0" * 32))


@pytest.mark.slow
def test_a_report_made_meanwhile_is_not_put_back(run, monkeypatch, tmp_path):
    """A page that was rendered before would show what is gone, and the manifest would vouch for it."""
    victims = iter(kept_rows(run)[:2])
    render = page.render_page

    def rendering(*opened):
        text = render(*opened)
        forget(str(run.folder), uids(next(victims)["uid"]))
        return text

    monkeypatch.setattr(page, "render_page", rendering)
    for out in (None, str(tmp_path / "elsewhere.html")):
        with pytest.raises(RunError, match="was changed while its report was written"):
            page.write_report(str(run.folder), out)
    assert not (run.folder / "report.html").exists() and not (tmp_path / "elsewhere.html").exists()
    assert verify_run(str(run.folder))[1] == []


@pytest.mark.parametrize("column", ["link", "page"])
def test_verify_looks_for_urls_in_the_column_of_each_source(tmp_path, column):
    sources = []
    for name in ("link", "page"):
        rows = {name: [f"http://{name}/{i}" for i in range(4)], "caption": [f"the {name} number {i}" for i in range(4)]}
        pq.write_table(pa.table(rows), tmp_path / f"{name}.parquet")
        path = str(tmp_path / f"{name}.parquet")
        sources.append({"name": name, "format": "parquet", "path": path, "columns": {"url": name}})
    run = kit.run_local(kit.recipe_of("", input=sources), tmp_path / "run")
    forget(str(run.folder), urls(f"http://{column}/2"))
    assert verify_run(str(run.folder))[1] == []
    put_value(column, f"http://{column}/2")(run.folder / "shards/00000.parquet")
    [fault] = [fault for fault in verified_anew(run.folder) if "forgotten" in fault]
    assert fault.startswith("shards/00000.parquet: ")
