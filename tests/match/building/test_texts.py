"""Extracted texts: Parquet with Wikipedia's layout, lines of JSON, and damaged files."""

import gzip

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import RunError
from curate.match.building.parts import Part
from curate.match.building.wikitext import read_texts

TEXTS = ["Köln", "", "a\nb", "字" * 1000]


def read(path, kind, start=0, stop=1):
    return list(read_texts(Part(0, kind, str(path), "de", start, stop)))


def test_parquet(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"id": ["1"] * 5, "text": [*TEXTS, None]}), path, row_group_size=2)
    assert read(path, "parquet", 0, 3) == [*TEXTS, ""]
    assert read(path, "parquet", 1, 2) == TEXTS[2:]
    data = bytearray(path.read_bytes())
    data[4:-1200] = bytes(len(data) - 1204)
    path.write_bytes(bytes(data))
    with pytest.raises(RunError, match=r"x\.parquet: damaged or cut off"):
        read(path, "parquet", 0, 3)


@pytest.mark.parametrize("name", ["wiki_00.json", "wiki_00.jsonl.gz"])
def test_lines(tmp_path, name):
    path = tmp_path / name
    lines = b"\n".join(orjson.dumps({"id": "1", "text": text}) for text in TEXTS)
    path.write_bytes(gzip.compress(lines) if name.endswith("gz") else lines)
    assert read(path, "lines") == TEXTS


@pytest.mark.parametrize("line", [b"[1]", b'{"text": 1}', b"{", b'{"title": "a"}'])
def test_a_line_that_is_no_text_is_said(tmp_path, line):
    path = tmp_path / "wiki_00.json"
    path.write_bytes(b'{"text": "a"}\n\n' + line + b"\n")
    with pytest.raises(RunError, match=r"wiki_00\.json: line 3 is not a JSON object with a text under the key `text`"):
        read(path, "lines")


def test_gzip_that_is_cut_is_said(tmp_path):
    path = tmp_path / "wiki_00.json.gz"
    path.write_bytes(gzip.compress(orjson.dumps({"text": "a" * 9999}) * 3)[:-20])
    with pytest.raises(RunError, match="damaged or cut off"):
        read(path, "lines")
