"""FoundFiles: which files are at a path, the first rows of tables, and their columns."""

import gzip
import json
import os

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.ask.query import find_run
from curate.base.errors import RecipeError
from curate.pool.formats import found_files
from curate.pool.formats.found_files import FoundFiles, name_columns, read_head, texts_of
from curate.pool.formats.parquet import ParquetInput
from curate.pool.registry import plan_source
from tests import kit
from tests.kit.s3 import NAMES, bucket_at, serving_s3


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_a_folder_with_its_subfolders(tmp_path):
    found = FoundFiles.look(f"{touch(tmp_path, 'b/1.tar', 'b/2.TAR', 'a.txt', '.hidden', '.git/3.tar')}/", {})
    assert found.path == str(tmp_path) and found.is_folder
    assert [name.removeprefix(f"{tmp_path}/") for name in found.names] == ["a.txt", "b/1.tar", "b/2.TAR"]
    assert found.pattern(".tar") == [f"{tmp_path}/**/*.tar", f"{tmp_path}/**/*.TAR"]
    assert found.describe() == "2 .tar, 1 .txt"
    assert FoundFiles.look(f"{tmp_path}/b", {}).pattern(".tar", ".gz") == [f"{tmp_path}/b/*.tar", f"{tmp_path}/b/*.TAR"]
    assert FoundFiles("/", ("/a/b.tar",), is_folder=True).pattern(".tar") == "/**/*.tar"
    touch(tmp_path, "c/1.tar", "c/2.tar")
    for path in ("c/1.tar", "c/*.tar", "c/{1..2}.tar"):
        found = FoundFiles.look(f"{tmp_path}/{path}", {})
        assert found.names[0] == f"{tmp_path}/c/1.tar" and found.pattern(".tar") == f"{tmp_path}/{path}"


def test_a_missing_path(tmp_path):
    for path in (f"{tmp_path}/none", f"{tmp_path}/*.tar", "none://a/b"):
        with pytest.raises(RecipeError, match=path.replace("*", r"\*")):
            FoundFiles.look(path, {})


def test_of_many_files_some_are_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(found_files, "MAX_NAMES", 3)
    found = FoundFiles.look(str(touch(tmp_path, *(f"{i}.jpg" for i in range(9)))), {})
    assert len(found.names) == 3 and found.describe() == "in the first 3 files: 3 .jpg"


@pytest.mark.thorough
def test_of_a_large_bucket_one_page_is_listed(monkeypatch):
    asked, fs_class = [], fsspec.get_filesystem_class("s3")
    call = fs_class.call_s3

    def call_with_small_pages(self, method, *words, **named):
        asked.append(method)
        return call(self, method, *words, **named, **({"MaxKeys": 60} if method == "list_objects_v2" else {}))

    monkeypatch.setattr(fs_class, "call_s3", call_with_small_pages)
    monkeypatch.setattr(found_files, "MAX_NAMES", 50)
    with serving_s3() as url, bucket_at(url) as bucket:
        names = [f"{bucket}/large/{i:04d}/a.tar" for i in range(80)]
        fsspec.filesystem("s3").pipe(dict.fromkeys([*names, f"{bucket}/other.csv"], b"x"))
        found = FoundFiles.look(f"{bucket}/large/", {})
        assert len(asked) == 1 and list(found.names) == names[:50]
        assert found.pattern(".tar") == f"{bucket}/large/**/*.tar" and found.exists(f"{bucket}/other.csv")
        monkeypatch.setattr(found_files, "MAX_NAMES", 5000)
        assert list(FoundFiles.look(f"{bucket}/large", {}).names) == names


def test_how_a_table_begins(tmp_path):
    rows = [{"url": f"https://example.com/{i}", "text": f"dog, {i}"} for i in range(200)]
    csv = "url,text\n" + "".join(f'{row["url"]},"{row["text"]}"\n' for row in rows)
    (tmp_path / "a.csv").write_text(csv)
    (tmp_path / "a.tsv.gz").write_bytes(
        gzip.compress(csv.replace(',"', "\t").replace('"', "").replace("url,", "url\t").encode())
    )
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for kind in ("csv", "tsv.gz", "jsonl", "parquet"):
        head = read_head(str(tmp_path / f"a.{kind}"), {})
        assert head is not None and head.to_pylist() == rows[:100], kind
    with (tmp_path / "large.csv").open("wb") as file:  # a gigabyte is not read
        file.write(b"url,text\n" + b"https://example.com/1,a dog\n" * (1 << 16))
        file.truncate(1 << 30)
    head = read_head(str(tmp_path / "large.csv"), {})
    assert head is not None and len(head) == 100


def test_what_is_no_table_has_no_rows(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    assert read_head(str(tmp_path / "pipe.csv"), {}) is None
    for name, content in (
        ("a.csv", b""), ("a.csv", b"a,a\n1,2\n"), ("a.csv", b"," * (1 << 17)), ("a.jsonl", b"[" * 100_000),
        ("a.jsonl", b'{"a": 1}\n2\n'), ("a.csv.gz", b"a,b\n"), ("a.parquet", b"PAR1" * 9), ("a.txt", b"a"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        assert read_head(str(tmp_path / name), {}) is None, (name, content[:9])


def test_columns_are_named_where_their_names_do_not_say_it():
    table = pa.table({"TEXT": ["a dog"], "link": ["https://example.com/1"], "n": [1], "note": ["long " * 9]})
    texts = texts_of(table)
    assert name_columns(texts, url="link") == {"url": "link"}
    assert name_columns(texts | {"url": texts["link"]}, url="url") == {}
    assert name_columns({name: texts[name] for name in ("link", "note")}, url="link") == {
        "caption": "note",
        "url": "link",
    }
    assert name_columns({"link": texts["link"]}, url="link") is None


def test_s3_without_credentials(tmp_path, monkeypatch):
    """The client's errors are no OSError; they name the URL, too."""
    pytest.importorskip("s3fs")
    for name in (*NAMES, "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    message = "s3://bucket/a: .*NoCredentialsError"
    with pytest.raises(RecipeError, match=message):
        FoundFiles.look("s3://bucket/a", {})
    with pytest.raises(OSError, match=message):
        find_run("s3://bucket/a")
    for form in ("webdataset", "files"):
        with pytest.raises(RecipeError, match=message):
            plan_source(kit.recipe_of("s3://bucket/a", form).input[0], (), content=False)


def test_columns_that_differ_in_case_alone_are_named(tmp_path):
    texts = {"caption": ["a dog"], "Caption": ["a cat"], "url": ["http://a.example/1.jpg"]}
    assert name_columns(texts) == {"caption": "caption"}
    pq.write_table(pa.table(texts), tmp_path / "a.parquet")
    found = ParquetInput().recognize(FoundFiles.look(str(tmp_path), {}))
    assert found is not None and found.keys["columns"] == {"caption": "caption"}
