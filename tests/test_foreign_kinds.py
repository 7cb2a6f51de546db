"""Kinds of one package, built and installed: a pass, an input format, a caption engine and a kind of captions, and their faults."""

import json
import re
import shutil

import pytest
import yaml

from tests.kit.packages import curate, install, needs_hatchling

pytestmark = needs_hatchling

CODE = """
import pyarrow as pa
import pyarrow.compute as pc
from curate.plugins import (
    Answer, Batch, CaptionKind, Engine, EngineKind, EngineOptions, FileColumns, InputFormat, InputPart, InputSample,
    KeyPass, PlannedSource, list_files,
)


class Opening(KeyPass):
    def keys(self, tables):
        captions = tables.read("samples", ["caption"])["caption"].combine_chunks()
        return pc.utf8_slice_codeunits(pc.utf8_lower(captions), 0, 5)


class Lines(InputFormat):
    key = "lines"

    def plan(self, source, embeddings, content):
        files = list_files(source.paths, source.storage)
        parts = tuple(InputPart(file.path, file.size, file.fingerprint) for file in files)
        return PlannedSource(parts, (FileColumns(False, pa.schema([("caption", pa.string())])),))

    def lines(self, part):
        return open(part.path).read().splitlines()

    def read(self, source, part, scores, output):
        yield Batch({"caption": pa.array(self.lines(part))})

    def reread(self, source, part, rows):
        texts = self.lines(part)
        return iter([InputSample([], {"caption": texts[place]}) for place in rows.places])


class Parrot(EngineOptions):
    says: str = "a parrot"

    def open(self):
        return ParrotEngine(self.says)


class ParrotEngine(Engine):
    def __init__(self, says):
        self.says = says

    @property
    def model(self):
        return f"parrot {self.says}"

    def check(self):
        pass

    def answers(self, requests):
        for place, request in enumerate(requests):
            yield place, Answer(f"{self.says} says a thing")


OPENING = Opening("opening")
LINES = Lines()
PARROT = EngineKind("parrot", Parrot)
"""
ENTRY_POINTS = """
[project.entry-points."curate.passes"]
opening = "curate_toolbox:OPENING"
[project.entry-points."curate.formats"]
lines = "curate_toolbox:LINES"
[project.entry-points."curate.caption_engines"]
parrot = "curate_toolbox:PARROT"
"""
CAPTIONS = ["A dog runs", "a dog sleeps", "the cat", "some fish swim", "Some fish eat"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return install(tmp_path_factory.mktemp("toolbox"), "curate-toolbox", CODE, ENTRY_POINTS)


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS))
    rewrite = {"engine": "bird", "styles": ["human"]}
    sections = {
        "input": {"name": "pool", "format": "lines", "path": str(tmp_path / "captions.txt")},
        "dedup": {"by": ["opening"]},
        "captions": {
            "engines": {"bird": {"parrot": {"says": "a bird"}}},
            "rewrite": rewrite,
            "gates": {"off": ["names"]},
        },
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(sections))
    return str(tmp_path / "r.yaml")


@pytest.mark.slow
def test_a_run_uses_them(site, recipe, tmp_path):
    out = str(tmp_path / "out")
    done = curate(site, "run", recipe, "--out", out)
    assert done.returncode == 0, done.stderr
    sql = "SELECT caption, rule FROM measured JOIN decisions USING (unit, row) ORDER BY row"
    rows = json.loads(curate(site, "sql", out, sql, "--format", "json").stdout)
    assert [row["caption"] for row in rows] == CAPTIONS
    assert sum(row["rule"] is None for row in rows) == 3 and {row["rule"] for row in rows} == {None, "duplicate"}
    texts = json.loads(curate(site, "sql", out, "SELECT DISTINCT text, model FROM captions", "--format", "json").stdout)
    assert texts == [{"text": "a bird says a thing", "model": "parrot a bird"}]
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["packages"]["curate-toolbox"] == "0.1"


PACKAGE = "of package curate-toolbox 0.1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "status", "message"),
    [
        ("pc.utf8_lower(captions)", "pc.utf9(captions)", 1, r"deduplication key 'opening' {}: AttributeError: .*utf9.* at curate_toolbox.py:\d+ in keys"),
        ('OPENING = Opening("opening")', "OPENING = Opening", 2, r"deduplication key or kind of nearness 'opening' {}: .* is <class .*Opening'>; accepted: a kind \(KeyPass or NearnessKind\) with the entry point's name"),
        ('    key = "lines"\n', "", 2, "input format 'lines' {}: .* is <.*Lines object.*>; accepted: a kind .* with the entry point's name as its key"),
        ("yield Batch(", "yield Batches(", 1, r"input format 'lines' {}: NameError: .*Batches.* at curate_toolbox.py:\d+ in read"),
        ("source.paths", "source.pathz", 1, r"input format 'lines' {}: AttributeError: .*pathz.* at curate_toolbox.py:\d+ in plan"),
        ("yield place, Answer", "yield place, Answers", 1, r"caption engine 'parrot' {}: NameError: .*Answers.* at curate_toolbox.py:\d+ in answers"),
        ('EngineKind("parrot", Parrot)', "Parrot", 2, "caption engine 'parrot' {}: .* is <class .*Parrot'>; accepted: a kind \\(EngineKind\\)"),
    ],
)  # fmt: skip
def test_a_fault_names_kind_package_and_line(old, new, status, message, site, recipe, tmp_path):
    faulty = shutil.copytree(site, tmp_path / "site", ignore=shutil.ignore_patterns("__pycache__"))
    assert CODE.count(old) == 1, old
    (faulty / "curate_toolbox.py").write_text(CODE.replace(old, new))
    done = curate(faulty, "run", recipe, "--out", str(tmp_path / "out"))
    assert done.returncode == status and re.search(message.format(PACKAGE), done.stderr), done.stderr
    assert "Traceback" not in done.stderr
