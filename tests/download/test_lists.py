"""URL lists that are not Parquet, with and without header, odd types, or quotation marks, are converted once."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from curate.base.process import Cache
from curate.download import lists
from curate.download.lists import UrlList, describe_list, read_rows, share_list
from curate.store.store import RunStore

TEXTS = frozenset({"url", "caption"})


def rows_of(path, column_names=None):
    urls = UrlList(str(path), path.read_bytes().hex()[:300], {}, column_names, TEXTS)
    _, count = describe_list(urls)
    rows = read_rows(urls, range(count)).to_pylist()
    assert count < 2 or read_rows(urls, range(1, count)).to_pylist() == rows[1:]
    return list(rows)


LISTS = [  # (name, content, names of its columns, rows)
    (
        "cc12m.tsv", b"https://a.example/1\tA red dog\nhttps://a.example/2\t12\n", ("url", "caption"),
        [("https://a.example/1", "A red dog"), ("https://a.example/2", "12")],
    ),
    ("cc3m.csv.gz", gzip.compress(b'"a dog, red",https://a/1\n', mtime=0), ("caption", "url"), [("https://a/1", "a dog, red")]),
    *(
        ("a.jsonl.zst", zstandard.compress(b'{"url": "http://a/1", "caption": "a"}\n') * frames, None, [("http://a/1", "a")] * frames)
        for frames in (1, 2)
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "column_names", "rows"), LISTS)
def test_lists_without_a_header_and_packed_ones(name, content, column_names, rows, tmp_path):
    (tmp_path / name).write_bytes(content)
    found = rows_of(tmp_path / name, column_names)
    assert [(row["url"], row["caption"]) for row in found] == rows


def test_columns_of_views(tmp_path):
    """Some libraries write views: rows come from all row groups, and texts as strings."""
    table = pa.table({"url": [f"https://a.example/{row}" for row in range(5)]})
    pq.write_table(table.cast(pa.schema([("url", pa.string_view())])), tmp_path / "list.parquet", row_group_size=2)
    assert read_rows(UrlList(str(tmp_path / "list.parquet"), ""), range(1, 4)).equals(table.slice(1, 3))


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_columns_that_begin_as_another_type(tmp_path, kind):
    """After more than a megabyte: digits in captions stay text, integers become floats, empty columns get a later type."""
    mark = "," if kind == "csv" else "\t"
    count = 60_000
    lines = [mark.join(("URL", "caption", "score", "note", "flag"))]
    lines += [mark.join((f"http://a.example/{i}", f"{i:05d}", "1", "", "true")) for i in range(count)]
    lines += [mark.join(("http://a.example/x", "words", "0.5", "odd", "perhaps"))]
    (tmp_path / f"a.{kind}").write_text("\n".join(lines) + "\n")
    rows = rows_of(tmp_path / f"a.{kind}")
    assert len(rows) == count + 1 and rows[7]["caption"] == "00007" and rows[7]["score"] == 1.0
    last = {"URL": "http://a.example/x", "caption": "words", "score": 0.5, "note": "odd", "flag": "perhaps"}
    assert rows[-1] == last and rows[0]["flag"] == "true"


@pytest.mark.parametrize("rows", [3, 100_000])
def test_a_quotation_mark_that_is_not_closed(tmp_path, rows):
    lines = [b"url,caption", *(b"https://e.com/%d.jpg,a hen" % n for n in range(rows))]
    lines[3] = b'https://e.com/3.jpg,"a hen'
    path = tmp_path / "list.csv"
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(pa.ArrowInvalid, match=r"a row has more than 1,048,576 bytes; .*a quotation mark|is not closed"):
        describe_list(UrlList(str(path), "1"))


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_text_that_is_not_utf8(tmp_path, kind):
    """Early and after a megabyte, in captions and in another column: it becomes bytes, and the list is still read."""
    mark = "," if kind == "csv" else "\t"
    for before in (0, 60_000):
        lines = [mark.join(("url", "caption", "note"))]
        lines += [mark.join((f"http://a.example/{i}", f"dog {i}", "n")) for i in range(before)]
        lines += [mark.join(("http://a.example/x", "caf\xe9", "\xfc"))]
        path = tmp_path / f"{before}.{kind}"
        path.write_text("\n".join(lines) + "\n", encoding="latin-1")
        assert rows_of(path)[-1] == {"url": "http://a.example/x", "caption": b"caf\xe9", "note": b"\xfc"}


def test_json_that_changes(tmp_path, monkeypatch):
    """First null or an integer, and a field that only one row has; read a few lines at a time, of any length."""
    rows = [{"url": f"http://a/{i}", "caption": f"{i:05d}", "note": None, "s": 1} for i in range(90)]
    rows += [
        {"url": "http://a/x", "caption": "w" * 500, "note": "odd", "s": 0.5, "more": 7},
        {"url": "http://a/y", "caption": "y"},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    everything = dict.fromkeys(["url", "caption", "note", "s", "more"])
    for size in (100, 1 << 20):
        monkeypatch.setattr(lists, "_JSON_BYTES", size)
        monkeypatch.setattr(lists, "_converted", Cache())
        assert rows_of(path) == [everything | row for row in rows]
    path.write_text('{"url": "http://a/1", "caption": "a"}\n{"url": "http://a/2", "caption": 7}\n')
    with pytest.raises(pa.ArrowInvalid, match="caption"):
        rows_of(path)


def test_quotation_marks(tmp_path):
    """In TSV, each line is a row: unbalanced marks are part of the text; balanced ones work as in CSV."""
    path = tmp_path / "a.tsv"
    path.write_text('url\tcaption\nhttp://a/1\t"a dog\nhttp://a/2\ta cat"\nhttp://a/3\t"so\n')
    captions = [row["caption"] for row in rows_of(path)]
    assert captions == ['"a dog', 'a cat"', '"so']
    path.write_text('"url"\t"caption"\n"http://a/1"\t"a ""big"" dog"\n')
    assert rows_of(path) == [{"url": "http://a/1", "caption": 'a "big" dog'}]
    for value in ("a dog\nand more", "a\tdog"):
        path.write_text(f'url\tcaption\nhttp://a/1\t"{value}"\nhttp://a/2\ta cat\n')
        with pytest.raises(pa.ArrowInvalid, match="Expected 2 columns"):
            rows_of(path)
    (tmp_path / "a.csv").write_text('url,caption\nhttp://a/1,"a dog\nand more"\n')
    assert [row["caption"] for row in rows_of(tmp_path / "a.csv")] == ["a dog\nand more"]


def test_other_processes_read_what_one_made(tmp_path, monkeypatch):
    path, run = tmp_path / "a.jsonl", RunStore(str(tmp_path / "run"))
    rows = [{"url": f"http://a/{i}", "caption": f"number {i}"} for i in range(50)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    urls = UrlList(str(path), "a", {}, None, TEXTS)
    share_list(urls, run)
    path.unlink()  # this process has it, too
    assert read_rows(urls, [49]).to_pylist() == rows[49:]
    monkeypatch.setattr(lists, "_converted", Cache())  # as in another process
    assert read_rows(urls, range(10, 13), run).to_pylist() == rows[10:13]
    run.delete("tmp")
    path.write_text('{"url": "http://b/1", "caption": "b"}\n')
    assert read_rows(UrlList(str(path), "b", {}, None, TEXTS), [0], run)["url"].to_pylist() == ["http://b/1"]


def test_json_of_blank_lines(tmp_path):
    for content in ("", "\n" * 1000, " \n\t\n"):
        (tmp_path / "a.jsonl").write_text(content)
        with pytest.raises(pa.ArrowInvalid, match="all lines are blank"):
            rows_of(tmp_path / "a.jsonl")


@pytest.mark.parametrize("objects", ['{"k%d": 1}\n', '{"inner": [{"k%d": 1}, {}, {}]}\n'])
def test_json_of_many_columns_that_few_lines_have(tmp_path, monkeypatch, objects):
    """Arrow has a slot for each column in each object: 15 MB of these took 90 GB. The last lines may have the names."""
    monkeypatch.setattr(lists, "MAX_VALUES", 50_000)
    monkeypatch.setattr(lists, "_JSON_BYTES", 1 << 12)
    path = tmp_path / "a.jsonl"
    path.write_text("{}\n" * 2000 + "".join(objects % i for i in range(40)))
    with pytest.raises(pa.ArrowInvalid, match=r"4[01] columns, most of them without a value"):
        rows_of(path)
    path.write_text("".join(objects % (i % 4) for i in range(40)))
    assert len(rows_of(path)) == 40


def test_csv_of_many_columns_that_change(tmp_path, monkeypatch):
    """Each such column costs another read."""
    monkeypatch.setattr(lists, "_MAX_READ", 30)
    path, columns = tmp_path / "a.csv", 6
    lines = [",".join(f"c{i}" for i in range(columns)), *[",".join("1" * columns)] * 100_000]
    path.write_text("\n".join([*lines, ",".join("x" * columns)]) + "\n")
    with pytest.raises(pa.ArrowInvalid, match="columns or more have numbers first and text later"):
        rows_of(path)
