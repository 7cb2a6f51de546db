"""Small packages of foreign kinds, built and installed as pip does it or laid out so, and curate run with one of them."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit import forked

ROOT = Path(__file__).resolve().parents[2]
needs_img2dataset = pytest.mark.skipif(not importlib.util.find_spec("img2dataset"), reason="img2dataset downloads")
needs_hatchling = pytest.mark.skipif(not importlib.util.find_spec("hatchling"), reason="hatchling builds the package")


def install(folder, name, code, entry_points):
    """Build and install the package of one module, version 0.1, into a folder; return what PYTHONPATH is to have.

    `entry_points` are lines of TOML: groups, and the objects of the module that they name.
    """
    package = folder / "package"
    package.mkdir(parents=True)
    (package / f"{name.replace('-', '_')}.py").write_text(code)
    head = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n\n[project]'
    (package / "pyproject.toml").write_text(f'{head}\nname = "{name}"\nversion = "0.1"\n\n{entry_points}\n')
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*pip, "--target", folder / "site", package], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def lay_out(site, name, group, kinds, version="1.0", **modules):
    """Lay a package out as an installer does: its modules, and the kinds of a group as MODULE:NAME. Returns `site`."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    for module, code in modules.items():
        (site / f"{module}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{kind} = {place}" for kind, place in kinds.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[curate.{group}]", *lines, ""]))
    return site


def curate(site, *arguments):
    """Run curate's command line with what is installed there."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    return forked.run(*arguments, env=env, cwd=site)
