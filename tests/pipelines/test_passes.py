"""How often a run opens the tables of a unit."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from curate.store.store import RunStore
from tests.laws import pools


def test_a_rich_recipe_opens_at_most_20_table_files_a_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two top rules, passes uid, sha256 and phash, and a solved t; footers and what is read to emit count too."""
    samples = pools.make_samples(48)
    recipe = pools.recipe_of(
        pools.write_tars(tmp_path / "tars", samples, 6),
        measure={"image": {"phash": True}},
        match={"metadata": pools.write_metadata(tmp_path)},
        rules={"wide": {"top": 0.9, "of": "width"}, "high": {"top": 0.9, "of": "height"}},
        dedup={"by": ["uid", "sha256", "phash"]},
        balance={"rows": 36},
        max_failed=1.0,
    )
    opened: Counter[str] = Counter()
    open_file = RunStore.open

    def counting(store: RunStore, name: str) -> Any:
        file = open_file(store, name)
        if name.startswith("tables/"):
            opened[name.rpartition("/")[2]] += 1
        return file

    monkeypatch.setattr(RunStore, "open", counting)
    ran = pools.run_beam(recipe, tmp_path / "run")
    units = len(list((ran.folder / "tables/samples").iterdir()))
    assert units == 6 and opened.total() <= 20 * units
    assert opened.total() > 5 * units  # they are opened by nothing else
