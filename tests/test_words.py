"""Locals and parameters say what they are, and public methods what they do: by themselves, or where they override."""

import ast
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = [path for room in ("curate", "pipelines") for path in (ROOT / room).rglob("*.py")]
OF_TYPES = {
    "ABC",
    "Protocol",
    "Generic",
    "NamedTuple",
    "StrEnum",
    "pydantic.BaseModel",
    "BaseModel",
}  # define no method
VAGUE = {"found", "own", "there", "given", "said", "one"}


def vague_names(text: str) -> list[tuple[int, str]]:
    """Return the vague names that are bound in functions, with their lines."""
    functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.Lambda))
    nodes = [node for function in functions for node in ast.walk(function)]
    names = {(n.lineno, n.id) for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    names |= {(n.lineno, n.arg) for n in nodes if isinstance(n, ast.arg)}
    return sorted(name for name in names if name[1] in VAGUE)


def test_no_local_has_a_vague_name() -> None:
    assert not {path: names for path in MODULES if (names := vague_names(path.read_text("utf-8")))}


def test_what_is_vague() -> None:
    assert vague_names("def f(given):\n    one = [x for found in y]\n") == [(1, "given"), (2, "found"), (2, "one")]
    assert vague_names("class A:\n    found: int\n") == []


def silent_methods(texts: Iterable[str]) -> list[str]:
    """Return the public methods without a docstring that override none that has one; bases go by their names."""
    parsed = [node for text in texts for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
    classes = {node.name: node for node in parsed}
    names = {
        node.name: [ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases] for node in parsed
    }
    defined = {node.name: [part for part in node.body if isinstance(part, ast.FunctionDef)] for node in parsed}

    def is_told(name: str, method: str) -> bool:
        told = any(part.name == method and ast.get_docstring(part) for part in defined[name])
        bases = set(names[name]) - {name, *OF_TYPES}
        return told or any(base not in classes or is_told(base, method) for base in bases)

    return [
        f"{name}.{method.name}"
        for name, methods in defined.items()
        if not name.startswith("_")
        for method in methods
        if not method.name.startswith("_") and not is_told(name, method.name)
    ]


def test_public_methods_say_what_they_do() -> None:
    assert not silent_methods(path.read_text("utf-8") for path in MODULES)


def test_what_is_silent() -> None:
    base = 'class A:\n    def f(self):\n        """Do it."""\n'
    assert silent_methods([base, "class B(A):\n    def f(self): ...\n    def g(self): ...\n"]) == ["B.g"]
