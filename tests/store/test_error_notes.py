"""Error notes: what a user reads is the failure that ended the run, and no other."""

import os
from contextlib import suppress

import pytest

from curate.base.errors import ConservationError, RunError, TransientError
from curate.store.error_notes import ERROR_NOTES, join_errors, noting_errors, read_error_note, read_error_notes
from curate.store.store import RunStore
from pipelines.claim import claim_folder
from pipelines.driver import run
from pipelines.prepare import prepare
from tests import kit

EARLIER = "captions.engines.llm: does not answer"
MODES = [
    pytest.param(["--runner=FnApiRunner", "--direct_running_mode=in_memory"], id="in_memory"),
    pytest.param([], id="threads"),
    pytest.param(
        ["--direct_num_workers=2", "--direct_running_mode=multi_processing"], id="processes", marks=pytest.mark.slow
    ),
]


def fail(folder, error):
    """Fail as an attempt does, and return what the runner gets to see."""
    with pytest.raises(type(error) if isinstance(error, OSError) else RunError) as caught, noting_errors(folder):
        raise error
    return caught.value


def as_beam(*errors):
    """Return what Beam makes of errors: text, annotated."""
    return RuntimeError("\n".join(f"Traceback …\n{type(e).__name__}: {e} [while running 'Measure']\n" for e in errors))


@pytest.fixture(params=["", "memory://"])
def folder(request, tmp_path):
    return RunStore(f"{request.param}{tmp_path}/run")


def test_the_note_is_of_the_error_that_is_named(folder):
    texts = ["one", "two\n  of two lines, „ünïcode“ (and brackets)", "one"]
    raised = [fail(folder, ConservationError(text)) for text in texts]
    for error, text in zip(raised, texts, strict=True):
        assert read_error_note(folder, as_beam(error)) == text
    assert read_error_note(folder, as_beam(raised[0], raised[1])) == texts[1]
    assert read_error_note(folder, as_beam(raised[1], raised[0])) == texts[0]


def test_another_failure_has_no_note(folder):
    fail(folder, RunError("one"))
    assert read_error_note(folder, as_beam(fail(folder, OSError("No space left on device")))) is None
    assert read_error_note(folder, RuntimeError("RunError: one")) is None
    folder.delete(ERROR_NOTES)
    assert read_error_note(folder, as_beam(RunError(f"one (error note {'0' * 32})"))) is None


def fail_at(folder, place, error):
    with pytest.raises(RunError) as caught, noting_errors(folder, place):
        raise error
    return caught.value


def test_of_a_unit_any_error_has_a_note_which_says_where(folder):
    """And those that are not ours may pass, as runners that try again ask."""
    full, wrong = OSError("disk full"), RunError("wrong")
    raised = [fail_at(folder, f"unit {number}", error) for number, error in enumerate([full, wrong, full])]
    assert [error.permanent for error in raised] == [False, True, False]
    hint = "run again"
    assert read_error_note(folder, as_beam(raised[0]), hint) == "unit 0: OSError: disk full\nrun again"
    assert read_error_note(folder, as_beam(raised[1]), hint) == "unit 1: wrong"
    both = join_errors(raised)
    assert not both.permanent and "unit 0: OSError: disk full; unit 1: wrong; " in str(both)
    text = "unit 0, unit 2: OSError: disk full\nunit 1: wrong\nrun again"
    assert read_error_note(folder, as_beam(raised[1], both), hint) == text
    assert sorted(read_error_notes(folder)[0]) == text.splitlines()[:2]
    many = [fail_at(folder, f"unit {number}", wrong) for number in range(9)]
    assert read_error_note(folder, join_errors(many)) == "unit 0, unit 1, unit 2, unit 3, unit 4 and 4 more: wrong"


def test_what_may_pass_stays_so(folder):
    assert not fail(folder, TransientError("away")).permanent


def test_a_folder_that_takes_no_note_hides_no_error(tmp_path):
    (tmp_path / "tmp").write_bytes(b"")
    assert "one" in str(fail(RunStore(str(tmp_path)), RunError("one")))


def started(tmp_path, options, max_failed):
    """Start a run over two damaged tars, one attempt of which has failed already, and was tried again."""
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(12), 2)
    recipe = kit.recipe_of(path).model_copy(update={"max_failed": max_failed})
    prepared = prepare(recipe, str(tmp_path / "out"), options=options)
    claim_folder(prepared)
    with suppress(RunError), noting_errors(prepared.context.store):
        raise RunError(EARLIER)
    return prepared


@pytest.mark.thorough
@pytest.mark.parametrize("options", MODES)
def test_a_failure_that_is_not_ours(tmp_path, options):
    prepared = started(tmp_path, options, 1.0)
    (tmp_path / "out/tables").mkdir()
    (tmp_path / "out/tables/samples").write_bytes(b"in the way")
    with pytest.raises(RunError) as caught:
        run(prepared)
    assert "tables/samples" in str(caught.value) and EARLIER not in str(caught.value)
    assert os.listdir(tmp_path / "out" / ERROR_NOTES) == ["run.json"]  # which `curate status` shows


@pytest.mark.thorough
@pytest.mark.parametrize("options", MODES)
def test_a_failure_that_is_ours(tmp_path, options):
    prepared = started(tmp_path, options, 0.01)
    with pytest.raises(RunError) as caught:
        run(prepared)
    message = str(caught.value)
    assert "samples" in message and "--set max_failed=" in message and EARLIER not in message
    assert "error note" not in message and "while running" not in message and "Traceback" not in message
