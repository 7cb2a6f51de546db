"""Each worker process logs to a file, with the unit; the last error of the latest file is found."""

import logging
import os
import platform
import threading
import uuid
from contextlib import suppress

import fsspec
import pytest

from curate.store import worker_log
from curate.store.layout import DRIVER_LOG
from curate.store.store import RunStore
from curate.store.worker_log import logged, read_last_error

NAME = f"logs/{platform.node()}-{os.getpid()}.log"


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path, monkeypatch):
    monkeypatch.setattr(worker_log, "_KEPT", worker_log._Kept())
    url = str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    yield RunStore(url)
    logging.getLogger().removeHandler(worker_log._KEPT)
    if request.param == "memory":
        with suppress(FileNotFoundError):  # nothing was written
            fsspec.filesystem("memory").rm(RunStore(url).root, recursive=True)


def read(store):
    return store.read_bytes(NAME).decode().splitlines()


def test_lines_have_their_unit(store):
    log = logging.getLogger("some.library")
    with logged(store, "unit 7"):
        log.info("of no interest")
    assert not store.exists(NAME), "nothing was said"
    with logged(store, "unit 7"):
        log.warning("a strange %s", "image\nin lines")
        thread = threading.Thread(target=lambda: log.warning("by a thread of its work"))
        thread.start()
        thread.join()
    with pytest.raises(ValueError, match="broken"), logged(store, "unit 8"):
        raise ValueError("broken")
    first, second, last = read(store)
    assert " WARNING unit 7: a strange image" in first and " WARNING unit 7: by a thread of its work" in second
    assert last.endswith(" ERROR unit 8: ValueError: broken") and read_last_error(store) == last


def test_of_a_process_the_latest_lines(store):
    with logged(store, "unit 1"):
        for number in range(worker_log._LINES + 10):
            logging.getLogger().warning("%d %s", number, "x" * 5000)
    lines = read(store)
    assert len(lines) == worker_log._LINES and " 10 xxx" in lines[0] and max(map(len, lines)) < 2100


def test_the_worker_that_wrote_last(store):
    assert read_last_error(store) is None
    store.write_bytes(DRIVER_LOG, b"now ERROR of the driver\n")
    store.write_bytes("logs/stages.csv", b" ERROR ")
    assert read_last_error(store) is None
    store.write_bytes("logs/a-1.log", b"then ERROR unit 1: bad\nthen WARNING unit 2: less\n")
    assert read_last_error(store) == "then ERROR unit 1: bad"


def test_a_folder_that_takes_no_log(store, monkeypatch):
    def refuse(*_):
        raise OSError("full")

    monkeypatch.setattr(RunStore, "write_bytes", refuse)
    with logged(store, "unit 1"):
        logging.getLogger().warning("x")
