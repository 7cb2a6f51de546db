"""What is said of a run, by what is there of it."""

import shutil
from pathlib import Path

from curate.ask.status import FAILED, FINISHED, find_status
from curate.store.lease import Holder
from curate.store.lock import locked
from curate.store.store import RunStore
from tests.publish.runs import write_small


def test_a_run_that_ends_well_while_its_engine_is_asked(tmp_path: Path) -> None:
    """To ask may take seconds, in which a driver publishes and ends."""
    url = str(tmp_path / "run")
    write_small(url)
    store, done = RunStore(url), tmp_path / "done"
    shutil.move(store.path("_SUCCESS"), done)

    def ask(holder: Holder) -> tuple[bool, str]:
        shutil.move(done, store.path("_SUCCESS"))
        return True, ""

    with locked(store, "run"):
        assert find_status(url, lambda holder: (True, "")).exit_status == FAILED
        assert find_status(url, ask).exit_status == FINISHED
