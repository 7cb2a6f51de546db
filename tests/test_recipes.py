"""DataComp's baselines as recipes: the uids that are kept are those of the definition, computed straight from the rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.measure.language import detect_languages
from curate.recipe import load_recipe
from tests.laws import pools

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
        pq.write_table(table.slice(n * rows // 2, rows // 2), folder / f"{n}.parquet")
    return {name: table[name].to_numpy() for name in table.column_names if name != "face_bboxes"}


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


DEFINITIONS: dict[str, Any] = {
    "datacomp_no_filter": lambda pool: np.ones(len(pool["uid"]), bool),
    "datacomp_basic": basic,
    "datacomp_clip_b32_top30": lambda pool: top(pool["clip_b32_similarity_score"], 0.3),
    "datacomp_clip_l14_top30": lambda pool: top(pool["clip_l14_similarity_score"], 0.3),
    "datacomp_laion2b": lambda pool: (
        english(list(pool["text"])) & (pool["clip_b32_similarity_score"] >= np.float32(0.28))
    ),
}


def test_every_recipe_is_tested() -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} == set(DEFINITIONS)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_baseline_keeps_the_uids_of_its_definition(name: str, shared: Path, tmp_path: Path) -> None:
    captions = [text for text in pq.read_table(shared / "laion_urls_10k.parquet")["TEXT"].to_pylist() if text.strip()]
    pool = make_pool(tmp_path / "metadata", captions)
    (tmp_path / f"{name}.yaml").write_text((RECIPES / f"{name}.yaml").read_text())
    done = pools.run_local(load_recipe(str(tmp_path / f"{name}.yaml")), tmp_path / "out")
    expected = sorted(np.array(pool["uid"])[DEFINITIONS[name](pool)])
    kept = np.load(done.folder / "uids.npy")
    assert [f"{high:016x}{low:016x}" for high, low in kept] == expected
    assert len(expected) > 100
