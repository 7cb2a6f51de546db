"""Folders of images give the same results as tars with the same pool, with captions from anywhere."""

import csv
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.ask.explain import explain_sample
from curate.ask.opened import connected
from curate.ask.report.galleries import read_originals
from curate.ask.whatif.estimate import estimate
from curate.base.errors import RecipeError, RunError
from curate.emit import webdataset
from curate.measure import unit
from curate.pool.files import format as parts
from pipelines.claim import claim_folder
from pipelines.prepare import prepare
from tests import kit
from tests.kit.s3 import bucket_at, serving_s3
from tests.kit.store_proxy import store_proxy
from tests.kit.web import bomb

RULES = {"short": "words < 9", "odd": "number % 7 <> 0"}
DEDUP = {"by": ["uid", "sha256"]}


@pytest.fixture(autouse=True, scope="module")
def few_parts():
    """Small pools are split into few units, which take time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_PARTS", 6)
        yield


def recipe(path, form="files", **more):
    return kit.recipe_of(
        path if isinstance(path, list) else str(path), form, **{"output": {"rows_per_shard": 20}, **more}
    )


def in_folders(samples):
    """Samples with image and caption, in two folders, sorted, without fields that only a json has."""
    whole = [s for s in samples if s.image is not None and s.caption is not None]
    moved = [replace(s, key=f"{'ab'[i % 2]}/{s.key}", url=None, uid=None) for i, s in enumerate(whole)]
    return sorted(moved, key=lambda s: f"{s.key}.{s.suffix}")  # of equal rows the first one stays


def write_images(folder, samples):
    for s in samples:
        path = folder / f"{s.key}.{s.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(s.image or b"")
    return folder


def rows_of(samples, start="", file="file_name"):
    return [{file: f"{start}{s.key}.{s.suffix}", "text": s.caption, **s.fields} for s in samples]


def write_csv(path, rows, mark=","):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=mark)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def write_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=50)
    return path


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}


def samples_of(run):
    """Each published sample's members by uid, without names that only a table or a tar has."""
    samples = {}
    for members in kit.loads(run).values():
        fields = json.loads(members.pop("json"))
        fields = {name: value for name, value in fields.items() if name not in ("key", "file_name", "text")}
        samples[fields["uid"]] = {**members, "fields": fields}
    return samples


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """Samples, and runs over them in a tar: with and without the fields of their json."""
    samples, folder, runs = in_folders(kit.make_samples(36)), tmp_path_factory.mktemp("tars"), []
    for n, stripped in enumerate((samples, [replace(s, fields={}) for s in samples])):
        path = kit.write_tar(folder / f"{n}.tar", stripped)
        source, rules = ({}, {"short": RULES["short"]}) if n else ({"columns": {"number": "int"}}, RULES)
        recipe_ = recipe(path, "webdataset", source=source, rules=rules, dedup=DEDUP)
        runs.append(kit.run_local(recipe_, folder / f"run {n}"))
    return samples, *runs


def same(run, tars):
    kit.conserved(run)
    assert (run.kept, run.by_key, run.verdicts) == (tars.kept, tars.by_key, tars.verdicts)
    assert samples_of(run) == samples_of(tars)


@pytest.mark.thorough
@pytest.mark.parametrize(("suffix", "place"), [("csv", "beside"), ("jsonl", "metadata"), ("parquet", "beside")])
def test_captions_of_a_table(tmp_path, tars, suffix, place):
    samples, run_of_tar, _ = tars
    pool, write = write_images(tmp_path / "pool", samples), WRITERS[suffix]
    if place == "beside":
        source = {"table": str(write(tmp_path / f"captions.{suffix}", rows_of(samples, "pool/")))}
    else:
        source = {}
        for folder in "ab":
            of_folder = [replace(s, key=s.key[2:]) for s in samples if s.key.startswith(folder)]
            write(pool / folder / f"metadata.{suffix}", rows_of(of_folder))
    same(kit.run_local(recipe(pool, source=source, rules=RULES, dedup=DEDUP), tmp_path / "run"), run_of_tar)


@pytest.mark.thorough
def test_captions_beside_images(tmp_path, tars):
    samples, _, run_of_tar = tars
    pool = write_images(tmp_path / "pool", samples)
    for s in samples:
        (pool / f"{s.key}.txt").write_text(s.caption or "")
    same(kit.run_local(recipe(pool, rules={"short": RULES["short"]}, dedup=DEDUP), tmp_path / "run"), run_of_tar)


