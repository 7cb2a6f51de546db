"""An input format from another package: one module, found by its entry point."""

import json
import os
import re
import sys
import tarfile
import tomllib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import create_model

from curate.base import registry
from curate.base.foreign import FOREIGN
from curate.recipe.section import UserPath
from curate.recipe.source import Source, source_sections
from tests import kit
from tests.kit import forked
from tests.kit.commands import run_command
from tests.kit.packages import lay_out

ROOT = Path(__file__).resolve().parents[3]

# What somebody writes who keeps images as files: the whole package.
FOLDER = '''
"""Folders of images, each with its caption in a .txt of the same name."""

from pathlib import Path

import pyarrow as pa

from curate.base import ids
from curate.pool.formats.input_format import Batch, FileColumns, InputFormat, InputPart, InputSample, PlannedSource
from curate.recipe.source import Source


class FolderSource(Source):
    suffix: str = "jpg"


def images_of(source, path):
    return sorted(Path(path).glob(f"*.{source.suffix}"))


class Folder(InputFormat):
    key = "folder"
    section = FolderSource

    def plan(self, source, embeddings, content):
        parts = []
        for path in source.paths:
            states = [[file.name, file.stat().st_mtime_ns, file.stat().st_size] for file in images_of(source, path)]
            size = sum(state[2] for state in states)
            parts.append(InputPart(path, size, ids.digest(states), rows=len(states)))
        return PlannedSource(tuple(parts), (FileColumns(has_images=True),))

    def read(self, source, part, scores, output):
        files = images_of(source, part.path)
        for some in (files[:2], files[2:]):
            captions = [file.with_suffix(".txt").read_bytes() for file in some]

            def images(wanted, some=some):
                return (file.read_bytes() if is_wanted else None for file, is_wanted in zip(some, wanted))

            columns = {"key": pa.array([file.stem for file in some]), "caption": pa.array(captions, pa.binary())}
            yield Batch(columns, images=images)

    def reread(self, source, part, rows):
        files = images_of(source, part.path)
        for file in (files[place] for place in rows.places):
            yield InputSample([("jpg", file.read_bytes())], {"file": file.name}, file.with_suffix(".txt").read_bytes())


FORMAT = Folder()
'''

# And one of rows of text.
LINES = """
import json

import pyarrow as pa

from curate.pool.formats.input_format import Batch, FileColumns, InputFormat, InputPart, InputSample, PlannedSource
from curate.read.listing import list_source


def lines_of(part):
    with open(part.path) as file:
        return [json.loads(line) for line in file]


class Lines(InputFormat):
    key = "jsonl"

    def plan(self, source, embeddings, content):
        files = list_source(source, content)
        columns = pa.schema([("caption", pa.string()), ("url", pa.string()), ("score", pa.float64())])
        kind = FileColumns(False, columns, frozenset({"url"}), ("score",))
        return PlannedSource(tuple(InputPart(f.path, f.size, f.fingerprint) for f in files), (kind,))

    def read(self, source, part, scores, output):
        table = pa.Table.from_pylist(lines_of(part), schema=output)
        columns = {name: table[name].combine_chunks() for name in ("caption", "url")}
        yield Batch(columns, scores={name: table[name] for name in scores.names})

    def reread(self, source, part, rows):
        lines = lines_of(part)
        return (InputSample([], lines[place]) for place in rows.places)


FORMAT = Lines()
"""


@pytest.fixture
def package(tmp_path):
    """A folder on sys.path with two installed formats and their entry points."""
    kinds = {"folder": "my_folder:FORMAT", "jsonl": "my_lines:FORMAT"}
    return lay_out(tmp_path / "site", "my-formats", "formats", kinds, my_folder=FOLDER, my_lines=LINES)


def curate(package, *arguments):
    """The command in its own process, which finds the package."""
    paths = os.pathsep.join([str(package), str(ROOT)])
    return forked.run(*arguments, env={**os.environ, "PYTHONPATH": paths}, cwd=package)


@pytest.fixture
def here(monkeypatch):
    """The command in this process, which finds the package for now: saves two seconds of imports."""

    def forget():
        for of_installed in (registry._installed, registry._load, source_sections):
            of_installed.cache_clear()
        FOREIGN.clear()
        registry._untold.clear()
        sys.modules.pop("curate_jsonl", None)

    def run(package, *arguments):
        monkeypatch.syspath_prepend(package)
        monkeypatch.chdir(package)
        return run_command(*map(str, arguments))

    forget()
    yield run
    forget()


