"""Keys of shards: each changes if and only if one of its inputs does."""

from dataclasses import replace

import pyarrow as pa

from curate.base import schema
from curate.emit.layout import Shard, Slice
from curate.emit.settings import EmitSettings
from curate.pool.plan import Pool, Unit
from curate.recipe.recipe import change_recipe
from curate.run.context import RunContext
from curate.store.store import RunStore
from tests import kit
from tests.kit.keys import check_key

CAPTIONS = {
    "engines": {"a": {"recorded": {"path": "a.parquet", "model": "m"}}}, "rewrite": {"engine": "a", "styles": ["human"]},
    "output": {"mix": {"rewrite": 0.5}},
}  # fmt: skip
RECIPE = kit.recipe_of("x.tar", rules={"words": "words > 2"}, captions=CAPTIONS)
UNITS = (Unit(0, "pool", ()), Unit(1, "pool", ()))
SHARD = Shard(1, (Slice(UNITS[0], 2, 3), Slice(UNITS[1], 0, 4)))


def settings(folder, *overrides, engine="v1"):
    recipe = change_recipe(RECIPE, overrides)
    pool = Pool("pool's key", True, None, frozenset(), pa.schema([]), None)
    engines = {"a": engine, "template of rewrite": "t"}
    return EmitSettings.of(RunContext(recipe, pool, RunStore(str(folder)), engine_ids=engines))


def test_the_key_of_all_shards(tmp_path):
    changes = [
        "output.rows_per_shard=7", "output.columns=[]", "output.json_columns=[words]", "output.repeat='2'",
        "rules.words=words > 3", "captions.output.mix={}", "captions=null",
    ]  # fmt: skip
    not_changes = ["name=other", "input.path=y.tar", "max_failed=0.5"]
    check_key(lambda *change: settings(tmp_path, *change).key, changes, not_changes)
    assert settings(tmp_path, engine="v2").key != settings(tmp_path).key


def test_the_key_of_a_shard(tmp_path):
    def make(change=(), shard=SHARD, **fields):
        made = settings(tmp_path)
        keys = {0: ["d0", "t0", "r0"], 1: ["d1", "t1", "r1"], 2: ["d2", "t2", "r2"]}
        if change:
            keys[change[0]][change[1]] = "other"
        for unit, (decisions, texts, regions) in keys.items():
            tables = made.tables(Unit(unit, "pool", ()))
            tables.rewrite("decisions", schema.DECISIONS.empty_table(), decisions)
            tables.rewrite("captions", schema.CAPTIONS.empty_table(), "", {"content": texts})
            tables.rewrite("regions", schema.REGIONS.empty_table(), "", {"content": regions})
        return replace(made, **fields).shard_key(shard)

    # of units 0 and 1 decisions and texts, but not regions, which this recipe does not write; nothing of unit 2
    check_key(make, [(0, 0), (1, 0), (0, 1), (1, 1)], [(0, 2), (1, 2), (2, 0), (2, 1)])
    fields = pa.schema([("nsfw", pa.string())])
    others = [make(shard=Shard(2, SHARD.slices)), make(fields=fields), make(decisions_key="other")]
    assert len({make(), *others}) == 4
