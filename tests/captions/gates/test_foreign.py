"""A gate of another package: its option, `off`, and a gate that cannot be loaded (see tests/test_foreign_kinds.py)."""

import pytest

from curate.base.errors import RecipeError
from curate.llm.engine import Answer
from curate.llm.recorded import RecordedEngine
from tests import kit
from tests.kit.packages import installed, lay_out

pytestmark = pytest.mark.thorough

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


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a recipe with settings of gates into a folder with this name; every other answer shouts."""
    answers = [Answer("A DOG RUNS"), Answer(" a dog runs")] * 50
    monkeypatch.setattr(RecordedEngine, "answers", lambda self, asked: enumerate(answers[: len(asked)]))
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 2)
    rewrite = {"engine": "llm", "styles": ["human"]}
    engines = {"llm": {"recorded": {"path": str(tmp_path), "model": "tiny-llm"}}}

    def run_into(name, code=CODE, off=(), **gates):
        site = lay_out(
            tmp_path / f"{name}_site", "curate-shout", "gates", {"shout": "curate_shout:KIND"}, curate_shout=code
        )
        captions = {"engines": engines, "rewrite": rewrite, "gates": {"off": [*OFF, *off], **gates}}
        with installed(site):
            return kit.run_local(kit.recipe_of(path, captions=captions), tmp_path / name)

    return run_into


def test_it_fails_texts_by_its_option_and_may_be_off(run):
    runs = {"first": run("first"), "mild": run("mild", shout=1.0), "off": run("off", off=["shout"])}
    counts = {}
    for name, done in runs.items():
        counted = done.table("captions")["gate"].drop_null().value_counts().to_pylist()
        counts[name] = {row["values"]: row["counts"] for row in counted}
    assert counts["first"].keys() == {"passed", "shout"} and counts["first"]["shout"] > 3
    assert counts["mild"] == counts["off"] == {"passed": sum(counts["first"].values())}
    keys = {done.run["keys"]["captions"] for done in runs.values()}
    assert len(keys) == 3, "captions are made again where another gate judges them"


def test_one_that_cannot_be_loaded_fails_only_recipes_that_name_it(run):
    broken = "raise KeyError(3)"
    run("silent", broken)
    run("off", broken, ["shout"])
    for key in ("shout", "shouting"):  # its option may have another name
        with pytest.raises(RecipeError, match=f"captions.gates.{key}: .*gate 'shout' of package curate-shout 1.0: "):
            run(key, broken, **{key: 0.3})
