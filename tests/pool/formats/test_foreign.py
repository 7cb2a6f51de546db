"""The input format on this folder's page, as an installed package (see tests/test_foreign_kinds.py)."""

import json
import re
from pathlib import Path

import pytest
import yaml
from pydantic import create_model

from curate.recipe.section import UserPath
from curate.recipe.source import Source
from tests import kit
from tests.kit.commands import run_command
from tests.kit.packages import ROOT, installed, lay_out_example

PAGE = (ROOT / "curate/pool/formats/README.md").read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return lay_out_example(tmp_path_factory.mktemp("site"), PAGE)


@pytest.mark.slow
def test_the_format_of_the_page(site, tmp_path):
    """Beside tars: its rows are decided, written and reused; its paths are relative to the recipe's folder."""
    (folder := tmp_path / "recipe/photos").mkdir(parents=True)
    rows = [{"image": f"{i}.png", "caption": f"picture {i}", "likes": i} for i in range(4)]
    rows.append({"image": "4.png", "caption": "no likes"})
    for i in (0, 1, 3, 4):
        (folder / f"{i}.png").write_bytes(kit.encode(kit.picture(i), "PNG"))
    (tmp_path / "recipe/pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])
    tars = {"name": "tars", "format": "webdataset", "path": kit.write_tars(tmp_path / "tars", kit.make_samples(6), 1)}
    recipe |= {"input": [recipe["input"], tars], "max_failed": 1.0}
    (tmp_path / "recipe/r.yaml").write_text(yaml.safe_dump(recipe))
    out, again = kit.Ran(tmp_path / "run"), str(tmp_path / "again")
    more = ["--reuse", str(out.folder), "--set", "rules.long=characters > 6"]
    with installed(site):
        for words in (["--out", str(out.folder)], ["--out", again, *more]):
            done = run_command("run", str(tmp_path / "recipe/r.yaml"), *words)
            assert done.status == 0, done.err
        assert run_command("verify", again).status == 0
    assert "samples 2/2" in done.err
    outcomes = {key: outcome for (file, key), outcome in out.outcomes.items() if file == "pairs.jsonl"}
    assert outcomes == {"0": "liked", "1": "kept", "2": "no_image", "3": "kept", "4": "liked"}
    names = [name for name, _ in out.members]
    assert names[:6] == [f"{key}.{suffix}" for key in (1, 3) for suffix in ("json", "png", "txt")]


@pytest.mark.parametrize("kind", [str, Path, UserPath])
def test_paths_of_a_section_are_relative_to_the_recipe_whatever_their_type(kind):
    """`path` always, other fields if their type is a path."""
    section = create_model("Own", __base__=Source, path=(kind, ...), folder=(Path | None, None), tag=(str, "x"))
    plain = {"name": "a", "format": "webdataset", "path": "a.txt", "folder": "b"}
    source = section.model_validate(plain, context=lambda path: path if path.startswith("/") else f"/recipe/{path}")
    assert (source.paths, source.folder, source.tag) == (("/recipe/a.txt",), Path("/recipe/b"), "x")
    again = section.model_validate(json.loads(source.model_dump_json()))
    assert again == source and section.model_validate(plain).paths == ("a.txt",)
