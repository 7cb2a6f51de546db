"""Network namespaces, each joined to this machine by a cable that can be pulled: by root, and Debian's iproute2."""

import os
import shutil
import subprocess
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest


def _ip(words):
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


@dataclass(frozen=True)
class Namespace:
    """A namespace, its address, and its end of the cable that is here."""

    name: str
    address: str
    cable: str

    @property
    def words(self):
        """What a command is given to, to run in it."""
        return ["ip", "netns", "exec", self.name]

    def cut(self):
        """Pull the cable."""
        _ip(f"link set {self.cable} down")

    def mend(self):
        """Put it in."""
        _ip(f"link set {self.cable} up")


@contextmanager
def namespaces(count):
    """Yields this machine's address on the bridge that joins all, and the namespaces; skips the test where there can be none."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("no network namespaces: they take root and iproute2")
    number = os.getpid()
    net = f"10.213.{number % 250}"  # so that two tests may run side by side
    bridge, spaces = f"br{number}", []
    try:
        _ip(f"link add {bridge} type bridge")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces: {error.stderr.decode()}")
    try:
        _ip(f"addr add {net}.1/24 dev {bridge}")
        _ip(f"link set {bridge} up")
        for i in range(count):
            space = Namespace(f"curate{number}-{i}", f"{net}.{i + 2}", f"v{number}-{i}")
            _ip(f"netns add {space.name}")
            spaces.append(space)
            _ip(f"link add {space.cable} type veth peer name eth0 netns {space.name}")
            _ip(f"link set {space.cable} master {bridge} up")
            _ip(f"-n {space.name} addr add {space.address}/24 dev eth0")
            _ip(f"-n {space.name} link set eth0 up")
            _ip(f"-n {space.name} link set lo up")
        yield f"{net}.1", spaces
    finally:
        for space in spaces:
            with suppress(subprocess.CalledProcessError):  # it was not made
                _ip(f"link del {space.cable}")  # now, and not once all processes there have ended
            _ip(f"netns del {space.name}")
        _ip(f"link del {bridge}")
