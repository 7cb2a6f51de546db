"""Faults of an object store that a run is to survive, and what tests of S3 and of Cloud Storage share.

The store has the pool and the run folder: a fault hits inputs and outputs alike. Each fault is a rule of the proxy before the store: the same requests have it however often the test runs, by their number.
"""

import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import fsspec
import numpy as np
import pytest
import xxhash

from curate.read import errors
from curate.recipe import clouds
from curate.store import lease
from curate.store.local import Digest
from curate.store.store import RunStore
from curate.store.validity import valid_digest
from tests import kit
from tests.kit.commands import run_command
from tests.kit.store_proxy import Fault, StoreProxy

RECIPE = """
input: {name: photos, format: webdataset, path: "%s/{00000..00002}.tar"}
match: {metadata: %s}
rules: {words: words > 3}
dedup: {by: [uid, sha256]}
balance: {t: 12}
output: {rows_per_shard: 10}
max_failed: 0.5
"""
_TIMED = (
    "_stats.json",
    "run.json",
    "manifest.parquet",
    "stats.duckdb",
    "README.md",
    "croissant.json",
    "report.html",
    "views.sql",
)


def share(part, fault, kinds=""):
    """A rule by which this part of requests, of some kinds, has a fault."""

    def rule(request):
        is_one = xxhash.xxh64_intdigest(b"%d" % request.number, 7) < part * 2**64
        return fault if is_one and (not kinds or request.kind in kinds.split()) else None

    return rule


FAULTS = {
    "503 on 30 %": share(0.3, Fault(status=503)),
    "429 with Retry-After": share(0.1, Fault(status=429, retry_after=1)),
    "replies that come too late": share(0.04, Fault(delay=5)),
    "answers cut in mid-body": share(0.1, Fault(cut="body"), "GET LIST"),
    "answers that are lost": share(0.2, Fault(cut="answer"), "PUT COPY DELETE"),
    "half uploads": share(0.2, Fault(cut="request"), "PUT"),
}

PART = 5 << 20  # bytes, the least that S3 takes
FAULTS_OF_PARTS = {
    "503 on 40 %": share(0.4, Fault(status=503), "PUT PART"),
    "answers that are lost": share(0.3, Fault(cut="answer"), "PUT PART"),
    "half uploads": share(0.3, Fault(cut="request"), "PUT PART"),
}


