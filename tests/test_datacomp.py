"""DataComp's baselines as recipes beside what DataComp's code does, on a pool of hostile rows: nothing extra, and nothing missing
but what datacomp_no_filter.yaml names.

The definitions are written here anew from baselines/apply_filter.py of mlfoundations/datacomp (commit 274dbee): pandas reads the
metadata file by file, fastText and gcld3 name languages, nltk reads WordNet. Only fastText's model is the small form.
"""

from collections import Counter
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import fasttext
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from curate.base.schema import SAMPLE_REASONS
from curate.cli.run import summary
from curate.recipe.recipe import load_recipe
from curate.signals.language import _MODEL
from tests import kit
from tests.kit.wordnet import open_nltk, write_wordnet

pytestmark = pytest.mark.thorough

DIMENSION, CENTROIDS = 16, 50
NOUNS = ["photo", "house", "car", "book", "box", "dress", "woman", "art"]
OTHERS = ["set", "size", "case", "view"]  # in WordNet, and no class of ImageNet
RECIPES = Path(__file__).resolve().parents[1] / "pipelines/recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("datacomp_*.yaml"))
LONG = "a photo of a house " * 600  # 11,400 characters

HOSTILE = [
    *("", "   ", "\n\n", "\u3000\u00a0", "photo\0of a house by the sea", LONG),  # which fail here
    *("ab cd e", "a b c d", "  two  words ", "one\ttwo\nthree", "a\u00a0b\u2003c\x1fd\x85e", "a\x0bb\x0cc d\re f"),
    *("photograph", "photograph\n", "\nphotograph", "photos\nhouse", "house photo", "photo\u00a0house", "  house\r\r"),
    *("A PHOTO OF A HOUSE IN THE CITY", "EIN FOTO VON EINEM HAUS IN DER STADT", "PHOTO", "THE BOOK OF ART 2019"),
    "Ein Haus in der Stadt und ein Auto davor, gemalt von einer Frau aus Berlin, 1920. " + "A photo of a house. " * 20,
    "A photo of a house. " * 4 + "Ein Haus in der Stadt und ein Auto davor, gemalt von einer Frau aus Berlin. " * 5,
    *("<b>house &amp; photo</b>", "🏠🚗📖", "صورة منزل في المدينة", "photo " * 1500, "house" * 400, "1234567890 12 34"),
    *("dresses boxes womens", "(photo) house, car.", "</s> </s> photo", "__label__de house photo", "ﬁne art photo"),
]  # fmt: skip
MARKED = [
    "\ufeffa b c",
    "\ufeffphoto of a house",
    "\ufeffphoto",
]  # with a byte order mark, which is no part of a caption here
REASONS = {"no_caption", "empty_caption", "caption_nul", "caption_too_long", "no_url"}  # for which rows fail here