def pictures(names, folder, with_texts=False):
    """A folder of distinct images, with captions beside them or without."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        number = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
        (folder / name).write_bytes(kit.encode(kit.picture(number), "PNG" if name.endswith("png") else "JPEG"))
        if with_texts:
            (folder / name).with_suffix(".txt").write_text(f"a picture, {name}")
    return folder


def captioned(names, **columns):
    return [{"file_name": name, "caption": f"a picture, {name}", **columns} for name in names]


def failures(run):
    return {key: reason for (_, key), reason in run.reasons.items()}


def test_names_of_a_table_reach_no_file_outside(tmp_path):
    pool = pictures(["a.jpg", "sub/b.jpg", "alone.jpg", "sub/plain"], tmp_path / "pool")
    secret = pictures(["secret.jpg"], tmp_path)
    unsafe = [f"{secret}/secret.jpg", "../secret.jpg", "sub/../../secret.jpg", "https://example.com/a.jpg", "file:///a.jpg",
              "C:\\a.jpg", "\\\\host\\a.jpg", "..", "/pool/a.jpg"]  # fmt: skip
    names = ["a.jpg", "./sub//b.jpg", "a.jpg", "sub/plain", "lost.jpg", "", *unsafe]
    rows = captioned(names)
    rows[2]["caption"] = "the same picture again"
    write_csv(pool / "captions.csv", rows)
    run = kit.run_local(recipe(pool, source={"table": str(pool / "captions.csv")}), tmp_path / "run")
    kit.conserved(run)
    expected = {"lost": "no_image", "": "no_image", "alone": "no_caption"}
    assert run.counts == {"kept": 4, "failed": 12}
    assert failures(run) == expected | dict.fromkeys(failures(run).keys() - expected, "unsafe_path")
    assert {row["shard"] for row in run.table("failures").to_pylist()} == {str(pool)}
    uids_of_a = {
        row["uid"] for row in run.table("samples").to_pylist() if row["key"] == "a"
    }  # which name its two samples
    assert {*kit.loads(run)} == {"sub/b", "sub/plain", *uids_of_a}


def test_links_pipes_and_folders(tmp_path):
    """Each name of an image has an outcome; links within the folder are images, also in linked folders."""
    pool = pictures(["a.jpg", "sub/b.jpg", "folder.jpg/e.jpg"], tmp_path / "pool", with_texts=True)
    pictures([".hidden.jpg", ".cache/f.jpg", "g.jpg", "h.jpg", "x::y.jpg"], pool)
    outside = pictures(["c.jpg", "more/d.jpg"], tmp_path / "outside")
    (tmp_path / "passwords").write_text("secret")
    for link, target in {
        "inner.jpg": "sub/b.jpg", "out.jpg": outside / "c.jpg", "away": outside / "more", "again": "sub",
        "dangling.jpg": "nothing.jpg", "loop.jpg": "loop.jpg", "g.txt": tmp_path / "passwords",
    }.items():  # fmt: skip
        (pool / link).symlink_to(target)
    os.mkfifo(pool / "pipe.jpg")
    os.mkfifo(os.fsencode(pool) + b"/\xff.jpg")
    for name in ("inner", "out", "dangling", "loop", "pipe", "folder"):
        (pool / f"{name}.txt").write_text(f"a picture, {name}")
    (pool / "notes.json").write_text("{}")
    (pool / "LICENSE").write_text("free")
    (tmp_path / "linked").symlink_to(pool)
    run = kit.run_local(recipe(tmp_path / "linked"), tmp_path / "run")
    kit.conserved(run)
    unreadable, unsafe = "unreadable_file", "unsafe_path"
    assert failures(run) == {
        "out": unsafe, "away/": unsafe, "g": unsafe, "\\udcff": unsafe, "x::y": unsafe, "h": "no_caption",
        "dangling": unreadable, "loop": unreadable, "pipe": unreadable, "folder": unreadable,
    }  # fmt: skip
    assert {*kit.loads(run)} == {"a", "sub/b", "inner"} | {name for name in kit.loads(run) if len(name) == 32}
    assert run.counts == {"kept": 4, "failed": 10}
    assert run.run["links"]["pool"] == {"rows": 14, ".json": 1, ".other": 1}


def test_one_name_with_two_suffixes_is_two_samples(tmp_path):
    pool = pictures(["a.jpg", "a.png", "b.2024.JPG"], tmp_path / "pool")
    (pool / "a.txt").write_bytes(b"\xef\xbb\xbfa picture\r\n")
    (pool / "b.2024.txt").write_text("another")
    run = kit.run_local(recipe(pool), tmp_path / "run")
    kit.conserved(run)
    uids = dict(zip(run.table("samples")["shard"].to_pylist(), run.table("samples")["uid"].to_pylist(), strict=True))
    assert {key: {*members} for key, members in kit.loads(run).items()} == {
        uids[str(pool / "a.jpg")]: {"jpg", "txt", "json"},
        uids[str(pool / "a.png")]: {"png", "txt", "json"},
        uids[str(pool / "b.2024.JPG")]: {"jpg", "txt", "json"},
    }
    for path in ("pool/a.jpg", "../pool/a.jpg"):  # of a.jpg, and not of a.png
        text = str(explain_sample(str(run.folder), path))
        assert uids[str(pool / "a.jpg")] in text and uids[str(pool / "a.png")] not in text


def test_a_glob_names_images_alone(tmp_path):
    pool = pictures(["a/1.jpg", "a/2.png", "a/deep/3.jpg", "b [x]/4.jpg"], tmp_path / "pool", with_texts=True)
    for n, (path, keys) in enumerate({
        "*/*.jpg": ["a/1", "b [x]/4"], "**/*.jpg": ["a/1", "a/deep/3", "b [x]/4"], "a/[12].*": ["1", "2"], "b [x]": ["4"],
    }.items()):  # fmt: skip
        assert sorted(kit.run_local(recipe(pool / path), tmp_path / str(n)).by_key) == keys


@pytest.mark.thorough
def test_order_and_place_of_rows_change_nothing(tmp_path):
    """Neither the order of rows, the number of tables, the order of listings, nor a table in the folder matters."""
    samples = in_folders(kit.make_samples(24))
    rows, found = rows_of(samples), []
    for n, order in enumerate((rows, kit.shuffled(rows, 1), kit.shuffled(rows, 2))):
        pool = write_images(tmp_path / str(n) / "pool", kit.shuffled(samples, n))
        if n < 2:
            table = str(write_csv((pool if n else tmp_path) / f"{n}.csv", order))
        else:
            write_jsonl(tmp_path / "1.jsonl", order[::2])
            write_parquet(tmp_path / "2.parquet", order[1::2])
            table = [str(tmp_path / "1.jsonl"), str(tmp_path / "2.parquet")]
        run = kit.run_local(recipe(pool, source={"table": table}, rules=RULES, dedup=DEDUP), tmp_path / str(n) / "run")
        found.append((run.kept, run.verdicts, sorted(run.members)))
    assert found[0] == found[1] == found[2]


@pytest.mark.thorough
def test_another_file_changes_only_nearby_units(tmp_path, monkeypatch):
    """Added at the end, in the middle, or changed: other units are reused, also after the folder has moved."""
    names = [f"{n:04d}.jpg" for n in range(0, 300, 2)]
    pool = pictures(names, tmp_path / "pool")
    monkeypatch.setattr(parts, "PART_BYTES", (1 << 18, 1 << 18))

    def run(out, reuse):
        source = {"table": str(write_csv(tmp_path / "captions.csv", captioned(names)))}
        with monkeypatch.context() as patched:
            seen = kit.watch_measuring(patched)
            ran = kit.run_local(recipe(pool, source=source), tmp_path / out, reuse and tmp_path / reuse)
        kit.conserved(ran)
        assert ran.counts == {"kept": len(names)}
        assert {Path(shard).parent for shard in ran.table("samples")["shard"].to_pylist()} == {pool}
        return ran, seen

    first, all_parts = run("first", None)
    assert len(all_parts) > 6
    for name in ("0999.jpg", "0151.jpg"):
        names.append(name)
        pictures([name], pool)
    _, seen = run("more", "first")
    assert 1 <= len(seen) <= 5 < len(all_parts)
    (pool / "0020.jpg").write_bytes(kit.encode(kit.picture(4)))
    changed, seen = run("changed", "more")
    assert 1 <= len(seen) <= 2 and changed.kept != first.kept
    pool = pool.rename(tmp_path / "moved")
    moved, seen = run("elsewhere", "changed")
    assert not seen and moved.members == changed.members


@pytest.mark.thorough
def test_plan_leaves_nothing_and_workers_read_the_runs_folder(tmp_path, monkeypatch):
    """A plan's sample is some rows of each part."""
    names = [f"{n}.jpg" for n in range(60)]
    pool = pictures(names, tmp_path / "pool")
    write_jsonl(pool / "metadata.jsonl", captioned(names))
    planned = prepare(recipe(pool), str(tmp_path / "run"))
    sampled = estimate(planned.context, planned.plan.units, None)
    assert max(part.rows or 0 for part in planned.plan.files) > 1 and sampled is not None and sampled.rows == 60
    assert not (tmp_path / "run").exists()
    expected = kit.run_local(recipe(pool), tmp_path / "expected")

    def elsewhere(prepared):
        claim_folder(prepared)
        (tmp_path / "other").mkdir()
        monkeypatch.setattr(parts, "process_folder", lambda: str(tmp_path / "other"))

    monkeypatch.setattr("tests.kit.runs.claim_folder", elsewhere)
    run = kit.run_beam(recipe(pool), tmp_path / "run")
    kit.conserved(run)
    assert run.members == expected.members and run.kept == expected.kept


