"""A gate of another package: its option, `off`, and a gate that cannot be loaded (see tests/test_foreign_kinds.py)."""

import json
import re

import pytest
import yaml

from tests import kit
from tests.kit import llm_server
from tests.kit.commands import run_command
from tests.kit.packages import installed, lay_out

pytestmark = pytest.mark.slow

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
OFF = ["names", "numbers", "echo_prompt", "echo", "length", "language"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return kit.write_tars(tmp_path_factory.mktemp("pool") / "tars", kit.make_samples(24), 2)


@pytest.fixture(scope="module")
def engine(path, tmp_path_factory):
    """An engine that replays answers, of which every other one shouts."""
    folder = tmp_path_factory.mktemp("answers")
    answers = iter(["A DOG RUNS", " a dog runs"] * 50)
    with llm_server.FaultServer() as server, pytest.MonkeyPatch.context() as patched:
        patched.setattr(llm_server, "echo", lambda prompt: next(answers))
        spec = {"openai": {"base_url": server.base_url, "model": "tiny-llm"}}
        rewrite = {"engine": "llm", "styles": ["human"]}
        captions = {"engines": {"llm": spec}, "rewrite": rewrite, "gates": {"off": OFF}}
        kit.run_local(kit.recipe_of(path, captions=captions), folder / "run")
    return {"recorded": {"path": str(folder / "run"), "model": "tiny-llm"}}


@pytest.fixture
def run(path, engine, tmp_path):
    """Run a recipe with settings of gates, in a folder with this name."""

    def command(name, code=CODE, off=(), **gates):
        site = lay_out(
            tmp_path / f"{name}_site", "curate-shout", "gates", {"shout": "curate_shout:KIND"}, curate_shout=code
        )
        rewrite = {"engine": "llm", "styles": ["human"]}
        captions = {"engines": {"llm": engine}, "rewrite": rewrite, "gates": {"off": [*OFF, *off], **gates}}
        source = {"name": "pool", "format": "webdataset", "path": path}
        (tmp_path / f"{name}.yaml").write_text(
            yaml.safe_dump({"input": source, "captions": captions, "max_failed": 1.0})
        )
        with installed(site):
            return run_command("run", str(tmp_path / f"{name}.yaml"), "--out", str(tmp_path / name))

    return command


def test_it_fails_texts_by_its_option_and_may_be_off(run, tmp_path):
    settings = {"first": {}, "mild": {"shout": 1.0}, "off": {"off": ["shout"]}}
    counts, keys = {}, set()
    for name, gates in settings.items():
        assert run(name, **gates).status == 0
        captions = kit.Ran(tmp_path / name).table("captions")
        counts[name] = {row["values"]: row["counts"] for row in captions["gate"].drop_null().value_counts().to_pylist()}
        facts = json.loads((tmp_path / name / "run.json").read_text())
        keys.add(facts["keys"]["captions"])
    assert counts["first"].keys() == {"passed", "shout"} and counts["first"]["shout"] > 3
    assert counts["mild"] == counts["off"] == {"passed": sum(counts["first"].values())}
    assert len(keys) == 3, "captions are made again where another gate judges them"


def test_its_keys_are_checked(run):
    for gates, parts in (
        ({"shout": 2}, "captions.gates.shout.* less than or equal to 1"),
        ({"off": ["shuot"]}, "did you mean 'shout'"),
    ):
        done = run(f"refused{len(parts)}", **gates)
        assert done.status == 2 and re.search(parts, done.err)


def test_one_that_cannot_be_loaded_fails_only_recipes_that_name_it(run):
    broken = "raise KeyError(3)"
    why = r"gate 'shout' of package curate-shout 1\.0: .* cannot be loaded: KeyError: 3 at curate_shout.py:1"
    assert [run("silent", broken).status, run("off", broken, ["shout"]).status] == [0, 0]
    for key in ("shout", "shouting"):  # its option may have another name
        done = run(key, broken, **{key: 0.3})
        assert done.status == 2 and re.search(f"yaml: captions.gates.{key}: .*{why}", done.err), done.err
