"""`--detach` on engines whose jobs end when their process ends.

It starts a driver process, which continues after the shell ends: the same command, in its own session. The output of
the driver and its children goes to a file. This command shows the file until the driver has locked the folder. Then the
file becomes the run's log, and this command ends. No process keeps the shell's output open, so that ssh can end, too.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from typer import Exit

from curate.base.errors import describe
from curate.base.process import background_thread, cleaned_up
from curate.cli.supervise import Supervisor
from curate.store.layout import DRIVER_LOG
from curate.store.lock import FolderLock
from curate.store.store import RunStore

_OUTPUT = "_CURATE_DRIVER"  # environment variable of a driver: the path of the file with its output
_BETWEEN = 60.0  # seconds between two copies of a log


def is_driver() -> bool:
    """Return whether this process is a driver."""
    return _OUTPUT in os.environ


def start_driver(store: RunStore) -> None:
    """Start this command as a driver. Return after it has locked the folder.

    Raises typer.Exit if it ends before that.
    """
    log = _find_log(store)
    near = Path(store.path("")) if store.is_local else log  # same disk, but outside of the folder, which may be missing
    writable = (folder for folder in near.resolve().parents if os.access(folder, os.W_OK))
    path = next(writable, Path(tempfile.gettempdir())) / f".curate-{uuid.uuid4().hex}.log"
    with open(path, "ab") as file:
        command, variables = [sys.executable, "-m", "curate", *sys.argv[1:]], os.environ | {_OUTPUT: str(path)}
        driver = subprocess.Popen(
            command, env=variables, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    is_handed_over = False

    def give_up() -> None:
        if not is_handed_over:
            driver.terminate()
            path.unlink(missing_ok=True)

    with open(path) as output, cleaned_up(give_up):
        has_ended = False
        while not (is_handed_over or has_ended):
            time.sleep(0.1)
            has_ended = driver.poll() is not None
            is_handed_over = log.exists() and os.path.samestat(log.stat(), os.fstat(output.fileno()))
            sys.stderr.write(output.read())
            sys.stderr.flush()
    if not is_handed_over:
        raise Exit(driver.wait())
    print(describe_handover(store, f"process {driver.pid}, which logs to {log}"), end="")


@contextmanager
def detached(folder_lock: FolderLock) -> Iterator[None]:
    """Let the command in `start_driver` end. The output of the block goes to the run's log."""
    log = _find_log(folder_lock.store)
    if not folder_lock.holder.log:  # otherwise, an earlier process of this driver has already done it
        folder_lock.record(log=f"{log.resolve()} on {folder_lock.holder.host}")
        if Supervisor.current:
            Supervisor.current.send(holder=folder_lock.holder.model_dump())
        log.parent.mkdir(exist_ok=True)
        try:
            os.rename(os.environ[_OUTPUT], log)
        except OSError:  # the folder is on another disk
            log.symlink_to(os.environ[_OUTPUT])
    with _copied(folder_lock.store, log):
        yield


@contextmanager
def logging_to(store: RunStore) -> Iterator[None]:
    """Send the output of this process to a new log of the run's driver."""
    log = _find_log(store)
    log.parent.mkdir(exist_ok=True)
    with open(log, "wb") as file:
        sys.stdout.flush()
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    with _copied(store, log):
        yield


def _find_log(store: RunStore) -> Path:
    """Return the path of a driver's log on this machine, which exists even if the run is in an object store."""
    return Path(store.path(DRIVER_LOG) if store.is_local else f"{store.url.rstrip('/').rpartition('/')[2]}.log")


@contextmanager
def _copied(store: RunStore, log: Path) -> Iterator[None]:
    """Copy the log to the object store once a minute, and when the block ends, with the error that ended it."""
    message = ""

    def copy(ended: threading.Event) -> None:
        is_last = False
        while not is_last:
            is_last = ended.wait(_BETWEEN)
            with suppress(Exception):  # any library may raise; this machine still has the log
                store.write_bytes(DRIVER_LOG, log.read_bytes() + message.encode())

    with nullcontext() if store.is_local else background_thread(copy, "log"):
        try:
            yield
        except Exception as error:
            message = f"curate: {describe(error) or type(error).__name__}\n"
            raise


def describe_handover(store: RunStore, worker: str) -> str:
    """Return the message for a user whose run now works in the background."""
    follow, stop = f"curate status {store.url} --watch", f"curate cancel {store.url}"
    return f"{store.url}: runs in {worker}\n  {follow}    follows it\n  {stop:{len(follow)}}    stops it\n"
