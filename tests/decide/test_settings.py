"""The key of decisions changes if and only if what decides changes."""

import copy
import pickle
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import RecipeError
from curate.decide.settings import DecideSettings, decisions_key
from curate.pool.plan import make_plan
from curate.recipe.recipe import parse_recipe
from curate.run.context import RunContext
from curate.run.units import WorkerLocation
from curate.store.store import RunStore

RECIPE = {
    "measure": {"image": {"phash": True}},
    "match": {"metadata": "/m.txt"},
    "rules": {"words": "words > 2", "best": {"top": 0.3, "of": "s"}, "long": "characters > 5"},
    "dedup": {"by": ["uid", {"phash": {"distance": 4}}], "against": {"phash": {"distance": 3}, "images": "/e"}},
    "balance": {"t": 5},
    "captions": None,
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    table = pa.table({"url": ["http://x"] * 3, "caption": ["a b c"] * 3, "s": [0.1, 0.2, 0.3], "r": [1.0, 2.0, 3.0]})
    pq.write_table(table, folder / "a.parquet")
    return folder


def context_of(pool, change=lambda data: None, **facts):
    """The context of RECIPE, as changed."""
    source = {"name": "pool", "format": "parquet", "path": str(pool / "a.parquet")}
    data = copy.deepcopy({"input": [source], **RECIPE})
    change(data)
    recipe = parse_recipe(data)
    context = RunContext(recipe, make_plan(recipe).pool, RunStore("/run"), metadata_key="m", evaluation_key="e")
    return replace(context, **facts)


def put(*keys, value):
    """Set a value under keys."""

    def change(data):
        for key in keys[:-1]:
            data = data.setdefault(key, {}) if isinstance(data, dict) else data[key]
        data[keys[-1]] = value

    return change


def reorder(data):
    data["rules"] = dict(reversed(data["rules"].items()))


DECIDES = {
    "a rule": put("rules", "words", value="words > 3"),
    "a fraction": put("rules", "best", "top", value=0.4),
    "a rule's name": lambda data: data["rules"].update(other=data["rules"].pop("long")),
    "the order of rules": reorder,
    "a pass": put("dedup", "by", value=["uid"]),
    "the order of passes": put("dedup", "by", value=[{"phash": {"distance": 4}}, "uid"]),
    "a distance": put("dedup", "by", value=["uid", {"phash": {"distance": 5}}]),
    "prefer": put("dedup", "prefer", value="s"),
    "against": put("dedup", "against", "phash", "distance", value=2),
    "t": put("balance", "t", value=6),
    "rows": put("balance", value={"rows": 5}),
    "no balance": put("balance", value=None),
    "the seed": put("seed", value=1),
    "how images are decoded": put("measure", "image", "decode", value=False),
    "a source's name": put("input", 0, "name", value="other"),
    "which columns are scores": put("input", 0, "columns", value={"scores": ["s"]}),
}
FACTS = {
    "the entries": {"metadata_key": "n"},
    "the evaluation set": {"evaluation_key": "f"},
    "what is forgotten": {"blocklist_key": "b"},
}
DOES_NOT = {
    "the recipe's name": put("name", value="other"),
    "the license": put("license", value="mit"),
    "limits of damage": put("max_failed", value=0.5),
    "of files": put("max_failed_files", value=0.5),
    "rows a shard": put("output", "rows_per_shard", value=7),
    "where the metadata is": put("match", "metadata", value="/n.txt"),
    "where evaluation images are": put("dedup", "against", "images", value="/f"),
    "access options": put("input", 0, "storage", value={"auto_mkdir": True}),
    "a default, written": put("dedup", "prefer", value=None),
    "the default scheme, written": put("balance", "scheme", value="metaclip"),
    "a kind of nearness that is not used": put("dedup", "by", 1, "embedding", value=None),
}


def test_each_input_changes_the_key_and_nothing_else_does(pool):
    key = decisions_key(context_of(pool))
    changed = {name: decisions_key(context_of(pool, change)) for name, change in DECIDES.items()}
    changed |= {name: decisions_key(context_of(pool, **facts)) for name, facts in FACTS.items()}
    assert len({key, *changed.values()}) == 1 + len(changed)
    same = {name: decisions_key(context_of(pool, change)) for name, change in DOES_NOT.items()}
    same["another folder"] = decisions_key(context_of(pool, store=RunStore("/other")))
    same["a cluster"] = decisions_key(context_of(pool, place=WorkerLocation.CLUSTER))
    assert same == dict.fromkeys(same, key)


def test_other_files_change_the_key(pool, tmp_path):
    key = decisions_key(context_of(pool))
    table = pq.read_table(pool / "a.parquet")
    pq.write_table(table.slice(1), tmp_path / "a.parquet")
    assert decisions_key(context_of(tmp_path)) != key


@pytest.mark.parametrize("unread", [["a"], ["a", "b"], ["b", "a", "a b"], [""]])
def test_the_key_without_files_depends_on_which_they_are(pool, unread):
    settings = DecideSettings.of(context_of(pool))
    assert (
        settings.key_without(unread) == settings.key_without(unread[::-1]) != settings.key == settings.key_without([])
    )
    assert len({settings.key_without(part) for part in (unread, [*unread, "more"], unread[1:])}) == 3


def test_settings_travel_to_workers_and_are_small(pool):
    settings = DecideSettings.of(context_of(pool))
    data = pickle.dumps(settings)
    assert len(data) < 20_000 and pickle.loads(data).key == settings.key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("rules", "words", value="wrods > 2"), "did you mean 'words'"),
        (put("dedup", "by", value=["sha256"]), "sha256 needs images, and the pool has none; accepted here: uid$"),
        (put("dedup", "prefer", value="q"), "dedup.prefer: no column 'q'"),
        (put("dedup", "prefer", value="caption"), "dedup.prefer: column 'caption' is string; accepted: numbers"),
    ],
)
def test_what_does_not_fit_the_pool_is_refused(pool, change, message):
    with pytest.raises(RecipeError, match=message):
        DecideSettings.of(context_of(pool, change))
