"""Faults of an object store that a run is to survive, for tests of S3 and of Cloud Storage.

The store has the pool and the run folder, so that a fault hits inputs and outputs alike. Each fault is a rule of the proxy
before the store, which goes by the number of a request: it hits the same ones however often a test runs.
"""

import hashlib
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
from tests import kit
from tests.kit.commands import run_command
from tests.kit.store_proxy import Fault, StoreProxy

RECIPE = """
input: {name: photos, format: webdataset, path: "%s/{00000..00001}.tar"}
match: {metadata: %s}
rules: {words: words > 3}
dedup: {by: [uid, sha256]}
balance: {t: 12}
output: {rows_per_shard: 10}
max_failed: 0.5
"""
# Files with times.
_TIMED = ("_stats.json", "run.json", "manifest.parquet", "stats.duckdb", "README.md", "croissant.json", ".html", ".sql")


def share(*faults):
    """A rule by which parts of all requests have faults: each is a part, a fault, and kinds of requests, or all."""

    def rule(request):
        drawn = xxhash.xxh64_intdigest(b"%d" % request.number, 7) / 2**64
        for part, fault, *kinds in faults:
            if 0 <= drawn < part:
                return fault if not kinds or request.kind in kinds else None
            drawn -= part
        return None

    return rule


FAULTS = {
    "busy": share((0.2, Fault(status=503)), (0.1, Fault(status=429, retry_after=0))),
    "late": share((0.03, Fault(delay=2.5))),
    "cut": share(
        (0.1, Fault(cut="body"), "GET", "LIST"),
        (0.2, Fault(cut="answer"), "PUT", "COPY", "DELETE"),
        (0.2, Fault(cut="request"), "PUT"),
    ),
}
PART = 5 << 20  # bytes, the smallest part that S3 accepts
FAULT_OF_PARTS = share(
    (0.3, Fault(status=503), "PUT", "PART"),
    (0.2, Fault(cut="answer"), "PUT", "PART"),
    (0.2, Fault(cut="request"), "PUT", "PART"),
)