def make_pool(folder, captions):
    """Write metadata as DataComp publishes it, three files with embeddings, and the files that the recipes name."""
    rng = np.random.default_rng(0)
    texts = [captions[i] for i in rng.integers(0, len(captions), 3000)]
    texts += [text for text in [*HOSTILE, *MARKED, None] for _ in range(12)]
    rows = len(texts)
    texts = [texts[i] for i in rng.permutation(rows)]
    uids = [f"{i:032x}" for i in rng.choice(10**9, rows, replace=False)]
    uids[40:60] = uids[20:40]  # twice, with other content
    uids[60:80] = [uid.upper() for uid in uids[60:80]]
    sides = rng.integers(50, 900, (rows, 2)).astype(object)
    sides[:300] = np.array([[200, 600], [199, 300], [200, 601], [300, 900], [2000, 2000]], object)[
        rng.integers(0, 5, 300)
    ]
    for row in range(300, 800):  # one or both unknown, or absurd
        odd = [None, -300, 0, 2**31 - 1, -(2**40)][rng.integers(0, 5)]
        sides[row, rng.integers(0, 2)] = odd
        if row % 3 == 0:
            sides[row, rng.integers(0, 2)] = None
    scores = {}
    for name in ("b32", "l14"):
        score = np.round(rng.random(rows) * 0.5, 2).astype(np.float32)  # many ties
        score[rng.random(rows) < 0.05] = np.float32(0.28)
        score[rng.random(rows) < 0.03] = np.nan
        score[:8] = [np.inf, -np.inf, 0.0, -0.0, np.nextafter(np.float32(0.28), np.float32(0)), -1, 1e-40, 3e38]
        scores[name] = pa.array(score, mask=rng.random(rows) < 0.05)
    table = pa.table(
        {
            "uid": uids,
            "url": [None if row % 97 == 5 else f"https://example.com/{row}" for row in range(rows)],
            "text": texts,
            "original_width": pa.array(sides[:, 0], pa.int64()),
            "original_height": pa.array(sides[:, 1], pa.int64()),
            **{f"clip_{name}_similarity_score": score for name, score in scores.items()},
            "face_bboxes": pa.array([[]] * rows, pa.list_(pa.list_(pa.float64()))),
            "sha256": [f"{row:064x}" for row in range(rows)],
        }
    )
    centroids = rng.standard_normal((CENTROIDS, DIMENSION)).astype(np.float32)
    imagenet = rng.standard_normal((20, DIMENSION)).astype(np.float32)
    imagenet[0] = centroids[0]  # where DataComp's argmax puts what has no direction
    images, others = (unit_rows(rng.standard_normal((rows, DIMENSION))) for _ in range(2))
    images[rng.random(rows) < 0.02] = 0
    images[rng.random(rows) < 0.02, 3] = np.nan
    folder.mkdir(parents=True)
    cuts = np.linspace(0, rows, 4).astype(int)
    for n, (start, stop) in enumerate(pairwise(cuts)):
        pq.write_table(table.slice(start, stop - start), folder / f"{n}.parquet", row_group_size=500)
        arrays = {"l14_img": images[start:stop], "l14_txt": others[start:stop], "b32_img": others[start:stop]}
        np.savez_compressed(folder / f"{n}.npz", **arrays)
    torch.save(centroids, folder.parent / "small_centroids.pt", pickle_protocol=4)  # as DataComp's own script does
    for n in range(5):
        saved = {"image_features": torch.from_numpy(imagenet[4 * n : 4 * n + 4]), "labels": torch.arange(4)}
        torch.save(saved, folder.parent / f"in1k_clip_vit_l14_{n}.pt")
    rare = ["a_word_of_no_caption"]  # files need a line
    synsets = {"noun": [*NOUNS, *OTHERS], "verb": rare, "adj": rare, "adv": rare}
    offsets = write_wordnet(folder.parent / "wordnet", synsets, dict.fromkeys(synsets, ""))
    (folder.parent / "ids.txt").write_text("".join(f"n{offsets[noun]:08}\n" for noun in NOUNS))


def unit_rows(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


# ---------------------------------------------------------------- what DataComp's code does
class DataComp:
    """The filters, each a mask of the pool's rows, bool[rows], by what DataComp's code does."""

    def __init__(self, folder):
        self.folder = folder
        files = sorted((folder / "metadata").glob("*.parquet"))
        self.rows = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
        self.images = np.concatenate([np.load(file.with_suffix(".npz"))["l14_img"] for file in files])
        # The code of filters that look at texts ends at one that is null: no row without is theirs.
        self.has_text = self.rows.text.notna().to_numpy()
        self.texts = [text.removeprefix("\ufeff") for text in self.rows.text[self.has_text]]
        self.has_embedding = np.isfinite(self.images).all(axis=1) & self.images.any(axis=1)
        self.is_repeated = self.rows.uid.str.lower().duplicated(keep=False).to_numpy()
        self.fasttext = fasttext.load_model(str(_MODEL))

    def of_texts(self, test):
        mask = np.zeros(len(self.rows), bool)
        mask[self.has_text] = [test(text) for text in self.texts]
        return mask

    @cached_property
    def english(self):
        return self.of_texts(lambda text: self.fasttext.predict(text.replace("\n", " "))[0][0] == "__label__en")

    def no_filter(self):
        return np.ones(len(self.rows), bool)

    def basic(self):
        shorter = np.minimum(self.rows.original_width, self.rows.original_height)
        longer = np.maximum(self.rows.original_width, self.rows.original_height)
        sides = (shorter >= 200) & (longer / shorter <= 3.0)
        return self.english & self.of_texts(lambda text: len(text.split()) > 2 and len(text) > 5) & sides.to_numpy()

    def clip_score(self, key):
        scores = self.rows[key]
        threshold = -np.sort(-scores.values)[int(len(scores) * 0.3)]
        return (scores >= threshold).to_numpy()

    def laion2b(self):
        detector = pytest.importorskip("gcld3").NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=1000)
        english = self.of_texts(lambda text: detector.FindLanguage(text=text.replace("\n", " ")).language == "en")
        return english & (self.rows.clip_b32_similarity_score >= 0.28).to_numpy()

    def text_based(self):
        ids = {int(line[1:]) for line in (self.folder / "ids.txt").read_text().split()}

        opened = open_nltk(self.folder / "wordnet")
        reader = next(opened)

        def has_class(text):
            synsets = (reader.synsets(word) for word in text.split())
            return any(found[0].offset() in ids for found in synsets if found)

        mask = self.of_texts(has_class)
        assert next(opened, None) is None
        return self.english & mask

    def image_based(self):
        centroids = torch.from_numpy(torch.load(self.folder / "small_centroids.pt", weights_only=False))
        saved = [torch.load(self.folder / f"in1k_clip_vit_l14_{n}.pt")["image_features"] for n in range(5)]
        winners = torch.unique(torch.argmax(torch.cat(saved) @ centroids.T, dim=1)).numpy()
        assert 0 in winners and len(winners) < CENTROIDS
        nearest = torch.argmax(torch.from_numpy(self.images).float() @ centroids.T, dim=1).numpy()
        texts = self.of_texts(lambda text: count_tokens(text) > 1 and len(text) > 5)
        return self.english & texts & np.isin(nearest, winners)


