import gzip
import itertools
import json
import string

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.base.errors import RecipeError
from curate.base.schema import METADATA
from curate.match import metadata as module
from curate.match.characters import CORRECTED_MARKS
from curate.match.matcher import build_matcher
from curate.match.metadata import never_match, read_metadata, write_metadata
from tests.kit.metaclip import space

MESSY = ["dog", "", "St. Louis", "Dog", ",", "dog", "_", " a  b ", "tab\there", "", "!!", "née", "dog", "~"]
CLEAN = ["dog", "St. Louis", "Dog", " a  b ", "tab\there", "!!", "née"]


def write(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_cleans_as_the_reference_and_reports(tmp_path):
    table, report = read_metadata(write(tmp_path / "m.json", json.dumps(list(map(chr, range(256))))))
    assert report.punctuation.to_pylist() == list(string.punctuation) and len(table) == 256 - 32
    table, report = read_metadata(write(tmp_path / "metadata.json", json.dumps(MESSY)))
    assert table.schema == METADATA
    assert table["entry"].to_pylist() == CLEAN
    assert [MESSY[place] for place in table["entry_id"].to_pylist()] == CLEAN
    write_metadata(table, str(tmp_path / "m.parquet"))
    assert read_metadata(str(tmp_path / "m.parquet"))[0].equals(table)
    assert set(table["source"].to_pylist()) == {"import"} and set(table["language"].to_pylist()) == {"en"}
    assert report.read == 14
    assert report.empty.to_pylist() == ["", ""] and report.punctuation.to_pylist() == [",", "_", "~"]
    assert report.duplicates.to_pylist() == ["dog", "dog"]
    assert report.never_match.to_pylist() == ["St. Louis", "tab\there", "!!"]


def test_json_and_text_plain_or_gzipped_by_content(tmp_path):
    """Of text all but the ends of lines stays."""
    content = json.dumps(CLEAN, ensure_ascii=False).encode()
    for name, pack in itertools.product(("m.json", "m.json.gz", "m", "m.JSON"), (bytes, gzip.compress)):
        assert read_metadata(write(tmp_path / name, pack(content)))[0]["entry"].to_pylist() == CLEAN
    lines = ["[dog]", " hot  dog\t", "", "a\x0bb\u2028c\x85", "née"]
    for end, last in itertools.product(("\n", "\r\n"), (True, False)):
        content = "\ufeff" + end.join(lines) + end * last
        table, report = read_metadata(write(tmp_path / "m.txt", content), source="mine", language="fr")
        assert table["entry"].to_pylist() == [line for line in lines if line]
        assert (report.read, len(report.empty)) == (5, 1)
        assert table["source"].to_pylist() == ["mine"] * 4 and table["language"].to_pylist() == ["fr"] * 4
        assert read_metadata(write(tmp_path / "list", content[7:]))[0].num_rows == 3  # no suffix: text by its content


def test_written_tables_are_deterministic_and_come_back(tmp_path):
    table, _ = read_metadata(write(tmp_path / "m.json", json.dumps(MESSY)), source="wordnet", language="de")
    extra = table.append_column("count", pa.array(range(7))).replace_schema_metadata({"made": "today"})
    write_metadata(table, str(tmp_path / "a.parquet"))
    write_metadata(pa.concat_tables([extra.slice(0, 3), extra.slice(3)]), str(tmp_path / "b"))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b").read_bytes()
    assert pq.read_metadata(tmp_path / "b").row_group(0).column(1).compression == "ZSTD"
    again, report = read_metadata(str(tmp_path / "b"))
    assert again.equals(table) and report.read == 7


NAMES = [
    "a::b.parquet",
    "c*.parquet",
    "d?e#1.parquet",
    "[f].parquet",
    "new/folder/g.parquet",
    "memory://metadata/m.parquet",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_table_is_written_where_asked(tmp_path, monkeypatch, name):
    """fsspec would take :: for a chain of file systems."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("cat\ndog\n")
    write_metadata(read_metadata("list.txt")[0], name)
    local = [tmp_path / name] if "//" not in name else []
    assert [path for path in tmp_path.rglob("*.parquet") if path.is_file()] == local
    assert read_metadata(name)[0]["entry"].to_pylist() == ["cat", "dog"]


def damaged_parquet():
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"entry": ["a"]}), sink)
    return sink.getvalue().to_pybytes()[:-6]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("m.json", '{"dog": 1}', "a JSON object"), ("m", ' {"dog": 1}', "a JSON object"),
        ("m.json", '"dog"', "a JSON string"), ("m.json", "17", "a JSON number"), ("m.json", "null", "a JSON null"),
        ("m.json", "true", "a JSON boolean"), ("m.json", json.dumps(["a"] * 17 + [3]), "item 17 is int"),
        ("m.json", '["a", null]', "item 1 is NoneType"),
        ("m.json", '["a", "\\ud800"]', "damaged JSON: no low surrogate in string: line 1 column 8"),
        ("m.json", '["a", ', "damaged JSON: unexpected end of data: line 1 column 7"),
        ("m.json", "", "damaged JSON"), ("m.json", f"[{'9' * 5000}]", "damaged JSON"),
        ("m.json", "[" * 200_000, "damaged JSON: depth limit exceeded"),
        ("m.json", b'["a\xff"]', "not UTF-8 (at byte 3)"), ("m.txt", b"a\n\xff", "not UTF-8 (at byte 2)"),
        ("m.json.gz", gzip.compress(b'["a"]' * 99, mtime=0)[:-9], "damaged gzip"),
        ("m.json.gz", b"\x1f\x8bnonsense", "damaged gzip"),
        ("m.json.gz", gzip.compress(b'["a"]', mtime=0)[:12] + b"\xff" * 20, "damaged gzip"),
        ("m.parquet", damaged_parquet(), "damaged Parquet"),
    ],
)  # fmt: skip
def test_errors_name_the_file_what_was_found_and_what_is_accepted(tmp_path, name, content, found):
    path = write(tmp_path / name, content)
    with pytest.raises(RecipeError) as error:
        read_metadata(path)
    message = str(error.value)
    assert message.startswith(f"metadata {path}: found ") and found in message
    assert message.endswith("accepted: " + module._ACCEPTED) and "\n" not in message


def test_parquet_that_was_not_imported(tmp_path):
    good = pa.table([pa.array([0, 1], pa.int32()), ["a", "b"], ["s", "s"], ["en", "en"]], names=METADATA.names)
    buffers = [None, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xff")]
    broken = pa.Array.from_buffers(pa.string(), 2, buffers)
    for table, found in [
        (good.drop_columns(["source", "language"]), "Parquet without column source, language"),
        (good.set_column(1, "entry", pa.array(["a", None])), "nulls in column entry"),
        (good.set_column(0, "entry_id", pa.array([1, 0])), "entry_id is not ascending"),
        (good.set_column(0, "entry_id", pa.array(["x", "y"])), "Parquet with other types"),
        (good.set_column(1, "entry", broken), "damaged Parquet"),
    ]:
        pq.write_table(table, tmp_path / "m.parquet")
        with pytest.raises(RecipeError, match=found):
            read_metadata(str(tmp_path / "m.parquet"))
    for name in ("EN", "zh-Hant", ""):  # no text's language leads to it
        pq.write_table(good.set_column(3, "language", pa.array(["be_tarask", name])), tmp_path / "m.parquet")
        assert len(read_metadata(str(tmp_path / "m.parquet"), mode="reference")[0]) == 2
        with pytest.raises(
            RecipeError, match=f"found language '{name}', which is not a language key; accepted with match.mode"
        ):
            read_metadata(str(tmp_path / "m.parquet"), mode="corrected")


def test_files_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(RecipeError, match="no such file; accepted: a JSON list"):
        read_metadata(str(tmp_path / "none.json"))
    with pytest.raises(RecipeError, match="cannot be read"):
        read_metadata(str(tmp_path))
    with pytest.raises(RecipeError, match=r"cannot be read .*nowhere"):
        read_metadata("nowhere://m.json")
    table, _ = read_metadata(write(tmp_path / "m.json", '["a"]'))
    with pytest.raises(RecipeError, match="cannot be written"):
        write_metadata(table, str(tmp_path / "m.json" / "m.parquet"))


@pytest.mark.parametrize("content", ["[" + "[]," * 60 + "[]]", "\n" * 101, "[" + '"",' * 101 + '""]', "{}," * 60])
def test_too_many_entries(tmp_path, monkeypatch, content):
    """A megabyte of gzip may contain 300 million lists, which would take 20 GB."""
    monkeypatch.setattr(module, "MAX_ENTRIES", 100)
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(RecipeError, match="found more than 100 entries; accepted: at most that"):
        read_metadata(str(tmp_path / "m.json"))


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 10_000)
    for name, content in [("m.json.gz", gzip.compress(b" " * 1_000_000)), ("m.txt", b"a" * 10_001)]:
        with pytest.raises(RecipeError, match="more than 10,000 bytes"):
            read_metadata(write(tmp_path / name, content))
    assert len(read_metadata(write(tmp_path / "m.txt", b"a" * 10_000))[0]) == 1


def witness(entry, more=""):
    """A text that contains the entry if any text does. Marks get their own spaces, so it has no spaces next to them."""
    for mark in ",.;:?!`" + more:
        entry = entry.replace(f" {mark}", mark).replace(f"{mark} ", mark)
    return entry


@settings(max_examples=200)
@given(st.text("  ab,.`!\t\n\r'\0é", max_size=8), st.text("  ab,.`!\t\n\r'\0é", max_size=12))
@example(", ,", ",,")
@example(",  ,", ",,")
@example("", "")
@example(" , ", "a ,")
def test_never_match_is_the_rule(entry, text):
    never = never_match(pa.array([entry]))[0].as_py()
    assert never is (f" {entry} " not in space(witness(entry)))
    if f" {entry} " in space(text):
        assert not never


@pytest.mark.parametrize("mode", ["reference", "worldwide", "corrected"])
def test_never_match_agrees_with_the_matcher(mode):
    """The text without spaces next to the entry's marks matches the entry if any text does."""
    marks = [*",.`，。؟", "\t", "'", "a", "犬", "ア", " ", *([] if mode != "reference" else ";:?!\n\r\u00a0")]
    entries = [*dict.fromkeys(x + y + z for x in ["", *marks] for y in marks for z in ["", *marks])]
    entries += ["e\u0301", "\u037e"]
    texts = pa.array([f"x {witness(entry, CORRECTED_MARKS * (mode == 'corrected'))} x" for entry in entries])
    language = pa.repeat("ja", len(entries))
    matcher = build_matcher(entries, () if mode == "reference" else language, mode)
    found = [i in ids for i, ids in enumerate(matcher.match(texts, language).to_pylist())]
    assert never_match(pa.array(entries), mode).to_pylist() == [not f for f in found]
    assert 0 < sum(found) < len(found)
