"""A gate of another package, built and installed: its verdict, its option, `off`, and its faults."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml

from tests import kit
from tests.kit import llm_server as servers
from tests.kit.llm_server import FaultServer
from tests.kit.packages import ROOT, curate, install, needs_hatchling

pytestmark = [pytest.mark.slow, needs_hatchling]

CODE = '''
import numpy as np
from pydantic import Field

from curate.plugins import Gate, Option


class Shout(Gate):
    """Fails a text of which more than a share of the letters are capitals."""

    key = "shout"
    summary = "more capitals than a share of the letters"
    option = Option("shout", float, Field(0.5, description="Largest share.", examples=[0.3], ge=0, le=1))

    def check(self, candidates, option):
        texts = [text or "" for text in candidates.texts.to_pylist()]
        return np.array([sum(map(str.isupper, text)) > option * max(len(text), 1) for text in texts], bool)


KIND = Shout()
'''
GROUP = '[project.entry-points."curate.gates"]\nshout = "curate_shout:KIND"'


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return install(tmp_path_factory.mktemp("shout"), "curate-shout", CODE, GROUP)


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    """A recipe whose engine replays answers: every other rewrite shouts."""
    folder = tmp_path_factory.mktemp("answers")
    path = kit.write_tars(folder / "tars", kit.make_samples(24), 2)
    off = ["names", "numbers", "echo_prompt", "echo", "length", "language"]

    def recipe(engine):
        captions = {
            "engines": {"llm": engine},
            "rewrite": {"engine": "llm", "styles": ["human"]},
            "gates": {"off": off},
        }
        return {
            "captions": captions,
            "input": {"name": "pool", "format": "webdataset", "path": path},
            "max_failed": 1.0,
        }

    answers = iter(["A DOG RUNS", " a dog runs"] * 50)
    with FaultServer() as server, pytest.MonkeyPatch.context() as patched:
        patched.setattr(servers, "echo", lambda prompt: next(answers))
        engine = {"openai": {"base_url": server.base_url, "model": "tiny-llm"}}
        kit.run_local(
            kit.recipe_of(path, **{k: v for k, v in recipe(engine).items() if k != "input"}), folder / "answered"
        )
    return recipe({"recorded": {"path": str(folder / "answered"), "model": "tiny-llm"}})


def run(site, sections, out, **gates):
    """How many captions have which verdict."""
    done = try_run(site, sections, out, **gates)
    assert done.returncode == 0, done.stderr
    sql = "SELECT gate, count(*) AS texts FROM captions WHERE text IS NOT NULL GROUP BY gate"
    shown = curate(site, "sql", str(out), sql, "--format", "json")
    return {row["gate"]: row["texts"] for row in json.loads(shown.stdout)}


def try_run(site, sections, out, **gates):
    captions = sections["captions"]
    captions = captions | {"gates": {"off": [*captions["gates"]["off"], *gates.pop("off", [])], **gates}}
    recipe = out.parent / f"{out.name}.yaml"
    recipe.write_text(yaml.safe_dump(sections | {"captions": captions}))
    return curate(site, "run", str(recipe), "--out", str(out))


@pytest.mark.slow
def test_it_refuses_by_its_option_and_may_be_off(site, sections, tmp_path):
    first = run(site, sections, tmp_path / "first")
    assert first.keys() == {"passed", "shout"} and first["shout"] > 3
    texts = sum(first.values())
    assert run(site, sections, tmp_path / "mild", shout=1.0) == {"passed": texts}
    assert run(site, sections, tmp_path / "off", off=["shout"]) == {"passed": texts}
    claim = json.loads((tmp_path / "mild" / "run.json").read_text())
    assert claim["recipe"]["captions"]["gates"]["shout"] == 1.0
    keys = {
        json.loads((tmp_path / name / "run.json").read_text())["keys"]["captions"] for name in ("first", "mild", "off")
    }
    assert len(keys) == 3, "captions are made again where another gate judges them"


@pytest.mark.slow
def test_its_keys_are_known(site, sections, tmp_path):
    done = try_run(site, sections, tmp_path / "a", shout=2)
    assert done.returncode == 2 and "captions.gates.shout" in done.stderr and "less than or equal to 1" in done.stderr
    done = try_run(site, sections, tmp_path / "b", off=["shuot"])
    assert done.returncode == 2 and "did you mean 'shout'" in done.stderr
    schema = json.loads(curate(site, "schema").stdout)["$defs"]["Captions"]["properties"]["gates"]
    assert schema["properties"]["shout"]["maximum"] == 1
    assert "shout" in schema["properties"]["off"]["items"]["enum"]


@pytest.mark.slow
def test_the_reference_is_of_this_packages_keys(site):
    code = "from tests.recipe.reference import reference_pages; print(reference_pages()['captions.md'], end='')"
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == (ROOT / "pipelines/recipes/captions.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("candidates.texts.to", "candidates.text.to", r"AttributeError: .* at curate_shout.py:\d+ in check")],
)
def test_a_fault_names_the_package(sections, tmp_path, old, new, message):
    assert old in CODE
    site = install(tmp_path / "faulty", "curate-shout", CODE.replace(old, new), GROUP)
    done = try_run(site, sections, tmp_path / "out")
    assert done.returncode in (1, 2)
    assert re.search(rf"gate 'shout' of package curate-shout 0\.1: .*{message}", done.stderr), done.stderr


@pytest.mark.slow
def test_one_that_cannot_be_loaded_fails_only_recipes_that_name_it(sections, tmp_path):
    site = install(tmp_path / "faulty", "curate-shout", "raise KeyError(3)", GROUP)
    why = r"gate 'shout' of package curate-shout 0\.1: .* cannot be loaded: KeyError: 3 at curate_shout.py:1"
    for name, options in (("silent", {}), ("off", {"off": ["shout"]})):
        done = try_run(site, sections, tmp_path / name, **options)
        assert done.returncode == 0 and re.match(f"curate: warning: {why}", done.stderr), done.stderr
    for key in ("shout", "shouting"):  # a key of its own need not be named as it is
        done = try_run(site, sections, tmp_path / "used", **{key: 0.3})
        assert done.returncode == 2 and re.search(f"yaml: captions.gates.{key}: .*{why}", done.stderr), done.stderr
