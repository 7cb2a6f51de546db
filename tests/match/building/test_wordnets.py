"""The words of wordnets equal those of NLTK's reader."""

from collections import defaultdict

import pytest

from curate.base.errors import RecipeError
from curate.match.building.wikis import Mode
from curate.match.building.wordnets import find_wordnet, read_wordnet

NOUNS = """  1 This software
00000062 03 n 02 hot_dog 0 Frankfurter 0 000 | x
00000112 03 n 01 St._Louis 0 000 | y
00000145 03 n 01 Dog 0 000 | z
"""
LMF = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE LexicalResource SYSTEM "http://globalwordnet.github.io/schemas/WN-LMF-1.1.dtd">
<LexicalResource xmlns:dc="https://globalwordnet.github.io/schemas/dc/">
<Lexicon id="x" label="X" language="{}" email="a@b.c" license="l" version="1">
<LexicalEntry id="x-1"><Lemma writtenForm="Hund" partOfSpeech="n" /></LexicalEntry>
<LexicalEntry id="x-2"><Lemma writtenForm="rote_Rübe" partOfSpeech="n" /></LexicalEntry>
</Lexicon></LexicalResource>
"""


def test_synset_names_of_english(tmp_path):
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    (tmp_path / "data.noun").write_text(NOUNS)
    (tmp_path / "data.adj").write_text("00000001 00 a 01 alive(p) 0 000 | a\n00000002 00 a 01 A.M. 0 000 | a\n")
    assert read_wordnet(str(tmp_path / "data.noun")) == ["hot dog", "st", "dog"]
    assert read_wordnet(str(tmp_path / "data.adj")) == ["alive", "a"]
    assert find_wordnet(str(tmp_path / "data.noun"), Mode.corrected) == "en"
    reader = WordNetCorpusReader.__new__(WordNetCorpusReader)  # without its files
    reader._lexnames, reader._key_count_file, reader._exception_map = [""] * 50, None, {}
    reader._lemma_pos_offset_map = defaultdict(lambda: defaultdict(lambda: [62, 112, 145]))
    names = [reader._synset_from_pos_and_line("n", line).name() for line in NOUNS.splitlines()[1:]]
    assert [name[: name.find(".")].replace("_", " ") for name in names] == ["hot dog", "st", "dog"]


def test_lemmas_of_a_table(tmp_path):
    path = tmp_path / "wn-data-jpn.tab"
    path.write_text(
        "# x\n1-n\tlemma\t犬\n2-n\tjpn:lemma\tいぬ_いえ\n2-n\tjpn:def\t0\tx\n3-n\tlemma\tま+き\n4-n\tlemma\t犬\n"
    )
    assert read_wordnet(str(path)) == ["いぬ いえ", "まき", "犬"]
    assert find_wordnet(str(path), Mode.corrected) == "ja"
    path.write_text("1-n\tlemma\n")
    with pytest.raises(RecipeError, match="'1-n lemma' is not a line of a wordnet's table"):
        read_wordnet(str(path))


def test_lmf(tmp_path):
    assert find_wordnet("x/wn-data-als.tab", Mode.worldwide) == "als"
    assert find_wordnet("x/wn-data-als.tab", Mode.corrected) == "sq"
    path = tmp_path / "odenet.xml"
    path.write_text(LMF.format("de"))
    assert read_wordnet(str(path)) == ["Hund", "rote Rübe"]
    assert find_wordnet(str(path), Mode.worldwide) == "de"
    path.write_text(LMF.format("cmn-Hans"))
    assert find_wordnet(str(path), Mode.worldwide) == "zh"
    path.write_text("<a/>")
    for name, found in ((str(path), "unknown"), ("wn-data-qcn.tab", "qcn")):
        with pytest.raises(RecipeError, match=f"its language is {found}, for which"):
            find_wordnet(name, Mode.worldwide)
    for text in ("<a/>", LMF.format("de").replace('writtenForm="Hund" ', "")):
        path.write_text(text)
        with pytest.raises(RecipeError, match="damaged or not LMF"):
            read_wordnet(str(path))