@pytest.mark.parametrize(
    ("when", "change"), [("measured", "another"), ("measured", "text"), ("emitted", "another"), ("emitted", "gone")]
)
def test_a_file_that_changes_ends_the_run(tmp_path, monkeypatch, when, change):
    pool = pictures(["a.jpg", "b.jpg"], tmp_path / "pool", with_texts=True)

    def changing(function):
        def changed(*arguments, **options):
            if change == "another":
                (pool / "b.jpg").write_bytes(kit.encode(kit.picture(1)))
            elif change == "text":
                (pool / "b.txt").write_text("another text")
            else:
                (pool / "b.jpg").unlink(missing_ok=True)
            return function(*arguments, **options)

        return changed

    if when == "measured":
        monkeypatch.setattr(unit, "measure_part", changing(unit.measure_part))
    else:
        monkeypatch.setattr(webdataset, "_write_slice", changing(webdataset._write_slice))
    with pytest.raises(RunError, match=r"b\.(jpg|txt): the file changed during the run.*with --reuse"):
        kit.run_local(recipe(pool), tmp_path / "run")


def test_fingerprints_of_contents(tmp_path):
    """A file that is rewritten with equal content counts as the same."""
    pool = pictures(["a.jpg", "b.jpg"], tmp_path / "pool", with_texts=True)
    run = kit.run_local(recipe(pool), tmp_path / "run", content=True)
    os.utime(pool / "a.jpg", (1, 1))
    os.utime(pool / "b.txt", (1, 1))
    assert prepare(recipe(pool), str(tmp_path / "run"), content=True).finished
    assert run.counts == {"kept": 2}


