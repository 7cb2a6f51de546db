"""A process remembers failing hosts, up to a limit."""

import pytest

from curate.download import fetch
from curate.download.fetch import Hosts
from curate.download.fetch_error import FetchError


def test_a_host_that_is_left_alone_outlives_those_that_are_forgotten(monkeypatch):
    monkeypatch.setattr(fetch, "_HOSTS", 8)
    known = Hosts(per_host=1)
    for _ in range(fetch._FAILURES):
        with known.slot("silent"):
            known.failed("silent", FetchError("timeout", "no data in time"), 30.0)
    for number in range(100):
        with known.slot(f"host{number}"):
            known.answered(f"host{number}")
        assert len(known._hosts) <= 8
    with pytest.raises(FetchError, match="timeout"), known.slot("silent"):
        pass


def test_hosts_that_are_left_alone_are_no_more_than_so_many(monkeypatch):
    monkeypatch.setattr(fetch, "_HOSTS", 8)
    known = Hosts(per_host=1)
    for number in range(100):
        with known.slot(f"busy{number}"):
            known.failed(f"busy{number}", FetchError("http_429", "429", retry_after=20.0), 30.0)
        assert len(known._hosts) <= 8


def test_a_pause_outlives_an_answer_to_another_connection():
    hosts = Hosts(per_host=2)
    with hosts.slot("busy"):
        with hosts.slot("busy"):
            hosts.failed("busy", FetchError("http_429", "429", retry_after=20.0), 30.0)
        hosts.answered("busy")
    assert hosts._hosts["busy"].pause() > 10
