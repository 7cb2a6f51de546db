"""run.json as a typed model: values round-trip, missing ones are not written, damage and later formats are named."""

import pytest

from curate.base.errors import CurateError, DamagedError, RecipeError, RunError
from curate.run.context import open_context
from curate.store import facts as models
from curate.store.facts import FORMAT, RunFacts, read_claim, read_facts, read_forgotten, write_facts
from curate.store.store import RunStore
from tests.kit.written_runs import RUN

NEAR = {"place": 2, "phash": {"distance": 2}, "sampled": 0, "found": 0}
FORGOTTEN = models.ForgottenFacts(items=2, requests=1, key="k", digest="d")


@pytest.fixture
def store(tmp_path):
    """A folder with the run.json of a finished run."""
    folder = RunStore(str(tmp_path))
    write_facts(folder, RunFacts.model_validate(RUN | {"near": [NEAR]}))
    return folder


def change(store, edit):
    """Edit run.json in place."""
    data = store.read_json("run.json")
    edit(data)
    store.write_json("run.json", data)


def test_what_is_written_is_read(store):
    facts = read_facts(store).changed(
        forgotten=FORGOTTEN, evaluation=models.EvaluationFacts(images=5, unread=0, such_as=None)
    )
    write_facts(store, facts)
    assert read_facts(store) == facts and read_forgotten(store) == FORGOTTEN
    claim = read_claim(store)
    assert claim.to_json().items() <= facts.to_json().items() and "counts" not in claim.to_json()
    write_facts(store, claim)
    assert read_claim(store) == claim
    with pytest.raises(DamagedError, match=r"pool: Field required"):
        read_facts(store)


def test_what_a_run_does_not_have_is_not_written(store):
    plain = store.read_json("run.json")
    assert list(plain)[:3] == ["format", "curate", "name"] and plain["format"] == FORMAT
    assert {"forgotten", "evaluation", "derived"}.isdisjoint(plain) and read_forgotten(store) is None
    assert plain["near"] == [NEAR] and read_facts(store).near == [models.NearFacts.model_validate(NEAR)]
    words, aligned = plain["rules"][0], plain["rules"][2]
    assert words == {"name": "words", "sql": "words > 2", "top": None, "of": None, "threshold": None}
    top = {"name": "aligned", "sql": None, "top": 0.9, "of": "clip_score", "threshold": 0.25, "single": True}
    assert aligned == words | top
    assert RunFacts.model_validate(plain | {"metadata": None, "t": None}).to_json()["metadata"] is None


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda run: run.pop("near"), r"near: Field required"),
        (lambda run: run.update(ballots=[]), r"ballots: Extra inputs"),
        (lambda run: run["rules"][0].update(sql=3), r"rules\.0\.sql: .* string"),
    ],
)
def test_what_is_no_run_is_damaged(store, edit, fault):
    change(store, edit)
    with pytest.raises(DamagedError, match=rf"run\.json is damaged \(.*{fault}"):
        read_facts(store)


def test_a_recipe_that_cannot_be_read_is_refused(store):
    change(store, lambda run: run["recipe"].update(ballance={}))
    with pytest.raises(RecipeError, match=r"ballance(.|\n)*run of curate 0\.1\.0.*--reuse"):
        open_context(store)


@pytest.mark.parametrize("format", [FORMAT + 1, "2"])
def test_a_later_format_is_refused(store, format):
    change(store, lambda run: run.update(format=format, curate="7.0", new={}))
    for read in (read_facts, read_claim):
        with pytest.raises(RunError, match=rf"format {format}, of curate 7\.0; .* up to {FORMAT}: "):
            read(store)


@pytest.mark.parametrize("text", ["{}", "[]", "null", "{", "\xff"])
def test_damage_is_named(tmp_path, text):
    (tmp_path / "run.json").write_text(text, "latin-1")
    for read in (read_facts, read_claim):
        with pytest.raises(CurateError, match=r"run\.json.* is damaged"):
            read(RunStore(str(tmp_path)))


def test_what_was_forgotten_is_read_of_any_format(store):
    """A later run with `--reuse` must keep it out, whatever the format."""
    change(store, lambda run: run.update(format=FORMAT + 1, forgotten=FORGOTTEN.to_json()))
    assert read_forgotten(store) == FORGOTTEN