def test_a_report_reads_the_images(tmp_path):
    pool = pictures([f"{n}.jpg" for n in range(9)], tmp_path / "pool", with_texts=True)
    run = kit.run_local(recipe(pool), tmp_path / "run")
    with connected(str(run.folder)) as opened:
        images = read_originals(opened, opened.rows("SELECT * FROM samples JOIN decisions USING (unit, row)"))
    assert len(images) == 9 and None not in images.values()


def test_columns_of_a_table(tmp_path):
    """They have the same types as in URL lists, are in the json, and rules, joins, and table `scores` have them."""
    pool = pictures(["001", "002.jpg", "x/003.jpg"], tmp_path / "pool")
    names = ("Photo", "title", "uid", "likes", "day", "note", "seen")
    rows = [
        ("001", "one", "0" * 32, 1, "2024-01-02", None, "true"),
        ("002.jpg", "two", None, 2.5, "2024-01-03", "n", "false"),
        ("x/003.jpg", None, None, None, None, "n", None),
    ]
    write_csv(tmp_path / "c.csv", [dict(zip(names, row, strict=True)) for row in rows])
    join = write_parquet(tmp_path / "join.parquet", [{"key": "002", "mine": 5.0}])
    source = {"table": str(tmp_path / "c.csv"), "columns": {"file": "Photo", "caption": "title"}}
    source |= {"join": {"path": str(join), "on": "key", "columns": {"mine": "mine"}}}
    rules = {"day": "day > DATE '2024-01-01'", "seen": "seen IS NOT NULL"}
    run = kit.run_local(recipe(pool, source=source, rules=rules), tmp_path / "run")
    assert run.by_key == {"001": "kept", "002": "kept", "x/003": "empty_caption"}
    scores = run.table("scores", ["likes", "day", "mine"]).to_pydict()
    assert scores["likes"] == [1.0, 2.5, None] and scores["mine"] == [None, 5.0, None]
    fields = [json.loads(members["json"]) for _, members in sorted(kit.loads(run).items())]
    assert [(f["likes"], f["day"], f["seen"], f["title"]) for f in fields] == [
        (1.0, "2024-01-02", True, "one"), (2.5, "2024-01-03", False, "two"),
    ]  # fmt: skip
    assert fields[0]["uid"] == "0" * 32


