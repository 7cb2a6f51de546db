"""New deduplication passes, each a class in a registry, give the same rows in this process and on Beam."""

from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pytest
from pydantic import Field

from curate.base.registry import _load
from curate.decide.dedup.groups import Groups
from curate.decide.dedup.passes import registry
from curate.decide.dedup.passes.dedup_pass import KeyPass, Nearness, NearnessKind
from curate.recipe.recipe import parse_recipe
from curate.recipe.section import Section
from tests import kit


class EqualHost(KeyPass):
    """Rows with the same host are a group."""

    def keys(self, tables):
        urls = tables.read_measured(["url"])["url"].to_pylist()
        return pa.array([url and urlsplit(url).hostname for url in urls], pa.string())


class CloseWords(Section):
    within: int = Field(ge=0)


class WordNearness(Nearness):
    """Rows whose numbers of words differ by at most `within`, found in overlapping buckets; planning needs a round."""

    rounds = 1

    def __init__(self, within):
        self.within = within

    def read(self, tables, alive):
        words = tables.read_measured(["words"])["words"].to_numpy()
        rows = np.flatnonzero(alive)
        return rows, words[rows]

    def survey(self, nodes, values, plan):
        return int(values.max(initial=0))

    def plan(self, plan, surveys):
        return max(surveys) + self.within

    def split(self, nodes, values, plan, n_buckets):
        for words in range(plan + 1):
            chosen = np.abs(values - words) <= self.within
            if chosen.any():
                yield words, (nodes[chosen], values[chosen])

    def groups(self, bucket, part):
        nodes, words = part
        home = nodes[words == bucket]
        pairs = [(a, b) for a in home for b in nodes]
        return Groups.of(np.array(pairs, np.uint64).reshape(-1, 2))


@pytest.fixture
def toys(monkeypatch):
    near = NearnessKind("words", CloseWords, "{within: n}", lambda section, measure, rows: WordNearness(section.within))
    monkeypatch.setattr(registry, "KEYS", (*registry.KEYS, EqualHost("host"), KeyPass("caption")))
    monkeypatch.setattr(registry, "NEARNESS", (*registry.NEARNESS, near))
    _load.cache_clear()
    yield
    monkeypatch.undo()
    _load.cache_clear()


URLS = ["http://a/1", "http://b/1", "http://a/2", "http:///3", "http://c/1", "http://B/2", "http://d/1", "http:///7"]
CAPTIONS = ["x y", "x", "z", "x", "x y z", "q w e", "six words are in this caption", "x y"]
TABLE = pa.table({"uid": [f"{i:032x}" for i in range(8)], "url": URLS, "caption": CAPTIONS})


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("by", "duplicates"),
    [
        (["host"], {2: 0, 5: 1}), (["caption"], {3: 1, 7: 0}), ([{"words": {"within": 0}}], {2: 1, 3: 1, 5: 4, 7: 0}),
        ([{"words": {"within": 1}}], {1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 7: 0}),
    ],
)  # fmt: skip
def test_a_new_pass_runs_locally_as_on_beam(toys, tmp_path, by, duplicates):
    recipe = kit.recipe_of(kit.write_parquets(tmp_path / "pool", TABLE, 2), "parquet", dedup={"by": by})
    assert parse_recipe(recipe.model_dump(mode="json")) == recipe
    local = kit.run_local(recipe, tmp_path / "local")
    rows = local.table("decisions", ["uid", "duplicate_of"]).to_pylist()
    assert {int(row["uid"], 16): int(row["duplicate_of"], 16) for row in rows if row["duplicate_of"]} == duplicates
    for here in (True, False) if len(duplicates) > 4 else ():  # on a cluster, rows meet in buckets
        beam = kit.run_beam(recipe, tmp_path / f"beam {here}", here=here)
        assert beam.table("decisions").equals(local.table("decisions"))
