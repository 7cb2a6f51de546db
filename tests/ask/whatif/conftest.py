"""Finished runs to ask: of text with repeated and own uids, of images with equal and close pictures, and one without entries."""

import pytest

from tests import kit

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


@pytest.fixture(scope="session")
def text_run(tmp_path_factory):
    """1,500 rows of text in several units; not to be changed."""
    folder = tmp_path_factory.mktemp("text")
    path = kit.write_parquets(folder / "pool", kit.make_rows(1200), 3, 100)
    return kit.run_local(
        kit.recipe_of(path, "parquet", match={"metadata": kit.write_metadata(folder)}, **TEXT), folder / "run"
    )


@pytest.fixture(scope="session")
def image_run(tmp_path_factory):
    """170 images in several units; not to be changed."""
    folder = tmp_path_factory.mktemp("images")
    path = kit.write_tars(folder / "pool", kit.make_samples(120), 4)
    return kit.run_local(kit.recipe_of(path, match={"metadata": kit.write_metadata(folder)}, **IMAGES), folder / "run")


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory):
    """Rows of text without match and balance; not to be changed."""
    folder = tmp_path_factory.mktemp("plain")
    path = kit.write_parquets(folder / "pool", kit.make_rows(300), 2, 100)
    return kit.run_local(kit.recipe_of(path, "parquet", rules={"words": "words > 2"}), folder / "run")
