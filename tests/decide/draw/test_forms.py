"""Each form of a selection: the same rows in 1, 7 and 40 shards in any order, in this process and on Beam."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.laws import pools

FORMS: dict[str, dict[str, Any]] = {
    "weights": {"sample": {"weights": "exp(clip_score * 3)", "rows": 500}},
    "mixture": {"sample": {"mixture": {"of": "words", "rows": 500, "shares": {3: 3, 4: 1, 5: 0.1}}}},
    "quotas": {
        "sample": {"quotas": {"of": "words", "rows": 500, "by": "size", "keep": "farthest", "distance": "clip_score"}}
    },
    "balance of": {"balance": {"of": "words", "rows": 500}},
    "soft cap": {"sample": {"soft_cap": {"of": "clip_score", "draws": 2000, "batch": 300}}},
}


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    folder, rows = tmp_path_factory.mktemp("pools"), pools.make_rows(1500)
    mixed = rows.take(pa.array(np.random.default_rng(5).permutation(len(rows))))
    return {n: pools.write_parquets(folder / str(n), mixed if n == 7 else rows, n, group=20) for n in (1, 7, 40)}


@pytest.mark.thorough
@pytest.mark.parametrize("form", FORMS)
def test_any_sharding_gives_the_same_rows(
    form: str, layouts: dict[int, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (20, 100))
    recipes = {n: pools.recipe_of(path, "parquet", **FORMS[form]) for n, path in layouts.items()}
    runs = {n: pools.run_local(recipe, tmp_path / str(n)) for n, recipe in recipes.items()}
    columns = ["uid", "kept", "rule", "probability", "draw"]
    columns += ["repeats"] if "repeats" in runs[1].table("decisions").column_names else []
    decided = {n: sorted(map(str, run.table("decisions", columns).to_pylist())) for n, run in runs.items()}
    assert decided[1] == decided[7] == decided[40] and runs[1].kept == runs[7].kept == runs[40].kept
    assert runs[1].counts["kept"] and sum(runs[1].counts.get(key, 0) for key in ("sample", "balance"))
    beam = pools.run_beam(recipes[7], tmp_path / "beam")
    assert pools.lasting_files(beam.folder) == pools.lasting_files(runs[7].folder)
    pools.conserved(beam)
