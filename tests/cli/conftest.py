"""What the tests of commands share: the fixtures of `tests/kit/commands.py`, and runs without Beam."""

from unittest import mock

import pytest

from curate.run.in_process import InProcessUnits
from curate.store.error_notes import noting_errors
from pipelines import driver
from pipelines.engines.base import PipelineEngine
from tests.kit.commands import cli, finished, pool, run  # noqa: F401 (fixtures)


@pytest.fixture
def without_beam(monkeypatch):
    """Let runs do their steps in this process, one by one. In small runs, Beam takes two thirds of the time."""

    class Steps(InProcessUnits):
        def __init__(self, root, units, context, hints, spool):
            super().__init__(units, context)

        def finish(self):
            pass

    def submit(self, add_steps, store):
        with noting_errors(store):
            add_steps(None)
        return mock.Mock()

    monkeypatch.setattr(driver, "BeamUnits", Steps)
    monkeypatch.setattr(PipelineEngine, "submit", submit)
