"""`curate run` uses two processes: the command supervises a child process, which does the work.

If a signal, a lack of memory, or `os._exit` in a package ends the child, the command starts another child. It continues
like a repeated command. The command imports nothing, so that a fork is cheap. It keeps everything that must survive a
child: the folder's lock, the folder's holder, and the log. A child sends these and its exit status through a socket,
and the command sends signals back. If the command is killed, the socket closes, and the child ends.
"""

import json
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import Any, ClassVar, Optional

from curate.cli.interrupt import SHOW_CURSOR, STATUS, defaults

MAX_DEATHS = 6  # deaths without progress; after three, units are isolated
_BLOCK = 65536  # bytes
_SUBREAPER = 36  # for prctl


class Supervisor:
    """The command's state. A child has a copy from the time when it was started."""

    current: ClassVar[Optional["Supervisor"]] = None  # in this process

    def __init__(self) -> None:
        self.process = os.getpid()
        self.facts: dict[str, Any] = {}  # what children have sent
        self.lock: int | None = None  # file descriptor of the folder's lock
        self.deaths = self.total = 0  # number of children that died, since the last progress and in total
        self.death = ""  # how the last child ended
        self._child = 0  # its process ID
        self._interrupt = 0  # the signal that ends the command
        self._signals = defaults()

    def run(self) -> None:
        """In a child, return; it then does the work. In the command's process, this does not return."""
        for number in self._signals:
            signal.signal(number, self._handle)
        if sys.platform == "linux":  # elsewhere, the processes that a dead child started are not found
            import ctypes

            ctypes.CDLL(None).prctl(_SUBREAPER, 1)
        while True:
            self._socket, child_socket = socket.socketpair()
            if not (child := os.fork()):
                break
            child_socket.close()
            self._child = child
            self._wait()
        self._socket, Supervisor.current = child_socket, self
        for number in self._signals:  # the command sends signals through the socket
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else lambda *_: None)

    def send(self, lock: int | None = None, **facts: Any) -> None:
        """From a child, send facts and the lock's file to the command. The next child finds the facts in `facts`."""
        with suppress(OSError):  # the command has ended, and this process will end too
            socket.send_fds(self._socket, [json.dumps(facts).encode() + b"\n"], [] if lock is None else [lock])

    def read_signals(self) -> bytes:
        """In a child, wait for signals from the command, and return them.

        If the command is killed, this does not return.
        """
        if not (signals := self._socket.recv(_BLOCK)):
            _kill_descendants(os.getpid())
            os.kill(os.getpid(), signal.SIGKILL)
        return signals

    def _wait(self) -> None:
        """Return if the child died and a new one may continue. Otherwise, end the command with the child's status."""
        receiver = threading.Thread(target=self._receive)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # so that the main thread gets them
        receiver.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        status = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        with suppress(OSError):  # already closed
            self._socket.shutdown(socket.SHUT_RD)  # processes that the child has forked may keep it open
        receiver.join()
        self._socket.close()
        if "status" in self.facts:
            sys.exit(self.facts["status"])
        if self._interrupt or not self.facts.get("is_supervised", True):
            sys.exit(STATUS + self._interrupt if self._interrupt else status if status >= 0 else STATUS - status)
        _kill_descendants(self.process)
        self.deaths, self.total = self.deaths + 1, self.total + 1
        self.death = f"exited (status {status}) without an error from curate"
        if status < 0:
            memory = ", maybe because memory ran out" if status == -signal.SIGKILL else ""
            self.death = f"was ended by signal {-status} ({signal.strsignal(-status)}{memory})"
        is_end = self.deaths > MAX_DEATHS  # the last child should have explained why
        cursor = SHOW_CURSOR.decode() if sys.stderr.isatty() else ""
        text = f"process {self._child} {self.death}; {'the run ends' if is_end else 'another one continues'}"
        with suppress(OSError):  # nobody reads standard error
            print(f"{cursor}curate: {text}", file=sys.stderr, flush=True)
        if is_end:
            sys.exit(1)

    def _handle(self, number: int, _: object) -> None:
        """Send the first signal to the child, too. At the second signal, kill the child."""
        if self._interrupt:
            _kill_descendants(self.process)
            return
        self._interrupt = number
        with suppress(OSError):  # the child has ended
            self._socket.send(bytes([number]))

    def _receive(self) -> None:
        """Receive messages from the child until it has ended."""
        data, buffer = b"begun", b""
        with suppress(ConnectionError):
            while data:
                data, files, _, _ = socket.recv_fds(self._socket, _BLOCK, 1)
                self.lock = files[0] if files else self.lock
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    self.facts |= json.loads(line)
                    self.deaths = self.facts.pop("deaths", self.deaths)


def _kill_descendants(process: int) -> None:
    parents: dict[int, int] = {}
    with suppress(OSError):  # no /proc, as on macOS
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError), open(f"/proc/{name}/stat") as file:
                parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
    family = {process}
    while children := {child for child, parent in parents.items() if parent in family} - family:
        family |= children
    for child in family - {process}:
        with suppress(OSError):
            os.kill(child, signal.SIGKILL)
