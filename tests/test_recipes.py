"""DataComp's baselines as recipes: the uids that are kept are those of the definition, computed straight from the rows."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.recipe.recipe import load_recipe
from curate.signals.language import detect_languages
from tests.laws import pools
from tests.signals.test_imagenet_words import write

DIMENSION, CENTROIDS = 16, 50
NOUNS = ["photo", "house", "car", "book", "box", "dress", "woman", "art"]
OTHERS = ["set", "size", "case", "view"]  # in WordNet, and no class of ImageNet
FORMS = [("s", ""), ("ses", "s"), ("xes", "x"), ("men", "man"), ("ies", "y")]
RECIPES = Path(__file__).resolve().parents[1] / "pipelines/recipes"


def make_pool(folder: Path, captions: list[str], rows: int = 4000) -> dict[str, np.ndarray[Any, Any]]:
    """Rows as DataComp publishes them; scores have ties and nulls."""
    rng = np.random.default_rng(0)
    texts = [captions[i] for i in rng.integers(0, len(captions), rows)]
    texts[:4] = ["ab cd e", "a b c d", "  two  words ", "one\ttwo\nthree"]
    scores = {name: np.round(rng.random(rows).astype(np.float32) * 0.5, 3) for name in ("b32", "l14")}
    table = pa.table(
        {
            "uid": [f"{i:032x}" for i in rng.permutation(rows)],
            "url": [f"https://example.com/{i}" for i in range(rows)],
            "text": texts,
            "original_width": rng.integers(50, 900, rows),
            "original_height": rng.integers(50, 900, rows),
            **{
                f"clip_{name}_similarity_score": pa.array(score, mask=rng.random(rows) < 0.02)
                for name, score in scores.items()
            },
            "face_bboxes": pa.array([[]] * rows, pa.list_(pa.list_(pa.float64()))),
            "sha256": [f"{i:064x}" for i in range(rows)],
        }
    )
    folder.mkdir()
    for n in range(2):
        pq.write_table(table.slice(n * rows // 2, rows // 2), folder / f"{n}.parquet", row_group_size=700)
    images, texts = (rng.standard_normal((rows, DIMENSION)).astype(np.float16) for _ in range(2))
    for n in range(2):
        part = slice(n * rows // 2, (n + 1) * rows // 2)
        np.savez_compressed(folder / f"{n}.npz", l14_img=images[part], l14_txt=texts[part], b32_img=texts[part])
    centroids, imagenet = rng.standard_normal((CENTROIDS, DIMENSION)), rng.standard_normal((20, DIMENSION))
    np.save(folder.parent / "centroids.npy", centroids.astype(np.float32))
    np.save(folder.parent / "imagenet.npy", imagenet.astype(np.float32))
    rare = ["a_word_of_no_caption"]  # files need a line
    synsets = {"noun": [*NOUNS, *OTHERS], "verb": rare, "adj": rare, "adv": rare}
    offsets = write(folder.parent / "wordnet", synsets, dict.fromkeys(synsets, ""))
    (folder.parent / "ids.txt").write_text("".join(f"n{offsets[noun]:08}\n" for noun in NOUNS))
    columns = {name: table[name].to_numpy() for name in table.column_names if name != "face_bboxes"}
    return {**columns, "images": images, "centroids": centroids, "imagenet": imagenet}


def top(scores: np.ndarray[Any, Any], fraction: float) -> np.ndarray[Any, Any]:
    """DataComp's cut: descending[int(N·f)] is the threshold."""
    known = np.sort(scores[~np.isnan(scores)])[::-1]
    return np.asarray(scores >= known[int(len(known) * fraction)])


def english(texts: list[str]) -> np.ndarray[Any, Any]:
    return np.array([found == "en" for found in detect_languages(pa.array(texts))[0].to_pylist()])


def basic(pool: dict[str, Any]) -> np.ndarray[Any, Any]:
    words = np.array([len(text.split()) > 2 and len(text) > 5 for text in pool["text"]])
    sides = np.sort(np.stack([pool["original_width"], pool["original_height"]]), axis=0)
    return english(list(pool["text"])) & words & (sides[0] >= 200) & (sides[1] / sides[0] <= 3.0)


def text_based(pool: dict[str, Any]) -> np.ndarray[Any, Any]:
    def passes(word: str) -> bool:
        forms = [word.lower()]
        while forms and not {*forms} & {*NOUNS, *OTHERS}:
            forms = [form[: -len(old)] + new for form in forms for old, new in FORMS if form.endswith(old)]
        return bool({*forms} & {*NOUNS})

    return english(list(pool["text"])) & np.array([any(map(passes, text.split())) for text in pool["text"]])


def image_based(pool: dict[str, Any]) -> np.ndarray[Any, Any]:
    centroids = pool["centroids"].astype(np.float32)
    winners = {int(np.argmax(centroids @ image)) for image in pool["imagenet"].astype(np.float32)}
    wins = np.array([int(np.argmax(centroids @ image)) in winners for image in pool["images"].astype(np.float32)])
    words = np.array([len(text.split()) > 1 and len(text) > 5 for text in pool["text"]])
    assert 0 < len(winners) < CENTROIDS
    return english(list(pool["text"])) & words & wins


DEFINITIONS: dict[str, Any] = {
    "datacomp_no_filter": lambda pool: np.ones(len(pool["uid"]), bool),
    "datacomp_basic": basic,
    "datacomp_clip_b32_top30": lambda pool: top(pool["clip_b32_similarity_score"], 0.3),
    "datacomp_clip_l14_top30": lambda pool: top(pool["clip_l14_similarity_score"], 0.3),
    "datacomp_laion2b": lambda pool: (
        english(list(pool["text"])) & (pool["clip_b32_similarity_score"] >= np.float32(0.28))
    ),
    "datacomp_text_based": text_based,
    "datacomp_image_based": image_based,
    "datacomp_image_based_clip_l14_top30": lambda pool: image_based(pool) & top(pool["clip_l14_similarity_score"], 0.3),
}
SET = {"datacomp_text_based": ["measure.imagenet_words.synsets=ids.txt"]}  # timm's are of the whole WordNet


def test_every_recipe_is_tested() -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} == set(DEFINITIONS)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_baseline_keeps_the_uids_of_its_definition(name: str, shared: Path, tmp_path: Path) -> None:
    captions = [text for text in pq.read_table(shared / "laion_urls_10k.parquet")["TEXT"].to_pylist() if text.strip()]
    pool = make_pool(tmp_path / "metadata", captions)
    (tmp_path / f"{name}.yaml").write_text((RECIPES / f"{name}.yaml").read_text())
    done = pools.run_local(load_recipe(str(tmp_path / f"{name}.yaml"), SET.get(name, ())), tmp_path / "out")
    expected = sorted(np.array(pool["uid"])[DEFINITIONS[name](pool)])
    kept = np.load(done.folder / "uids.npy")
    assert [f"{high:016x}{low:016x}" for high, low in kept] == expected
    assert len(expected) > 100


README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = [block for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if "blur" not in block]  # a package's


@pytest.mark.parametrize("block", BLOCKS)
def test_the_readmes_yaml_is_read(block: str, tmp_path: Path) -> None:
    head = "" if re.search("^input:", block, re.MULTILINE) else "input: {name: a, format: webdataset, path: a.tar}\n"
    head += "match: {metadata: a.txt}\n" if "captions:" in block else ""
    (tmp_path / "recipe.yaml").write_text(head + block)
    assert load_recipe(str(tmp_path / "recipe.yaml")).input
