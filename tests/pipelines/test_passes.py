"""How often a run opens the tables of a unit."""

from collections import Counter

import pytest

from curate.recipe.recipe import parse_recipe
from curate.store.store import RunStore
from tests import kit
from tests.relate.pools import make_embeddings, recipe_of, write_pool


def count_opened(monkeypatch):
    """Count the files of tables that are opened from now on, by their units' names."""
    opened = Counter()
    open_file = RunStore.open

    def counting(store, name):
        file = open_file(store, name)
        if name.startswith("tables/"):
            opened[name.rpartition("/")[2]] += 1
        return file

    monkeypatch.setattr(RunStore, "open", counting)
    return opened


def test_a_rich_recipe_opens_at_most_20_table_files_a_unit(tmp_path, monkeypatch):
    """Two top rules, passes uid, sha256 and phash, and a solved t; footers and what is read to emit count too."""
    samples = kit.make_samples(48)
    recipe = kit.recipe_of(
        kit.write_tars(tmp_path / "tars", samples, 6),
        measure={"image": {"phash": True}},
        match={"metadata": kit.write_metadata(tmp_path)},
        rules={"wide": {"top": 0.9, "of": "width"}, "high": {"top": 0.9, "of": "height"}},
        dedup={"by": ["uid", "sha256", "phash"]},
        balance={"rows": 36},
        max_failed=1.0,
    )
    opened = count_opened(monkeypatch)
    ran = kit.run_beam(recipe, tmp_path / "run")
    units = len(list((ran.folder / "tables/samples").iterdir()))
    assert units == 6 and opened.total() <= 20 * units
    assert opened.total() > 5 * units  # they are opened by nothing else


@pytest.mark.slow
def test_rounds_of_a_relation_open_no_file_of_a_unit(tmp_path, monkeypatch):
    """The rows that they work on are gathered once."""
    monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (20, 20))
    path = write_pool(tmp_path / "pool", 6, *make_embeddings(120, 16))
    opened, totals = count_opened(monkeypatch), []
    for rounds in (1, 3, 60):
        relate = {"clusters": {"topic": {"of": "l14", "k": 4, "rounds": rounds}}, "negclip": {"s_clip": {"of": "l14"}}}
        quotas = {"of": "topic", "rows": 30, "by": "complexity", "keep": "farthest"}
        opened.clear()
        ran = kit.run_beam(parse_recipe(recipe_of(path, relate, sample={"quotas": quotas})), tmp_path / f"run{rounds}")
        totals.append(opened.total() / len(list((ran.folder / "tables/samples").iterdir())))
    assert totals[0] <= 14 and len({*totals}) == 1


@pytest.mark.slow
def test_what_is_asked_of_the_store_grows_with_units_and_folders_are_listed_once(tmp_path, monkeypatch):
    """Planning, the run, a rerun that continues it, and one that reuses it: nothing is done for each pair of units."""
    calls = Counter()

    def counted(name):
        method = getattr(RunStore, name)

        def call(store, *arguments):
            calls[name] += 1
            return method(store, *arguments)

        return call

    for name in ("names", "files", "exists", "open", "state", "size"):
        monkeypatch.setattr(RunStore, name, counted(name))
    samples = kit.make_samples(24)
    found = []
    for units in (3, 6, 12):
        recipe = kit.recipe_of(kit.write_tars(tmp_path / f"tars{units}", samples, units), max_failed=1.0)
        calls.clear()
        done = kit.run_beam(recipe, tmp_path / f"run{units}")
        (done.folder / "_SUCCESS").unlink()
        kit.run_beam(recipe, done.folder)
        kit.run_beam(recipe, tmp_path / f"again{units}", reuse=done.folder)
        found.append(Counter(calls))
    three, six, twelve = found
    assert three["names"] == six["names"] == twelve["names"]
    for name in ("files", "exists", "open", "state", "size"):  # a unit lists the folder of its own checkpoints
        # And a shard of more units than are kept in memory opens their decisions twice: for its key, and to emit them.
        most = 2.5 if name == "open" else 2
        few = 3 * 5 if name == "exists" else 0  # publishing asks for five to ten of the manifest's files
        assert twelve[name] - six[name] <= most * (six[name] - three[name]) + few, found
