"""Recognizes which format reads a path; the errors of other formats name it."""

import pytest

from curate.base.errors import RecipeError
from curate.pool.formats.found_files import FoundFiles
from curate.pool.plan import make_plan
from curate.pool.registry import KINDS as FORMATS
from curate.pool.registry import recognize
from curate.recipe.recipe import parse_recipe
from tests.kit.user_pools import KINDS

NETWORK = {"network": {"contact": "you@example.org"}}
READ_TOO = {("urls_in_parquet", "urls"), ("titles_in_parquet", "urls")}  # URLs in Parquet are a list too


def plan(key, path, **keys):
    source = {"name": "a", "format": key, "path": str(path), **keys}
    make_plan(parse_recipe({"input": [source | NETWORK if key == "urls" else source]}))


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_recognized_and_named_in_the_errors_of_other_formats(name, tmp_path):
    make, key = KINDS[name]
    path = make(tmp_path)
    recognized = recognize(FoundFiles.look(str(path), {}))
    assert recognized and recognized[0] == key
    for wrong in {kind.key for kind in FORMATS} - {key}:
        if (name, wrong) not in READ_TOO:
            with pytest.raises(RecipeError, match=f"format: {key} can read .*; `curate init {path}` writes a recipe"):
                plan(wrong, path)


def test_what_a_message_names(tmp_path):
    """The right format also for a glob that opens no file; no other one for its own errors, or if a store fails."""
    path = KINDS["images_in_parquet"][0](tmp_path) / "*.parquet"
    for wrong in ("webdataset", "commoncrawl"):
        with pytest.raises(RecipeError, match=r"format: parquet can read .*1 .parquet"):
            plan(wrong, path)
    with pytest.raises(RecipeError, match="no caption column") as caught:
        plan("urls", KINDS["csv_of_urls"][0](tmp_path))
    assert "can be read by" not in str(caught.value)
    with pytest.raises(RecipeError, match="cannot be listed") as caught:
        plan("parquet", "http://127.0.0.1:9/a.parquet")  # a port that nobody serves
    assert "can be read by" not in str(caught.value)


NO_URLS = [  # (table, keys of the source, part of the message)
    ("url,caption,file\na.jpg,a dog,b.jpg\nb.jpg,a cat,c.jpg\n", {}, r"column 'url' has 'a\.jpg', but no URL in the first 2 rows; accepted: URLs"),
    ("url,caption,file\na.jpg,a dog,b.jpg\nb.jpg,a cat,c.jpg\n", {"columns": {"url": "file"}}, r"column 'file' has 'b\.jpg', but no URL"),
    ("a.jpg,a dog\nb.jpg,a cat\n", {"column_names": ["url", "caption"]}, r"column 'url' has 'a\.jpg', but no URL in the first 2 rows"),
    ("url,caption,link\na.jpg,a dog,https://e.com/a.jpg\n", {}, r"no URL in the first 1 row; accepted: columns: \{url: link\}"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "keys", "message"), NO_URLS)
def test_names_of_files_are_no_urls(table, keys, message, tmp_path):
    (tmp_path / "a.csv").write_text(table)
    with pytest.raises(RecipeError, match=message):
        plan("urls", tmp_path / "a.csv", **keys)