@dataclass
class Runs:
    """A run on a disk, and where others of the same recipe go."""

    proxy: StoreProxy
    bucket: str
    folder: Path

    @property
    def recipe(self):
        return str(self.folder / "recipe.yaml")

    def run(self, name, rule=None, *words):
        """`curate run` into the bucket, with faults; how it ended, and seconds."""
        self.proxy.rule, began = rule, time.monotonic()
        fsspec.get_filesystem_class(self.bucket.partition(":")[0]).clear_instance_cache()
        try:
            return run_command("run", self.recipe, "--out", f"{self.bucket}/{name}", *words), time.monotonic() - began
        finally:
            self.proxy.rule = None

    def published(self, name):
        """What is published, but for what has times."""
        store, top = fsspec.filesystem(self.bucket.partition(":")[0]), f"{self.bucket.partition('//')[2]}/{name}/"
        store.invalidate_cache()
        names = (str(path) for path in store.find(top) if not str(path).endswith(_TIMED))
        return {path.removeprefix(top): store.cat_file(path) for path in names}

    def expected(self):
        top = self.folder / "here"
        files = (path for path in top.rglob("*") if path.is_file() and not path.name.endswith(_TIMED))
        return {str(path.relative_to(top)): path.read_bytes() for path in files}

    def check(self, name):
        """It is complete, and what the run on a disk published, byte for byte."""
        here, there = self.expected(), self.published(name)
        assert here.keys() == there.keys(), here.keys() ^ there.keys()
        assert [path for path in here if here[path] != there[path]] == []
        verified = run_command("verify", f"{self.bucket}/{name}")
        assert verified.status == 0 and "nothing differs" in verified.out, verified.err

    def check_named(self, name, error):
        """It names a file, of the run or of its inputs: which of the requests under way fails first is open."""
        assert any(f"{self.bucket.partition('//')[2]}/{folder}/" in error for folder in (name, "pool")), error

    def survive(self, name, rule, *words):
        """Run with faults until it ends well: each time it does not, it names a file and the reason. Figures, in words."""
        seconds, errors = 0.0, list[str]()
        for _ in range(4):
            done, took = self.run(name, rule, *words)
            seconds += took
            if done.status == 0:
                break
            errors.append(done.err.strip().splitlines()[-1])
            self.check_named(name, done.err)
        assert done.status == 0, errors
        count, of_inputs = len(self.proxy.faults), sum(fault.name.startswith("pool/") for fault in self.proxy.faults)
        self.proxy.faults.clear()
        self.proxy.stale = 0.0  # what is compared is what is there
        self.check(name)
        return f"{count} faults, {of_inputs} of inputs, {seconds:.1f} s, {len(errors)} failed attempts {errors}"

    def lose_input(self):
        """A run fails with the name of an input that does not come, however many may be lost, and goes on later."""
        scheme = self.bucket.partition(":")[0]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clouds, "_ATTEMPTS", 1)
            patch.setattr(errors, "_ATTEMPTS", 1)
            patch.setattr(fsspec.get_filesystem_class(scheme), "retries", 1)
            away = share(1.0, Fault(status=503), "GET")
            words = ("--set", "max_failed_files=1.0")
            done, seconds = self.run("away", lambda it: away(it) if it.name == "pool/00001.tar" else None, *words)
        assert done.status == 1 and not self.published("away").keys() & {"_SUCCESS"}
        assert f"{self.bucket}/pool/00001.tar: the store does not give it now" in done.err, done.err
        self.survive("away", lambda _: None)
        return f"{seconds:.1f} s, {done.err.strip().splitlines()[-1]}"

    def lose_store(self, name="down"):
        """A run fails with a file and the reason once the store is down, and goes on when it is run again."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clouds, "_ATTEMPTS", 1)
            patch.setattr(fsspec.get_filesystem_class(self.bucket.partition(":")[0]), "retries", 1)
            first = self.proxy.count()
            done, seconds = self.run(name, lambda it: Fault(status=503) if it.number > first + 60 else None)
        assert done.status == 1
        self.check_named(name, done.err)
        self.proxy.faults.clear()
        store = RunStore(f"{self.bucket}/{name}")  # has the lease of a process that is another one for whoever comes
        for number, holder in lease.read_leases(store).items():
            ended = holder.model_copy(update={"began": "0"})
            store.write_bytes(f"tmp/lease/{number:06d}", ended.model_dump_json().encode())
        again = self.survive(name, lambda _: None, "--take-over")
        return f"{seconds:.1f} s, again {again}, {done.err.strip().splitlines()[-1]}"

    def survive_minutes(self):
        """Run where the first read of an input, the first table and the first listing are answered after 60 s."""
        late = {"GET": "pool/", "PUT": "late/tables/", "LIST": "late/"}

        def rule(request):
            if not request.name.startswith(late.get(request.kind, "nothing")):
                return None
            del late[request.kind]
            return Fault(delay=60)

        figures = self.survive("late", rule)
        assert clouds.SECONDS == 30 and late == {}
        return figures

    def upload_parts(self, name, rule):
        """Put a file of several parts into place with faults: it is what was written, and a second one does not replace it."""
        store, data = RunStore(f"{self.bucket}/{name}"), np.random.default_rng(0).bytes(2 * PART + 1234)
        before, began, self.proxy.rule = len(self.proxy.faults), time.monotonic(), rule
        with NamedTemporaryFile() as local:
            local.write(data)
            local.flush()
            store._put_new(local.name, "tmp/first", Digest(len(data), ""))
            with store.create("shards/00000.tar") as file:
                file.write(data)
            with pytest.raises(FileExistsError):
                store._put_new(local.name, "tmp/first", Digest(len(data), ""))
        self.proxy.rule = None
        assert store.read_bytes("tmp/first") == store.read_bytes("shards/00000.tar") == data
        assert valid_digest(store, "shards/00000.tar")
        return f"{len(self.proxy.faults) - before} faults, {time.monotonic() - began:.1f} s"

    def survive_stale_listings(self):
        """Run while listings are some seconds old, and go on so with a run that failed. Figures, in words."""
        figures = []
        for run in (lambda: self.survive("stale", lambda _: None), lambda: self.lose_store("stale-down")):
            self.proxy.stale = 4.0
            try:
                figures.append(run())
            finally:
                self.proxy.stale = 0.0
        assert not any(" 0 faults" in f" {text}" for text in figures), (
            figures
        )  # listings that differed from what was there
        return "; ".join(figures)


@contextmanager
def runs(proxy, bucket, folder, more=""):
    """Runs of one pool, which lies in the bucket, the first on a disk and without faults; `more` of their recipe."""
    path = Path(kit.write_tars(folder / "tars", kit.make_samples(36), 3)).parent
    fsspec.filesystem(bucket.partition(":")[0]).put(f"{path}/", f"{bucket}/pool/", recursive=True)
    made = Runs(proxy, bucket, folder)
    Path(made.recipe).write_text(RECIPE % (f"{bucket}/pool", kit.write_metadata(folder)) + more)
    done = run_command("run", made.recipe, "--out", str(folder / "here"))
    assert done.status == 0, done.err
    yield made
