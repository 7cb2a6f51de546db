"""What packages may import: all of it is there, for type checkers too, and nothing heavy before it is used."""

import re
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import plugins
from curate.base import registry
from curate.expressions.check import STATISTICS
from curate.recipe.recipe import Recipe
from pipelines.engines.registry import ENGINES
from tests import kit
from tests.kit.commands import run_command
from tests.kit.packages import ROOT, installed, needs_hatchling

PAGE = (ROOT / ".github/CONTRIBUTING.md").read_text().partition("## A package of your own\n")[2]


@pytest.mark.parametrize("name", plugins.__all__)
def test_a_name_is_what_its_module_has(name):
    value = getattr(plugins, name)
    assert getattr(sys.modules[plugins._modules()[name]], name) is value


def test_all_lists_agree():
    assert plugins.__all__ == sorted(plugins.__all__) == dir(plugins) == sorted(plugins._modules())


def test_another_name_is_refused():
    with pytest.raises(AttributeError, match=r"module 'curate.plugins' has no attribute 'Segment'; it has .*Section"):
        plugins.Segment


def test_importing_it_loads_nothing():
    """A name loads its module, a signal's class no format of inputs."""
    code = (
        "import sys; import curate.plugins; print([m for m in sys.modules if m.split('.')[0] in ('pyarrow', 'numpy', 'curate')]);"
        "from curate.plugins import TextSignal; print('curate.emit' in sys.modules, 'curate.pool.urls.format' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['curate', 'curate.plugins']", "False False"]


def test_the_page_has_all_groups_of_entry_points_and_what_they_name():
    assert Recipe.full() and STATISTICS and ENGINES  # all registries are there
    rows = re.findall(r"^\| .* \| `(curate\.\w+)` \| (.*) \|$", PAGE, re.MULTILINE)
    named = {(group, name) for group, names in rows for name in re.findall(r"`(\w+)`", names)}
    ours = [known for known in registry._REGISTRIES if not known.group.startswith("curate.test_")]
    kinds = {(known.group, known.interface.rpartition(":")[2] or "PipelineEngine") for known in ours}
    assert named == kinds and {name for _, name in named} <= set(plugins.__all__)


@pytest.mark.slow
@needs_hatchling
def test_the_package_of_the_page(tmp_path):
    """Built and installed: a pass, a selection and a statistic."""

    def command(*words):
        with installed(tmp_path / "site"):
            return run_command(*map(str, words))

    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL))
    (tmp_path / "package").mkdir()
    (tmp_path / "package/curate_extras.py").write_text(blocks["python"])
    (tmp_path / "package/pyproject.toml").write_text(blocks["toml"])
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*pip, tmp_path / "site", tmp_path / "package"], check=True)
    openings = ["A drawing of a cat, sitting", "a drawing of a cat, asleep", "many likes", "never drawn", "a dog"]
    pool = {"caption": openings, "weight": [1.0, 1.0, 1.0, 0.0, 1.0], "likes": [1, 2, 90, 3, 4]}
    pq.write_table(pa.table(pool | {"url": [f"http://a/{i}" for i in range(5)]}), tmp_path / "pool.parquet")
    (tmp_path / "r.yaml").write_text(blocks["yaml"])
    run = kit.Ran(tmp_path / "run")
    done = command("run", tmp_path / "r.yaml", "--out", run.folder)
    assert done.status == 0, done.err
    decisions = run.table("decisions").to_pylist()
    rules = [row["rule"] for row in decisions]
    assert sorted(rules[:2], key=str) == [None, "duplicate"] and rules[2:] == ["small", "weighted", None]
    assert run.table("derived")["part"].to_pylist() == pytest.approx([0.01, 0.02, 0.9, 0.03, 0.04])
    assert "drawn by weight; seed 0" in (run.folder / "README.md").read_text()
    printed = command("explain", run.folder, decisions[3]["uid"]).out
    assert "dropped by weighted, not drawn by its weight (probability 0)" in printed
    assert "expected: 2 rows" in command("whatif", run.folder, "--set", "rules.small=part < 0.6").out
    unsized = command("whatif", run.folder, "--rows", "1")
    assert unsized.status == 2 and "--rows: weighted has no setting" in unsized.err
