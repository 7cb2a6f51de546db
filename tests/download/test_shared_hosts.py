"""All processes of a run share hosts: they never exceed the limit on connections, and nearly reach it."""

import json
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curate.download import shared_hosts
from curate.download.shared_hosts import SharedHosts, change_queue
from curate.pool.urls.format import UrlsInput
from curate.recipe.recipe import load_recipe
from curate.store.store import RunStore
from tests import kit
from tests.kit.web import Web, running

PROCESSES, PER_HOST, HOSTS = 4, 2, 40
BIG = 0  # the host that has 30% of the URLs


def shared(store, per_host=1, closed=None):
    return SharedHosts(store, "tmp/hosts/key", per_host, 1.0, (closed if closed is not None else []).extend)


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_hosts, "_ROUND", 0.01)
    return RunStore(str(tmp_path / "run"))


@example([0, 1, 1, 1, 0, 1], 4, 2, 0)
@given(st.lists(st.integers(0, 3), max_size=12), st.integers(1, 4), st.integers(0, 4), st.integers(0, 4))
def test_changing_a_queue(queue, slots, wanted, kept):
    """Others keep their order and slots; this process has at most the entries that it wants, and keeps used slots."""
    changed = change_queue(queue, 0, slots, wanted, kept)
    assert [process for process in changed if process] == [process for process in queue if process]
    assert changed.count(0) == wanted
    for process in range(1, 4):
        assert changed[:slots].count(process) >= queue[:slots].count(process)
    others = sum(process > 0 for process in changed)
    before = min(wanted, queue[:slots].count(0))
    assert changed[:slots].count(0) >= min(before, kept)
    assert changed[:slots].count(0) <= max(kept, slots - others) or not queue.count(0)


def test_processes_take_turns(store):
    """A host's slots are never exceeded; each process has turns, and closes the connections of slots that it gives back."""
    most, at_once, lock, closed = 0, 0, threading.Lock(), list[str]()

    def work(own):
        nonlocal most, at_once
        with own.expecting(["busy", f"alone{id(own)}"] * 6):
            for _ in range(6):
                with own.slot("busy"):
                    with lock:
                        at_once += 1
                        most = max(most, at_once)
                    time.sleep(0.02)
                    with lock:
                        at_once -= 1
            with own.slot(f"alone{id(own)}"):
                pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [process for _ in range(4) for process in [shared(store, 2, closed)] * 2]))
    assert most == 2 and closed.count("busy") >= 3
    assert orjson.loads(store.read_bytes(f"tmp/hosts/key/{store.names('tmp/hosts/key')[-1]}")) == [{}, {}]


def test_many_hosts_take_few_files(store):
    first, second = shared(store), shared(store)
    names = [f"host{n}" for n in range(1000)]
    with first.expecting(names), second.expecting([f"other{n}" for n in range(1000)]):
        for name in names:
            with first.slot(name):
                pass
    assert len(store.names("tmp/hosts/key")) < 100


@pytest.mark.slow
def test_a_process_that_cannot_write_loses_its_slots_later(store, monkeypatch):
    monkeypatch.setattr(shared_hosts, "LASTS", 0.5)
    monkeypatch.setattr(shared_hosts, "_SPARE", 0.1)
    first, second, taken = shared(store), shared(store), threading.Event()

    def wait(own):
        with own.slot("host"):
            taken.set()

    with first.expecting(["host"] * 9):
        with first.slot("host"):
            pass
        monkeypatch.setattr(first, "_try", lambda: True)  # cut off
        cut_off = time.monotonic()
        time.sleep(0.6)
        thread = threading.Thread(target=wait, args=[first], daemon=True)
        thread.start()
        with second.expecting(["host"]), second.slot("host"):
            assert time.monotonic() > cut_off + 1.0 + 0.5  # its max_seconds, and what its slots last
            assert not taken.is_set()
        monkeypatch.undo()
        monkeypatch.setattr(shared_hosts, "_ROUND", 0.01)
        assert taken.wait(60)
        thread.join()


def write_recipe(folder, urls, per_host=PER_HOST):
    captions = [f"number {n}" for n in range(len(urls))]
    if not (folder / "list.parquet").exists():
        pq.write_table(pa.table({"url": urls, "caption": captions}), folder / "list.parquet")
    network = {"contact": "me@example.org", "allow_networks": ["127.0.0.0/8"], "per_host": per_host, "attempts": 1}
    source = {"name": "web", "format": "urls", "path": "list.parquet", "network": network}
    source |= {"number_sample_per_shard": 40, "thread_count": 16}
    (folder / "recipe.yaml").write_text(json.dumps({"input": source, "max_failed": 0.5}))
    return folder / "recipe.yaml"


def download(recipe, out, number):
    """Download as a worker does, in units of two shards."""
    source = load_recipe(str(recipe)).input[0].placed_in(out, None, False)
    parts = UrlsInput().plan(source, (), False).parts[number::PROCESSES]
    for first in range(0, len(parts), 2):
        UrlsInput().fetch(source, parts[first : first + 2])


def use(web, host):
    """A host's average number of slots in use, from its first image to its last."""
    times = web.times[host]
    return sum(ended - began for began, ended in times) / (max(max(t) for t in times) - min(min(t) for t in times))


@pytest.mark.slow
def test_four_processes_keep_the_limit_and_use_it(tmp_path):
    pytest.importorskip("img2dataset")
    images = {str(i): kit.encode(kit.picture(i, 40)) for i in range(20)}
    with running(Web(images, HOSTS)) as web:
        web.keeps, web.delay = lambda host: True, lambda path: 0.25
        urls = [web.url(f"image/{n % 20}?{n}", BIG if n % 10 < 3 else 1 + n % (HOSTS - 1)) for n in range(640)]
        recipe = write_recipe(tmp_path, urls)
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=download, args=(recipe, str(tmp_path / "run"), n)) for n in range(PROCESSES)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0] * PROCESSES
        stored = sorted(pq.read_table(path)["url"].to_pylist() for path in (tmp_path / "run/pool").glob("*.parquet"))
        assert stored == sorted(urls[first : first + 40] for first in range(0, len(urls), 40))  # as by one process
        big = web.hosts[BIG]
        assert len(web.times[big]) == 192
        assert max(web.most_open.values()) <= PER_HOST
        assert use(web, big) >= 0.8 * PER_HOST  # 0.95, also on a third of a core
