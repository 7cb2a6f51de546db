"""Matching units: keys, and the entries that a process holds."""

import tempfile
from dataclasses import replace

import pyarrow as pa

from curate.base import process
from curate.match import unit as module
from curate.match.unit import MatchSettings, load_entries, load_matcher
from curate.store.layout import ENTRIES_FILE, METADATA_FILE
from curate.store.store import RunStore
from tests.kit.keys import check_key


def metadata(*entries):
    count = len(entries)
    columns = {"entry_id": pa.array(range(count), pa.int32()), "entry": entries}
    return pa.table({**columns, "source": ["list"] * count, "language": ["en"] * count})


def settings(folder, key="digest", entries=("a", "b")):
    """Those of a run that holds the entries."""
    store = RunStore(str(folder))
    store.write_parquet(METADATA_FILE, metadata(*entries))
    return MatchSettings(store, key, "reference")


def test_the_key_changes_with_its_inputs_alone(tmp_path, monkeypatch):
    one, version = settings(tmp_path), module.VERSIONS["match"]

    def make(change=()):
        fields = {"samples": "samples", "version": version, **dict(change)}
        monkeypatch.setitem(module.VERSIONS, "match", fields.pop("version"))
        samples = fields.pop("samples")
        return replace(one, **fields).key(samples)

    changes = [{"samples": "other"}, {"metadata_key": "x"}, {"mode": "x"}, {"version": 99}]
    check_key(make, changes, [{"store": RunStore("elsewhere")}])
    assert one.key("") == one.key(None) == "", "samples that may change have matches that may"


def test_a_process_holds_the_entries_of_one_run_by_their_content(tmp_path, monkeypatch):
    """Another run in the same folder and process gets its own entries."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first = load_entries(settings(tmp_path, "first"))
    assert load_entries(settings(tmp_path, "first", ("other",))) is first
    load_matcher(settings(tmp_path, "first"))
    second = settings(tmp_path, "second", ("c",))
    assert load_matcher(second).match(pa.array(["a c"])).to_pylist() == [[0]]
    assert load_entries(second).table["entry"].to_pylist() == ["c"]
    held = [key for key in process._shared._kept if key.startswith(("entries ", "matcher "))]
    assert sorted(held) == ["entries second", "matcher second reference"]


def test_entries_of_a_finished_run_are_read_from_its_list(tmp_path):
    store = RunStore(str(tmp_path))
    store.write_parquet(ENTRIES_FILE, metadata("x", "y"))
    loaded = load_entries(MatchSettings(store, "finished", "reference"))
    assert loaded.table["entry"].to_pylist() == ["x", "y"] and len(loaded.keys) == 2
