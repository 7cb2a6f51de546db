"""The key of decisions changes if and only if what decides changes."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import RecipeError
from curate.decide.settings import DecideSettings, decisions_key
from curate.pool.plan import make_plan
from curate.recipe.recipe import change_recipe, parse_recipe
from curate.run.context import RunContext
from curate.run.units import WorkerLocation
from curate.store.store import RunStore
from tests.kit.keys import check_key

RECIPE = {
    "measure": {"image": {"phash": True}},
    "match": {"metadata": "/m.txt"},
    "rules": {"words": "words > 2", "best": {"top": 0.3, "of": "s"}, "long": "characters > 5"},
    "dedup": {"by": ["uid", {"phash": {"distance": 4}}], "against": {"phash": {"distance": 3}, "images": "/e"}},
    "balance": {"t": 5},
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    table = pa.table({"url": ["http://x"] * 3, "caption": ["a b c"] * 3, "s": [0.1, 0.2, 0.3], "r": [1.0, 2.0, 3.0]})
    pq.write_table(table, folder / "a.parquet")
    return folder


def context_of(pool, change=""):
    """The context of RECIPE with an override, or with other facts."""
    source = {"name": "pool", "format": "parquet", "path": str(pool / "a.parquet")}
    overrides, facts = ([change] if change else [], {}) if isinstance(change, str) else ([], change)
    recipe = change_recipe(parse_recipe({"input": [source], **RECIPE}), overrides)
    context = RunContext(recipe, make_plan(recipe).pool, RunStore("/run"), metadata_key="m", evaluation_key="e")
    return replace(context, **facts)


def test_the_key_changes_with_its_inputs_alone(pool):
    changes = [
        "rules.words=words > 3", "rules.best.top=0.4", "rules={words: words > 2, best: {top: 0.3, of: s}, other: characters > 5}",
        "rules={long: characters > 5, best: {top: 0.3, of: s}, words: words > 2}", "dedup.by=[uid]",
        "dedup.by=[phash: {distance: 4}, uid]", "dedup.by=[uid, phash: {distance: 5}]", "dedup.prefer=s",
        "dedup.against.phash.distance=2", "balance.t=6", "balance={rows: 5}", "balance=null", "seed=1",
        "measure.image.decode=false", "input.name=other", "input.columns={scores: [s]}",
        "derive={x: s}", "derive={x: r}", {"metadata_key": "n"}, {"evaluation_key": "f"}, {"blocklist_key": "b"},
    ]  # fmt: skip
    not_changes = [
        "name=other", "license=mit", "max_failed=0.5", "max_failed_files=0.5", "output.rows_per_shard=7",
        "match.metadata=/n.txt", "dedup.against.images=/f", "input.storage={auto_mkdir: true}", "dedup.prefer=null",
        "balance.scheme=metaclip", {"store": RunStore("/other")}, {"place": WorkerLocation.CLUSTER},
    ]  # fmt: skip
    check_key(lambda *change: decisions_key(context_of(pool, *change)), changes, not_changes)


def test_the_key_without_files_depends_on_which_they_are(pool):
    settings = DecideSettings.of(context_of(pool))
    check_key(lambda *files: settings.key_without(*files or [[]]), [["a"], ["a", "b"], ["b", "a", "a b"], [""]], [[]])
    assert settings.key_without(["a", "b"]) == settings.key_without(["b", "a"])
    assert settings.key_without([]) == settings.key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("rules.words=wrods > 2", "did you mean 'words'"),
        ("dedup.by=[sha256]", "sha256 needs images, and the pool has none; accepted: uid$"),
        ("dedup.prefer=q", "dedup.prefer: no column 'q'"),
        ("dedup.prefer=caption", "dedup.prefer: column 'caption' is string; accepted: numbers"),
    ],
)
def test_what_does_not_fit_the_pool_is_refused(pool, change, message):
    with pytest.raises(RecipeError, match=message):
        DecideSettings.of(context_of(pool, change))
