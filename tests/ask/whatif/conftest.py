"""Finished runs, not to be changed: text with repeated uids, images with duplicates, and text without entries."""

import pytest

from tests import kit
from tests.kit.once import made_once

TEXT = {
    "rules": {"words": "words > 2", "best": {"top": 0.7, "of": "clip_score"}, "side": "width >= 150"},
    "dedup": {"by": ["uid"]},
    "balance": {"t": 40},
}
IMAGES = {
    "measure": {"image": {"phash": True}},
    "rules": {"words": "words > 2"},
    "dedup": {"by": ["uid", "sha256"]},
    "balance": {"t": 12},
}


def made(factory, name, make):
    return made_once(factory, f"whatif-{name}", make)[1]


@pytest.fixture(scope="session")
def text_run(tmp_path_factory):
    """1,500 rows of text in several units."""

    def make(folder):
        path = kit.write_parquets(folder / "pool", kit.make_rows(1200), 3, 100)
        recipe = kit.recipe_of(path, "parquet", match={"metadata": kit.write_metadata(folder)}, **TEXT)
        return kit.run_local(recipe, folder / "run")

    return made(tmp_path_factory, "text", make)


@pytest.fixture(scope="session")
def image_run(tmp_path_factory):
    """170 images in several units."""

    def make(folder):
        path = kit.write_tars(folder / "pool", kit.make_samples(120), 4)
        recipe = kit.recipe_of(path, match={"metadata": kit.write_metadata(folder)}, **IMAGES)
        return kit.run_local(recipe, folder / "run")

    return made(tmp_path_factory, "images", make)


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory):
    """Rows of text without match and balance."""
    return made(
        tmp_path_factory, "plain", lambda folder: kit.curate(folder, kit.make_rows(300), rules={"words": "words > 2"})
    )
