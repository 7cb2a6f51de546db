"""`curate run --detach` on engines whose jobs end with their process: a driver process, which outlives the shell.

It is the same command once more, in a session of its own. It checks the run before the user's eyes; once it holds the
folder it tells so, and its output goes to a log. Then this command ends.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from typer import Exit

from curate.base.errors import CurateError
from curate.base.process import cleaned_up
from curate.store.layout import DRIVER_LOG
from curate.store.lock import Hold

_TELLS = "_CURATE_DRIVER"  # variable of the driver's environment: the pipe by which it tells that it has the folder


def is_driver() -> bool:
    """Return whether this process is a driver that has not told yet."""
    return _TELLS in os.environ


def start_driver() -> None:
    """Start this command as a driver; return once it has the folder. Raises typer.Exit where it ends before."""
    reading, writing = os.pipe()
    command, variables = [sys.executable, "-m", "curate", *sys.argv[1:]], os.environ | {_TELLS: str(writing)}
    driver = subprocess.Popen(
        command, env=variables, pass_fds=[writing], stdin=subprocess.DEVNULL, start_new_session=True
    )
    os.close(writing)
    told = ""

    def give_up() -> None:
        if not told:
            driver.terminate()

    with open(reading) as pipe, cleaned_up(give_up):
        told = pipe.read()
    if not told:
        raise Exit(driver.wait())
    print(told, end="")


@contextmanager
def detached(hold: Hold) -> Iterator[None]:
    """Leave the shell while the block runs: who waits in `start_driver` is told, and what is said goes to a log."""
    store, fault = hold.store, ""
    log = Path(store.path(DRIVER_LOG) if store.is_local else f"{store.url.rstrip('/').rpartition('/')[2]}.log")
    log.parent.mkdir(exist_ok=True)
    hold.tell(log=f"{log.resolve()} on {hold.holder.host}")
    with open(log, "wb") as file, open(int(os.environ.pop(_TELLS)), "w") as pipe:
        pipe.write(say_handed_over(hold, f"process {hold.holder.process}, which says more in {log}"))
        sys.stdout.flush()
        shells = [os.fstat(number) for number in (1, 2)]
        for number in map(int, os.listdir("/proc/self/fd")):  # others may be copies of these
            with suppress(OSError):  # that of the list itself
                if number and any(os.path.samestat(os.fstat(number), shell) for shell in shells):
                    os.dup2(file.fileno(), number)
    try:
        yield
    except CurateError as error:
        fault = f"curate: {error}\n"
        raise
    finally:
        if not store.is_local:
            with suppress(Exception):  # of any library's: it is on this machine
                store.write_bytes(DRIVER_LOG, log.read_bytes() + fault.encode())


def say_handed_over(hold: Hold, who: str) -> str:
    """Return what a user reads once a run was handed over."""
    follow, stop = f"curate status {hold.store.url} --watch", f"curate cancel {hold.store.url}"
    return f"{hold.store.url}: handed over to {who}\n  {follow}    follows it\n  {stop:{len(follow)}}    stops it\n"
