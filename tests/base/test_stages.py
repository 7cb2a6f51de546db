"""The list of stages: one order, one code and one meaning each, for everybody who asks."""

import json

import numpy as np
import pyarrow as pa
import pytest

from curate.base import stages
from curate.decide.unit_state import name_verdicts, read_verdicts
from curate.recipe.deciding import SELECTIONS
from curate.recipe.recipe import parse_recipe
from curate.run.in_process import InProcessUnits
from curate.store.facts import RuleFacts, RunFacts, SelectionFacts

MINIMAL = {"input": {"name": "a", "format": "parquet", "path": "x"}}
FULL = MINIMAL | {
    "measure": {"image": {"phash": True}},
    "match": {"metadata": "m.txt"},
    "rules": {"words": "words > 2", "best": {"top": 0.3, "of": "s"}, "after": "true"},
    "dedup": {"against": {"phash": {"distance": 4}, "images": "y"}},
    "balance": {"t": 5},
}


@pytest.mark.parametrize(
    ("data", "forgotten", "names"),
    [
        (MINIMAL, False, "failed duplicate kept"), (MINIMAL, True, "failed forgotten duplicate kept"),
        (FULL, True, "failed forgotten words best after unmatched contaminated duplicate balance kept"),
        (FULL | {"dedup": {}, "balance": None}, False, "failed words best after unmatched duplicate kept"),
    ],
)  # fmt: skip
def test_the_verdicts_of_a_run_follow_from_its_recipe(data, forgotten, names):
    recipe = parse_recipe(data)
    verdicts = recipe.verdicts(forgotten)
    assert [verdict.name for verdict in verdicts] == names.split()
    rules = [RuleFacts(name=name) for name in recipe.rules]
    key = recipe.selection[0] if recipe.selection else None
    selection = SelectionFacts(key=key, meaning=SELECTIONS.find(key).meaning, card="") if key else None
    plain = json.loads(recipe.model_dump_json())  # as in run.json
    assert verdicts == RunFacts.model_construct(recipe=plain, rules=rules, selection=selection).verdicts(forgotten)
    assert [verdict.code for verdict in verdicts if verdict.code >= 0] == list(range(len(recipe.rules)))


def test_codes_and_names_of_verdicts_are_unique_and_reserved():
    assert len(set(stages.CODES.values())) == len(stages.CODES) == len(stages.VERDICTS) - 1
    assert all(code < 0 for code in stages.CODES.values())  # those of rules are their positions
    assert {*stages.RESERVED_RULES} == {*stages.CODES, "pool"} - {stages.SELECTION}
    assert all(stage.meaning and (stage.reason or stage.name == "kept") for stage in stages.VERDICTS)


def test_verdicts_and_their_names_are_each_others_inverse():
    verdicts = np.array([0, 1, *stages.CODES.values(), 1, -1], np.int16)
    names = name_verdicts(verdicts, ["one", "two"], "sample")
    of_stages = ["sample" if name == stages.SELECTION else name for name in stages.CODES if name != "kept"]
    assert [name for name in names.to_pylist() if name] == ["one", "two", *of_stages, "two"]
    assert read_verdicts(pa.chunked_array([names]), ["one", "two"], "sample").tolist() == verdicts.tolist()
    with pytest.raises(ValueError, match="neither a rule nor a stage"):
        read_verdicts(pa.chunked_array([names]), ["one"])


def test_steps_count_for_the_stage_that_adds_them():
    units, seen = InProcessUnits([], None), []

    def outer(units, name):
        seen.append(units.stage)
        units.at("rules", lambda units: seen.append(units.stage))
        seen.append(units.stage)
        return name

    assert units.at("relate", outer, name="answer") == "answer" and units.stage == "decide"
    assert seen == ["relate", "rules", "relate"]
    with pytest.raises(KeyError):
        units.at("no stage", outer)
