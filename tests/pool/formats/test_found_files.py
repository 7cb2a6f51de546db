"""FoundFiles: which files are at a path, the first rows of tables, and their columns."""

import gzip
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


@pytest.mark.parametrize("path", ["b/1.tar", "b/*.tar", "b/{1..2}.tar"])
def test_a_file_a_glob_and_a_range(path, tmp_path):
    touch(tmp_path, "b/1.tar", "b/2.tar")
    found = FoundFiles.look(f"{tmp_path}/{path}", {})
    assert found.names[0] == f"{tmp_path}/b/1.tar" and found.pattern(".tar") == f"{tmp_path}/{path}"


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "captions.csv")
    assert read_head(str(tmp_path / "captions.csv"), {}) is None


def test_the_root_has_one_slash():
    assert FoundFiles("/", ("/a/b.tar",), is_folder=True).pattern(".tar") == "/**/*.tar"


def test_a_missing_path(tmp_path):
    for path in (f"{tmp_path}/none", f"{tmp_path}/*.tar", "none://a/b"):
        with pytest.raises(RecipeError, match=path.replace("*", r"\*")):
            FoundFiles.look(path, {})


def test_of_many_files_some_are_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(found_files, "MAX_NAMES", 3)
    found = FoundFiles.look(str(touch(tmp_path, *(f"{i}.jpg" for i in range(9)))), {})
    assert len(found.names) == 3 and found.describe() == "3 .jpg, and more"


@pytest.mark.thorough
def test_of_a_large_bucket_one_page_is_listed(monkeypatch):
    monkeypatch.setattr(found_files, "MAX_NAMES", 900)
    with serving_s3() as url, bucket_at(url) as bucket:
        fs = fsspec.filesystem("s3")
        fs.pipe({f"{bucket}/large/{i:04d}/a.tar": b"x" for i in range(1100)} | {f"{bucket}/other.csv": b"x"})
        asked = []
        ask = type(fs).call_s3
        monkeypatch.setattr(
            type(fs), "call_s3", lambda self, *words, **named: asked.append(named) or ask(self, *words, **named)
        )
        found = FoundFiles.look(f"{bucket}/large/", {})
        assert [len(asked), len(found.names), found.names[1]] == [1, 900, f"{bucket}/large/0001/a.tar"]
        assert found.pattern(".tar") == f"{bucket}/large/**/*.tar" and found.exists(f"{bucket}/other.csv")
        monkeypatch.setattr(found_files, "MAX_NAMES", 5000)
        assert len(FoundFiles.look(f"{bucket}/large", {}).names) == 1100


@pytest.mark.parametrize("kind", ["csv", "tsv.gz", "jsonl", "parquet"])
def test_how_a_table_begins(kind, tmp_path):
    path = tmp_path / f"a.{kind}"
    rows = [{"url": f"https://example.com/{i}", "text": f"dog, {i}"} for i in range(200)]
    if kind == "csv":
        path.write_text("url,text\n" + "".join(f'{row["url"]},"{row["text"]}"\n' for row in rows))
    elif kind == "tsv.gz":
        path.write_bytes(
            gzip.compress(("url\ttext\n" + "".join(f"{row['url']}\t{row['text']}\n" for row in rows)).encode())
        )
    elif kind == "jsonl":
        path.write_text("".join(f'{{"url": "{row["url"]}", "text": "{row["text"]}"}}\n' for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    head = read_head(str(path), {})
    assert head is not None and head.to_pylist() == rows[:100]


def test_a_table_of_a_gigabyte_is_not_read(tmp_path):
    with (tmp_path / "a.csv").open("wb") as file:
        file.write(b"url,text\n" + b"https://example.com/1,a dog\n" * (1 << 16))
        file.truncate(1 << 30)
    head = read_head(str(tmp_path / "a.csv"), {})
    assert head is not None and len(head) == 100


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b""),
        ("a.csv", b"a,a\n1,2\n"),
        ("a.csv", b"," * (1 << 17)),
        ("a.jsonl", b"[" * 100_000),
        ("a.jsonl", b'{"a": 1}\n2\n'),
        ("a.csv.gz", b"a,b\n"),
        ("a.parquet", b"PAR1" * 9),
        ("a.txt", b"a"),
    ],
)
def test_what_is_no_table_has_no_rows(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert read_head(str(tmp_path / name), {}) is None


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
