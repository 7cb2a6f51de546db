"""Small packages of foreign kinds, laid out as pip installs them, and curate with one of them."""

import importlib.util
import os
import re
import shutil
import sys
import tomllib
from contextlib import contextmanager
from pathlib import Path

import pytest

from curate.base import registry
from curate.base.foreign import FOREIGN
from curate.recipe.source import source_sections
from tests.kit import forked

ROOT = Path(__file__).resolve().parents[2]
needs_img2dataset = pytest.mark.skipif(not importlib.util.find_spec("img2dataset"), reason="img2dataset downloads")
needs_hatchling = pytest.mark.skipif(not importlib.util.find_spec("hatchling"), reason="hatchling builds the package")


def lay_out(site, name, group, kinds, version="1.0", **modules):
    """Lay a package out as an installer does: its modules, and the kinds of a group as MODULE:NAME. Returns `site`."""
    return lay_out_groups(site, name, {group: kinds}, version, **modules)


def lay_out_groups(site, name, groups, version="1.0", **modules):
    """The same for a package with kinds of several groups."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    for module, code in modules.items():
        (site / f"{module}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    sections = [
        "\n".join([f"[curate.{group}]", *(f"{kind} = {place}" for kind, place in kinds.items()), ""])
        for group, kinds in groups.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(sections))
    return site


@contextmanager
def installed(site):
    """Let this process find the packages that are laid out there, and forget them at the end."""

    def forget():
        for cached in (registry._installed, registry._load, source_sections):
            cached.cache_clear()
        FOREIGN.clear()
        registry._untold.clear()
        for module in site.glob("*.py"):
            sys.modules.pop(module.stem, None)

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        forget()
        try:
            yield
        finally:
            forget()


def curate(site, *arguments):
    """Run curate's command line with what is installed there."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    return forked.run(*arguments, env=env, cwd=site)


def lay_out_example(site, text):
    """Lay out the package of a page, whose first blocks of Python and TOML are its module and its pyproject.toml."""
    blocks = dict(reversed(re.findall(r"```(python|toml)\n(.*?)```", text, re.DOTALL)))
    project = tomllib.loads(blocks["toml"])["project"]
    groups = {group.removeprefix("curate."): kinds for group, kinds in project["entry-points"].items()}
    module = project["name"].replace("-", "_")
    return lay_out_groups(site, project["name"], groups, project["version"], **{module: blocks["python"]})


def change(site, folder, module, *changes):
    """Copy the packages that are laid out in `site`, with changes (old, new) of a module's code. Returns the copy."""
    path = shutil.copytree(site, folder, ignore=shutil.ignore_patterns("__pycache__")) / f"{module}.py"
    code = path.read_text()
    for old, new in changes:
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    path.write_text(code)
    return path.parent