def test_text_that_is_not_utf8_costs_its_row_alone(tmp_path):
    """In captions and names of CSV, and in captions of Parquet; a column of names may be a dictionary."""
    pool = pictures(["a.jpg", "b.jpg", "c.jpg"], tmp_path / "pool")
    (tmp_path / "captions.csv").write_bytes(b"file,caption\na.jpg,caf\xe9\nb.jpg,b\n")
    (tmp_path / "names.csv").write_bytes(b"file,caption\na.jpg,a\n\xe9.jpg,b\nb.jpg,c\n")
    captions = pa.Array.from_buffers(pa.string(), 2, pa.array([b"caf\xe9", b"b"]).buffers())
    files = pa.array(["a.jpg", "b.jpg"]).dictionary_encode()
    pq.write_table(pa.table({"file": files, "caption": captions}), tmp_path / "captions.parquet")
    for name, expected in {
        "captions.csv": {"a": "caption_not_utf8"}, "names.csv": {"a": "kept", "\ufffd": "no_image"},
        "captions.parquet": {"a": "no_caption"},
    }.items():  # fmt: skip
        run = kit.run_local(recipe(pool, source={"table": str(tmp_path / name)}), tmp_path / f"run {name}")
        kit.conserved(run)
        assert run.by_key == {"b": "kept", "c": "no_caption"} | expected


