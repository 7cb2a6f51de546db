"""A build equals the definition, however its files are split."""

import json
import random
from collections import Counter
from importlib import resources
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from curate.base.schema import METADATA
from curate.match.building.dumps import Articles
from curate.match.building.parts import make_plan
from curate.match.building.tokens import load_tokenizer
from curate.match.building.wikis import Limits, Mode
from curate.match.building.wikitext import strip_markup
from tests.kit.wikis import NAMESPACES, SMALL, build, build_plan, draw_views, write_all
from tests.match.building import naive

NAMES = {
    "en": ["hot dog", "st", "dog", "cut", "alive", "a la carte"],
    "ja": ["犬", "いぬ いえ", "、", "まき絵"],
    "de": [],
}


@pytest.mark.parametrize("mode", Mode)
def test_it_equals_the_definition(tmp_path, mode):
    texts = write_all(tmp_path)
    out, report = build(tmp_path, mode)
    table = pq.read_table(out).to_pylist()
    assert [row["entry_id"] for row in table] == list(range(len(table)))
    hours = draw_views(3, random.Random(3))
    for language in ("de", "en", "ja"):
        plain = [strip_markup(text, [name.lower() for _, name in NAMESPACES[language]]) for text in texts[language]]
        views = naive.count_titles(hours, language, mode)
        limits = naive.Limits(**SMALL)
        names, tokenize = NAMES[language], load_tokenizer(language)
        expected = naive.build_wiki(language, plain, names, views, mode, limits, tokenize)
        entries = [(row["entry"], row["source"]) for row in table if row["language"] == language]
        assert entries == expected
        assert {source for _, source in expected} >= {"number", "unigram", "bigram", "title"}
    assert [language["language"] for language in report["languages"]] == ["de", "en", "ja"]


def test_how_files_are_cut_changes_nothing(tmp_path):
    write_all(tmp_path)
    files = [build(tmp_path, "corrected", parts)[0] for parts in (1, 7, 40)]
    assert len({file.read_bytes() for file in files}) == 1
    reports = [json.loads(Path(f"{file}".replace(".parquet", ".report.json")).read_text()) for file in files]
    assert reports[0] == reports[1] == reports[2]


def test_wikis_of_a_key_are_united_and_others_form_one(tmp_path):
    """Each wiki has its own caps."""
    texts = {
        "nds": "een twee dree " * 20, "nds_nl": "ien twee drij " * 20, "simple": "easy dog " * 9, "ab": "аб аԥсуа " * 9,
        "roa_rup": "a b",
    }  # fmt: skip
    for wiki, text in texts.items():
        (tmp_path / f"20260101.{wiki.replace('_', '-')}").mkdir()
        table = pa.table({"text": [f"{text} x{i}" for i in range(40)]})
        pq.write_table(table, tmp_path / f"20260101.{wiki.replace('_', '-')}/train-00000-of-00001.parquet")
    expected = {
        "en": ["dog", "hot dog"],
        "nds": ["dree", "een", "drij", "ien"],
        "other": ["аб", "аԥсуа", "dog", "easy"],
    }
    for mode in (Mode.worldwide, Mode.corrected):
        plan = make_plan([str(tmp_path)], [], [], [], mode)
        assert plan.keys == {"nds": "nds", "nds_nl": "nds", "simple": "other", "ab": "other"}
        english = pa.table([[0, 2], ["dog", "hot dog"], ["import"] * 2, ["x"] * 2], schema=METADATA)
        out = tmp_path / f"{mode}.parquet"
        report = build_plan(plan, out, mode, Limits(words=2, words_percent=100), english)
        table = pq.read_table(out)
        assert table["entry_id"].to_pylist() == list(range(len(table)))
        rows = table.filter(pc.not_equal(table["source"], "number")).to_pylist()
        wanted = [(language, entry) for language, entries in expected.items() for entry in entries]
        assert [(row["language"], row["entry"]) for row in rows] == wanted
        sizes = {language["language"]: language["entries"] for language in report["languages"]}
        assert sizes == {"en": 2, "nds": 104, "other": 104}


@pytest.mark.slow
def test_real_dumps_equal_the_definition(tmp_path):
    """The English and Bulgarian dumps that gensim ships."""
    data = resources.files("gensim") / "test/test_data"
    names = {
        "en": "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
        "bg": "bgwiki-latest-pages-articles-shortened.xml.bz2",
    }
    paths = {wiki: str(data / name) for wiki, name in names.items()}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("curate.match.building.parts.PART_BYTES", 200_000)
        plan = make_plan([*paths.values()], [], [], [], Mode.corrected)
    build_plan(plan, tmp_path / "m.parquet", Mode.corrected, Limits(pmi=8))
    table = pq.read_table(tmp_path / "m.parquet").to_pylist()
    for wiki, path in paths.items():
        with open(path, "rb") as file:
            articles = Articles(file, path, 0, 1 << 40)
            texts = [strip_markup(text, articles.namespaces) for text in articles]
        expected = naive.build_wiki(wiki, texts, [], Counter(), Mode.corrected, naive.Limits(pmi=8), None)
        assert [(row["entry"], row["source"]) for row in table if row["language"] == wiki] == expected
        assert len(expected) > 110
