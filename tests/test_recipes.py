"""The README's recipes."""

import re
from pathlib import Path

import pytest

from curate.recipe.recipe import load_recipe

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = [block for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if "blur" not in block]  # a package's


@pytest.mark.parametrize("block", BLOCKS)
def test_the_readmes_yaml_is_read(block: str, tmp_path: Path) -> None:
    head = "" if re.search("^input:", block, re.MULTILINE) else "input: {name: a, format: webdataset, path: a.tar}\n"
    head += "match: {metadata: a.txt}\n" if "captions:" in block else ""
    (tmp_path / "recipe.yaml").write_text(head + block)
    assert load_recipe(str(tmp_path / "recipe.yaml")).input
