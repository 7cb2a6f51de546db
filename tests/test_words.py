"""Locals and parameters say what they are."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = [path for room in ("curate", "pipelines") for path in (ROOT / room).rglob("*.py")]
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
