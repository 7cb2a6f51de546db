"""Plans: the wiki, key, and parts of a file, and what is refused before anything is read."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import RecipeError
from curate.match.building import tokens
from curate.match.building.parts import make_plan
from curate.match.building.wikis import Mode, find_wiki, key_of_wiki

WIKIS = {
    "/x/dewiki-20260101-pages-articles-multistream.xml.bz2": "de", "zh_yuewiki-20260101-pages-articles1.xml-p1p2.bz2": "zh_yue",
    "s3://a/20231101.zh-min-nan/train-00000-of-00001.parquet": "zh_min_nan", "/x/be_x_oldwiki-1.xml": "be_tarask",
    "enwiki-20260101-pages-articles1.xml-p1p41242.bz2": "en", "/x/simplewiki/AA/wiki_00.json": "simple",
}  # fmt: skip


def test_wikis_and_keys():
    assert {path: find_wiki(path) for path in WIKIS} == WIKIS
    keys = {"de": "de", "nds_nl": "nds", "zh_yue": "zh", "zh_min_nan": "zh", "simple": "other", "ab": "other"}
    assert {wiki: key_of_wiki(wiki, Mode.worldwide) for wiki in keys} == keys
    assert key_of_wiki("roa_rup", Mode.worldwide) is None and key_of_wiki("zh_min_nan", Mode.corrected) == "zh_min_nan"


def write_texts(folder, rows):
    folder.mkdir(exist_ok=True)
    table = pa.table({"id": ["1"] * rows, "text": [f"text {row}" * 100 for row in range(rows)]})
    pq.write_table(
        table, folder / "train-00000-of-00001.parquet", row_group_size=10, compression="none", use_dictionary=False
    )


def test_parquet_is_cut_by_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr("curate.match.building.parts.PART_BYTES", 8_000)
    write_texts(tmp_path / "20231101.de", 95)
    plan = make_plan([str(tmp_path / "20231101.de")], [], [], [], Mode.corrected)
    assert [part.start for part in plan.parts] == [0, *(part.stop for part in plan.parts[:-1])]
    assert (plan.parts[-1].stop, len(plan.parts)) == (10, 5)
    assert plan.keys == {"de": "de"}


def test_what_is_refused(tmp_path, monkeypatch):
    write_texts(tmp_path / "20231101.de", 5)
    write_texts(tmp_path / "20231101.ja", 5)
    write_texts(tmp_path / "texts", 5)
    (tmp_path / "dewiki-1.zip").write_bytes(b"")
    (tmp_path / "dewiki-1.parquet").write_bytes(b"PAR1 or not")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "dewiki-2.parquet")
    german = str(tmp_path / "20231101.de")
    texts = str(tmp_path / "texts/train-00000-of-00001.parquet")

    def refused(wikis, match, languages=[], wordnets=[]):  # noqa: B006
        with pytest.raises(RecipeError, match=match):
            make_plan(wikis, [], wordnets, languages, Mode.corrected)

    refused([german], "--language dee: no such language; did you mean", ["dee"])
    refused([german], "--language fr: no file of --wiki or --wordnet is in this language; their languages: de", ["fr"])
    refused([texts], "its name does not contain a language; accepted: a dump under its own name")
    refused([str(tmp_path / "dewiki-1.zip")], "unknown suffix; accepted: bz2")
    refused([str(tmp_path / "dewiki-1.parquet")], "damaged Parquet")
    refused([str(tmp_path / "dewiki-2.parquet")], "Parquet without a column text")
    refused([str(tmp_path / "nothing.parquet")], "no such file")
    write_texts(tmp_path / "20240101.de", 5)
    refused([german, german], "is named twice; accepted: each file once")
    refused([german, str(tmp_path / "20240101.de")], "are both from de, but have different dates or formats")
    refused([german], "not a wordnet file; accepted: WordNet 3.0's", wordnets=[str(tmp_path / "dewiki-1.zip")])
    assert make_plan([f"de={texts}"], [], [], ["de"], Mode.corrected).keys == {"de": "de"}
    monkeypatch.setitem(__import__("sys").modules, "ipadic", None)
    tokens._load_japanese.cache_clear()
    refused([german, str(tmp_path / "20231101.ja")], r"pip install '\.\[ja\]' in a checkout of curate")
    assert make_plan([german, str(tmp_path / "20231101.ja")], [], [], ["de"], Mode.corrected).keys == {"de": "de"}


def test_parts_of_a_large_dump_are_one_snapshot_and_its_index_is_left_out(tmp_path):
    names = [f"enwiki-20260101-pages-articles-multistream{n}.xml-p{n}p9.bz2" for n in (1, 2)]
    for name in (*names, "enwiki-20260101-pages-articles-multistream-index1.txt-p1p9.bz2"):
        (tmp_path / name).write_bytes(b"x" * 10)
    plan = make_plan([str(tmp_path)], [], [], [], Mode.corrected)
    assert [Path(part.path).name for part in plan.parts] == names
    (tmp_path / "enwiki-20260101-pages-articles.xml.bz2").write_bytes(b"x")
    with pytest.raises(RecipeError, match="different dates or formats"):
        make_plan([str(tmp_path)], [], [], [], Mode.corrected)
