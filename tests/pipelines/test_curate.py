"""What a rich recipe costs: stages in Beam, each a barrier that a cluster schedules, and files that are opened for a unit."""

from collections import Counter

import pytest

from curate.store.store import RunStore
from tests import kit
from tests.pipelines.graphs import build_graph, count_stages


@pytest.fixture
def rich(tmp_path):
    """Two top rules, passes uid, sha256 and phash, and a solved t."""
    return kit.recipe_of(
        kit.write_tars(tmp_path / "tars", kit.make_samples(48), 6),
        measure={"image": {"phash": True}},
        match={"metadata": kit.write_metadata(tmp_path)},
        rules={"wide": {"top": 0.9, "of": "width"}, "high": {"top": 0.9, "of": "height"}},
        dedup={"by": ["uid", "sha256", "phash"]},
        balance={"rows": 36},
    )


def test_a_rich_recipe_has_at_most_45_stages(rich, tmp_path):
    assert count_stages(build_graph(rich, tmp_path / "run")) <= 45


def test_a_rich_recipe_opens_at_most_20_table_files_a_unit(rich, tmp_path, monkeypatch):
    """Footers and what is read to emit count too."""
    opened, open_file = Counter(), RunStore.open

    def counting(store, name):
        opened[name.startswith("tables/")] += 1
        return open_file(store, name)

    monkeypatch.setattr(RunStore, "open", counting)
    kit.run_beam(rich, tmp_path / "run")
    assert 5 * 6 < opened[True] <= 20 * 6
