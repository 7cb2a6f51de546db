"""A run that is handed over: `--detach` on engines whose jobs end with their process.

It starts a driver process, which outlives the shell: the same command once more, in a session of its own. It checks the
run before the user's eyes; once it holds the folder it tells so, and its output goes to a log. Then the command ends.

What a driver started before has the shell's output for good, as Java of Spark has: whoever reads that to its end, such
as ssh, would wait for it. So all that a driver and its children say passes through the driver, from its start.
"""

import fcntl
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from typer import Exit

from curate.base.errors import describe
from curate.base.process import background_thread, cleaned_up
from curate.cli.supervise import TELLS, Supervisor
from curate.store.layout import DRIVER_LOG
from curate.store.lock import FolderLock
from curate.store.store import RunStore

_BETWEEN = 60.0  # seconds between two copies of a log
_BLOCK = 65536  # bytes


def is_driver() -> bool:
    """Return whether this process is a driver that has not told yet."""
    return TELLS in os.environ


def start_driver() -> None:
    """Start this command as a driver; return once it has the folder. Raises typer.Exit where it ends before."""
    reading, writing = os.pipe()
    command, variables = [sys.executable, "-m", "curate", *sys.argv[1:]], os.environ | {TELLS: str(writing)}
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


class Passing:
    """A stream of this process and of those that it starts: what is written to it goes on to where it went before."""

    def __init__(self, stream: int) -> None:
        self._stream, self._target = stream, os.dup(stream)
        self._reading, writing = os.pipe()
        os.dup2(writing, stream)
        os.close(writing)
        self._lock, self._said = threading.Lock(), b""
        threading.Thread(target=self._pass_on, name="output", daemon=True).start()

    def _pass_on(self) -> None:
        is_open = True
        while is_open:
            select.select([self._reading], [], [])
            with self._lock:
                is_open = self._take()

    def _take(self) -> bool:
        """Pass on what is there; return whether there may be more."""
        if not select.select([self._reading], [], [], 0)[0]:
            return True
        if not (data := os.read(self._reading, _BLOCK)):
            return False
        self._said = (self._said + data)[-_BLOCK:]
        with suppress(OSError):  # the shell may be gone
            while data:
                data = data[os.write(self._target, data) :]
        return True

    def _drain(self) -> None:
        while select.select([self._reading], [], [], 0)[0] and self._take():
            pass

    def move(self, file: int) -> None:
        """Let what is written go to a file, in place of where it went; what was written before, too, or its end."""
        with self._lock:
            self._drain()
            os.write(file, self._said)
            _move(self._target, file)

    def end(self) -> None:
        """Let this process write without it again; others go on."""
        with self._lock:
            self._drain()
            os.dup2(self._target, self._stream)


@contextmanager
def passing_on() -> Iterator[list[Passing]]:
    """Pass on what this process and its children say while the block runs."""
    sys.stdout.flush()
    streams = [Passing(1), Passing(2)]
    try:
        yield streams
    finally:
        sys.stdout.flush()
        for stream in streams:
            stream.end()


@contextmanager
def detached(hold: FolderLock, streams: list[Passing]) -> Iterator[None]:
    """Leave the shell while the block runs: who waits in `start_driver` is told, and what is said goes to a log.

    The log begins with what was said before. If another process left the shell before, this one goes on with its log.
    """
    with logging_to(hold.store, is_new=bool(streams)) as log:
        if not streams:
            yield
            return
        with open(log, "ab") as file:
            for stream in streams:
                stream.move(file.fileno())
        hold.tell(log=f"{log.resolve()} on {hold.holder.host}")
        if Supervisor.current:
            Supervisor.current.send(log=str(log.resolve()), holder=hold.holder.model_dump())
        with open(int(os.environ.pop(TELLS)), "w") as pipe:
            pipe.write(say_handed_over(hold, f"process {hold.holder.process}, which says more in {log}"))
        yield


@contextmanager
def logging_to(store: RunStore, is_new: bool = True) -> Iterator[Path]:
    """Have what this process and its children say go to the log of a run's driver while the block runs.

    Where the run is in an object store the log is here, and is copied there once a minute and at the end.
    """
    fault = ""
    log = Path(store.path(DRIVER_LOG) if store.is_local else f"{store.url.rstrip('/').rpartition('/')[2]}.log")
    log.parent.mkdir(exist_ok=True)

    def copy(ended: threading.Event) -> None:
        is_last = False
        while not is_last:
            is_last = ended.wait(_BETWEEN)
            with suppress(Exception):  # of any library's: it is on this machine
                store.write_bytes(DRIVER_LOG, log.read_bytes() + fault.encode())

    with open(log, "ab") as file:
        if is_new:
            file.truncate(0)
        sys.stdout.flush()
        for stream in (1, 2):
            _move(stream, file.fileno())
    with nullcontext() if store.is_local else background_thread(copy, "log"):
        try:
            yield log
        except Exception as error:
            fault = f"curate: {describe(error) or type(error).__name__}\n"
            raise


def _move(stream: int, file: int) -> None:
    """Let a stream of this process, and whatever is a copy of it, go to a file."""
    shell = os.fstat(stream)
    for number in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # that of the list itself
            is_written = fcntl.fcntl(number, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR)
            if number and is_written and os.path.samestat(os.fstat(number), shell):
                os.dup2(file, number)


def say_handed_over(hold: FolderLock, who: str) -> str:
    """Return what a user reads once a run was handed over."""
    follow, stop = f"curate status {hold.store.url} --watch", f"curate cancel {hold.store.url}"
    return f"{hold.store.url}: handed over to {who}\n  {follow}    follows it\n  {stop:{len(follow)}}    stops it\n"
