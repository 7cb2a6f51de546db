"""A command imports nothing that its work does not need."""

import subprocess
import sys
from importlib.util import find_spec
from textwrap import dedent

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.thorough

# Installed for tests, but needed neither to list commands nor for a run without images.
HEAVY = ("pandas", "pymongo", "bson", "boto3", "torch", "transformers", "open_clip", "cv2", "imagehash", "openai")
COMMAND = """
import sys
from curate.cli.main import command
sys.argv[0] = "curate"
try:
    command()
except SystemExit as end:
    assert not end.code, end.code
{after}
print("imported", *sorted(sys.modules))
"""


def imported(*arguments, after=""):
    """Run a command in a process, and return the modules that it imported."""
    code = COMMAND.format(after=after)
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A pool of text with metadata."""
    folder = tmp_path_factory.mktemp("texts")
    table = pa.table({"url": [f"https://a.example/{i}" for i in range(20)], "caption": ["a dog in the rain"] * 20})
    pq.write_table(table, folder / "pool.parquet")
    (folder / "entries.txt").write_text("dog\nrain\n")
    path = folder / "recipe.yaml"
    path.write_text(
        "input: {name: texts, format: parquet, path: pool.parquet}\nmatch: {metadata: entries.txt}\nbalance: {t: 5}\n"
    )
    return path


def test_help_imports_no_library_of_data():
    assert not imported("--help") & {*HEAVY, "numpy", "pyarrow", "duckdb", "numba", "pydantic", "apache_beam", "PIL"}


@pytest.mark.slow
def test_a_run_of_text_imports_no_library_of_images_or_models(recipe):
    found = imported("run", str(recipe), "--out", str(recipe.parent / "run"))
    assert not found & {*HEAVY, "scipy"}
    queried = imported("sql", str(recipe.parent / "run"), "funnel")
    assert not queried & {*HEAVY, "apache_beam"}


@pytest.mark.slow
@pytest.mark.parametrize("named", [None, "system"])
def test_pandas_can_be_imported_later_and_arrow_uses_jemalloc(recipe, monkeypatch, named):
    """`named` is the allocator that the environment names."""
    pytest.importorskip("pandas")
    monkeypatch.delenv("ARROW_DEFAULT_MEMORY_POOL", raising=False)
    if named:
        monkeypatch.setenv("ARROW_DEFAULT_MEMORY_POOL", named)
    allocator = named or ("jemalloc" if "jemalloc" in pa.supported_memory_backends() else "system")
    after = (
        "import pandas, pyarrow as pa\n"
        "assert pa.table({'n': [1, None]}).to_pandas().n.isna().sum() == 1\n"
        f"assert pa.default_memory_pool().backend_name == {allocator!r}\n"
    )
    assert {"pandas", "apache_beam"} <= imported("plan", str(recipe), "--no-estimate", after=after)


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("triton"), reason="torch for processors has no triton")
def test_a_command_with_torch_ends_without_a_word_of_leaks():
    code = """
        import gc
        from curate.cli import main

        def load():
            import torch, triton
            gc.freeze()  # as a run does
            raise SystemExit(0)

        main.main = load
        main.command()
    """
    ended = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and ended.stderr == ""