def count_tokens(text):
    """fasttext.tokenize: bytes are read one by one; white space ends a word, and a line feed is a token of its own."""
    tokens, inside = 0, False
    for byte in text.encode():
        if byte in b" \n\r\t\v\f\0":
            tokens += byte == ord("\n")
            inside = False
        elif not inside:
            tokens, inside = tokens + 1, True
    return tokens


DEFINITIONS = {
    "datacomp_no_filter": DataComp.no_filter,
    "datacomp_basic": DataComp.basic,
    "datacomp_clip_b32_top30": lambda datacomp: datacomp.clip_score("clip_b32_similarity_score"),
    "datacomp_clip_l14_top30": lambda datacomp: datacomp.clip_score("clip_l14_similarity_score"),
    "datacomp_laion2b": DataComp.laion2b,
    "datacomp_text_based": DataComp.text_based,
    "datacomp_image_based": DataComp.image_based,
    "datacomp_image_based_clip_l14_top30": lambda datacomp: (
        datacomp.image_based() & datacomp.clip_score("clip_l14_similarity_score")
    ),
}
SET = {"datacomp_text_based": ["measure.imagenet_words.synsets=ids.txt"]}  # timm's are of the whole WordNet


# ---------------------------------------------------------------- the recipes
@pytest.fixture(scope="module")
def folder(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("datacomp")
    captions = [text for text in pq.read_table(shared / "laion_urls_10k.parquet")["TEXT"].to_pylist() if text.strip()]
    make_pool(folder / "metadata", captions)
    for name in NAMES:
        (folder / f"{name}.yaml").write_text((RECIPES / f"{name}.yaml").read_text())
    return folder


@pytest.fixture(scope="module")
def datacomp(folder):
    return DataComp(folder)


def run(folder, name):
    recipe = load_recipe(str(folder / f"{name}.yaml"), [*SET.get(name, ()), "max_failed=1"])
    return kit.run_local(recipe, folder / name)


def write_gcld3(folder, monkeypatch):
    """Run the lines that the recipe gives."""
    pytest.importorskip("gcld3")
    lines = (RECIPES / "datacomp_laion2b.yaml").read_text().splitlines()
    monkeypatch.chdir(folder)
    exec("\n".join(line.removeprefix("#   ") for line in lines if line.startswith("#   ")), {})


def test_every_recipe_has_its_definition():
    assert set(NAMES) == set(DEFINITIONS)


@pytest.mark.parametrize("name", NAMES)
def test_a_baseline_keeps_what_datacomp_s_code_keeps(name, folder, datacomp, monkeypatch):
    if name == "datacomp_laion2b":
        write_gcld3(folder, monkeypatch)
    expected = DEFINITIONS[name](datacomp)
    done = run(folder, name)
    decisions, statuses = done.table("decisions"), np.array(done.table("samples")["status"].to_pylist())
    kept, rules = decisions["kept"].to_numpy(), np.array(decisions["rule"].to_pylist())
    uids = datacomp.rows.uid.str.lower().to_numpy()
    assert [f"{high:016x}{low:016x}" for high, low in np.load(done.folder / "uids.npy")] == sorted(uids[kept])
    assert kept.sum() > 300

    extra, missing = kept & ~expected, expected & ~kept
    assert datacomp.rows[extra].to_dict("records") == []
    failed, duplicate, image = (missing & (rules == rule) for rule in ("failed", "duplicate", "image_based"))
    named = failed | duplicate | (image & ~datacomp.has_embedding)
    if name == "datacomp_laion2b":  # by the lines of the recipe
        named |= missing & (rules == "english") & datacomp.is_repeated
    assert datacomp.rows[missing & ~named].to_dict("records") == []
    assert failed.any() and duplicate.any() and image.any() == ("image" in name)
    assert set(uids[duplicate]) <= set(uids[kept])
    assert {*statuses[failed]} <= REASONS

    told = summary(str(done.folder), 1)
    for reason, rows in Counter(statuses[rules == "failed"].tolist()).items():
        assert f"failed: {rows:,} {reason} ({SAMPLE_REASONS[reason]})\n" in told
