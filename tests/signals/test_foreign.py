"""A signal of another package: the README's, built and installed, in runs of one and of several processes; and its faults."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.laws import pools

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not importlib.util.find_spec("hatchling"), reason="hatchling builds the package")


def blocks() -> dict[str, str]:
    """The code of the README's section, by language."""
    text = (ROOT / "README.md").read_text().partition("## Your own signals\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the README's package, built and installed."""
    folder = tmp_path_factory.mktemp("blur")
    (folder / "package").mkdir()
    (folder / "package" / "curate_blur.py").write_text(blocks()["python"])
    (folder / "package" / "pyproject.toml").write_text(blocks()["toml"])
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    pip += ["--target", folder / "site", folder / "package"]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def curate(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    command = [sys.executable, "-m", "curate", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=site)


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    """A pool of small pictures, one of them of noise, and the README's sections."""
    samples = [pools.Sample(f"{i}", pools.encode(pools.picture(i)), f"a caption number {i}") for i in range(12)]
    path = pools.write_tars(tmp_path / "tars", [*samples, pools.Sample("bad", b"no image", "a caption")], 3)
    sections = yaml.safe_load(blocks()["yaml"])
    sections |= {"input": {"name": "pool", "format": "webdataset", "path": path}, "max_failed": 1.0}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(sections))
    return str(tmp_path / "r.yaml")


def test_editors_know_its_section(site: Path) -> None:
    done = curate(site, "schema")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["$defs"]["Blur"]["properties"]["side"]["type"] == "integer"


def test_the_reference_is_of_this_packages_keys(site: Path) -> None:
    code = "from curate.recipe.reference import reference_page; print(reference_page(), end='')"
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == (ROOT / "pipelines/recipes/README.md").read_text()


def test_the_readmes_signal_is_a_column(site: Path, recipe: str, tmp_path: Path) -> None:
    values = []
    for out, options in (
        ("one", []),
        ("several", ["--", "--direct_num_workers=2", "--direct_running_mode=multi_processing"]),
    ):
        done = curate(site, "run", recipe, "--out", str(tmp_path / out), *options)
        assert done.returncode == 0, done.stderr
        sql = "SELECT key, blur, rule FROM measured JOIN decisions USING (unit, row) ORDER BY key"
        told = curate(site, "sql", str(tmp_path / out), sql, "--format", "json")
        assert told.returncode == 0, told.stderr
        values.append(json.loads(told.stdout))
    assert values[0] == values[1]
    rows = {row["key"]: row for row in values[0]}
    assert rows.pop("bad")["blur"] is None and len(rows) == 12
    assert all(row["blur"] >= 0 and (row["rule"] == "sharp") == (row["blur"] <= 100) for row in rows.values())
    assert len(np.unique([row["blur"] for row in rows.values()])) > 1
    run = json.loads((tmp_path / "one" / "run.json").read_text())
    assert run["models"]["blur"] == "blur 1, side 256" and run["recipe"]["measure"]["blur"] == {"side": 256}


@pytest.mark.parametrize(
    ("old", "new", "status", "message"),
    [
        (
            "import numpy as np",
            "import numpy_of_no_one",
            2,
            "signal 'blur' of package curate-blur 0.1: .*cannot be loaded",
        ),
        (
            'key="blur"',
            'key="blurr"',
            2,
            "package curate-blur 0.1: .* has the key 'blurr'; accepted: the entry point's",
        ),
        (
            "options.side}",
            "options.sides}",
            2,
            "measure.blur: signal of package curate-blur 0.1: AttributeError: .*sides",
        ),
        ("Sharpness(options.side)", "Sharpness()", 1, "signal 'blur' of package curate-blur 0.1: TypeError: .*side"),
        (
            "[image_signal(name, Sharpness(options.side), built.identities[name])]",
            "(image_signal(name, Sharpness(), built.identities[name]) for _ in range(1))",
            1,
            "signal 'blur' of package curate-blur 0.1: TypeError: .*side",
        ),
        ("image.convert", "image.to_grey", 1, "signal 'blur' of package curate-blur 0.1: AttributeError: .*to_grey"),
        ("[pa.array(observed", "[pa.arrays(observed", 1, "signal 'blur' of package curate-blur 0.1: AttributeError"),
    ],
)
def test_a_fault_of_the_package_names_it(
    old: str, new: str, status: int, message: str, site: Path, recipe: str, tmp_path: Path
) -> None:
    code = blocks()["python"]
    assert code.count(old) == 1
    faulty = shutil.copytree(site, tmp_path / "site", ignore=shutil.ignore_patterns("__pycache__"))
    (faulty / "curate_blur.py").write_text(code.replace(old, new))
    done = curate(faulty, "run", recipe, "--out", str(tmp_path / "out"))
    assert done.returncode == status and re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_does_not_wait_for_it(site: Path, recipe: str, tmp_path: Path) -> None:
    slow = "import pathlib, time; pathlib.Path('begun').touch(); time.sleep(600)\n        grey ="
    hanging = shutil.copytree(site, tmp_path / "site", ignore=shutil.ignore_patterns("__pycache__"))
    (hanging / "curate_blur.py").write_text(blocks()["python"].replace("grey =", slow, 1))
    command = [sys.executable, "-m", "curate", "run", recipe, "--out", str(tmp_path / "out")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(hanging), str(ROOT)])}
    with subprocess.Popen(command, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as running:
        while not (tmp_path / "begun").exists():
            assert running.poll() is None
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130 and "interrupted; finished work is kept" in said, said


def test_an_unknown_key_of_its_section(site: Path, recipe: str, tmp_path: Path) -> None:
    done = curate(site, "run", recipe, "--out", str(tmp_path / "out"), "--set", "measure.blur.sied=3")
    assert done.returncode == 2
    assert "measure.blur.sied: unknown key; did you mean 'side'? known keys: side" in done.stderr


def test_without_the_package_its_key_is_unknown(recipe: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = curate(tmp_path / "empty", "run", recipe, "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and "measure.blur: unknown key" in done.stderr
