"""The recipes of DataComp's baselines keep the rows that DataComp's code keeps in a pool of hostile rows, except for those that
datacomp_no_filter.yaml names.

The definitions are written here anew from baselines/apply_filter.py of mlfoundations/datacomp (commit 274dbee): pandas reads the
metadata file by file, fastText and gcld3 name languages, nltk reads WordNet. Only fastText's model is the small form.
"""

from functools import cached_property

import fasttext
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from curate.recipe.recipe import load_recipe
from curate.signals.language import _MODEL
from tests import kit
from tests.kit.datacomp import CENTROIDS, RECIPES, make_pool
from tests.kit.wordnet import open_nltk

pytestmark = pytest.mark.thorough

NAMES = sorted(path.stem for path in RECIPES.glob("datacomp_*.yaml"))
REASONS = {
    "no_caption",
    "empty_caption",
    "caption_nul",
    "caption_too_long",
    "no_url",
}  # of rows that only curate refuses


class DataComp:
    """DataComp's filters; each returns a mask of the pool's rows, bool[rows]."""

    def __init__(self, folder):
        self.folder = folder
        files = sorted((folder / "metadata").glob("*.parquet"))
        self.rows = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
        self.images = np.concatenate([np.load(file.with_suffix(".npz"))["l14_img"] for file in files])
        # Filters of texts fail at a null text, so they keep no such row.
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

    def clip_b32_top30(self):
        return self.clip_score("clip_b32_similarity_score")

    def clip_l14_top30(self):
        return self.clip_score("clip_l14_similarity_score")

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

    def image_based_clip_l14_top30(self):
        return self.image_based() & self.clip_l14_top30()


def count_tokens(text):
    """fasttext.tokenize, byte by byte: white space ends a word, and a line feed is a token."""
    tokens, inside = 0, False
    for byte in text.encode():
        if byte in b" \n\r\t\v\f\0":
            tokens += byte == ord("\n")
            inside = False
        elif not inside:
            tokens, inside = tokens + 1, True
    return tokens


SET = {"datacomp_text_based": ["measure.imagenet_words.synsets=ids.txt"]}  # timm's need the whole WordNet


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


@pytest.mark.parametrize("name", NAMES)
def test_a_baseline_keeps_what_datacomp_s_code_keeps(name, folder, datacomp, monkeypatch):
    if name == "datacomp_laion2b":  # run the lines that the recipe gives
        pytest.importorskip("gcld3")
        lines = (RECIPES / f"{name}.yaml").read_text().splitlines()
        monkeypatch.chdir(folder)
        exec("\n".join(line.removeprefix("#   ") for line in lines if line.startswith("#   ")), {})
    expected = getattr(datacomp, name.removeprefix("datacomp_"))()
    recipe = load_recipe(str(folder / f"{name}.yaml"), [*SET.get(name, ()), "max_failed=1"])
    done = kit.run_local(recipe, folder / name)
    decisions, statuses = done.table("decisions"), np.array(done.table("samples")["status"].to_pylist())
    kept, rules = decisions["kept"].to_numpy(), np.array(decisions["rule"].to_pylist())
    uids = datacomp.rows.uid.str.lower().to_numpy()
    assert [f"{high:016x}{low:016x}" for high, low in np.load(done.folder / "uids.npy")] == sorted(uids[kept])
    assert kept.sum() > 300

    extra, missing = kept & ~expected, expected & ~kept
    assert datacomp.rows[extra].to_dict("records") == []
    failed, duplicate, image = (missing & (rules == rule) for rule in ("failed", "duplicate", "image_based"))
    named = failed | duplicate | (image & ~datacomp.has_embedding)
    if name == "datacomp_laion2b":  # the recipe keeps no row of a repeated uid
        named |= missing & (rules == "english") & datacomp.is_repeated
    assert datacomp.rows[missing & ~named].to_dict("records") == []
    assert failed.any() and duplicate.any() and image.any() == ("image" in name)
    assert set(uids[duplicate]) <= set(uids[kept])
    assert {*statuses[failed]} <= REASONS
