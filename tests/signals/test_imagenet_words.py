"""Words of ImageNet-21k: by hand on a WordNet of a dozen synsets, and against nltk on it and on the real one.

The real one is read where CURATE_WORDNET names a folder of it, such as nltk's corpus or Debian's /usr/share/wordnet.
"""

import hashlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.base.errors import RecipeError
from curate.signals import imagenet_words
from curate.signals.imagenet_words import IDS, find_words, load_vocabulary
from tests.kit.wordnet import LETTERS, LICENSE, open_nltk, write_wordnet

# The lemmas of each synset, the more frequent sense of a lemma first
SYNSETS = {
    "noun": [
        "dog domestic_dog", "goose", "woman", "bark", "bark tree_bark", "hot_dog", "a_b", "ax", "run", "discus",
        "o'clock", "x",
    ],
    "verb": ["sprint bark", "run", "discuss", "ax goose"],
    "adj": ["tall dog", "great", "late"],
    "adv": ["quickly", "late"],
}  # fmt: skip
EXCEPTIONS = {
    "noun": "geese goose\naxes axis\nwomen woman\nkine cow bark dog\n", "verb": "ran run\n", "adj": "later late\n", "adv": "",
}  # fmt: skip
IN_IMAGENET = ["dog", "goose", "woman", "tree_bark", "hot_dog", "a_b", "ax", "discus"]