def rows(package, run, question):
    done = curate(package, "sql", run, question, "--format", "json")
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def write_images(folder, seed):
    folder.mkdir()
    for i in range(5):
        (folder / f"{i}.jpg").write_bytes(kit.encode(kit.picture(seed + i)) if i != 3 else b"no image")
        (folder / f"{i}.txt").write_text(f"picture {seed + i}")
    return folder


@pytest.fixture
def example(tmp_path):
    """The package on the page about formats, installed, with a recipe and its input."""
    page = (ROOT / "curate/pool/formats/README.md").read_text()
    site, recipe = tmp_path / "site", tmp_path / "recipe"
    code = page.partition("```python\n")[2].partition("```")[0]
    stated = tomllib.loads(page.partition("```toml\n")[2].partition("```")[0])["project"]
    assert (stated["name"], stated["version"]) == ("curate-jsonl", "0.1")
    kinds = stated["entry-points"]["curate.formats"]
    lay_out(site, stated["name"], "formats", kinds, stated["version"], curate_jsonl=code)
    (recipe / "photos").mkdir(parents=True)
    rows = [{"image": f"{i}.png", "caption": f"picture {i}", "likes": i} for i in range(4)] + [
        {"image": "4.png", "caption": "no likes"}
    ]
    for i in (0, 1, 3, 4):
        (recipe / f"photos/{i}.png").write_bytes(kit.encode(kit.picture(i), "PNG"))
    (recipe / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (recipe / "r.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0] + "max_failed: 1.0\n")
    return site


@pytest.mark.slow
def test_the_example_of_the_page_on_inputs(example, tmp_path, here):
    """Run from another folder than the recipe's: its paths are relative to the recipe."""
    assert 35 < len((example / "curate_jsonl.py").read_text().splitlines()) < 50
    planned = here(example, "plan", tmp_path / "recipe/r.yaml").out
    assert "kept" in planned and "of images" not in planned  # it gives no bytes
    done = curate(example, "run", tmp_path / "recipe/r.yaml", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    query = "SELECT key, likes, status, rule FROM verdicts ORDER BY row"
    verdicts = here(example, "sql", tmp_path / "run", query, "--format", "json").out
    assert [list(row.values()) for row in json.loads(verdicts)] == [
        ["0", 0, "ok", "liked"], ["1", 1, "ok", None], ["2", 2, "no_image", "failed"], ["3", 3, "ok", None],
        ["4", None, "ok", "liked"],
    ]  # fmt: skip
    with tarfile.open(tmp_path / "run/shards/00000.tar") as tar:
        assert tar.getnames() == [f"{key}.{suffix}" for key in (1, 3) for suffix in ("json", "png", "txt")]


WHERE = "input format 'jsonl' of package curate-jsonl 0.1: "


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("FORMAT = JsonLines()", "FORMAT = JsonLines", r"curate_jsonl:FORMAT is <class 'curate_jsonl.JsonLines'>; accepted: a kind \(InputFormat\)"),
        ("(parts, (kind,))", "(parts)", r"TypeError: .* missing 1 required positional argument: 'columns' at curate_jsonl.py:\d+ in plan"),
        ("rows = rows_of(part)\n", "rows = rows_of()\n", r"TypeError: rows_of\(\) missing .* at curate_jsonl.py:\d+ in read"),
        ("def reread(", "def read_again(", r"curate_jsonl:FORMAT cannot be loaded: TypeError: .* abstract .*reread.* at curate_jsonl.py:\d+"),
    ],
)  # fmt: skip
def test_a_fault_of_a_format_names_its_package_and_line(old, new, message, example, tmp_path, here):
    text = (example / "curate_jsonl.py").read_text()
    assert text.count(old) == 1
    (example / "curate_jsonl.py").write_text(text.replace(old, new))
    done = here(example, "run", tmp_path / "recipe/r.yaml", "--out", tmp_path / "run")
    assert done.status and re.search(WHERE + message, done.err), done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("kind", [str, Path, UserPath])
def test_paths_of_a_section_are_relative_to_the_recipe_whatever_their_type(kind):
    """`path` always, other fields if their type is a path."""
    section = create_model("Own", __base__=Source, path=(kind, ...), folder=(Path | None, None), tag=(str, "x"))
    plain = {"name": "a", "format": "webdataset", "path": "a.txt", "folder": "b"}
    source = section.model_validate(plain, context=lambda path: path if path.startswith("/") else f"/recipe/{path}")
    assert (source.paths, source.folder, source.tag) == (("/recipe/a.txt",), Path("/recipe/b"), "x")
    again = section.model_validate(json.loads(source.model_dump_json()))
    assert again == source and section.model_validate(plain).paths == ("a.txt",)


@pytest.mark.slow
def test_a_format_of_another_package_end_to_end(package, tmp_path):
    """Beside tars: read in several batches, decided, written, verified, queried, reported, and reused."""
    folders = [write_images(tmp_path / f"images{n}", 10 * n) for n in range(2)]
    kit.write_tars(tmp_path / "tars", kit.make_samples(6), 1)
    recipe = tmp_path / "recipe.yaml"
    text = f"""
input:
  - {{name: files, format: folder, path: [{folders[0]}, {folders[1]}]}}
  - {{name: tars, format: webdataset, path: {tmp_path}/tars/00000.tar}}
rules: {{long: "characters > 5"}}
max_failed: 1.0
"""
    recipe.write_text(text)
    done = curate(package, "run", recipe, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    found = rows(
        package, tmp_path / "run", "SELECT key, caption, status FROM samples WHERE source = 'files' ORDER BY unit, row"
    )
    assert [row["caption"] for row in found] == [f"picture {n}" for n in (*range(5), *range(10, 15))]
    assert [row["key"] for row in found if row["status"] == "not_an_image"] == ["3", "3"]
    kept = rows(
        package,
        tmp_path / "run",
        "SELECT count(*) AS n FROM decisions WHERE kept AND uid IN (SELECT uid FROM samples WHERE source = 'files')",
    )
    assert kept == [{"n": 8}]
    sidecar = pq.read_table(tmp_path / "run/shards/00000.parquet")
    assert sidecar["source"].to_pylist().count("files") == 8
    assert curate(package, "verify", tmp_path / "run").returncode == 0
    report = curate(package, "report", tmp_path / "run")
    assert report.returncode == 0, report.stderr
    recipe.write_text(text.replace("> 5", "> 6"))
    again = curate(package, "run", recipe, "--out", tmp_path / "again", "--reuse", tmp_path / "run")
    assert again.returncode == 0 and "samples 3/3" in again.stderr, again.stderr


@pytest.mark.slow
def test_rows_of_text_of_another_package(package, tmp_path):
    lines = [{"caption": f"line {i}", "url": f"https://x/{i}" if i else None, "score": i / 8} for i in range(8)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"input: {{name: text, format: jsonl, path: {tmp_path}/a.jsonl}}\nrules: {{good: score >= 0.5}}\nmax_failed: 1.0\n"
    )
    done = curate(package, "run", recipe, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    found = rows(package, tmp_path / "run", "SELECT rule, count(*) AS n FROM decisions GROUP BY rule ORDER BY n")
    assert found == [{"rule": "failed", "n": 1}, {"rule": "good", "n": 3}, {"rule": None, "n": 4}]
    out = pq.read_table(tmp_path / "run/shards/00000.parquet")
    assert out.column_names == ["uid", "caption", "url", "score", "probability"]
    assert out["caption"].to_pylist() == [f"line {i}" for i in range(4, 8)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("format: folder, path: x, columns: {}", ["input.0.columns: unknown key", "known keys: name, format, path, storage, join, suffix"]),
        ("format: folder, path: x, suffx: png", ["did you mean 'suffix'?"]),
        ("format: foldr, path: x", ["did you mean 'folder'?", "accepted: webdataset, files, parquet, run, urls, commoncrawl, pmc, folder, jsonl"]),
    ],
)  # fmt: skip
def test_keys_of_a_source_are_those_of_its_format(package, tmp_path, source, parts):
    (tmp_path / "recipe.yaml").write_text(f"input: {{name: a, {source}}}\n")
    done = curate(package, "run", tmp_path / "recipe.yaml", "--out", tmp_path / "run")
    assert done.returncode == 2 and not [part for part in parts if part not in done.stderr], done.stderr
