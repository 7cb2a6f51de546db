"""run.json as a typed model: what is written is read, runs of 0.1.0 open, and what cannot be read is refused with a remedy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curate.base.errors import CurateError, DamagedError, RecipeError, RunError
from curate.run.context import open_context
from curate.store.facts import (
    FORMAT,
    EvaluationFacts,
    ForgottenFacts,
    RunFacts,
    read_claim,
    read_facts,
    read_forgotten,
    write_facts,
)
from curate.store.store import RunStore

# run.json of the demo by curate 0.1.0, as it was written but for the folder's name.
OLD = Path(__file__).with_name("run_0.1.0.json")


@pytest.fixture
def old(tmp_path: Path) -> RunStore:
    """A folder with the run.json of a run by 0.1.0."""
    (tmp_path / "run.json").write_text(OLD.read_text())
    return RunStore(str(tmp_path))


def change(store: RunStore, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit run.json in place."""
    data = store.read_json("run.json")
    edit(data)
    store.write_json("run.json", data)


def test_a_run_of_0_1_0_opens_without_loss(old: RunStore) -> None:
    plain = json.loads(OLD.read_text())
    facts = read_facts(old)
    assert set(plain["recipe"]["input"][0].pop("columns").values()) == {None}  # which says nothing of tars
    assert "format" not in plain and facts.to_json() == {"format": FORMAT, **plain}
    assert list(facts.to_json()) == ["format", *plain]
    assert json.dumps(facts.to_json()["rules"]) == json.dumps(plain["rules"])
    assert (facts.kept, facts.rows, facts.t, facts.metadata and facts.metadata.entries) == (975, 2000, 3, 856)
    context, units = open_context(old)
    assert context.recipe.balance and context.recipe.balance.rows == 1050
    assert [(unit.index, unit.source) for unit in units] == [(n, "scenes") for n in range(4)]


def test_what_an_older_source_says_is_not_lost(old: RunStore) -> None:
    change(old, lambda run: run["recipe"]["input"][0]["columns"].update(uid="id"))
    assert read_facts(old).recipe["input"][0]["columns"]["uid"] == "id"
    source = {
        "name": "texts",
        "format": "parquet",
        "path": "t.parquet",
        "columns": {"uid": "id"},
        "caption_key": "caption",
    }
    change(old, lambda run: run["recipe"].update(input=[source]))
    assert read_facts(old).recipe["input"] == [{key: value for key, value in source.items() if key != "caption_key"}]
    change(old, lambda run: run["recipe"]["input"][0].update(caption_key="text"))
    assert read_facts(old).recipe["input"][0]["caption_key"] == "text"


def test_what_is_written_is_read(old: RunStore) -> None:
    facts = read_facts(old).changed(
        forgotten=ForgottenFacts(items=2, requests=1, key="k", seal="s"),
        evaluation=EvaluationFacts(images=5, unread=0, such_as=None),
    )
    write_facts(old, facts)
    assert read_facts(old) == facts and read_forgotten(old) == facts.forgotten
    claim = read_claim(old)
    assert claim.to_json().items() <= facts.to_json().items() and "counts" not in claim.to_json()
    write_facts(old, claim)
    assert read_claim(old) == claim
    with pytest.raises(DamagedError, match=r"pool: Field required"):
        read_facts(old)


def test_what_a_run_does_not_have_is_not_written(old: RunStore) -> None:
    plain = read_facts(old).to_json()
    assert {"forgotten", "evaluation"}.isdisjoint(plain) and read_forgotten(old) is None
    assert plain["near"][0] == {"pass": 2, "phash": {"distance": 2}, "sampled": 0, "found": 0}
    assert RunFacts.model_validate(plain | {"metadata": None, "t": None}).to_json()["metadata"] is None


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda run: run.pop("near"), r"near: Field required"),
        (lambda run: run.update(ballots=[]), r"ballots: Extra inputs"),
        (lambda run: run["rules"][0].update(sql=3), r"rules\.0\.sql: .* string"),
    ],
)
def test_an_older_run_that_cannot_be_read_is_refused(
    old: RunStore, edit: Callable[[dict[str, Any]], object], said: str
) -> None:
    change(old, edit)
    with pytest.raises(
        RunError, match=rf"a run of curate 0\.1\.0, .*{said}.*--reuse .* or open it with curate 0\.1\.0"
    ):
        read_facts(old)


def test_an_older_recipe_that_cannot_be_read_is_refused(old: RunStore) -> None:
    change(old, lambda run: run["recipe"].update(ballance={}))
    with pytest.raises(RecipeError, match=r"ballance(.|\n)*run of curate 0\.1\.0.*--reuse"):
        open_context(old)


@pytest.mark.parametrize("format", [FORMAT + 1, "2"])
def test_a_later_format_is_refused(old: RunStore, format: object) -> None:
    change(old, lambda run: run.update(format=format, curate="7.0", new={}))
    for read in (read_facts, read_claim):
        with pytest.raises(
            RunError, match=rf"format {format}, of curate 7\.0; .* up to {FORMAT}: .* curate 7\.0 or later"
        ):
            read(old)


@pytest.mark.parametrize("text", ["{}", "[]", "null", '"run"', "{", "\xff"])
def test_damage_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text, "latin-1")
    for read in (read_facts, read_claim):
        with pytest.raises(CurateError, match=r"run\.json.* is damaged"):
            read(RunStore(str(tmp_path)))


def test_what_was_forgotten_is_read_of_any_version(old: RunStore) -> None:
    """A later run with `--reuse` must keep it out, however the rest is written."""
    named = {"items": 2, "requests": 1, "key": "k", "seal": "s"}
    change(old, lambda run: run.update(format=FORMAT + 1, forgotten=named))
    assert read_forgotten(old) == ForgottenFacts.model_validate(named)
