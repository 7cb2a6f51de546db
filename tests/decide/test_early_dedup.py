"""Deduplication before a rule: what follows looks at distinct rows, and what-if replays it."""

import numpy as np
import pyarrow as pa
import pytest

from curate.ask.explain import explain_sample
from curate.base.errors import RecipeError
from curate.recipe.recipe import parse_recipe
from tests import kit
from tests.ask.whatif.asked import whatif
from tests.decide.test_units import curate, cut, rules_of

RULES = {"words": "words > 2", "duplicates": "dedup", "best": {"top": 0.5, "of": "clip_score"}}


def test_a_fraction_is_of_the_rows_that_are_left(tmp_path):
    rng = np.random.default_rng(4)
    scores = rng.random(300)
    own = [f"{i // 3:032x}" for i in range(300)]
    table = pa.table({"uid": own, "url": ["u"] * 300, "text": ["a b c"] * 300, "clip_score": scores})
    found = rules_of(*curate(tmp_path, table, rules=RULES, dedup={"prefer": "clip_score"}, files=3)[:2])
    best = {uid: max(score for one, score in zip(own, scores, strict=True) if one == uid) for uid in own}
    stays = ["duplicate" if score < best[uid] else None for uid, score in zip(own, scores, strict=True)]
    assert found == cut(stays, scores.tolist(), 0.5, "best") and found.count(None) == 51


def test_it_has_one_place():
    source = {"name": "pool", "format": "parquet", "path": "x"}
    with pytest.raises(RecipeError, match="rules: a and b are dedup, which may appear once"):
        parse_recipe({"input": source, "rules": {"a": "dedup", "b": "dedup"}})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("early")
    path = kit.write_parquets(folder / "pool", kit.make_rows(600), 3, 100)
    sections = {"match": {"metadata": kit.write_metadata(folder)}, "balance": {"t": 30}}
    return kit.run_local(kit.recipe_of(path, "parquet", rules=RULES, **sections), folder / "run")


def test_explain_says_what_it_found(run):
    rows = run.table("decisions").to_pylist()
    for rule, text in (("duplicate", "✗ duplicates fails here: duplicate"), ("best", "✓ duplicates no duplicate")):
        page = str(explain_sample(str(run.folder), next(row["uid"] for row in rows if row["rule"] == rule)))
        assert text in " ".join(page.split())


@pytest.mark.parametrize(
    "override",
    [
        "rules.best.top=0.3", "rules.words=words > 3", "rules.duplicates=null", "rules.late=characters > 20",
        "dedup.by=[uid, sha256]",
    ],
)  # fmt: skip
def test_whatif_finds_what_a_run_would(override, run, tmp_path):
    recipe = parse_recipe(run.run["recipe"] | {"rules": RULES})
    if override.startswith("dedup"):
        override = "dedup.by=[uid]"
    data = recipe.model_dump()
    key, _, value = override.partition("=")
    rules = dict(RULES)
    name = key.split(".")[1]
    if key.startswith("rules"):
        rules[name] = {"top": float(value), "of": "clip_score"} if key.endswith("top") else value
        rules = {name: rule for name, rule in rules.items() if rule != "null"}
    source = {k: v for k, v in data["input"][0].items() if k in ("name", "format", "path")}
    changed = parse_recipe(
        {"input": [source], "match": data["match"], "balance": {"t": 30}, "rules": rules, "max_failed": 1.0}
    )
    counts = kit.run_local(changed, tmp_path / "run").run["counts"]
    found = whatif(str(run.folder), [override]).funnel.to_pylist()
    exact = {
        row["rule"]: -row["whatif"]
        for row in found
        if row["rule"] not in ("pool", "balance", "kept") and row["whatif"] is not None
    }
    assert exact == {name: rows for name, rows in counts.items() if name not in ("balance", "kept", "forgotten")}
    assert whatif(str(run.folder), []).facts.to_pylist()[1]["whatif"] == run.counts["kept"] + run.counts["balance"]
