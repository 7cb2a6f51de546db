"""Fixtures that are made once for all workers of pytest-xdist."""

import fcntl
import os
import pickle


def made_once(factory, name, make):
    """A folder that `make` filled, and what it returned: once for all workers of pytest-xdist."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, result = base / f"{name}-once", base / f"{name}-once.pickle"
    with open(base / f"{name}-once.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            folder.mkdir(exist_ok=True)
            result.write_bytes(pickle.dumps(make(folder)))
    return folder, pickle.loads(result.read_bytes())
