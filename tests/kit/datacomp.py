"""A pool as DataComp publishes it, with hostile rows, and the files that the recipes of its filters name."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tests.kit.wordnet import write_wordnet

DIMENSION, CENTROIDS = 16, 50
NOUNS = ["photo", "house", "car", "book", "box", "dress", "woman", "art"]
OTHERS = ["set", "size", "case", "view"]  # in WordNet, and no class of ImageNet
RECIPES = Path(__file__).resolve().parents[2] / "pipelines/recipes"
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
