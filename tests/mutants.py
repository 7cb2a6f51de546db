"""How many small faults the tests catch: draws mutants of the product by a seed, and runs the tests that run their lines.

    python -m tests.mutants --seed 1 --count 60 [--tests FOLDER]

`--tests` takes the tests of another checkout, which run against this product; tests that fail without a mutant are left
out. It prints each mutant as `caught`, `survived` or `not run`, and the share that was caught. It needs `coverage`.

The map from lines to tests costs one run of the tiers quick and thorough; each mutant costs at most 60 seconds.
"""

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 60
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip


@dataclass
class Mutant:
    file: str
    function: str
    node: ast.AST
    text: str

    @property
    def line(self):
        return self.node.lineno

    def apply(self, source):
        """The source with the node's text replaced; columns of `ast` are bytes."""
        lines = source.encode().splitlines(keepends=True)
        start = sum(map(len, lines[: self.node.lineno - 1])) + self.node.col_offset
        end = sum(map(len, lines[: self.node.end_lineno - 1])) + self.node.end_col_offset
        return (source.encode()[:start] + self.text.encode() + source.encode()[end:]).decode()


def mutate(node):
    """The texts that may stand in the place of a node."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield ast.unparse(ast.Compare(node.left, [COMPARISONS[type(node.ops[0])]()], node.comparators))
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield f"({ast.unparse(ast.BoolOp(other, node.values))})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.IfExp):
        yield f"({ast.unparse(ast.IfExp(node.test, node.orelse, node.body))})"
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        other = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
        yield f"({ast.unparse(ast.BinOp(node.left, other, node.right))})"
    elif isinstance(node, ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield "pass"


def draw(root, seed, count):
    """Mutants, each of another function of at least three lines."""
    rng, functions = random.Random(seed), []
    for path in sorted(p for top in ("curate", "pipelines") for p in (root / top).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 2:
                functions.append((path, node))
    mutants = []
    for path, function in rng.sample(functions, len(functions)):
        nodes = [(node, text) for part in function.body for node in ast.walk(part) for text in mutate(node)]
        if nodes and len(mutants) < count:
            node, text = rng.choice(nodes)
            mutants.append(Mutant(str(path.relative_to(root)), function.name, node, text))
    return mutants


# ---------------------------------------------------------------- a plugin of pytest: which test runs which line
_coverage = None
_reports = {}


def pytest_configure():
    global _coverage  # noqa: PLW0603
    if files := os.environ.get("MUTANTS_FILES"):
        import coverage

        _coverage = coverage.Coverage(data_file=None, include=files.split(":"))
        _coverage.start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    if _coverage:
        _coverage.switch_context(item.nodeid)
    return (yield)


def pytest_runtest_logreport(report):
    passed, seconds = _reports.get(report.nodeid, (True, 0.0))
    _reports[report.nodeid] = passed and report.passed, seconds + report.duration


def pytest_sessionfinish():
    if _coverage:
        _coverage.stop()
        data = _coverage.get_data()
        lines = {file: data.contexts_by_lineno(file) for file in data.measured_files()}
        path = Path(os.environ["MUTANTS_OUT"], f"{os.getpid()}.json")
        path.write_text(json.dumps({"lines": lines, "reports": _reports}))


# ---------------------------------------------------------------- the command
def pytest_call(folder, *words, **env):
    command = [sys.executable, "-m", "pytest", "-p", "mutants", "-p", "no:cacheprovider", *words]
    path = os.pathsep.join([str(folder / "plugin"), str(folder)])
    return {"args": command, "cwd": folder, "env": os.environ | {"PYTHONPATH": path, **env}}


def map_tests(folder, mutants):
    """(file, line) → the tests that run it and pass, the fastest first."""
    files = sorted({str(folder / mutant.file) for mutant in mutants})
    tests, seconds = defaultdict(set), {}
    with tempfile.TemporaryDirectory() as out:
        words = ["-n", "2", "-m", "not slow and not runners"]
        command = pytest_call(folder, *words, MUTANTS_FILES=":".join(files), MUTANTS_OUT=out)
        subprocess.run(**command, stdout=subprocess.DEVNULL, check=False)
        for path in Path(out).iterdir():
            found = json.loads(path.read_text())
            seconds |= {test: time for test, (passed, time) in found["reports"].items() if passed}
            for file, lines in found["lines"].items():
                for line, contexts in lines.items():
                    tests[str(Path(file).relative_to(folder)), int(line)].update(contexts)
    return {key: sorted(found & seconds.keys(), key=seconds.__getitem__) for key, found in tests.items()}


def run_mutant(folder, mutant, tests):
    path = folder / mutant.file
    source = path.read_text()
    path.write_text(mutant.apply(source))
    try:
        command = pytest_call(folder, "-x", "-m", "", *tests[:300])
        done = subprocess.run(
            **command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=SECONDS, check=False
        )
        return "survived" if done.returncode == 0 else "caught"
    except subprocess.TimeoutExpired:
        return "survived (stopped after 60 s)"
    finally:
        path.write_text(source)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--tests", type=Path, default=ROOT, help="the checkout whose tests run")
    options = parser.parse_args()
    mutants = draw(ROOT, options.seed, options.count)
    with tempfile.TemporaryDirectory() as scratch:
        folder, skipped = Path(scratch, "curate"), shutil.ignore_patterns(".git", "tests", "__pycache__", ".*_cache")
        shutil.copytree(ROOT, folder, ignore=skipped)
        shutil.copytree(options.tests / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "plugin").mkdir()
        shutil.copy(__file__, folder / "plugin/mutants.py")
        tests = map_tests(folder, mutants)
        results = []
        for number, mutant in enumerate(mutants, 1):
            found = tests.get((mutant.file, mutant.line), [])
            results.append(run_mutant(folder, mutant, found) if found else "not run")
            before = ast.unparse(mutant.node).splitlines()[0]
            print(
                f"{number:3} {results[-1]:10} {mutant.file}:{mutant.line} {mutant.function}: {before} → {mutant.text}",
                flush=True,
            )
    print(f"caught {results.count('caught')} of {len(results)}")


if __name__ == "__main__":
    main()
