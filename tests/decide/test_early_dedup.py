"""Rules after deduplication see distinct rows, and what-if replays them."""

import numpy as np
import pyarrow as pa
import pytest

from curate.recipe.recipe import change_recipe, parse_recipe
from tests import kit
from tests.decide.units import curate, cut, rules_of
from tests.kit.whatif import whatif

RULES = {"words": "words > 2", "duplicates": "dedup", "best": {"top": 0.5, "of": "clip_score"}}


def test_rules_behind_it_are_of_the_rows_that_are_left(tmp_path):
    scores, own = np.random.default_rng(4).random(300), [f"{i // 3:032x}" for i in range(300)]
    table = pa.table({"uid": own, "url": ["u"] * 300, "text": ["a b c"] * 300, "clip_score": scores})
    rules = {"words": "words > 2", "duplicates": "dedup", "low": "clip_score < 0.9", "best": RULES["best"]}
    best = {uid: max(score for one, score in zip(own, scores, strict=True) if one == uid) for uid in own}
    left = ["duplicate" if score < best[uid] else None for uid, score in zip(own, scores, strict=True)]
    low = [rule or (None if score < 0.9 else "low") for rule, score in zip(left, scores, strict=True)]
    for last, expected in (("low", low), ("best", cut(low, scores.tolist(), 0.5, "best"))):
        some = {name: rules[name] for name in [*rules][: [*rules].index(last) + 1]}
        assert rules_of(*curate(tmp_path, table, rules=some, dedup={"prefer": "clip_score"}, files=3)) == expected
    assert {"duplicate", "low", "best", None} == {*expected}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("early")
    path = kit.write_parquets(folder / "pool", kit.make_rows(600), 3, 100)
    sections = {"match": {"metadata": kit.write_metadata(folder)}, "balance": {"t": 30}}
    return kit.run_local(kit.recipe_of(path, "parquet", rules=RULES, **sections), folder / "run")


@pytest.mark.parametrize(
    "override", ["rules.best.top=0.3", "rules.words=words > 3", "rules.duplicates=null", "rules.late=characters > 20"]
)
def test_whatif_finds_what_a_run_would(override, run, tmp_path):
    recipe = parse_recipe(run.run["recipe"] | {"rules": RULES})
    counts = kit.run_local(change_recipe(recipe, [override]), tmp_path / "run").run["counts"]
    funnel = whatif(str(run.folder), [override]).funnel.to_pylist()
    drawn = ("pool", "balance", "kept")
    exact = {row["rule"]: -row["whatif"] for row in funnel if row["rule"] not in drawn and row["whatif"] is not None}
    assert exact == {name: rows for name, rows in counts.items() if name not in ("balance", "kept", "forgotten")}