@dataclass
class Runs:
    """Runs into a bucket, and the digests of what a run of their recipe on a disk published, without what has times."""

    proxy: StoreProxy
    bucket: str
    recipe: str
    expected: dict[str, str]

    @property
    def file_system(self):
        return fsspec.get_filesystem_class(self.bucket.partition(":")[0])

    def run(self, name, rule=None, *words):
        """`curate run` into the bucket, with faults."""
        self.proxy.faults.clear()
        self.proxy.rule = rule
        self.file_system.clear_instance_cache()
        try:
            return run_command("run", self.recipe, "--out", f"{self.bucket}/{name}", *words)
        finally:
            self.proxy.rule = None

    def survive(self, name, rule=None, *words):
        """Run with faults until it ends well, and return the digests of what is published and verified.

        Each time it does not end well, it names a file of the run or of its inputs.
        """
        for _ in range(4):
            done = self.run(name, rule, *words)
            if done.status == 0:
                break
            self.check_named(name, done.err)
        assert done.status == 0, done.err
        assert self.proxy.faults or not rule
        self.proxy.stale = 0.0  # compare what is there
        verified = run_command("verify", f"{self.bucket}/{name}")
        assert verified.status == 0 and "nothing differs" in verified.out, verified.err
        return self.published(name)

    def published(self, name):
        store, top = fsspec.filesystem(self.bucket.partition(":")[0]), f"{self.bucket.partition('//')[2]}/{name}/"
        store.invalidate_cache()
        paths = (str(path) for path in store.find(top) if not str(path).endswith(_TIMED))
        return {path.removeprefix(top): hashlib.sha256(store.cat_file(path)).hexdigest() for path in paths}

    def check_named(self, name, error):
        """An error names a file; which of the requests under way fails first is open."""
        assert any(f"{self.bucket.partition('//')[2]}/{folder}/" in error for folder in (name, "pool")), error

    def lose_input(self, name):
        """Run while the store does not give the second file of the pool, however many files may fail."""
        with self.without_pauses():
            is_lost = lambda request: request.kind == "GET" and request.name == "pool/00001.tar"  # noqa: E731
            rule = lambda request: Fault(status=503) if is_lost(request) else None  # noqa: E731
            return self.run(name, rule, "--set", "max_failed_files=1.0")

    def lose_store(self, name):
        """Run until the store is down, which leaves the lease of a process that is not known to have ended."""
        with self.without_pauses():
            first = self.proxy.count()
            done = self.run(name, lambda request: Fault(status=503) if request.number > first + 60 else None)
        store = RunStore(f"{self.bucket}/{name}")
        for number, holder in lease.read_leases(store).items():
            ended = holder.model_copy(update={"began": "0"})
            store.write_bytes(f"tmp/lease/{number:06d}", ended.model_dump_json().encode())
        return done

    @contextmanager
    def without_pauses(self):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clouds, "_LONGEST", 0.01)
            patch.setattr(errors, "_ATTEMPTS", 1)
            patch.setattr(self.file_system, "retries", 1)
            yield

    def survive_minutes(self):
        """Run where the first read of an input, the first table and the first listing are answered after 60 s."""
        late = {"GET": "pool/", "PUT": "late/tables/", "LIST": "late/"}

        def rule(request):
            if not request.name.startswith(late.get(request.kind, "nothing")):
                return None
            del late[request.kind]
            return Fault(delay=60)

        published = self.survive("minutes", rule)
        assert clouds.SECONDS == 30 and late == {}
        return published

    def upload_parts(self):
        """Put a file of several parts into place with faults, by both ways; return what was written, and what is there."""
        store, data = RunStore(f"{self.bucket}/parts"), np.random.default_rng(0).bytes(2 * PART + 1234)
        self.proxy.faults.clear()
        self.proxy.rule = FAULT_OF_PARTS
        with NamedTemporaryFile() as local:
            local.write(data)
            local.flush()
            store._put_new(local.name, "tmp/first", Digest(len(data), ""))
            with store.create("shards/00000.tar") as file:
                file.write(data)
            with pytest.raises(FileExistsError):  # a second one does not replace it
                store._put_new(local.name, "tmp/first", Digest(len(data), ""))
        self.proxy.rule = None
        assert self.proxy.faults
        return data, [store.read_bytes("tmp/first"), store.read_bytes("shards/00000.tar")]


@contextmanager
def runs(proxy, bucket, folder, more=""):
    """Runs of one pool, which lies in the bucket; `more` sections of their recipe."""
    path = Path(kit.write_tars(folder / "tars", kit.make_samples(18), 2)).parent
    fsspec.filesystem(bucket.partition(":")[0]).put(f"{path}/", f"{bucket}/pool/", recursive=True)
    recipe, out = folder / "recipe.yaml", folder / "here"
    recipe.write_text(RECIPE % (f"{bucket}/pool", kit.write_metadata(folder)) + more)
    done = run_command("run", str(recipe), "--out", str(out))
    assert done.status == 0, done.err
    expected = {path: digest for path, digest in kit.files_of(out).items() if not path.endswith(_TIMED)}
    yield Runs(proxy, bucket, str(recipe), expected)


class SurvivalTests:
    """Tests of any object store; a module's subclass runs them on its fixture `stored`, which gives `Runs`."""

    def test_listings_of_some_seconds_ago(self, stored):
        stored.proxy.stale = 3.0
        assert stored.survive("stale") == stored.expected
        assert stored.proxy.faults, "listings differed from what was there"

    def test_an_input_that_does_not_come(self, stored):
        done = stored.lose_input("away")
        assert done.status == 1 and "_SUCCESS" not in stored.published("away")
        assert f"{stored.bucket}/pool/00001.tar: the store cannot deliver it now" in done.err
        assert stored.survive("away") == stored.expected

    def test_a_store_that_is_down(self, stored):
        done = stored.lose_store("down")
        assert done.status == 1
        stored.check_named("down", done.err)
        assert stored.survive("down", None, "--take-over") == stored.expected
