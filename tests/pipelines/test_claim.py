"""Claiming a folder writes run.json and takes the lock; curate refuses a second command."""

import logging
from dataclasses import replace

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from curate.base.errors import RecipeError, RunError
from curate.run.units import WorkerLocation
from curate.store.facts import read_claim
from curate.store.layout import DRIVER_LOG, NEW_FILE
from curate.store.store import RunStore
from pipelines.claim import claim_folder, claimed
from pipelines.identity import find_identity
from pipelines.prepare import prepare
from tests import kit
from tests.pipelines.graphs import make_recipe


def test_a_claim_writes_run_json_and_holds_the_lock(tmp_path):
    prepared = prepare(make_recipe(tmp_path), str(tmp_path / "run"))
    with claimed(prepared):
        claim = read_claim(prepared.context.store)
        assert claim.identity == find_identity(prepared.context) and claim.sources == ["pool"]
        assert claim.unit_keys == [unit.key for unit in prepared.plan.units]
        with pytest.raises(RunError, match="is running here"), claimed(prepared):
            pass
    assert not (tmp_path / "run/tmp/lock").exists()


def test_the_log_of_an_earlier_driver_is_deleted(tmp_path):
    prepared = prepare(make_recipe(tmp_path), str(tmp_path / "run"))
    store = prepared.context.store
    claim_folder(prepared)
    store.write_bytes(DRIVER_LOG, b"curate: an old error\n")
    store.write_bytes("logs/mine", b"a user's")
    with claimed(prepared):
        assert store.names("logs") == ["mine"]


def test_a_run_that_began_in_an_empty_folder_of_a_store_has_a_mark(tmp_path, monkeypatch):
    """If the run began in an empty folder, publishing does not list the folder. Listings of `tmp` may be stale."""
    prepared = prepare(make_recipe(tmp_path), f"memory://{tmp_path}/run")
    store = prepared.context.store
    claim_folder(prepared)
    assert store.exists(NEW_FILE)
    monkeypatch.setattr(RunStore, "names", lambda *_: [])
    claim_folder(prepared)
    assert not store.exists(NEW_FILE)
    store.delete("run.json")  # but the claim is still recorded
    claim_folder(prepared)
    assert not store.exists(NEW_FILE)


def test_a_run_that_another_command_finished_is_refused(tmp_path):
    prepared = prepare(make_recipe(tmp_path), str(tmp_path / "run"))
    kit.run_beam(make_recipe(tmp_path), tmp_path / "run")
    with pytest.raises(RunError, match="another command has already finished this run"):
        claim_folder(prepared)


@pytest.mark.parametrize(
    ("step", "error", "kind", "match"),
    [
        ("write_facts", "read-only", RecipeError, "cannot be written: read-only"),
        ("copy_inputs", "s3://a.tar: 503 Slow Down", RunError, "^cannot read an input: s3://a.tar: 503"),
    ],
)
def test_a_failure_names_the_folder_or_the_input(step, error, kind, match, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(error)

    prepared = prepare(make_recipe(tmp_path), str(tmp_path / "run"))
    monkeypatch.setattr(f"pipelines.claim.{step}", fail)
    with pytest.raises(kind, match=match), claimed(prepared):
        pass


@pytest.mark.parametrize(
    ("place", "protocol", "warned"),
    [(WorkerLocation.PROCESSES, "", False), (WorkerLocation.LOCAL_CLUSTER, "", True), (WorkerLocation.THIS_PROCESS, "memory:/", False), (WorkerLocation.THIS_PROCESS, "store:/", True)],
)  # fmt: skip
def test_a_store_without_conditional_writes_is_warned_of_if_others_may_work(
    place, protocol, warned, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(RunStore, "is_guarded", lambda store: False)
    if protocol == "store:/":  # a store that other machines share
        monkeypatch.setattr(MemoryFileSystem, "protocol", "store")
    prepared = prepare(make_recipe(tmp_path), f"{protocol and 'memory:/'}{tmp_path / 'run'}")
    with caplog.at_level(logging.WARNING), claimed(replace(prepared, context=replace(prepared.context, place=place))):
        pass
    assert any("turn off speculative tasks" in message for message in caplog.messages) is warned