REFUSED = [
    ({"path": "nowhere"}, r"no such folder; accepted: a folder of images, or a glob"),
    ({"path": "pool/a.jpg"}, r"a file; accepted: a folder of images, or a glob"),
    ({"path": "nowhere/*.jpg"}, r"no such folder"),
    ({"path": "empty"}, r"no image; accepted: file names that end in \.jpg"),
    ({}, r"none of 2 images has a caption; accepted: NAME\.txt beside each image; a metadata\.csv"),
    ({"table": "lost.csv"}, r"lost\.csv: no such file"),
    ({"table": "c.md"}, r"is not a table; accepted: \.parquet, \.csv"),
    ({"table": "other.csv"}, r"no file name in .*other\.csv matches a file; for example, 'z\.jpg' does not exist; accepted: names relative"),
    ({"table": "nameless.csv"}, r"no column with file names; columns: a, caption; name the right one with columns: \{file: NAME\}"),
    ({"table": "other.csv", "columns": {"file": "b"}}, r"no column 'b'; columns: file_name, caption"),
    ({"table": "other.csv", "columns": {"caption": "b"}}, r"no column 'b'"),
    ({"table": "semicolons.csv"}, r"cannot be read as a table: CSV parse error"),
    ({"table": ["other.csv", "typed.parquet"]}, r"typed\.parquet: cannot be read as a table: .*likes"),
    ({"table": "header.csv"}, r"header\.csv has no rows"),
    ({"table": "numbers.jsonl"}, r"file column 'file' is int64, not text"),
    ({"table": "cases.csv"}, r"'Caption' and 'caption' differ only in case; name one with columns: \{caption: Cap"),
    ({"table": "files.csv"}, r"'File' and 'file' differ only in case; name one with columns: \{file: File\}"),
    ({"table": ["other.csv", "texts.csv"]}, r"texts\.csv: its captions are in column 'text', but those in .*other\.csv are in 'caption'; accepted: the same column"),
    ({"table": "plain.csv.gz"}, r"plain\.csv\.gz: cannot be read as a table: it is damaged, or not compressed"),
    ({"columns": {"image": "a"}}, r"image"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_refused_sources(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    pictures(["a.jpg", "b.jpg"], Path("pool"))
    Path("empty").mkdir()
    Path("c.md").write_text("")
    write_csv(Path("other.csv"), captioned(["z.jpg", "y.jpg"], likes="x"))
    write_csv(Path("nameless.csv"), [{"a": 1, "caption": "c"}])
    write_csv(Path("semicolons.csv"), captioned(["a.jpg"]), ";")
    Path("header.csv").write_text("file_name,caption\n")
    write_jsonl(Path("numbers.jsonl"), [{"file": 1, "caption": "c"}])
    write_csv(Path("cases.csv"), [{"file": "a.jpg", "Caption": "c", "caption": "d"}])
    write_csv(Path("files.csv"), [{"File": "a.jpg", "caption": "c", "file": "b.jpg"}])
    write_csv(Path("texts.csv"), [{"file_name": "a.jpg", "text": "c"}])
    Path("plain.csv.gz").write_text("file,caption\na.jpg,c\n")
    write_parquet(Path("typed.parquet"), [{"file_name": "a.jpg", "caption": "b", "likes": {"de": 1}}])
    source = {"path": "pool", **change}
    for name in source.keys() & {"path", "table"}:
        paths = source[name]
        source[name] = str(tmp_path / paths) if isinstance(paths, str) else [str(tmp_path / path) for path in paths]
    with pytest.raises(RecipeError, match=message):
        prepare(recipe(source.pop("path"), source=source), str(tmp_path / "run"))


@pytest.mark.slow
def test_a_folder_of_a_store(tmp_path):
    """As on disk. Planning opens no image; an image that changes before the run ends it."""
    names = [f"{n % 3}/{n}.jpg" for n in range(12)]
    pool = pictures(names, tmp_path / "pool")
    write_csv(pool / "metadata.csv", captioned([*names, "lost.jpg"]))
    local = kit.run_local(recipe(pool), tmp_path / "local")
    with serving_s3() as url, store_proxy(url) as proxy, bucket_at(proxy.url) as bucket:
        fs = fsspec.filesystem("s3")
        fs.put(f"{pool}/", f"{bucket}/pool/", recursive=True)
        proxy.requests.clear()
        prepare(recipe(f"{bucket}/pool"), str(tmp_path / "planned"))
        assert not [request for request in proxy.requests if request.name.endswith(".jpg")]
        for n, path in enumerate(("pool", "pool/**/*.jpg")):
            run = kit.run_local(recipe(f"{bucket}/{path}"), tmp_path / f"stored {n}")
            kit.conserved(run)
            assert run.by_key == local.by_key and run.kept == local.kept and run.members == local.members
        assert f"{bucket}/pool/0/0.jpg" in run.table("samples")["shard"].to_pylist()
        prepared = prepare(recipe(f"{bucket}/pool"), str(tmp_path / "changed"))
        fs.pipe_file(f"{bucket}/pool/0/0.jpg".removeprefix("s3://"), kit.encode(kit.picture(1)))
        claim_folder(prepared)
        with pytest.raises(RunError, match=r"0\.jpg: the file changed during the run"):
            kit.measure(prepared.context, prepared.plan.units[0])


def test_bombs_and_damage_are_refused_as_in_tars(tmp_path, monkeypatch):
    monkeypatch.setattr("curate.pool.files.format._MAPPED", 1000)  # bytes: larger files are mapped
    images = {"bomb": bomb(), "half": kit.encode(kit.picture(1))[:800], "html": b"<html>", "empty": b""}
    texts = {"long": b"a" * 70_000, "nul": b"a\0b", "latin": "caf\xe9".encode("latin-1"), "blank": b" "}
    pool = pictures([f"{name}.jpg" for name in [*images, *texts]], tmp_path / "pool", with_texts=True)
    for name, image in images.items():
        (pool / f"{name}.jpg").write_bytes(image)
    for name, text in texts.items():
        (pool / f"{name}.txt").write_bytes(text)
    run = kit.run_local(recipe(pool), tmp_path / "run")
    kit.conserved(run)
    assert run.by_key == {
        "bomb": "too_many_pixels", "half": "truncated_image", "html": "not_an_image", "empty": "empty_image",
        "long": "caption_too_long", "nul": "caption_nul", "latin": "caption_not_utf8", "blank": "empty_caption",
    }  # fmt: skip
