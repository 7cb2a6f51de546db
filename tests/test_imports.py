"""Imports go one way, and heavy libraries are imported where they are used and nowhere else."""

import ast
import subprocess
import sys
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*(ROOT / "curate").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")])

# Rooms, lowest first: a module imports from its own room and from those before it. A room is a folder without its subfolders, or a
# loose module of `curate/`; a folder's own files stand below its subfolders or above them.
ROOMS = (
    *("curate", "curate.base.numeric", "curate.base", "curate.expressions"),
    *("curate.recipe", "curate.tar", "curate.store", "curate.read", "curate.download"),
    *("curate.pool.formats", "curate.pool.urls", "curate.pool.crawl", "curate.pool.pmc", "curate.pool.files"),
    *("curate.pool", "curate.models", "curate.llm", "curate.signals.formulas", "curate.signals", "curate.run"),
    *("curate.match", "curate.match.building", "curate.measure", "curate.relate"),
    *("curate.decide.draw", "curate.decide.rules", "curate.decide.statistics"),
    *("curate.decide.dedup", "curate.decide.dedup.passes", "curate.decide"),
    *("curate.captions.gates", "curate.captions.kinds", "curate.captions", "curate.emit"),
    *(
        "curate.publish",
        "curate.publish.forget",
        "curate.ask",
        "curate.ask.report",
        "curate.ask.whatif",
        "curate.ask.costs",
    ),
    *(
        "pipelines.spark",
        "pipelines.engines",
        "pipelines.steps",
        "pipelines",
        "curate.plugins",
        "curate.api",
        "curate.demo",
        "curate.cli",
        "curate.__main__",
    ),
)
LOOSE = 2  # modules of curate/ itself, at most
SHARE = 1 / 8  # of all lines, at most, in one folder
BEAM = ("pipelines", "curate.cli")
MODELS = ("torch", "torchvision", "open_clip", "vllm", "transformers")


def module(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(file): file for file in FILES}


def room_of(name):
    """The room of a module."""
    file = MODULES[name]
    folder = ".".join(file.relative_to(ROOT).parent.parts)
    return name if folder == "curate" and name != "curate" else folder


def top_of(name):
    """The folder of `curate/` that a module is in, or `pipelines`."""
    return ".".join(name.split(".")[: 1 if name.startswith("pipelines") else 2])


@cache
def imports(file, functions=True):
    """The modules that a file imports; without those that its functions import when they are called."""
    names = []
    waiting = [ast.parse(file.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.append(inner if inner in MODULES else node.module)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not functions:
            continue
        waiting.extend(ast.iter_child_nodes(node))
    return names


def test_every_module_is_in_a_listed_room():
    assert len(MODULES) > 150
    assert {room_of(name) for name in MODULES} == set(ROOMS)


def test_imports_go_downwards():
    """At every depth; also those inside functions and for type checkers."""
    pairs = [(name, other) for name, file in MODULES.items() for other in imports(file)]
    ours = [(name, other) for name, other in pairs if other.split(".")[0] in ("curate", "pipelines")]
    assert not [f"{name} imports {other}, which does not exist" for name, other in ours if other not in MODULES]
    stands = {name: ROOMS.index(room_of(name)) for name in MODULES}
    assert not [
        f"{name} imports {other}, which stands above it" for name, other in ours if stands[other] > stands[name]
    ]


def test_an_import_upwards_would_be_seen(tmp_path):
    file = tmp_path / "one.py"
    file.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from curate.cli import main\n"
        "def f() -> None:\n    from curate.ask import query\n    import curate.ask.report.page\n"
    )
    assert set(imports(file)) >= {"curate.cli.main", "curate.ask.query", "curate.ask.report.page"}


def test_folders_are_small():
    lines = Counter()
    for name, file in MODULES.items():
        lines[top_of(name)] += file.read_text().count("\n")
    large = {
        folder: round(count / lines.total(), 3) for folder, count in lines.items() if count > SHARE * lines.total()
    }
    assert not large
    assert len([file for file in (ROOT / "curate").glob("*.py") if not file.name.startswith("__")]) <= LOOSE


def test_there_are_no_cycles():
    graph = {
        name: {other for other in imports(file) if other in MODULES and other != name} for name, file in MODULES.items()
    }
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the cycle
    assert set(order) == set(MODULES)


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("pipelines.spark")])
def test_the_spark_runner_knows_nothing_of_what_it_runs(name):
    """And whoever only names its options needs no PySpark."""
    for other in imports(MODULES[name]):
        assert other.split(".")[0] != "curate", other
        assert other.split(".")[0] != "pipelines" or other.startswith("pipelines.spark"), other
    assert not [other for other in imports(MODULES[name], functions=False) if other.startswith("pyspark")]


def importers(of, functions):
    """The modules that import one of these packages."""
    return [
        name for name, file in MODULES.items() if {other.split(".")[0] for other in imports(file, functions)} & {*of}
    ]


def test_beam_is_imported_by_pipelines_and_commands_only():
    assert not [name for name in importers(("apache_beam",), functions=True) if not name.startswith(BEAM)]


def test_models_are_imported_by_the_functions_that_load_them():
    assert not importers(MODELS, functions=False)


def test_what_the_steps_really_import():
    """Also by way of other libraries: neither Beam nor a model is loaded by any step."""
    steps = [name for name in MODULES if not name.startswith(BEAM)]
    code = f"import sys, {', '.join(steps)}; print(*sorted(m for m in {('apache_beam', *MODELS)} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_pickle_is_nowhere():
    """Untrusted input: no pickle is loaded, nor allowed in numpy's files; but arrays of .pt files, where all names are ours."""
    for name, file in MODULES.items():
        found = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"} & set(imports(file))
        assert found == ({"pickle"} if name == "curate.models.tensor_files" else set()), name
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, name


def test_the_top_level_has_its_folders():
    """Of what git knows; a folder that a command made by mistake is none of them."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no checkout of git")
    found = {name.partition("/")[0] for name in listed.stdout.splitlines() if "/" in name and name[0] != "."}
    assert found == {"curate", "pipelines", "sql", "tests", "infra"}
