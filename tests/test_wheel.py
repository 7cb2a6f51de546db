"""The wheel contains all files, and works without a checkout."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The wheel of this checkout, built and unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", *isolation, "-w", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [wheel] = folder.glob("curate-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def run(folder, code):
    """What Python prints, with the unpacked wheel before all installed packages."""
    options = {"cwd": folder.parent, "env": os.environ | {"PYTHONPATH": str(folder)}, "text": True}
    return subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, **options).stdout


def test_it_has_everything(unpacked):
    found = names(unpacked)
    for package in ("curate", "pipelines"):
        sources = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")}
        assert sources <= found and len(sources) > 1
    queries = {f"curate/{path.relative_to(ROOT)}" for path in (ROOT / "sql").rglob("*.sql")}
    assert queries <= found and len(queries) > 10
    assert {f"curate/infra/{path.name}" for path in (ROOT / "infra").glob("*.yaml")} <= found
    assert {f"curate/ask/report/{name}" for name in ("page.html", "style.css", "theme.json")} <= found
    templates = {str(path.relative_to(ROOT)) for path in (ROOT / "curate/ask/templates").glob("*.txt")}
    assert templates <= found and len(templates) > 1
    assert {"curate/publish/croissant_context.json", "curate/publish/views_head.sql"} <= found
    assert {"curate/demo/recipe.yaml", "curate/demo/words.yaml", "curate/py.typed", "curate/sql/views.sql"} <= found


def test_it_has_nothing_else(unpacked):
    found = names(unpacked)
    assert {name.split("/")[0] for name in found if ".dist-info/" not in name} == {"curate", "pipelines"}
    suffixes = {Path(name).suffix for name in found if ".dist-info/" not in name}
    expected = ".sh .py .sql .md .txt .toml .yaml .typed .json .onnx .parquet .html .css .js .lock .properties"
    assert suffixes == {*expected.split(), ""}  # a Dockerfile has none; no caches, no tests


def test_its_metadata(unpacked):
    [info] = unpacked.glob("*.dist-info")
    assert (info / "licenses" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert "curate = curate.__main__:start" in (info / "entry_points.txt").read_text()
    metadata = (info / "METADATA").read_text()
    assert "License-Expression: MIT" in metadata
    requirements = [line.partition(": ")[2] for line in metadata.splitlines() if line.startswith("Requires-Dist: ")]
    plain = [line for line in requirements if not line.startswith("curate[")]
    assert len(plain) > 10 and all(">=" in line for line in plain)  # lower bounds everywhere


def test_it_works_without_the_checkout(unpacked):
    code = (
        "import curate, pipelines\n"
        "from curate.recipe.files import shipped_folder\n"
        "from curate.ask.library import named_queries\n"
        "from curate.cli.init import engines\n"
        "from importlib.resources import files\n"
        "from curate.recipe.recipe import load_recipe\n"
        "load_recipe(str(files('curate.demo').joinpath('recipe.yaml')))\n"
        "print(curate.__file__, pipelines.__file__, shipped_folder(\"sql\"), len(named_queries()), engines(), sep='\\n')\n"
    )
    package, pipelines, folder, queries, engines = run(unpacked, code).split("\n")[:5]
    assert package == f"{unpacked}/curate/__init__.py" and pipelines == f"{unpacked}/pipelines/__init__.py"
    assert Path(folder) == unpacked / "curate" / "sql"
    assert int(queries) == len(list((ROOT / "sql").glob("*.sql"))) - 1  # views.sql is no query
    assert engines == "['dataflow', 'local', 'prism', 'spark']"


def test_its_command_works(unpacked):
    code = "import sys; sys.argv = ['curate', '--version']; from curate.__main__ import start; start()"
    assert run(unpacked, code).startswith("curate ")