# Captions and their word, which is looked up in lower case and returned as written
CAPTIONS = {
    "a dog runs": "dog", "Two DOGS of a Goose": "DOGS", "a hot dog": "dog", "a hot_dog": "hot_dog", "one A_B only": "A_B",
    "a b": None, "tree_bark": "tree_bark", "ax": "ax", "": None, " \t\n": None, "x": None,
    "nice dog, (dog) dog's dog.": None,  # punctuation stays on
    "big\u3000dog\x1fgoose": "dog", "the\u200bdog a\ufeff": None,  # what str.split takes for white space
    "geese": "geese", "women": "women",  # exceptions
    "kine": None,  # its first lemma that is there is bark
    "bark barks": None,  # its first sense is of no class, though its second is
    "axes": None,  # an exception whose lemma is nowhere: endings are not tried
    "womens": "womens", "dogss": "dogss",  # two endings
    "discusses": "discusses", "discuss": "discuss",  # a noun by more endings goes before a verb
    "run runs running ran": None, "late later great greatest o'clock": None,  # of no class
    "sprinting": "sprinting", "taller": "taller", "quickly": "quickly",  # other parts of speech at the offset of a class
    "s es men er ies": None,  # nothing but an ending
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "wordnet"
    nouns = write_wordnet(folder, SYNSETS, EXCEPTIONS)
    (folder.parent / "ids.txt").write_text("".join(f"n{nouns[lemma]:08}\n" for lemma in IN_IMAGENET))
    return folder


@pytest.fixture(scope="module")
def vocabulary(tiny):
    return load_vocabulary(str(tiny), str(tiny.parent / "ids.txt"))


def found(vocabulary, captions, kind=None):
    words = find_words(pa.array(captions, kind or pa.string()), vocabulary)
    assert words.type == pa.string()
    return words.to_pylist()


def read_ids(path):
    return {int(line.split()[0][1:]) for line in path.read_text().splitlines() if line.strip()}


@pytest.fixture(scope="module")
def peer(tiny):
    yield from open_nltk(tiny)


def passes(reader, ids, word):
    """The definition."""
    synsets = reader.synsets(word)
    return bool(synsets) and synsets[0].offset() in ids


def first_word(reader, ids, caption):
    return next((word for word in (caption or "").split() if passes(reader, ids, word)), None)


def test_by_hand(tiny, vocabulary, peer):
    captions, words, ids = list(CAPTIONS), list(CAPTIONS.values()), read_ids(tiny.parent / "ids.txt")
    assert found(vocabulary, captions) == words == [first_word(peer, ids, caption) for caption in captions]
    assert found(vocabulary, captions, pa.large_string()) == words
    assert found(vocabulary, [None, "dog", None]) == [None, "dog", None]
    assert found(vocabulary, []) == []
    assert find_words(pa.array(["dog", None, "a goose"])[1:], vocabulary).to_pylist() == [None, "goose"]


def test_every_ending(tmp_path):
    """Lemmas whose forms pass, one of each ending, then those that take a form away because their ending goes first."""
    synsets = {
        "noun": ["dog gas wolf box waltz church dish fireman pony lens", "lense foxe", "fox"],
        "verb": ["smile sprint carry watch bare", "bar lop", "lope"],
        "adj": ["tall nice fin", "fine rip", "ripe"],
        "adv": ["soon"],
    }
    nouns = write_wordnet(tmp_path / "wordnet", synsets, dict.fromkeys(LETTERS, ""))
    (tmp_path / "ids.txt").write_text(f"n{nouns['dog']:08}\nn{nouns['fox']:08}\n")
    vocabulary = load_vocabulary(str(tmp_path / "wordnet"), str(tmp_path / "ids.txt"))
    forms = "dogs gases wolves boxes waltzes churches dishes firemen ponies fox "  # nouns
    forms += "sprints smiles carries watches smiled sprinted smiling sprinting bared baring "  # -e goes before nothing
    forms += "taller tallest nicer nicest finer finest soon"  # nothing goes before -e
    assert [form for form in forms.split() if form not in vocabulary] == []
    strangers = "lenses foxes lop loped loping lopes bar ripe riper ripest soons sooner"
    assert [form for form in strangers.split() if form in vocabulary] == []


LEMMAS = sorted(
    {word for lines in SYNSETS.values() for line in lines for word in line.split()} | {"geese", "axes", "ran"}
)
ENDINGS = ["", "s", "es", "ses", "ing", "ed", "er", "est", "men", "ies", "y", "e", ",", "'s"]
WORDS = st.builds(
    lambda lemma, cut, ends, case: case(lemma[: len(lemma) - cut] + "".join(ends)),
    st.sampled_from(LEMMAS),
    st.integers(0, 2),
    st.lists(st.sampled_from(ENDINGS), max_size=3),
    st.sampled_from([str.lower, str.upper, str.title]),
)
TEXTS = st.lists(WORDS | st.text(st.characters(codec="utf-8"), max_size=5), max_size=5).map(" ".join)


@settings(max_examples=60)
@given(st.lists(st.none() | TEXTS, max_size=5))
def test_equals_the_definition(tiny, vocabulary, peer, captions):
    ids = read_ids(tiny.parent / "ids.txt")
    assert found(vocabulary, captions) == [first_word(peer, ids, caption) for caption in captions]


def test_the_digest_is_of_what_determines_results(tiny, tmp_path):
    ids = (tiny.parent / "ids.txt").read_text().split()
    listed = tmp_path / "ids.txt"

    def digest(lines):
        listed.write_text("\n".join(lines))
        return load_vocabulary(str(folder), str(listed)).digest

    folder = Path(shutil.copytree(tiny, tmp_path / "copy"))
    before = digest(ids)
    assert len(bytes.fromhex(before)) == 32
    (folder / "lexnames").unlink()
    for part in LETTERS:
        (folder / f"data.{part}").unlink()
    assert digest([f"{name} n.01  a class" for name in reversed(ids)] + ["", ids[0]]) == before
    seen = {before, digest(ids[1:])}
    for number, file in enumerate(sorted(folder.iterdir()), 2):
        content = file.read_text()
        more = LICENSE if "index" in file.name else "q q\n"
        file.write_text(content.replace("goose", "gander") if "goose" in content else content + more)
        seen.add(digest(ids))
        assert len(seen) == number + 1, file
    assert number == 9


NO_ID = "is not an ImageNet id"
BAD_IDS = {
    "\nhund\n": f"ids.txt:2: 'hund' {NO_ID}; accepted: one noun id of ImageNet per line, n and eight digits",
    "v01440764": f"ids.txt:1: 'v01440764' {NO_ID}; accepted: .* such as n01440764",
    "n1440764": f"ids.txt:1: 'n1440764' {NO_ID}", "n٠١٢٣٤٥٦٧": f"ids.txt:1: .* {NO_ID}",
    "n01440764,n01440765": f"ids.txt:1: .* {NO_ID}", b"n0144\xff": "ids.txt: 'utf-8' codec can't decode byte 0xff .*",
}  # fmt: skip
BAD_PATHS = {
    "none.txt": r"No such file or directory: .*; accepted: one noun id of ImageNet per line", "": "Is a directory: .*",
    "/dev/zero": "it is a pipe or a device; .*accepted: one noun id",
}  # fmt: skip
NO_LICENSE = "does not begin with WordNet 3.0's license"
BAD_FILES = {
    ("index.verb", "something else\n"): f"index.verb: {NO_LICENSE}; accepted: a local folder",
    ("index.noun", LICENSE.replace("3.0", "3.1")): f"index.noun: {NO_LICENSE}",
    ("index.noun", f"{LICENSE}dog n 1 0 1 0\n"): "index.noun:3: 'dog n 1 0 1 0' is not a line of an index",
    ("index.noun", f"{LICENSE}dog n 1 0 1 0 0x00001\n"): "index.noun:3: ",
    ("index.noun", f"{LICENSE}dog n 1 0 1 0 00000001\n\n"): "index.noun:4: '' is not a line",
    ("verb.exc", b"\xe9t\xe9 est"): "verb.exc: 'utf-8' codec can't decode byte 0xe9 in position 0.*; accepted: a local",
    ("adv.exc", None): "adv.exc: .*No such file or directory.*; accepted: a local folder of WordNet 3",
    ("index.noun", 1 << 40): "index.noun: it has more than 67,108,864 bytes; .*accepted: a local folder",
}  # fmt: skip


def put(path, content):
    """Write a file; delete it for None, and make it of that many bytes for a number."""
    if content is None:
        path.unlink()
    elif isinstance(content, int):
        os.truncate(path, content)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_bad_ids(tiny, tmp_path, monkeypatch):
    for text, message in BAD_IDS.items():
        put(tmp_path / "ids.txt", text)
        with pytest.raises(RecipeError, match=message):
            load_vocabulary(str(tiny), str(tmp_path / "ids.txt"))
    for path, message in BAD_PATHS.items():
        with pytest.raises(RecipeError, match=f"{tmp_path / path}: .*{message}"):
            load_vocabulary(str(tiny), str(tmp_path / path))
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(RecipeError, match=r"timm, .* is not installed .*; install it with: .* or give a file as"):
        load_vocabulary(str(tiny), None)


def test_bad_wordnet(tiny, tmp_path):
    for number, ((name, content), message) in enumerate(BAD_FILES.items()):
        folder = Path(shutil.copytree(tiny, tmp_path / str(number)))
        put(folder / name, content)
        with pytest.raises(RecipeError, match=f"{folder}/{message}"):
            load_vocabulary(str(folder), str(tiny.parent / "ids.txt"))


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
def test_the_list_that_timm_ships_is_datacomps(tiny):
    path = imagenet_words._shipped_ids()
    assert path.name == IDS
    # the digest by which DataComp's code checks the list that it downloads
    published = "66362bdedf36d933382edca5493fc562dcc17128ce36403c9e730a75f48cb2f2"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == published
    assert len(read_ids(path)) == 21_843


@pytest.mark.skipif("CURATE_WORDNET" not in os.environ, reason="CURATE_WORDNET names no folder")
def test_real_captions(shared, tmp_path):
    pytest.importorskip("timm")
    real = Path(shutil.copytree(os.environ["CURATE_WORDNET"], tmp_path / "wordnet"))
    # nltk wants this file, which Debian leaves out
    (real / "lexnames").write_text("".join(f"{number:02}\tname{number}\t1\n" for number in range(45)))
    [real_peer] = open_nltk(real)
    vocabulary, ids = load_vocabulary(str(real), None), read_ids(imagenet_words._shipped_ids())
    captions = pq.read_table(shared / "laion_urls_10k.parquet", columns=["TEXT"])["TEXT"].to_pylist()
    expected = [first_word(real_peer, ids, caption) for caption in captions]
    assert found(vocabulary, captions) == expected
    assert 6_990 <= sum(word is not None for word in expected) <= 6_997
    # and every form that one ending makes of a word that WordNet has
    words = [f"{lemma[:-1]}{ending}" for lemma in real_peer.words() for ending in (lemma[-1:], "s", f"{lemma[-1:]}ses")]
    assert len(words) > 400_000
    for word in words[::23]:
        assert (word in vocabulary) == passes(real_peer, ids, word), word
