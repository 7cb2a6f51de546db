"""The recipes of the README and of the pages on inputs and captions."""

import re
from pathlib import Path

import pytest

from curate.recipe.recipe import load_recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / page for page in ("README.md", "curate/pool/README.md", "curate/captions/README.md")]
FOUND = [block for page in PAGES for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)]
BLOCKS = [block for block in FOUND if "blur" not in block and "jsonl, path" not in block]  # a package's


@pytest.mark.parametrize("block", BLOCKS)
def test_yaml_of_pages_is_read(block, tmp_path):
    head = "" if re.search("^input:", block, re.MULTILINE) else "input: {name: a, format: webdataset, path: a.tar}\n"
    head += "match: {metadata: a.txt}\n" if "captions:" in block else ""
    (tmp_path / "recipe.yaml").write_text(head + block)
    assert load_recipe(str(tmp_path / "recipe.yaml")).input
