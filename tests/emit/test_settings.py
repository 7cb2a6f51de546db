"""Keys of shards: each changes if and only if one of its inputs does."""

from dataclasses import fields, replace

import pyarrow as pa
import pytest

from curate.base import schema
from curate.base.process import Cache
from curate.emit import settings as module
from curate.emit.layout import Shard, Slice
from curate.emit.settings import EmitSettings
from curate.pool.plan import Pool, Unit
from curate.recipe.recipe import parse_recipe
from curate.run.context import RunContext
from curate.store.store import RunStore

RECIPE = {
    "input": [{"name": "pool", "format": "webdataset", "path": "x.tar"}],
    "rules": {"words": "words > 2"},
    "captions": {
        "engines": {"a": {"recorded": {"path": "a.parquet", "model": "m"}}},
        "rewrite": {"engine": "a", "styles": ["human"]},
        "output": {"mix": {"rewrite": 0.5}},
    },
}
UNITS = (Unit(0, "pool", ()), Unit(1, "pool", ()))
SHARD = Shard(1, (Slice(UNITS[0], 2, 3), Slice(UNITS[1], 0, 4)))


def settings(folder, engine="v1", **sections):
    """Settings of a run of RECIPE, with other sections."""
    recipe = parse_recipe(RECIPE | sections)
    pool = Pool("pool's key", True, None, frozenset(), pa.schema([]), None)
    return EmitSettings.of(
        RunContext(recipe, pool, RunStore(str(folder)), engine_ids={"a": engine, "template of rewrite": "t"})
    )


CHANGED = {
    "nothing": ({}, False),
    "rows of a shard": ({"output": {"rows_per_shard": 7}}, True),
    "columns": ({"output": {"columns": []}}, True),
    "columns of the json": ({"output": {"json_columns": ["words"]}}, True),
    "repeats": ({"output": {"repeat": "2"}}, True),
    "a rule": ({"rules": {"words": "words > 3"}}, True),
    "the name": ({"name": "other"}, False),
    "where inputs lie": ({"input": [RECIPE["input"][0] | {"path": "y.tar"}]}, False),
    "a limit": ({"max_failed": 0.5}, False),
    "the mix": ({"captions": RECIPE["captions"] | {"output": {"mix": {}}}}, True),
    "no captions": ({"captions": None}, True),
    "an engine": ({"engine": "v2"}, True),
}


@pytest.mark.parametrize("what", CHANGED)
def test_the_key_of_all_shards(tmp_path, what):
    changes, differs = CHANGED[what]
    assert (settings(tmp_path, **changes).key != settings(tmp_path).key) == differs


def test_the_version_of_the_code_is_in_the_key(tmp_path, monkeypatch):
    before = settings(tmp_path).key
    for version, differs in (("emit", True), ("caption", True), ("measure", True), ("match", True)):
        with monkeypatch.context() as patch:
            patch.setitem(module.VERSIONS, version, 99)
            assert (settings(tmp_path).key != before) == differs


def decide(one, unit, key, texts, regions=None):
    """Tables of a unit with these keys of decisions, and contents of texts."""
    tables = one.tables(unit)
    tables.rewrite("decisions", schema.DECISIONS.empty_table(), key)
    tables.rewrite("captions", schema.CAPTIONS.empty_table(), "", {"content": texts})
    tables.rewrite("regions", schema.REGIONS.empty_table(), "", {"content": regions})


SHARDS = {
    "nothing": (lambda one: None, SHARD, False),
    "decisions": (lambda one: decide(one, UNITS[1], "other", "t1"), SHARD, True),
    "texts": (lambda one: decide(one, UNITS[1], "d1", "other"), SHARD, True),
    "regions that it does not write": (lambda one: decide(one, UNITS[1], "d1", "t1", "other"), SHARD, False),
    "another unit": (lambda one: decide(one, Unit(2, "pool", ()), "other", "other"), SHARD, False),
    "its number": (lambda one: None, Shard(2, SHARD.slices), True),
}


@pytest.mark.parametrize("what", SHARDS)
def test_the_key_of_a_shard(tmp_path, what):
    one = settings(tmp_path)
    for unit in UNITS:
        decide(one, unit, f"d{unit.index}", f"t{unit.index}")
    before = one.shard_key(SHARD)
    change, shard, differs = SHARDS[what]
    change(one)
    one = replace(one, decided=Cache(), named=Cache())  # as in another run
    assert (one.shard_key(shard) != before) == differs
    assert replace(one, fields=pa.schema([("nsfw", pa.string())])).shard_key(shard) != one.shard_key(shard)
    assert replace(one, decisions_key="other").shard_key(shard) != one.shard_key(shard)


def test_every_input_is_named():
    """A field that is added must be in the key, or be one of these, which the key of decisions holds or which are access."""
    assert {field.name for field in fields(EmitSettings)} - {"output", "decisions_key", "captioning", "text_tables"} == {
        "store", "sources", "pool", "captions", "seed", "recent", "decided", "named", "emitted", "derived", "fields",
    }  # fmt: skip
