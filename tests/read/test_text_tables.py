"""Lists as text are checked before Arrow's parsers see them."""

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.csv
import pytest
import zstandard

from curate.read import text_tables
from curate.read.text_tables import MAX_COLUMNS, MAX_DEPTH, check_first_line, check_json_lines, open_text

LINES = b"url,caption\nhttp://x/1,a\n" * 1000


def nested(depth):
    return b'{"url": "u", "more": ' + b"[" * depth + b"]" * depth + b"}\n"


def test_names_are_collected_with_those_of_nested_values():
    names = set()
    check_json_lines(b'{"a": 1, "b": {"c": [{"d": 2}]}}\n\n{"e": "[[[{{{"}\r\n{"a": 3}', names)
    assert names == {"a", "b", "b.c", "b.c.d", "e"}


def test_lines_that_are_json_by_themselves_or_not():
    for line in (b'{"a": NaN}', b'{"a": "\xff"}', b'\xef\xbb\xbf{"a": 1}', b"[1, 2]", b"3"):
        check_json_lines(line, set())  # the parser itself takes or refuses these
    for lines in (b"{", b"nothing", b"\xff", b'{"a":\n1}', b'{"a": 1}{"a": 2}'):
        with pytest.raises(pa.ArrowInvalid, match=r"a line is not JSON: .*; accepted: a JSON object per line"):
            check_json_lines(lines, set())
    for between in (b"\n", b"\r", b"\r\n", b" "):  # depth does not hide in several lines
        with pytest.raises(pa.ArrowInvalid):
            check_json_lines(b'{"a": ' + (b"[" + between) * 5000 + b"]" * 5000 + b"}", set())


def test_what_is_nested_too_deep_is_refused():
    check_json_lines(nested(MAX_DEPTH - 1), set())
    for content in (nested(MAX_DEPTH), nested(1000), b'{"a":' * 70 + b"1" + b"}" * 70):
        with pytest.raises(pa.ArrowInvalid, match="nested more than 64 deep"):
            check_json_lines(content, set())
    for content in (nested(100_000), b"[" * 100_000, b'{"a":' * 100_000):
        with pytest.raises(pa.ArrowInvalid, match="a line is not JSON"):
            check_json_lines(content, set())
    check_json_lines(json.dumps({"url": "u", "caption": "[" * 10_000}).encode(), set())


@pytest.mark.parametrize("per_line", [1, 10, MAX_COLUMNS + 1])
def test_too_many_names_are_refused(per_line):
    lines = [{f"k{i}_{j}": 1 for j in range(per_line)} for i in range(MAX_COLUMNS // per_line + 1)]
    whole = "\n".join(map(json.dumps, lines))
    with pytest.raises(pa.ArrowInvalid, match="more than 10,000 columns"):
        check_json_lines(whole.encode(), set())
    with pytest.raises(pa.ArrowInvalid, match="more than 10,000 columns"):
        check_json_lines(json.dumps({"inner": [dict.fromkeys(map(str, range(10_001)))]}).encode(), set())


@pytest.mark.parametrize("mark", [",", "\t"])
def test_a_first_line_of_too_many_columns_is_refused(mark, tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(mark.join(map(str, range(MAX_COLUMNS))) + "\n" + mark * 100_000)
    check_first_line(str(path), {}, mark)
    path.write_text(mark * MAX_COLUMNS)
    with pytest.raises(pa.ArrowInvalid, match="10,001 columns or more; accepted: at most 10,000"):
        check_first_line(str(path), {}, mark)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_other_encodings_are_named(encoding, tmp_path):
    (tmp_path / "list.csv").write_text("file,caption\na.jpg,a hen\n", encoding)
    with pytest.raises(pa.ArrowInvalid, match="it is UTF-16 or UTF-32; accepted: UTF-8"):
        check_first_line(str(tmp_path / "list.csv"), {}, ",")


@pytest.mark.parametrize("before", ["\n\r\n", "\ufeff\n", '"\n",', '"\r\n""\n\n",'])
def test_columns_do_not_hide_behind_lines_that_are_none(before, tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(before + "," * MAX_COLUMNS + "\n")
    with pytest.raises(pa.ArrowInvalid, match="columns or more; accepted: at most 10,000"):
        check_first_line(str(path), {}, ",")
    path.write_text(before + ",\n" + "," * MAX_COLUMNS)
    check_first_line(str(path), {}, ",")


PACKED = {
    "gz": gzip.compress(LINES, mtime=0),
    "bz2": bz2.compress(LINES),
    "xz": lzma.compress(LINES),
    "zst": zstandard.compress(LINES),
}


@pytest.mark.parametrize("suffix", PACKED)
def test_few_bytes_are_not_unpacked_to_any_number(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(text_tables, "_UNPACKED", len(LINES) - 1)
    monkeypatch.setattr(text_tables, "_MOST_TIMES", 2)
    path = tmp_path / f"list.csv.{suffix}"
    path.write_bytes(PACKED[suffix])
    with pytest.raises(pa.ArrowInvalid, match="it has more than 24,999 bytes"), open_text(str(path), {}) as file:
        pyarrow.csv.read_csv(file)
    monkeypatch.setattr(text_tables, "_MOST_TIMES", len(LINES))
    with open_text(str(path), {}) as file:
        assert len(pyarrow.csv.read_csv(file)) == 1999


@pytest.mark.parametrize("suffix", PACKED)
def test_files_are_unpacked_by_their_suffix(suffix, tmp_path):
    path = tmp_path / f"list.csv.{suffix}"
    path.write_bytes(PACKED[suffix])
    with open_text(str(path), {}) as file:
        assert file.read() == LINES
    path.write_bytes(PACKED[suffix] * 2)
    with open_text(str(path), {}) as file:
        assert file.readline() == LINES[:12] and file.read() == LINES[12:] + LINES
    damaged = [LINES, PACKED[suffix][:20] + bytes(30) + PACKED[suffix][50:]]
    for content in [*damaged, PACKED[suffix][:-20]]:
        path.write_bytes(content)
        with pytest.raises((pa.ArrowInvalid, OSError)), open_text(str(path), {}) as file:
            file.read()
