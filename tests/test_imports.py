"""Imports go one way, and heavy libraries are imported where they are used and nowhere else."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*(ROOT / "curate").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")])

BASE = ("curate", "curate.errors", "curate.ids", "curate.schema")
MODELS = ("torch", "torchvision", "open_clip", "vllm", "transformers")


def module(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(file): file for file in FILES}


def layer(name: str) -> int:
    """schema, ids, errors ← the steps ← transforms ← pipelines ← cli."""
    if name in BASE:
        return 0
    top = name.split(".")[:2]
    return (
        2 if top == ["curate", "transforms"] else 3 if top[0] == "pipelines" else 4 if top == ["curate", "cli"] else 1
    )


def imports(file: Path, functions: bool = True) -> Iterator[str]:
    """The modules that a file imports; without those that its functions import when they are called."""
    waiting: list[ast.AST] = [ast.parse(file.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not functions:
            continue
        waiting.extend(ast.iter_child_nodes(node))


def test_the_files_are_found() -> None:
    assert len(MODULES) > 50
    assert {
        "curate.recipe.recipe",
        "curate.run.rules",
        "curate.cli.main",
        "pipelines.driver",
        "curate.transforms.emit",
    } <= set(MODULES)
    assert {layer(name) for name in MODULES} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_one_way(name: str) -> None:
    for other in imports(MODULES[name]):
        if other.split(".")[0] in ("curate", "pipelines"):
            assert other in MODULES, f"{name} imports {other}, which does not exist"
            assert layer(other) <= layer(name), f"{name} imports {other}, which stands above it"


def test_there_are_no_cycles() -> None:
    graph = {
        name: {other for other in imports(file) if other in MODULES and other != name} for name, file in MODULES.items()
    }
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the cycle
    assert set(order) == set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_beam_is_imported_by_transforms_pipelines_and_commands_only(name: str) -> None:
    found = [other for other in imports(MODULES[name]) if other.split(".")[0] == "apache_beam"]
    assert not found or layer(name) >= 2


@pytest.mark.parametrize("name", MODULES)
def test_models_are_imported_by_the_functions_that_load_them(name: str) -> None:
    assert not [other for other in imports(MODULES[name], functions=False) if other.split(".")[0] in MODELS]


def test_what_the_steps_really_import() -> None:
    """Also by way of other libraries: neither Beam nor a model is loaded by any step."""
    steps = [name for name in MODULES if layer(name) < 2]
    code = f"import sys, {', '.join(steps)}; print(*sorted(m for m in {('apache_beam', *MODELS)} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_pickle_is_nowhere() -> None:
    """Untrusted input: no pickle is loaded, nor allowed in numpy's files."""
    for name, file in MODULES.items():
        assert not {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"} & set(imports(file)), name
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, name
