"""Recognizes which format reads a path; the errors of other formats name it."""

import pytest

from curate.base.errors import RecipeError
from curate.pool.formats.found_files import FoundFiles
from curate.pool.plan import make_plan
from curate.pool.registry import KINDS as FORMATS
from curate.pool.registry import recognize
from curate.recipe.recipe import parse_recipe
from tests.pool.kinds import KINDS

NETWORK = {"network": {"contact": "you@example.org"}}
PAIRS = [(name, kind.key) for name, (_, key) in KINDS.items() for kind in FORMATS if kind.key != key]
# URLs in Parquet are a list too
READ_TOO = {("urls_in_parquet", "urls"), ("titles_in_parquet", "urls")}


def plan(key, path, **keys):
    source = {"name": "a", "format": key, "path": str(path), **keys}
    make_plan(parse_recipe({"input": [source | NETWORK if key == "urls" else source]}))


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_recognized(name, tmp_path):
    make, key = KINDS[name]
    recognized = recognize(FoundFiles.look(str(make(tmp_path)), {}))
    assert recognized and recognized[0] == key


@pytest.mark.parametrize(("name", "wrong"), [pair for pair in PAIRS if pair not in READ_TOO])
def test_another_formats_error_names_the_right_one(name, wrong, tmp_path):
    make, key = KINDS[name]
    path = make(tmp_path)
    with pytest.raises(RecipeError) as caught:
        plan(wrong, path)
    assert f"is read by format: {key}; curate init {path} writes a recipe" in str(caught.value)


def test_files_of_another_format_are_named_by_a_glob_too(tmp_path):
    """Also for formats that open no file before the run."""
    path = KINDS["images_in_parquet"][0](tmp_path) / "*.parquet"
    for wrong in ("webdataset", "commoncrawl"):
        with pytest.raises(RecipeError, match=r"\(1 \.parquet\) is read by format: parquet"):
            plan(wrong, path)


def test_an_error_of_the_right_format_names_no_other(tmp_path):
    path = KINDS["csv_of_urls"][0](tmp_path)
    with pytest.raises(RecipeError, match="no caption column") as caught:
        plan("urls", path)
    assert "is read by" not in str(caught.value)


def test_a_store_that_fails_is_not_asked_again(tmp_path, monkeypatch):
    def fail(*_):
        raise AssertionError

    monkeypatch.setattr(FoundFiles, "look", fail)
    with pytest.raises(RecipeError, match="cannot be listed"):
        plan("parquet", "http://127.0.0.1:9/a.parquet")  # type: ignore[arg-type] # a port that nobody serves


@pytest.mark.parametrize("options", [{}, {"columns": {"url": "file"}}, {"column_names": ["url", "caption"]}])
def test_names_of_files_are_no_urls(options, tmp_path):
    (tmp_path / "a.csv").write_text("url,caption,file\na.jpg,a red dog,b.jpg\nb.jpg,a cat,c.jpg\n")
    if "column_names" in options:
        (tmp_path / "a.csv").write_text("a.jpg,a red dog\nb.jpg,a cat\n")
    with pytest.raises(
        RecipeError, match=r"column '\w+' has '[ab]\.jpg', and no URL in the first 2 rows; accepted: URLs"
    ):
        plan("urls", tmp_path / "a.csv", **options)


def test_another_column_has_the_urls(tmp_path):
    (tmp_path / "a.csv").write_text("url,caption,link\na.jpg,a red dog,https://example.com/a.jpg\n")
    with pytest.raises(RecipeError, match=r"no URL in the first 1 row; accepted: columns: \{url: link\}"):
        plan("urls", tmp_path / "a.csv")
