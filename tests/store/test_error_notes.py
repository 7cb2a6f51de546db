"""Error notes: a user reads the failure that ended the run, and no other."""

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
MODES = {
    "in_memory": ["--runner=FnApiRunner", "--direct_running_mode=in_memory"],
    "threads": [],
    "processes": ["--direct_num_workers=2", "--direct_running_mode=multi_processing"],
}


def fail(folder, error, unit=None):
    """Fail as an attempt does, and return the error that the runner sees."""
    with pytest.raises((RunError, OSError)) as caught, noting_errors(folder, *([unit] if unit else [])):
        raise error
    return caught.value


def as_beam(*errors):
    """Return errors as Beam does: as annotated text."""
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


def test_of_a_unit_any_error_has_a_note_which_says_where(folder):
    """Errors that are not ours may be transient, so runners retry."""
    full, wrong = OSError("disk full"), RunError("wrong")
    raised = [fail(folder, error, f"unit {number}") for number, error in enumerate([full, wrong, full])]
    assert [error.permanent for error in raised] == [False, True, False]
    hint = "run again"
    assert read_error_note(folder, as_beam(raised[0]), hint) == "unit 0: OSError: disk full\nrun again"
    assert read_error_note(folder, as_beam(raised[1]), hint) == "unit 1: wrong"
    both = join_errors(raised)
    assert not both.permanent and "unit 0: OSError: disk full; unit 1: wrong; " in str(both)
    text = "unit 0, unit 2: OSError: disk full\nunit 1: wrong\nrun again"
    assert read_error_note(folder, as_beam(raised[1], both), hint) == text
    assert sorted(read_error_notes(folder)[0]) == text.splitlines()[:2]
    many = [fail(folder, wrong, f"unit {number}") for number in range(9)]
    assert read_error_note(folder, join_errors(many)) == "unit 0, unit 1, unit 2, unit 3, unit 4 and 4 more: wrong"


def test_errors_stay_what_they_are(folder, tmp_path):
    """This holds even if the folder takes no note."""
    assert not fail(folder, TransientError("away")).permanent
    (tmp_path / "tmp").write_bytes(b"")
    assert "one" in str(fail(RunStore(str(tmp_path)), RunError("one")))


def run_to_its_end(tmp_path, mode, max_failed):
    """Run over two damaged tars after an attempt that failed; return the error."""
    recipe = kit.recipe_of(kit.write_tars(tmp_path / "tars", kit.make_samples(12), 2), max_failed=max_failed)
    prepared = prepare(recipe, str(tmp_path / "out"), options=MODES[mode])
    claim_folder(prepared)
    with suppress(RunError), noting_errors(prepared.context.store):
        raise RunError(EARLIER)
    if max_failed == 1.0:
        (tmp_path / "out/tables").mkdir()
        (tmp_path / "out/tables/samples").write_bytes(b"in the way")
    with pytest.raises(RunError) as caught:
        run(prepared)
    assert EARLIER not in str(caught.value)
    return str(caught.value)


@pytest.mark.thorough
def test_a_failure_that_is_not_ours(tmp_path):
    assert "tables/samples" in run_to_its_end(tmp_path, "threads", 1.0)
    assert os.listdir(tmp_path / "out" / ERROR_NOTES) == ["run.json"]  # which `curate status` shows


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["in_memory", "threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_a_failure_that_is_ours(tmp_path, mode):
    message = run_to_its_end(tmp_path, mode, 0.01)
    assert "samples" in message and "--set max_failed=" in message
    assert not any(text in message for text in ("error note", "while running", "Traceback"))
