"""The table of stages: one order, one code and one meaning each, for everybody who asks."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curate.base import schema
from curate.decide.unit_state import name_verdicts, read_verdicts
from curate.recipe.deciding import SELECTIONS
from curate.recipe.recipe import parse_recipe
from curate.store.facts import RuleFacts, RunFacts, SelectionFacts

MINIMAL: dict[str, Any] = {"input": {"name": "a", "format": "parquet", "path": "x"}}
FULL: dict[str, Any] = MINIMAL | {
    "measure": {"image": {"phash": True}},
    "match": {"metadata": "m.txt"},
    "rules": {"words": "words > 2", "best": {"top": 0.3, "of": "s"}, "after": "true"},
    "dedup": {"against": {"phash": {"distance": 4}, "images": "y"}},
    "balance": {"t": 5},
}


@pytest.mark.parametrize(
    ("data", "forgotten", "names"),
    [
        (MINIMAL, False, ["failed", "duplicate", "kept"]),
        (MINIMAL, True, ["failed", "forgotten", "duplicate", "kept"]),
        (
            FULL,
            True,
            [
                "failed",
                "forgotten",
                "words",
                "best",
                "after",
                "unmatched",
                "contaminated",
                "duplicate",
                "balance",
                "kept",
            ],
        ),
        (
            FULL | {"dedup": {}, "balance": None},
            False,
            ["failed", "words", "best", "after", "unmatched", "duplicate", "kept"],
        ),
    ],
)
def test_the_stages_of_a_run_follow_from_its_recipe(data: dict[str, Any], forgotten: bool, names: list[str]) -> None:
    recipe = parse_recipe(data)
    stages = recipe.stages(forgotten)
    assert [stage.name for stage in stages] == names
    rules = [RuleFacts(name=name) for name in recipe.rules]
    key = recipe.selection[0] if recipe.selection else None
    selection = SelectionFacts(key=key, meaning=SELECTIONS.find(key).meaning, card="") if key else None
    plain = json.loads(recipe.model_dump_json())  # as run.json has it
    facts = RunFacts.model_construct(recipe=plain, rules=rules, selection=selection)
    assert stages == facts.stages(forgotten)
    assert [stage.code for stage in stages if stage.code >= 0] == list(range(len(recipe.rules)))


def test_codes_and_names_of_stages_are_unique_and_reserved() -> None:
    assert len(set(schema.CODES.values())) == len(schema.CODES) == len(schema.STAGES) - 1
    assert all(code < 0 for code in schema.CODES.values())  # those of rules are their positions
    assert (
        set(schema.RESERVED_RULES) == {*schema.CODES, "pool"} - {schema.SELECTION}
        and "rules" not in schema.RESERVED_RULES
    )
    assert all(stage.meaning and (stage.reason or stage.name == "kept") for stage in schema.STAGES)


def test_verdicts_and_their_names_are_each_others_inverse() -> None:
    verdicts = np.array([0, 1, *schema.CODES.values(), 1, -1], np.int16)
    names = name_verdicts(verdicts, ["one", "two"], "sample")
    assert names.to_pylist()[:2] == ["one", "two"]
    assert [n for n in names.to_pylist() if n] == [
        "one",
        "two",
        *("sample" if n == schema.SELECTION else n for n in schema.CODES if n != "kept"),
        "two",
    ]
    assert read_verdicts(pa.chunked_array([names]), ["one", "two"], "sample").tolist() == verdicts.tolist()
    with pytest.raises(ValueError, match="neither a rule nor a stage"):
        read_verdicts(pa.chunked_array([names]), ["one"])
